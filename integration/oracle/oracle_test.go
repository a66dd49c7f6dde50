package oracle_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/integration/oracle"
	"trust-worker/layout"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

const fixtures = "../testdata/storage"

// The oracle shares nothing with what it is held against.
func TestOracleIsIndependent(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		if strings.HasPrefix(p, "trust-worker/") && p != "trust-worker/integration/oracle" {
			t.Errorf("imports %s", p)
		}
	}
}

// specimen is one signature manifest over one image, taken out of its storage.
type specimen struct {
	name      string
	mediaType string // of the subject
	subject   []byte
	tag       string // of the signature manifest; empty: it names its subject
	manifest  []byte
	layers    [][]byte
}

func (s *specimen) clone() *specimen {
	c := *s
	c.layers = slices.Clone(s.layers)
	return &c
}

// specimens takes every signature of a root whose image is there.
func specimens(t *testing.T, root string) (found []*specimen) {
	t.Helper()
	dir := filepath.Join(fixtures, root)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Name() != "index.json" {
			return err
		}
		repo := filepath.Dir(path)
		blob := func(d digest.Digest) []byte {
			b, _ := os.ReadFile(filepath.Join(repo, "blobs", "sha256", d.Encoded()))
			return b
		}
		var index ocispec.Index
		if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &index) != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		types := map[digest.Digest]string{}
		for _, d := range index.Manifests {
			types[d.Digest] = d.MediaType
		}
		for _, d := range index.Manifests {
			var m ocispec.Manifest
			content := blob(d.Digest)
			if json.Unmarshal(content, &m) != nil || len(m.Layers) == 0 {
				continue
			}
			s := &specimen{manifest: content}
			var subject digest.Digest
			tag := d.Annotations[ocispec.AnnotationRefName]
			switch {
			case m.Subject != nil:
				subject = m.Subject.Digest
			case strings.HasSuffix(tag, ".sig"):
				s.tag, subject = tag, digest.Digest(strings.Replace(strings.TrimSuffix(tag, ".sig"), "-", ":", 1))
			}
			if subject.Validate() != nil || types[subject] == "" {
				continue
			}
			rel, _ := filepath.Rel(dir, repo)
			s.name, s.subject, s.mediaType = rel+"@"+d.Digest.Encoded()[:12], blob(subject), types[subject]
			for _, l := range m.Layers {
				s.layers = append(s.layers, blob(l.Digest))
			}
			found = append(found, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// bench judges specimens both ways.
type bench struct {
	t      *testing.T
	root   string
	oracle *oracle.Oracle
	store  *truststore.TrustStore
	dir    string

	bothWays          bool // ask the oracle also about what is not trusted
	trusted, accepted int
	reverse           map[trust.Reason]int // refused by us, accepted by a library
}

func newBench(t *testing.T, root string) *bench {
	t.Helper()
	dir := filepath.Join(fixtures, root)
	o, err := oracle.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(dir, "_cosign"), NotationDir: filepath.Join(dir, "_notation"),
		Cosign: true, Notation: true, Revocation: truststore.RevocationOffline})
	if err != nil {
		t.Fatal(err)
	}
	store, err := loader.Load(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, root: root, oracle: o, store: store, dir: t.TempDir(), reverse: map[trust.Reason]int{}}
}

