package layout

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// One bad manifest costs itself (Z6, and zot's scan that ends at the first).
func TestOneBadManifestCostsItself(t *testing.T) {
	spoil := map[string]struct {
		how func(t *testing.T, r *repo, d trust.Digest)
		as  trust.Reason
	}{
		"missing": {func(t *testing.T, r *repo, d trust.Digest) { must(t, os.Remove(r.path(d))) }, trust.BlobMissing},
		"directory": {func(t *testing.T, r *repo, d trust.Digest) {
			must(t, os.Remove(r.path(d)))
			must(t, os.Mkdir(r.path(d), 0o755))
		}, trust.IOError},
		"empty": {func(t *testing.T, r *repo, d trust.Digest) { must(t, os.Truncate(r.path(d), 0)) }, trust.DigestMismatch},
		"flipped": {func(t *testing.T, r *repo, d trust.Digest) {
			b, err := os.ReadFile(r.path(d))
			must(t, err)
			b[len(b)/2] ^= 1
			must(t, os.WriteFile(r.path(d), b, 0o644))
		}, trust.DigestMismatch},
		"huge": {func(t *testing.T, r *repo, d trust.Digest) { sparse(t, r.path(d), 10<<30) }, trust.LimitExceeded},
	}
	for name, bad := range spoil {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, t.TempDir(), "app")
			a := r.push(image("a"), "a")
			lost := r.push(image("lost"), "lost")
			badSig, goodSig := r.push(simple("bad"), sigTag(a)), r.push(simple("good"), sigTag(a))
			untagged := r.push(referrer(typeNotationSignature, a, "untagged"))
			child := image("child")
			index := r.push(r.indexOf(child), "index")
			childD := r.blob(child)
			for _, d := range []trust.Digest{lost, badSig, untagged, childD} {
				bad.how(t, r, d)
			}
			c := r.contents()
			wantImages(t, c, a, lost, index, childD, untagged) // nobody knows what untagged was
			wantReferences(t, c, a, map[trust.Digest]string{badSig: "cosign-tag " + string(bad.as), goodSig: "cosign-tag"})
			for _, d := range []trust.Digest{lost, badSig, untagged, childD} {
				if got := problems(c, d); !slices.Equal(got, []trust.Reason{bad.as}) {
					t.Errorf("problems of %s: %v", d, got)
				}
				if _, ok := c.Learned[d]; ok {
					t.Errorf("learned what %s is", d)
				}
			}
			if c.Images[lost].Unreadable != bad.as || c.Images[childD].Unreadable != bad.as || c.Images[a].Unreadable != "" || c.Tags["lost"] != lost {
				t.Errorf("images %+v", c.Images)
			}
			// index.json does not name childD.
			if n, example := c.Unread(); n != 3 || example.Digest != lost || example.Reason != bad.as {
				t.Errorf("%d manifests are unread, among them %+v", n, example)
			}
			if got := c.Images[untagged]; got.Unreadable != bad.as || !got.Untagged {
				t.Errorf("what cannot be read is %+v", got)
			}
			if c.Incomplete == (bad.as == trust.LimitExceeded) {
				t.Errorf("incomplete is %t", c.Incomplete)
			}
		})
	}
}

// What a manifest is stays known when its bytes are lost: a signature does not
// vanish, it cannot be read.
func TestKnownManifestIsLost(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "a")
	sig := r.push(referrer(typeNotationSignature, a, "untagged"))
	learned := r.contents().Learned
	must(t, os.Remove(r.path(sig)))
	c := r.contentsWithin(Limits{}, func(d trust.Digest) (Kind, bool) { k, ok := learned[d]; return k, ok })
	wantImages(t, c, a)
	wantReferences(t, c, a, map[trust.Digest]string{sig: "notation-referrer " + string(trust.BlobMissing)})
	if n, example := c.Unread(); n != 1 || example.Digest != sig || !c.Incomplete {
		t.Errorf("%d manifests are unread, among them %+v; incomplete %t", n, example, c.Incomplete)
	}
}

func TestAmbiguity(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "a")
	hybrid := r.push(`{"layers":[],"manifests":[{"digest":"`+a.String()+`","size":1}]}`, "hybrid")
	twice := r.push(strings.Replace(string(encode(t, referrer(typeNotationSignature, a, "x"))), `"layers"`, `"Subject":{},"layers"`, 1))
	tagged := r.push(`{"layers":[],"layers":[]}`, sigTag(a))
	c := r.contents()
	wantImages(t, c, a, hybrid)
	wantReferences(t, c, a, map[trust.Digest]string{tagged: "cosign-tag ambiguous", twice: "notation-referrer ambiguous"})
	if !c.Images[hybrid].Ambiguous || c.Images[hybrid].Children != nil || c.Images[a].Ambiguous {
		t.Errorf("images %+v", c.Images)
	}
	if got := problems(c, twice); len(got) != 1 || c.Incomplete {
		t.Errorf("problems %v", c.Problems)
	}
}

