package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

func sigTag(of trust.Digest) string { return "sha256-" + of.Hex() + ".sig" }

// wantReferences compares the signatures of a subject, given as "carrier" or
// "carrier reason" by digest.
func wantReferences(t *testing.T, c *Contents, of trust.Digest, want map[trust.Digest]string) {
	t.Helper()
	got := map[trust.Digest]string{}
	for _, ref := range c.Signatures[of] {
		got[ref.Digest] = strings.TrimSpace(string(ref.Carrier) + " " + string(ref.Unreadable))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("signatures of %s:\n%v, want\n%v", of, got, want)
	}
}

func wantImages(t *testing.T, c *Contents, want ...trust.Digest) {
	t.Helper()
	for _, d := range want {
		if c.Images[d] == nil {
			t.Errorf("%s is no image", d)
		}
	}
	for d := range c.Images {
		if !slices.Contains(want, d) {
			t.Errorf("%s is an image: %+v", d, c.Images[d])
		}
	}
}

// The carriers add up, whatever is there besides (Z14).
func TestCarriersAddUp(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a, b := r.push(image("a"), "1"), r.push(image("b"), "2")
	tagged := r.push(simple("tagged"), sigTag(a))
	cosign := r.push(referrer(typeCosignSignature, a, "cosign"))
	bundle := r.push(referrer(typeSigstoreBundle, a, "bundle"))
	notation := r.push(referrer(typeNotationSignature, a, "notation"))
	byConfig := r.push(with(referrer(typeNotationSignature, a, "by config"), object{"artifactType": nil}))
	// Nothing but its own bytes makes a signature.
	r.push(with(referrer("application/spdx+json", a, "sbom"), object{"layers": []any{descriptor("a/b", "x")}}))
	r.push(simple("no tag"))
	r.push(simple("att"), "sha256-"+a.Hex()+".att")

	c := r.contents()
	wantImages(t, c, a, b)
	wantReferences(t, c, a, map[trust.Digest]string{
		tagged: "cosign-tag", cosign: "cosign-referrer", bundle: "cosign-bundle",
		notation: "notation-referrer", byConfig: "notation-referrer",
	})
	if len(c.Signatures) != 1 || len(c.Problems) != 0 || c.Incomplete || c.Opened != 10 || len(c.Learned) != 10 {
		t.Errorf("contents %+v", c)
	}
	if want := map[string]trust.Digest{"1": a, "2": b}; !reflect.DeepEqual(c.Tags, want) {
		t.Errorf("tags %v", c.Tags)
	}
	for _, ref := range c.Signatures[a] {
		if tool := ref.Carrier.Tool(); (tool == trust.Notation) != (ref.Carrier == NotationReferrer) {
			t.Errorf("%s is %s's", ref.Carrier, tool)
		}
	}
}

func TestSignatureTags(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a, b := r.push(image("a"), "1"), r.push(image("b"), "2")
	absent := trust.SumOf([]byte("not pushed yet"))
	shared := r.push(simple("shared"), sigTag(a), sigTag(b), sigTag(absent), sigTag(a))
	second := r.push(simple("second"), sigTag(a)) // the same tag, another digest
	// A tag that anybody can add does not change what a bundle is.
	bundle := r.push(referrer(typeSigstoreBundle, a, "bundle"), sigTag(a), sigTag(b))
	// Broken tags name nobody, and their manifests become no images.
	for _, tag := range []string{"sha256-.sig", "sha256-abc.sig", "sha256-" + strings.ToUpper(a.Hex()) + ".sig", sigTag(a) + ".sig", "sha512-" + a.Hex() + ".sig"} {
		r.push(simple("broken "+tag), tag)
	}
	// A signature may be an image as well, and an image a signature.
	both := r.push(simple("both"), sigTag(a), "signature-by-name")
	self := r.push(image("self"), sigTag(b))

	c := r.contents()
	wantImages(t, c, a, b, both)
	wantReferences(t, c, a, map[trust.Digest]string{shared: "cosign-tag", second: "cosign-tag", bundle: "cosign-bundle", both: "cosign-tag"})
	wantReferences(t, c, b, map[trust.Digest]string{shared: "cosign-tag", bundle: "cosign-tag", self: "cosign-tag"})
	wantReferences(t, c, absent, map[trust.Digest]string{shared: "cosign-tag"})
	if len(c.Problems) != 5 || len(c.Tags) != 3 {
		t.Errorf("tags %v, problems %v", c.Tags, c.Problems)
	}
}