// judge lays a specimen out as a repository, asks the program's own path from
// storage to an answer, and the oracle about the bytes.
func (b *bench) judge(what string, s *specimen) {
	b.t.Helper()
	repo := filepath.Join(b.dir, "r")
	if err := os.RemoveAll(repo); err != nil {
		b.t.Fatal(err)
	}
	blobs := filepath.Join(repo, "blobs", "sha256")
	check(os.MkdirAll(blobs, 0o755))
	put := func(d digest.Digest, content []byte) {
		if d.Validate() == nil && d.Algorithm() == digest.SHA256 && content != nil {
			check(os.WriteFile(filepath.Join(blobs, d.Encoded()), content, 0o644))
		}
	}
	var m ocispec.Manifest
	_ = json.Unmarshal(s.manifest, &m) // what a reader takes it for, if anything
	stored := map[digest.Digest][]byte{}
	for i, l := range m.Layers {
		if i < len(s.layers) {
			put(l.Digest, s.layers[i])
			stored[l.Digest] = s.layers[i]
		}
	}
	subject := ocispec.Descriptor{MediaType: s.mediaType, Digest: digest.FromBytes(s.subject), Size: int64(len(s.subject)),
		Annotations: map[string]string{ocispec.AnnotationRefName: "image"}}
	signature := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(s.manifest), Size: int64(len(s.manifest))}
	if s.tag != "" {
		signature.Annotations = map[string]string{ocispec.AnnotationRefName: s.tag}
	}
	put(subject.Digest, s.subject)
	put(signature.Digest, s.manifest)
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{subject, signature}}
	index.SchemaVersion = 2
	check(os.WriteFile(filepath.Join(repo, "index.json"), must(json.Marshal(index)), 0o644))
	check(os.WriteFile(filepath.Join(repo, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))

	root, err := layout.Open(b.dir, layout.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer root.Close()
	img, err := scheduler.VerifyNow(b.t.Context(), []scheduler.Storage{{Root: root, Dir: b.dir}}, b.store, nil, "r", "image", trust.Digest{})
	if err != nil {
		b.t.Fatalf("%s %s, %s: %v", b.root, s.name, what, err)
	}
	subject.Annotations = nil
	if !b.bothWays && !slices.ContainsFunc(img.SignatureInfo, func(s cache.Signature) bool { return s.Status == trust.Trusted }) {
		return // the oracle takes its time
	}
	accepted := b.oracle.Accepts(b.t.Context(), subject, s.manifest, func(d digest.Digest) []byte { return stored[d] })
	for _, sig := range img.SignatureInfo {
		ok := sig.Digest.String() == signature.Digest.String() && sig.Layer < len(accepted) && accepted[sig.Layer]
		if ok {
			b.accepted++
		}
		switch trusts := sig.Status == trust.Trusted; {
		case trusts && !ok:
			kept := filepath.Join(os.TempDir(), "oracle-"+digest.FromString(s.name + what).Encoded()[:12])
			_ = os.CopyFS(kept, os.DirFS(b.dir))
			b.t.Errorf("%s %s, %s: layer %d is trusted, and no library accepts it; kept in %s", b.root, s.name, what, sig.Layer, kept)
		case trusts:
			b.trusted++
		case ok:
			b.reverse[sig.Reason]++
			if !slices.Contains(allowed, sig.Reason) {
				b.t.Errorf("%s %s, %s: layer %d reads %s, and a library accepts it", b.root, s.name, what, sig.Layer, sig.Reason)
			}
		}
	}
}

// allowed are the reasons for which we refuse what a library accepts: rules of
// docs/differences.md (unknown-critical-attribute), and bytes that two readers
// could take for different things, which a library takes for one.
var allowed = []trust.Reason{trust.PluginRequired, trust.Ambiguous, trust.Malformed, trust.DigestMismatch}

// Unchanged, the fixtures are accepted by both, but for what is documented.
func TestFixturesBothWays(t *testing.T) {
	for _, root := range []string{"cosign2", "cosign3", "notation"} {
		b := newBench(t, root)
		b.bothWays = true
		for _, s := range specimens(t, root) {
			b.judge("as signed", s)
		}
		if b.trusted < 30 {
			t.Errorf("%s: only %d are trusted", root, b.trusted)
		}
		t.Logf("%s: %d trusted, %d accepted by a library; refused nevertheless: %v", root, b.trusted, b.accepted, b.reverse)
	}
}

// Mutated, nothing is trusted that no library accepts.
func TestDifferential(t *testing.T) {
	turns := 100
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		turns = 5000
	}
	for _, root := range []string{"cosign2", "cosign3", "notation"} {
		t.Run(root, func(t *testing.T) {
			b, all := newBench(t, root), specimens(t, root)
			b.bothWays = turns > 1000
			for turn := range turns {
				rng := rand.New(rand.NewPCG(uint64(turn), 4))
				s := all[rng.IntN(len(all))].clone()
				names := ""
				for range 1 + rng.IntN(2) {
					i := rng.IntN(len(mutations))
					names += mutations[i].name + ", "
					mutations[i].do(s, all[rng.IntN(len(all))], rng)
				}
				b.judge(fmt.Sprintf("turn %d: %s", turn, names), s)
			}
			if b.trusted == 0 || b.trusted > turns*9/10 {
				t.Errorf("too one-sided to mean much: %d trusted of %d", b.trusted, turns)
			}
			t.Logf("%d mutated, %d trusted and accepted by a library; refused, and accepted by one: %v", turns, b.trusted, b.reverse)
		})
	}
}

