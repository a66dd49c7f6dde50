package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	notationregistry "github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	cosignmutate "github.com/sigstore/cosign/v2/pkg/oci/mutate"
	cosignremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	cosignstatic "github.com/sigstore/cosign/v2/pkg/oci/static"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// CNCF distribution itself, versions 2.8 and 3, beside the daemon on one root. Images are
// pushed by go-containerregistry, signatures as cosign and notation push theirs: by their own
// packages, against the registry.

// distribution3 builds version 3 once.
var distribution3 = sync.OnceValues(func() (string, error) {
	module := filepath.Join("fixtures", "tools", "distribution")
	if out, err := exec.Command("go", "-C", module, "mod", "download").CombinedOutput(); err != nil {
		return "", fmt.Errorf("distribution 3 cannot be fetched: %v\n%s", err, out)
	}
	path := filepath.Join(filepath.Dir(binary), "distribution3")
	out, err := exec.Command("go", "-C", module, "build", "-buildvcs=false", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %v\n%s", errNotBuilt, err, out)
	}
	return path, nil
})

// errNotBuilt: it was fetched, so that it has to compile.
var errNotBuilt = errors.New("distribution 3 cannot be built")

// registries are the programs that are here.
func registries(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	if path, err := exec.LookPath("docker-registry"); err == nil {
		found["distribution 2"] = path
	} else {
		t.Log("there is no docker-registry here (distribution 2.8, of Debian's package)")
	}
	if path, err := distribution3(); err == nil {
		found["distribution 3"] = path
	} else if errors.Is(err, errNotBuilt) {
		t.Fatal(err)
	} else {
		t.Log(err)
	}
	if len(found) == 0 {
		t.Skip("there is no registry")
	}
	return found
}

// registry is a running one.
type registry struct {
	t       *testing.T
	program string
	root    string
	config  string
	address string
	process *exec.Cmd
}

const hintToken = "the registry's token"

// newRegistry starts a registry on root, which tells notify of its events unless that is empty.
func newRegistry(t *testing.T, program, root, notify string) *registry {
	t.Helper()
	r := &registry{t: t, program: program, root: root, config: filepath.Join(t.TempDir(), "config.yml"), address: freeAddress(t)}
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %s}\n", root, r.address)
	if notify != "" {
		config += strings.NewReplacer("127.0.0.1:8428", notify, "Bearer …", "Bearer "+hintToken).Replace(blockWith(t, "docs/http.md", "notifications:"))
	}
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

// blockWith is the block of a page of the documentation with a text in it.
func blockWith(t *testing.T, page, text string) string {
	t.Helper()
	for _, b := range blocksOf(pages(t)[page]) {
		if strings.Contains(b.text, text) {
			return b.text
		}
	}
	t.Fatalf("%s has no block with %q", page, text)
	return ""
}

func (r *registry) start() {
	r.t.Helper()
	log := &logBuffer{}
	c := exec.Command(r.program, "serve", r.config)
	c.Stdout, c.Stderr = log, log
	c.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.process = c
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	r.t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		<-ended
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", r.program, log)
		}
	})
	eventually(r.t, "the registry answers", func() bool {
		resp, err := http.Get("http://" + r.address + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
}

func (r *registry) tag(repo, tag string) name.Tag {
	ref, err := name.NewTag(r.address + "/" + repo + ":" + tag)
	r.check(err)
	return ref
}

func (r *registry) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// push pushes an image that differs from others by its content.
func (r *registry) push(repo, tag, content string) v1.Image {
	r.t.Helper()
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(content), types.OCILayer))
	r.check(err)
	img = mutate.MediaType(img, types.OCIManifestSchema1)
	r.check(remote.Write(r.tag(repo, tag), img))
	return img
}