func TestIndexesAndTheirChildren(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	amd, arm, deep := image("amd"), image("arm"), image("deep")
	signature := referrer(typeNotationSignature, trust.SumOf(encode(t, amd)), "signature")
	provenance := with(image("provenance"), object{"layers": []any{descriptor("a/b", "x")}}) // told by the annotation alone
	inner := r.indexOf(deep)
	outer := r.indexOf(amd, arm, inner, signature, provenance)
	list := outer["manifests"].([]any)
	list[0].(object)["platform"] = object{"os": "linux", "architecture": "amd64"}
	list[4].(object)["annotations"] = object{annotationReferenceType: attestationManifest}

	top := r.push(outer, "1")
	inIndex := r.push(amd) // zot lists the children, too
	attestation := r.push(provenance)
	armD, innerD, deepD, sigD := r.blob(arm), r.blob(inner), r.blob(deep), r.blob(signature)

	c := r.contents()
	wantImages(t, c, top, inIndex, armD, innerD, deepD)
	wantReferences(t, c, inIndex, map[trust.Digest]string{sigD: "notation-referrer"})
	var children []string
	for _, ch := range c.Images[top].Children {
		children = append(children, ch.Digest.String()+" "+ch.Platform)
	}
	if want := []string{inIndex.String() + " linux/amd64", armD.String() + " ", innerD.String() + " "}; !slices.Equal(children, want) {
		t.Errorf("children %q, want %q", children, want)
	}
	if c.Images[top].Untagged || !c.Images[armD].Untagged || c.Images[armD].MediaType != ocispec.MediaTypeImageManifest || len(c.Problems) != 0 {
		t.Errorf("images %+v, problems %v", c.Images, c.Problems)
	}

	// A tag outweighs the mark, and so does an index without it.
	r.push(provenance, "provenance")
	wantImages(t, r.contents(), top, inIndex, armD, innerD, deepD, attestation)
	r.list = r.list[:len(r.list)-1]
	another := r.push(r.indexOf(provenance), "2")
	wantImages(t, r.contents(), top, inIndex, armD, innerD, deepD, another, attestation)
}

// A referrers-tag index is no image; what it lists is believed only for what it
// is itself.
func TestReferrersTag(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "1")
	signature := referrer(typeNotationSignature, a, "signature")
	plain := image("plain")
	index := r.indexOf(signature, plain)
	for _, d := range index["manifests"].([]any) {
		d.(object)["artifactType"] = typeNotationSignature
	}
	d := r.push(index, "sha256-"+a.Hex())
	sigD := r.blob(signature)
	r.blob(plain)

	c := r.contents()
	wantImages(t, c, a)
	wantReferences(t, c, a, map[trust.Digest]string{sigD: "notation-referrer"})
	if len(c.Signatures) != 1 || len(c.Tags) != 1 || len(c.Problems) != 0 {
		t.Errorf("contents %+v", c)
	}
	r.push(index, "2")
	if c := r.contents(); c.Images[d] == nil || c.Tags["2"] != d {
		t.Errorf("an ordinary tag makes no image: %+v", c.Images)
	}
}

func TestWhatIsAnImage(t *testing.T) {
	of := trust.SumOf([]byte("subject"))
	odd := with(image("odd"), object{"config": descriptor("application/vnd.cncf.helm.config.v1+json", "x")})
	tests := []struct {
		name     string
		content  object
		tag      string
		tagged   bool // an image with the tag
		untagged bool // an image without
	}{
		{"image", image("x"), "1", true, true},
		{"Helm chart", odd, "1", true, true},
		{"image with subject", with(image("x"), object{"subject": subject(of)}), "1", true, true},
		{"chart with subject", with(odd, object{"subject": subject(of)}), "1", true, false},
		{"notation signature", referrer(typeNotationSignature, of, "x"), "1", true, false},
		{"simple signing", simple("x"), "1", true, false},
		{"DSSE", with(image("x"), object{"layers": []any{descriptor(typeDSSE, "x")}}), "1", true, false},
		{"empty index", object{"manifests": []any{}}, "1", true, true},
		{"SBOM", image("x"), "sha256-" + of.Hex() + ".sbom", false, true},
		{"attestation", image("x"), "sha256-" + of.Hex() + ".att", false, true},
		{"no manifest", object{"hello": "world"}, "1", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for tag, want := range map[string]bool{tt.tag: tt.tagged, "": tt.untagged} {
				r := newRepo(t, t.TempDir(), "app")
				d := r.push(tt.content, tag)
				if c := r.contents(); (c.Images[d] != nil) != want {
					t.Errorf("tag %q: image %+v", tag, c.Images[d])
				}
			}
		})
	}
}