// mutations change a specimen, some with the help of another one.
var mutations = []struct {
	name string
	do   func(s, other *specimen, rng *rand.Rand)
}{
	{"flip a bit of a layer", func(s, _ *specimen, rng *rand.Rand) { s.relayer(rng, flip) }},
	{"flip a bit of a layer under its old digest", func(s, _ *specimen, rng *rand.Rand) {
		i := rng.IntN(len(s.layers))
		s.layers[i] = flip(s.layers[i], rng)
	}},
	{"truncate a layer", func(s, _ *specimen, rng *rand.Rand) { s.relayer(rng, truncate) }},
	{"truncate a layer under its old digest", func(s, _ *specimen, rng *rand.Rand) {
		i := rng.IntN(len(s.layers))
		s.layers[i] = truncate(s.layers[i], rng)
	}},
	{"flip a bit of the manifest", func(s, _ *specimen, rng *rand.Rand) { s.manifest = flip(s.manifest, rng) }},
	{"a field of a layer from another signature", func(s, other *specimen, rng *rand.Rand) {
		s.relayer(rng, func(b []byte, rng *rand.Rand) []byte {
			return swapField(b, other.layers[rng.IntN(len(other.layers))], rng)
		})
	}},
	{"a field of the manifest from another signature", func(s, other *specimen, rng *rand.Rand) { s.manifest = swapField(s.manifest, other.manifest, rng) }},
	{"another signature's layer", func(s, other *specimen, rng *rand.Rand) {
		s.relayer(rng, func([]byte, *rand.Rand) []byte { return other.layers[rng.IntN(len(other.layers))] })
	}},
	{"another signature's annotations", func(s, other *specimen, rng *rand.Rand) {
		s.edit(func(m map[string]any) {
			if theirs := layersOf(other.manifest); len(theirs) > 0 {
				for _, l := range layersIn(m) {
					l["annotations"] = theirs[rng.IntN(len(theirs))]["annotations"]
				}
			}
		})
	}},
	{"something else in an annotation", func(s, other *specimen, rng *rand.Rand) {
		s.edit(func(m map[string]any) {
			for _, l := range layersIn(m) {
				annotations, _ := l["annotations"].(map[string]any)
				if annotations == nil {
					annotations = map[string]any{}
					l["annotations"] = annotations
				}
				values := []any{"", "\n", "garbage", "{}", "[]", `{"Payload":{"logIndex":"1"}}`, string(other.layers[0]), annotations["dev.cosignproject.cosign/signature"]}
				names := []string{"dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain", "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp", "other"}
				annotations[names[rng.IntN(len(names))]] = values[rng.IntN(len(values))]
			}
		})
	}},
	{"another image", func(s, other *specimen, rng *rand.Rand) {
		s.subject, s.mediaType = other.subject, other.mediaType
		d := digest.FromBytes(s.subject)
		if s.tag != "" {
			s.tag = "sha256-" + d.Encoded() + ".sig"
			return
		}
		s.edit(func(m map[string]any) {
			m["subject"] = map[string]any{"mediaType": s.mediaType, "digest": d.String(), "size": len(s.subject)}
		})
	}},
	{"another form", func(s, other *specimen, _ *rand.Rand) {
		theirs := map[string]any{}
		_ = json.Unmarshal(other.manifest, &theirs)
		s.edit(func(m map[string]any) { m["artifactType"], m["config"] = theirs["artifactType"], theirs["config"] })
	}},
	{"another media type", func(s, other *specimen, _ *rand.Rand) {
		if theirs := layersOf(other.manifest); len(theirs) > 0 {
			s.edit(func(m map[string]any) {
				for _, l := range layersIn(m) {
					l["mediaType"] = theirs[0]["mediaType"]
				}
			})
		}
	}},
	{"a member twice in the manifest", func(s, other *specimen, rng *rand.Rand) { s.manifest = double(s.manifest, other.manifest, rng) }},
	{"a member twice in a layer", func(s, other *specimen, rng *rand.Rand) {
		s.relayer(rng, func(b []byte, rng *rand.Rand) []byte {
			return double(b, other.layers[rng.IntN(len(other.layers))], rng)
		})
	}},
	{"manifest and index at once", func(s, _ *specimen, _ *rand.Rand) {
		s.edit(func(m map[string]any) { m["manifests"] = []any{} })
	}},
	{"one more layer", func(s, other *specimen, rng *rand.Rand) {
		theirs := layersOf(other.manifest)
		if len(theirs) == 0 {
			return
		}
		i := rng.IntN(min(len(theirs), len(other.layers)))
		s.edit(func(m map[string]any) { m["layers"] = append(m["layers"].([]any), theirs[i]) })
		s.layers = append(s.layers, other.layers[i])
	}},
	{"other spelling in a layer", func(s, _ *specimen, rng *rand.Rand) { s.relayer(rng, respell) }},
	{"other spelling in the manifest", func(s, _ *specimen, rng *rand.Rand) { s.manifest = respell(s.manifest, rng) }},
	{"a compressed layer", func(s, _ *specimen, rng *rand.Rand) {
		s.relayer(rng, func(b []byte, _ *rand.Rand) []byte {
			var zipped bytes.Buffer
			w := gzip.NewWriter(&zipped)
			_, err := w.Write(b)
			check(errors.Join(err, w.Close()))
			return zipped.Bytes()
		})
	}},
	{"another size", func(s, _ *specimen, rng *rand.Rand) {
		s.edit(func(m map[string]any) {
			if ls := layersIn(m); len(ls) > 0 {
				sizes := []any{0, -1, 1 << 19, "240", nil, len(s.layers[0]) - 1}
				ls[rng.IntN(len(ls))]["size"] = sizes[rng.IntN(len(sizes))]
			}
		})
	}},
	{"white space around a layer", func(s, _ *specimen, rng *rand.Rand) {
		s.relayer(rng, func(b []byte, _ *rand.Rand) []byte { return slices.Concat([]byte(" \n"), b, []byte("\n")) })
	}},
}