func digestOf(t *testing.T, m interface{ Digest() (v1.Hash, error) }) trust.Digest {
	t.Helper()
	h, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	d, err := trust.ParseDigest(h.String())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// cosign signs with a key as cosign sign does: by cosign's own packages, beside what the tag of
// signatures has already.
func (r *registry) cosign(repo string, d trust.Digest, k *signtest.Key) {
	r.t.Helper()
	ref, err := name.NewDigest(r.address + "/" + repo + "@" + d.String())
	r.check(err)
	payload := signtest.Payload(d)
	sig, err := cosignstatic.NewSignature(payload, base64.StdEncoding.EncodeToString(k.Sign(payload, k.CosignHash())))
	r.check(err)
	entity, err := cosignremote.SignedEntity(ref)
	r.check(err)
	entity, err = cosignmutate.AttachSignatureToEntity(entity, sig)
	r.check(err)
	r.check(cosignremote.WriteSignatures(ref.Repository, entity))
}

// bundle signs with a key and stores the bundle as a referrer, as cosign 3 does.
func (r *registry) bundle(repo string, d trust.Digest, k *signtest.Key) {
	r.t.Helper()
	ref, err := name.NewDigest(r.address + "/" + repo + "@" + d.String())
	r.check(err)
	layer := static.NewLayer(signtest.BundleJSON(d, k, signtest.CosignOptions{}), signtest.BundleMediaType)
	r.check(cosignremote.WriteReferrer(ref, signtest.BundleMediaType, []v1.Layer{layer}, nil))
}

// notation signs with notation-go, against the registry.
func (r *registry) notation(repo string, d trust.Digest, c *signtest.Chain) {
	r.t.Helper()
	target, err := orasremote.NewRepository(r.address + "/" + repo)
	r.check(err)
	target.PlainHTTP = true
	s, err := signer.NewGenericSigner(c.Key.Private, c.Certs)
	r.check(err)
	_, err = notation.Sign(context.Background(), s, notationregistry.NewRepository(target), notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: jws.MediaTypeEnvelope}, ArtifactReference: r.address + "/" + repo + "@" + d.String()})
	var old *orasremote.ReferrersError
	if errors.As(err, &old) && old.IsReferrersIndexDelete() { // of another tool's; notation warns
		return
	}
	r.check(err)
}

func (r *registry) delete(repo string, d trust.Digest) {
	r.t.Helper()
	ref, err := name.NewDigest(r.address + "/" + repo + "@" + d.String())
	r.check(err)
	r.check(remote.Delete(ref))
}

// TestRealDistribution follows a registry from its first push: with its notifications, by
// watches alone, and by passes alone. Between the passes there is a day, unless they are what
// is tried.
func TestRealDistribution(t *testing.T) {
	for version, program := range registries(t) {
		for _, by := range []string{"notifications", "watches", "passes"} {
			t.Run(version+" by "+by, func(t *testing.T) {
				t.Parallel()
				testDistribution(t, program, by)
			})
		}
	}
}