func TestDescriptorsThatLie(t *testing.T) {
	change := func(d object, members object) object { return with(d, members) }
	t.Run("media type", func(t *testing.T) {
		r := newRepo(t, t.TempDir(), "app")
		a := r.blob(image("a"))
		s := r.blob(referrer(typeNotationSignature, a, "s"))
		r.list = []any{
			change(r.describe(image("a"), "1"), object{"mediaType": ocispec.MediaTypeImageIndex}),
			change(r.describe(referrer(typeNotationSignature, a, "s"), ""), object{"mediaType": typeDockerManifest}),
		}
		r.index()
		c := r.contents()
		if i := c.Images[a]; !i.Ambiguous || i.Unreadable != "" || i.MediaType != ocispec.MediaTypeImageIndex {
			t.Errorf("image %+v", i)
		}
		wantReferences(t, c, a, map[trust.Digest]string{s: "notation-referrer ambiguous"})
		if len(c.Problems) != 2 {
			t.Errorf("problems %v", c.Problems)
		}
	})
	t.Run("size", func(t *testing.T) {
		r := newRepo(t, t.TempDir(), "app")
		a, s := r.blob(image("a")), r.blob(simple("s"))
		r.list = []any{
			change(r.describe(image("a"), "1"), object{"size": 9e18}),
			change(r.describe(simple("s"), sigTag(a)), object{"size": 1}),
		}
		r.index()
		c := r.contents()
		if i := c.Images[a]; i.Ambiguous || i.Unreadable != trust.DigestMismatch || i.Size != int64(len(encode(t, image("a")))) {
			t.Errorf("image %+v", i)
		}
		wantReferences(t, c, a, map[trust.Digest]string{s: "cosign-tag digest-mismatch"})
	})
	t.Run("two media types, none in the body", func(t *testing.T) {
		r := newRepo(t, t.TempDir(), "app")
		bare := with(image("a"), object{"mediaType": nil})
		a := r.blob(bare)
		r.list = []any{
			change(r.describe(bare, "1"), object{"mediaType": ocispec.MediaTypeImageManifest}),
			change(r.describe(bare, "2"), object{"mediaType": ""}),
		}
		r.index()
		if i := r.contents().Images[a]; i.Ambiguous || i.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("image %+v", i)
		}
		r.list = append(r.list, change(r.describe(bare, "3"), object{"mediaType": typeDockerManifest}))
		r.index()
		if i := r.contents().Images[a]; !i.Ambiguous {
			t.Errorf("image %+v", i)
		}
	})
	t.Run("none in the descriptor", func(t *testing.T) {
		r := newRepo(t, t.TempDir(), "app")
		a := r.blob(image("a"))
		r.list = []any{change(r.describe(image("a"), "1"), object{"mediaType": nil})}
		r.index()
		if i := r.contents().Images[a]; i.Ambiguous || i.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("image %+v", i)
		}
	})
}

// Listing somebody else's image under a wrong description does not spoil it.
func TestParentsThatLie(t *testing.T) {
	lie := func(index object) object {
		with := with(index, object{"annotations": object{"lie": "yes"}})
		for _, d := range with["manifests"].([]any) {
			d.(object)["mediaType"], d.(object)["size"] = typeDockerManifest, 1
		}
		return with
	}
	r := newRepo(t, t.TempDir(), "app")
	child, listed := image("child"), image("listed")
	childD, listedD := r.blob(child), r.push(listed)
	r.push(lie(r.indexOf(child, listed)), "evil")
	if i := r.contents().Images[childD]; !i.Ambiguous {
		t.Errorf("nobody describes the child right: %+v", i)
	}
	r.push(r.indexOf(child), "good")
	c := r.contents()
	for _, d := range []trust.Digest{childD, listedD} {
		if i := c.Images[d]; i.Ambiguous || i.Unreadable != "" || i.MediaType != ocispec.MediaTypeImageManifest || i.Size < 10 {
			t.Errorf("image %+v", i)
		}
	}
}

func TestLimits(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	chain := []any{image("bottom")}
	for i := range 10 {
		chain = append(chain, with(r.indexOf(chain[i]), object{"annotations": object{"level": fmt.Sprint(i)}}))
	}
	digests := make([]trust.Digest, len(chain))
	for i, m := range chain {
		digests[i] = r.blob(m)
	}
	r.push(chain[10], "deep")
	wide := r.push(r.indexOf(image("x"), image("y"), image("z")), "wide")

	c := r.contentsWithin(Limits{Children: 2}, nil)
	// index.json names level 10; eight indexes below it is level 2.
	if i := c.Images[digests[2]]; i == nil || i.Unreadable != "" || c.Images[digests[1]].Unreadable != trust.LimitExceeded || c.Images[digests[0]] != nil {
		t.Errorf("depth: %+v, %+v, %+v", i, c.Images[digests[1]], c.Images[digests[0]])
	}
	if i := c.Images[wide]; i.Unreadable != trust.LimitExceeded || i.Children != nil || c.Opened != 10 {
		t.Errorf("children: %+v, opened %d", i, c.Opened)
	}
	if c.Incomplete {
		t.Error("a limit does not pass")
	}

	c = r.contentsWithin(Limits{Descriptors: 4}, nil)
	if c.Images[wide].Unreadable != trust.LimitExceeded || c.Images[digests[9]].Unreadable != "" || c.Opened > 5 {
		t.Errorf("descriptors: %+v, opened %d", c.Images[wide], c.Opened)
	}
	p := r.open(Limits{Descriptors: 1})
	if _, err := p.Contents(context.Background(), nil); reasonIn(t, err) != trust.LimitExceeded {
		t.Errorf("error %v", err)
	}
	p = r.open(Limits{Index: 100})
	if _, err := p.Contents(context.Background(), nil); reasonIn(t, err) != trust.LimitExceeded {
		t.Errorf("error %v", err)
	}
}