func flip(b []byte, rng *rand.Rand) []byte {
	if b = bytes.Clone(b); len(b) > 0 {
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	}
	return b
}

// respell writes a character or a number otherwise: some readers take it for the
// same, others do not.
func respell(b []byte, rng *rand.Rand) []byte {
	spellings := []struct{ from, to string }{
		{"s", `\u0073`}, {"s", "\u017f"}, {"k", "\u212a"}, {"e", "E"}, {"a", "A"}, {"S", "s"}, {":", ": "},
		{"+", "-"}, {"/", "_"}, {"/", `\/`}, {"=", ""}, {"0", "00"}, {"0,", "0.0,"}, {"1", "1e0"}, {`"`, "'"}, {"}", ",}"}, {"", "\ufeff"}, {"null", "{}"},
	}
	s := spellings[rng.IntN(len(spellings))]
	n := bytes.Count(b, []byte(s.from))
	if s.from == "" || n == 0 {
		return slices.Concat([]byte(s.to), b)
	}
	at := 0
	for range 1 + rng.IntN(n) {
		at += bytes.Index(b[at:], []byte(s.from)) + len(s.from)
	}
	return slices.Concat(b[:at-len(s.from)], []byte(s.to), b[at:])
}

func truncate(b []byte, rng *rand.Rand) []byte { return b[:rng.IntN(len(b)+1)] }