func testDistribution(t *testing.T, program, by string) {
	root, state, token := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(hintToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"serve", "--root", root, "--state", state, "--listen", "127.0.0.1:0", "--http-hint-token-file", token}
	switch by {
	case "notifications":
		args = append(args, "--scan-interval", "24h", "--watch=false")
	case "watches":
		args = append(args, "--scan-interval", "24h")
	case "passes":
		args = append(args, "--scan-interval", "200ms", "--watch=false")
	}
	// An empty directory: what it is shows with the first push.
	d := start(t, exec.Command(binary, args...), state)
	d.ready(t)
	notify := ""
	if by == "notifications" {
		notify = d.address(t)
	}
	reg := newRegistry(t, program, root, notify)
	answers := open(t, state)
	key, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ca := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})

	const repo = "team/app"
	img := reg.push(repo, "1.0", "one")
	one := digestOf(t, img)
	answers.becomes(repo, "1.0", "unsigned")
	reg.cosign(repo, one, other)
	answers.becomes(repo, "1.0", "untrusted")
	reg.cosign(repo, one, key)
	signatures := func(repo, tag string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s:%s has %d signatures", repo, tag, n), func() bool { return len(answers.image(repo, tag).SignatureInfo) == n })
	}
	signatures(repo, "1.0", 2)
	st := signtest.NewStorage(root)
	st.TrustKey("team.pub", key)
	st.TrustCert("ca:sample", "root.pem", ca.Cert())
	answers.becomes(repo, "1.0", "trusted")

	// The other carriers; each of their pushes replaces the index that refers to them.
	two := digestOf(t, reg.push(repo, "2.0", "two"))
	reg.notation(repo, two, ca.Leaf(signtest.CertOptions{CommonName: "Release"}))
	answers.becomes(repo, "2.0", "trusted")
	reg.bundle(repo, two, key)
	signatures(repo, "2.0", 2)
	multi := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})
	reg.check(remote.WriteIndex(reg.tag(repo, "multi"), multi))
	answers.becomes(repo, "multi", "unsigned")
	reg.cosign(repo, digestOf(t, multi), key)
	answers.becomes(repo, "multi", "trusted")

	// A tag that moves, and moves back: the second time to what is there already, which in
	// version 2 is an event of the link alone.
	reg.push(repo, "1.0", "moved")
	answers.becomes(repo, "1.0", "unsigned")
	reg.check(remote.Tag(reg.tag(repo, "1.0"), img))
	answers.becomes(repo, "1.0", "trusted")

	// The same image elsewhere is there without its signature.
	reg.check(remote.Write(reg.tag("library/other", "1.0"), img))
	answers.becomes("library/other", "1.0", "unsigned")

	reg.delete(repo, two)
	answers.becomes(repo, "2.0", "absent")
	if by != "watches" { // a link in a directory that is there already gives no event that is watched but its tag's
		if again := digestOf(t, reg.push(repo, "2.0", "two")); again != two {
			t.Fatalf("pushed again, it is %s instead of %s", again, two)
		}
		answers.becomes(repo, "2.0", "trusted")
		reg.delete(repo, two)
		answers.becomes(repo, "2.0", "absent")
	}

	// What is listed is what the registry lists.
	want, err := remote.List(reg.tag(repo, "1.0").Repository)
	reg.check(err)
	want = slices.DeleteFunc(want, func(tag string) bool { return strings.HasPrefix(tag, "sha256-") })
	slices.Sort(want)
	listed := func(state string) (tags []string, images int) {
		t.Helper()
		var list struct{ Images []struct{ Tag string } }
		must(t, &list, "list", "--state", state, "--root", root, repo, "-o", "json")
		for _, img := range list.Images {
			if img.Tag != "" {
				tags = append(tags, img.Tag)
			}
		}
		slices.Sort(tags)
		return tags, len(list.Images)
	}
	got, before := listed(state)
	if !slices.Equal(got, want) {
		t.Errorf("tags %q, the registry has %q", got, want)
	}
	v := command(t, "verify", "--root", root, "--state", t.TempDir(), repo+":1.0")
	if v.code != 0 || !strings.Contains(v.stdout, "team.pub") {
		t.Errorf("verify: %+v", v)
	}
	if by == "passes" {
		eventually(t, "status names the layout, and what a pass costs", func() bool {
			status := command(t, "status", "--state", state).stdout
			return strings.Contains(status, ": distribution, 2 repositories, ") && strings.Contains(status, " links looked at, in ")
		})
	}

	// Garbage collection takes nothing that is in a repository.
	collect := exec.Command(reg.program, "garbage-collect", reg.config)
	if out, err := collect.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("eligible for deletion")) {
		t.Fatalf("%v\n%s", err, out)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	must(t, nil, "scan", "--root", root, "--state", fresh)
	if _, after := listed(fresh); after != before {
		t.Errorf("%d images after garbage collection, %d before", after, before)
	}
	answers.becomes(repo, "1.0", "trusted")
	reg.check(os.RemoveAll(filepath.Join(root, "docker/registry/v2/repositories", repo)))
	if by != "notifications" { // nobody tells
		answers.becomes(repo, "1.0", "absent")
		answers.becomes("library/other", "1.0", "unsigned")
	}
}
