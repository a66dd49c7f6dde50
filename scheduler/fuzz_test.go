package scheduler

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// FuzzStorage takes a repository that holds T's signatures of one image, in every
// form, and lets a pusher write any index.json and any manifest: no other image is
// trusted by it. In the inputs, MANIFEST and SIZE stand for the manifest's own
// digest and size.
func FuzzStorage(f *testing.F) {
	dir := f.TempDir()
	st := signtest.NewStorage(dir)
	key, root := signtest.FixedKey("T"), signtest.NewRoot(signtest.CertOptions{Key: signtest.FixedKey("root")})
	leaf := root.Leaf(signtest.CertOptions{Key: signtest.FixedKey("leaf")})
	st.TrustKey("t.pub", key)
	st.TrustCert("ca:acme", "root.pem", root.Cert())
	signed, other := st.Content("app", "signed", "signed"), st.Content("app", "other", "other")
	signatures := []signtest.Image{st.SignSimple(signed, key, signtest.CosignOptions{}), st.SignBundle(signed, key, signtest.CosignOptions{}),
		st.SignNotation(signed, leaf, signtest.NotationOptions{Time: time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC)})}
	repo := filepath.Join(dir, "app")
	read := func(path ...string) []byte {
		b, err := os.ReadFile(filepath.Join(append([]string{repo}, path...)...))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	index := read("index.json")
	f.Add(index, []byte("{}"))
	entry := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":SIZE%s},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"other"}}]}`
	tagged := fmt.Sprintf(`,"annotations":{"org.opencontainers.image.ref.name":"sha256-%s.sig"}`, other.Hex())
	for _, sig := range signatures {
		m := read("blobs/sha256", sig.Hex())
		about := bytes.ReplaceAll(m, []byte(signed.Hex()), []byte(other.Hex()))
		for _, content := range [][]byte{m, about} {
			f.Add(fmt.Appendf(nil, entry, tagged, other.Digest, other.Size), content)
			f.Add(fmt.Appendf(nil, entry, "", other.Digest, other.Size), content)
		}
	}
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(dir, "_cosign"), NotationDir: filepath.Join(dir, "_notation"),
		Cosign: true, Notation: true, Revocation: truststore.RevocationOffline})
	if err != nil {
		f.Fatal(err)
	}
	store, err := loader.Load(f.Context(), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, index, manifest []byte) {
		d := digest.FromBytes(manifest)
		text := strings.NewReplacer("MANIFEST", d.String(), "SIZE", fmt.Sprint(len(manifest))).Replace(string(index))
		blob := filepath.Join(repo, "blobs", "sha256", d.Encoded())
		if _, err := os.Stat(blob); err != nil { // not one of the repository's own
			defer os.Remove(blob)
		}
		for path, content := range map[string][]byte{blob: manifest, filepath.Join(repo, "index.json"): []byte(text)} {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := layout.Open(dir, layout.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		for _, about := range []trust.Digest{other.Trust(), trust.SumOf(manifest)} {
			if about == signed.Trust() {
				continue // T did sign that
			}
			img, err := VerifyNow(t.Context(), []Storage{{Root: opened, Dir: dir}}, store, nil, "app", "", about)
			if err != nil {
				continue
			}
			if img.Code() == trust.ExitTrusted {
				t.Errorf("%s is trusted: %+v", about, img.SignatureInfo)
			}
			for _, m := range img.Manifests {
				for _, sig := range m.SignatureInfo {
					if sig.IsTrusted && m.Digest != signed.Trust() {
						t.Errorf("child %s is trusted", m.Digest)
					}
				}
			}
		}
	})
}