// relayer changes a layer and names it by its new digest and size.
func (s *specimen) relayer(rng *rand.Rand, change func([]byte, *rand.Rand) []byte) {
	i := rng.IntN(len(s.layers))
	s.layers[i] = change(s.layers[i], rng)
	s.edit(func(m map[string]any) {
		if ls := layersIn(m); i < len(ls) {
			ls[i]["digest"], ls[i]["size"] = digest.FromBytes(s.layers[i]).String(), len(s.layers[i])
		}
	})
}

// edit changes the manifest as JSON, if it still is.
func (s *specimen) edit(change func(m map[string]any)) {
	var m map[string]any
	if json.Unmarshal(s.manifest, &m) != nil || layersIn(m) == nil {
		return
	}
	change(m)
	s.manifest = must(json.Marshal(m))
}

func layersOf(manifest []byte) []map[string]any {
	var m map[string]any
	_ = json.Unmarshal(manifest, &m)
	return layersIn(m)
}

func layersIn(m map[string]any) (found []map[string]any) {
	list, _ := m["layers"].([]any)
	for _, l := range list {
		if o, ok := l.(map[string]any); ok {
			found = append(found, o)
		}
	}
	if len(found) != len(list) {
		return nil
	}
	return found
}

// swapField replaces a member, at some depth, by another document's.
func swapField(b, other []byte, rng *rand.Rand) []byte {
	var to, from map[string]any
	if json.Unmarshal(b, &to) != nil || json.Unmarshal(other, &from) != nil || len(to) == 0 {
		return b
	}
	at, theirs := to, from
	for {
		keys := slices.Sorted(maps.Keys(at))
		k := keys[rng.IntN(len(keys))]
		below, ok1 := at[k].(map[string]any)
		theirBelow, ok2 := theirs[k].(map[string]any)
		if ok1 && ok2 && len(below) > 0 && rng.IntN(4) > 0 {
			at, theirs = below, theirBelow
			continue
		}
		if at[k] = theirs[k]; theirs[k] == nil {
			delete(at, k)
		}
		return must(json.Marshal(to))
	}
}

// double puts a member of another document, at some depth, before or after the one
// of the same name or of another spelling.
func double(b, other []byte, rng *rand.Rand) []byte {
	var to, from map[string]json.RawMessage
	if json.Unmarshal(b, &to) != nil || json.Unmarshal(other, &from) != nil || len(to) == 0 {
		return b
	}
	keys := slices.Sorted(maps.Keys(to))
	k := keys[rng.IntN(len(keys))]
	theirs, ok := from[k]
	if !ok {
		theirs = to[k]
	}
	name := k
	if rng.IntN(3) == 0 {
		name = strings.ToUpper(k[:1]) + k[1:]
	}
	member := fmt.Appendf(nil, "%s:%s", must(json.Marshal(name)), theirs)
	text := bytes.TrimSpace(b)
	if rng.IntN(2) == 0 {
		return slices.Concat(text[:1], member, []byte(","), text[1:])
	}
	return slices.Concat(text[:len(text)-1], []byte(","), member, []byte("}"))
}

func must[T any](v T, err error) T { check(err); return v }

func check(err error) {
	if err != nil {
		panic(err)
	}
}