func TestTagForTwoDigests(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a, b, x := r.push(image("a"), "1"), r.push(image("b"), "1", "2"), r.push(image("c"), "1")
	r.push(image("b"), "2") // twice the same is once
	c := r.contents()
	wantImages(t, c, a, b, x)
	if want := map[string]trust.Digest{"2": b}; !reflect.DeepEqual(c.Tags, want) {
		t.Errorf("tags %v", c.Tags)
	}
	if !c.Images[a].Untagged || c.Images[b].Untagged || len(c.Problems) != 1 || c.Problems[0].Reason != trust.Ambiguous {
		t.Errorf("images %+v, problems %v", c.Images, c.Problems)
	}
}

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
			wantImages(t, c, a, lost, index, childD)
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
			if c.Incomplete == (bad.as == trust.LimitExceeded) {
				t.Errorf("incomplete is %t", c.Incomplete)
			}
		})
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

func TestKnownDigestsAreNotOpened(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "1")
	child := image("child")
	r.push(r.indexOf(child), "2")
	r.blob(child)
	r.push(simple("s"), sigTag(a))
	r.push(referrer(typeSigstoreBundle, a, "b"))
	bad := r.push(`{"layers":[],"manifests":[]}`, "bad")
	broken := r.push(`{}`)
	first := r.contents()
	if first.Opened != 7 || len(first.Learned) != 7 {
		t.Fatalf("opened %d, learned %d", first.Opened, len(first.Learned))
	}
	kinds := first.Learned
	known := func(d trust.Digest) (Kind, bool) { k, ok := kinds[d]; return k, ok }
	second := r.contentsWithin(Limits{}, known)
	if second.Opened != 0 || len(second.Learned) != 0 {
		t.Errorf("opened %d, learned %d", second.Opened, len(second.Learned))
	}
	// L7: the answer is the same but for the work.
	first.Opened, first.Learned, second.Learned = 0, nil, nil
	if !reflect.DeepEqual(first, second) {
		t.Errorf("first %+v\nsecond %+v", first, second)
	}
	if len(problems(second, bad)) != 1 || len(problems(second, broken)) != 1 {
		t.Errorf("problems %v", second.Problems)
	}
	added := r.push(referrer(typeNotationSignature, a, "n"))
	if c := r.contentsWithin(Limits{}, known); c.Opened != 1 || len(c.Signatures[a]) != 3 || c.Learned[added].Class != NotationSignature {
		t.Errorf("opened %d, signatures %v", c.Opened, c.Signatures[a])
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

func TestIndexAsAWhole(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "1")
	entry := string(encode(t, r.list[0]))
	ok := []string{
		`{}`, `{"manifests":null}`, `{"manifests":[]}`, "{\"x\":[{\"manifests\":1}],\"manifests\":[" + entry + "]}\n",
		`{"manifests":[` + entry + `,1,null,"x",[],{}]}`,
	}
	for _, text := range ok {
		r.write([]byte(text))
		if c := r.contents(); strings.Contains(text, entry) != (c.Tags["1"] == a) {
			t.Errorf("%s: tags %v", text, c.Tags)
		}
	}
	bad := map[string]trust.Reason{
		``: trust.Malformed, `{`: trust.Malformed, `[]`: trust.Malformed, `null`: trust.Malformed, `{}{}`: trust.Malformed,
		`{"manifests":{}}`:                            trust.Malformed,
		`{"manifests":[` + entry:                      trust.Malformed,
		`{"manifests":[],"manifests":[]}`:             trust.Ambiguous,
		`{"manifests":[],"Manifests":[]}`:             trust.Ambiguous,
		`{"Manifests":[]}`:                            trust.Ambiguous,
		`{"manifests":` + strings.Repeat("[", 20_000): trust.Malformed,
		strings.Repeat("\x00", 4096):                  trust.Malformed,
	}
	for text, want := range bad {
		r.write([]byte(text))
		c, err := r.open(Limits{}).Contents(context.Background(), nil)
		if c != nil || reasonIn(t, err) != want {
			t.Errorf("%.50q: %v, %v; want %s", text, c, err, want)
		}
	}
	must(t, os.Remove(filepath.Join(r.dir, indexFile)))
	if _, err := r.open(Limits{}).Contents(context.Background(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// Descriptors that cannot be used are listed, and cost nobody else (Z9, S9).
func TestBadDescriptors(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	good := r.push(image("good"), "good")
	base := r.describe(image("good"), "bad")
	hex := good.Hex()
	for name, d := range map[string]any{
		"climbing":      with(base, object{"digest": "sha256:../../_cosign/x"}),
		"empty hex":     with(base, object{"digest": "sha256:"}),
		"capitals":      with(base, object{"digest": "sha256:" + strings.ToUpper(hex)}),
		"unknown":       with(base, object{"digest": "foo:" + hex}),
		"SHA-512":       with(base, object{"digest": "sha512:" + hex + hex}),
		"with a path":   with(base, object{"digest": "sha256:" + hex + "/../x"}),
		"NUL":           with(base, object{"digest": "sha256:" + hex[:63] + "\x00"}),
		"1 MiB":         with(base, object{"digest": "sha256:" + strings.Repeat("a", 1<<20)}),
		"none":          with(base, object{"digest": nil}),
		"a number":      with(base, object{"digest": 1}),
		"negative":      with(base, object{"size": -1}),
		"size a string": with(base, object{"size": "1"}),
		"media type":    with(base, object{"mediaType": strings.Repeat("x", 300)}),
		"annotations":   with(base, object{"annotations": object{ocispec.AnnotationRefName: 1}}),
		"tag too long":  with(base, object{"annotations": object{ocispec.AnnotationRefName: strings.Repeat("a", 1<<20)}}),
		"tag climbing":  with(base, object{"annotations": object{ocispec.AnnotationRefName: "../x"}}),
		"twice":         []byte(`{"digest":"` + good.String() + `","digest":"` + good.String() + `"}`),
		"Digest":        []byte(`{"Digest":"` + good.String() + `"}`),
		"two tags":      []byte(`{"digest":"` + good.String() + `","annotations":{"` + ocispec.AnnotationRefName + `":"a","` + ocispec.AnnotationRefName + `":"b"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			r.write([]byte(`{"manifests":[` + string(encode(t, d)) + "," + string(encode(t, r.list[0])) + "]}"))
			c := r.contents()
			if len(c.Problems) != 1 || len(c.Tags) != 1 || c.Tags["good"] != good || c.Opened != 1 || c.Incomplete {
				t.Errorf("tags %v, problems %v", c.Tags, c.Problems)
			}
		})
	}
}

func TestProblemsAreBounded(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.write([]byte(`{"manifests":[` + strings.Repeat(`{},`, 5*MaxProblems) + `{}]}`))
	if c := r.contents(); len(c.Problems) != MaxProblems || c.Omitted != 4*MaxProblems+1 {
		t.Errorf("%d problems, %d omitted", len(c.Problems), c.Omitted)
	}
}

// An index.json that is being rewritten is read whole or not at all, and the
// stamp is that of what was read.
func TestIndexUnderWriters(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	tags := map[int64]int{} // by size of index.json
	var texts [][]byte
	for i := range 2 {
		r.list = nil
		for j := range 50 * (i + 1) {
			r.list = append(r.list, r.describe(image(fmt.Sprint(j)), fmt.Sprint(j)))
		}
		texts = append(texts, encode(t, object{"manifests": r.list}))
		tags[int64(len(texts[i]))] = len(r.list)
	}
	r.write(texts[0])
	during(t, func(i int) error {
		path := filepath.Join(r.dir, indexFile)
		if i%4 < 2 { // in place, as no registry should
			return os.WriteFile(path, texts[i%2], 0o644)
		}
		return errors.Join(os.WriteFile(path+"~", texts[i%2], 0o644), os.Rename(path+"~", path))
	}, func() {
		p := r.open(Limits{})
		for range 20 {
			c, err := p.Contents(context.Background(), func(trust.Digest) (Kind, bool) { return Kind{Class: ImageManifest}, true })
			if err != nil {
				if reason := reasonIn(t, err); reason != trust.IOError && reason != trust.Malformed {
					t.Errorf("error %v", err)
				}
				continue
			}
			if n := len(c.Tags); n != 50 && n != 100 || c.Stamp != (Stamp{}) && n != tags[c.Stamp.Size] {
				t.Errorf("%d tags, stamp %v", n, c.Stamp)
			}
		}
	})
}

// While index.json is too young for its stamp to mean anything, it has none.
func TestUnsettledIndexHasNoStamp(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.push(image("a"), "1")
	p := r.open(Limits{})
	changed, err := p.root.Stamp("app")
	must(t, err)
	for age, settled := range map[time.Duration]bool{
		0: false, settle - 1: false, -settle: false, // the clocks of files and of programs differ by a tick
		settle: true, time.Hour: true, -settle - 1: true, -time.Hour: true,
	} {
		reads := 0
		p.root.now = func() time.Time { reads++; return time.Unix(0, changed.Ctime).Add(age) }
		c, err := p.Contents(context.Background(), nil)
		must(t, err)
		want, wantReads := Stamp{}, attempts
		if settled {
			want, wantReads = changed, 1
		}
		if c.Stamp != want || reads != wantReads || len(c.Tags) != 1 {
			t.Errorf("at age %v: stamp %v after %d reads, want %v after %d", age, c.Stamp, reads, want, wantReads)
		}
	}
}

// during runs f while disturb is called over and over.
func during(t *testing.T, disturb func(i int) error, f func()) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := disturb(i); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	f()
}
