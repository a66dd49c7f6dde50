package layout

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// object is any JSON object; members come out in the order of their names.
type object map[string]any

// repo builds one repository on disk.
type repo struct {
	t    testing.TB
	root string
	dir  string
	name string
	list []any // descriptors of index.json
}

func newRepo(t testing.TB, root, name string) *repo {
	t.Helper()
	r := &repo{t: t, root: root, dir: filepath.Join(root, filepath.FromSlash(name)), name: name}
	must(t, os.MkdirAll(filepath.Join(r.dir, "blobs", "sha256"), 0o755))
	must(t, os.WriteFile(filepath.Join(r.dir, layoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	r.index()
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *repo) path(d trust.Digest) string { return filepath.Join(r.dir, "blobs", "sha256", d.Hex()) }

// blob stores bytes or, encoded, an object.
func (r *repo) blob(content any) trust.Digest {
	r.t.Helper()
	b := encode(r.t, content)
	d := trust.SumOf(b)
	must(r.t, os.WriteFile(r.path(d), b, 0o644))
	return d
}

func encode(t testing.TB, content any) []byte {
	t.Helper()
	switch c := content.(type) {
	case []byte:
		return c
	case string:
		return []byte(c)
	}
	b, err := json.Marshal(content)
	must(t, err)
	return b
}

// describe returns a descriptor of content, with a tag if there is one.
func (r *repo) describe(content any, tag string) object {
	r.t.Helper()
	b := encode(r.t, content)
	var body struct{ MediaType string }
	_ = json.Unmarshal(b, &body)
	d := object{"mediaType": body.MediaType, "digest": trust.SumOf(b).String(), "size": len(b)}
	if tag != "" {
		d["annotations"] = object{ocispec.AnnotationRefName: tag}
	}
	return d
}

// push stores a manifest and lists it in index.json.
func (r *repo) push(content any, tags ...string) trust.Digest {
	r.t.Helper()
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		r.list = append(r.list, r.describe(content, tag))
	}
	r.index()
	return r.blob(content)
}

// index replaces index.json by rename, as zot does.
func (r *repo) index() {
	r.t.Helper()
	list := r.list
	if list == nil {
		list = []any{}
	}
	r.write(encode(r.t, object{"schemaVersion": 2, "manifests": list}))
}

func (r *repo) write(index []byte) {
	r.t.Helper()
	tmp := filepath.Join(r.dir, ".staging")
	must(r.t, os.WriteFile(tmp, index, 0o644))
	must(r.t, os.Rename(tmp, filepath.Join(r.dir, indexFile)))
}

func (r *repo) open(l Limits) *Repository {
	r.t.Helper()
	root, err := Open(r.root, Options{Limits: l})
	must(r.t, err)
	p, err := root.Repository(r.name)
	must(r.t, err)
	r.t.Cleanup(func() {
		must(r.t, p.Close())
		must(r.t, root.Close())
	})
	return p
}

// contents resolves and checks what holds for all contents.
func (r *repo) contents() *Contents { return r.contentsWithin(Limits{}, nil) }

func (r *repo) contentsWithin(l Limits, known func(trust.Digest) (Kind, bool)) *Contents {
	r.t.Helper()
	c, err := r.open(l).Contents(context.Background(), known)
	must(r.t, err)
	checkContents(r.t, c)
	return c
}

// checkContents asserts what holds whatever is stored.
func checkContents(t testing.TB, c *Contents) {
	t.Helper()
	for tag, d := range c.Tags {
		if c.Images[d] == nil || c.Images[d].Untagged {
			t.Errorf("tag %q names %s, which is no tagged image", tag, d)
		}
	}
	for d, image := range c.Images {
		if image.Digest != d || image.Size < 0 || image.Ambiguous && image.Unreadable != "" {
			t.Errorf("image %s: %+v", d, image)
		}
		for _, child := range image.Children {
			if c.Images[child.Digest] == nil {
				t.Errorf("child %s of %s is no image", child.Digest, d)
			}
		}
	}
	for subject, refs := range c.Signatures {
		if !slices.IsSortedFunc(refs, func(a, b Reference) int { return strings.Compare(a.Digest.Hex(), b.Digest.Hex()) }) {
			t.Errorf("signatures of %s are not sorted", subject)
		}
		for i, ref := range refs {
			if i > 0 && refs[i-1].Digest == ref.Digest {
				t.Errorf("signature %s of %s is there twice", ref.Digest, subject)
			}
			if !slices.Contains([]trust.Carrier{trust.CosignTag, trust.CosignReferrer, trust.CosignBundle, trust.NotationReferrer, trust.Attestations}, ref.Carrier) {
				t.Errorf("signature %s has carrier %q", ref.Digest, ref.Carrier)
			}
		}
	}
	for _, p := range c.Problems {
		if p.Reason.Status() == trust.Trusted || !slices.Contains(trust.Reasons(), p.Reason) || len(p.Detail) > 256 {
			t.Errorf("problem %+v", p)
		}
	}
	if len(c.Problems) > MaxProblems || len(c.Learned) > c.Opened {
		t.Errorf("%d problems, %d learned, %d opened", len(c.Problems), len(c.Learned), c.Opened)
	}
}

// Manifests of the usual kinds. seed makes the digest differ.

func descriptor(mediaType, seed string) object {
	return object{"mediaType": mediaType, "digest": trust.SumOf([]byte(seed)).String(), "size": len(seed)}
}

func image(seed string) object {
	return object{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"config": descriptor(ocispec.MediaTypeImageConfig, seed),
		"layers": []any{descriptor(ocispec.MediaTypeImageLayerGzip, seed)},
	}
}

func with(o object, members object) object {
	o = maps.Clone(o)
	for k, v := range members {
		if o[k] = v; v == nil {
			delete(o, k)
		}
	}
	return o
}

func subject(d trust.Digest) object {
	return object{"mediaType": ocispec.MediaTypeImageManifest, "digest": d.String(), "size": 1}
}

// simple is what `cosign sign` pushes under the .sig tag.
func simple(seed string) object {
	return with(image(seed), object{"layers": []any{descriptor(typeSimpleSigning, seed)}})
}

// referrer is an artifact with a subject, whose type the config repeats.
func referrer(artifactType string, of trust.Digest, seed string) object {
	return with(image(seed), object{
		"artifactType": artifactType, "subject": subject(of),
		"config": descriptor(artifactType, seed), "layers": []any{descriptor(typeSimpleSigning, seed)},
	})
}

// index lists manifests, given as objects.
func (r *repo) indexOf(manifests ...any) object {
	r.t.Helper()
	children := make([]any, len(manifests))
	for i, m := range manifests {
		children[i] = r.describe(m, "")
	}
	return object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": children}
}

func reasonIn(t testing.TB, err error) trust.Reason {
	t.Helper()
	var re *trust.ReasonError
	if !errors.As(err, &re) {
		t.Fatalf("error %v has no reason", err)
	}
	return re.Reason
}

// problems returns the reasons given for a digest.
func problems(c *Contents, d trust.Digest) (reasons []trust.Reason) {
	for _, p := range c.Problems {
		if p.Digest == d {
			reasons = append(reasons, p.Reason)
		}
	}
	return reasons
}
