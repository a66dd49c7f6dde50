package layout

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

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
		got[ref.Digest] = strings.TrimSpace(ref.Carrier.String() + " " + string(ref.Unreadable))
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
		if tool := ref.Carrier.Tool(); (tool == trust.Notation) != (ref.Carrier == trust.NotationReferrer) {
			t.Errorf("%s is %s's", ref.Carrier, tool)
		}
	}
}

// Attestations are told by their layers, whatever names them: a tag, an index as BuildKit
// writes it. What is none is none under any tag, so that nobody's tag takes a signature away.
func TestAttestations(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	of := func(name, mediaType string) object {
		return with(image(name), object{"layers": []any{descriptor(mediaType, name)}})
	}
	a, b := r.push(image("a"), "1"), r.push(image("b"), "2")
	att := "sha256-" + a.Hex() + ".att"
	byTag := r.push(of("by tag", typeDSSE), att)
	bySignatureTag := r.push(of("by the tag of signatures", typeDSSE), sigTag(a))
	signature := r.push(simple("signature"), sigTag(a), att)
	r.push(with(image("mixed"), object{"layers": []any{descriptor(typeDSSE, "x"), descriptor(typeSimpleSigning, "y")}}), att)
	r.push(of("by nothing", typeDSSE))
	bySubject := r.push(with(of("by subject", typeInToto), object{"subject": subject(a), "artifactType": "a/b"}), att)

	plain := of("BuildKit's", typeInToto)
	index := r.indexOf(image("a"), image("b"), plain, of("about nothing", typeInToto), of("no digest", typeInToto), simple("dressed"))
	list := index["manifests"].([]any)
	note := func(i int, about string) {
		list[i].(object)["annotations"] = object{annotationReferenceType: attestationManifest, annotationReferenceOf: about}
	}
	list = append(list, r.describe(plain, ""))
	index["manifests"] = list
	note(6, a.String()) // a second time
	note(2, b.String())
	note(3, trust.SumOf([]byte("elsewhere")).String())
	note(4, "sha256:"+strings.ToUpper(b.Hex()))
	note(5, b.String())
	for _, child := range []object{plain, of("about nothing", typeInToto), of("no digest", typeInToto), simple("dressed")} {
		r.blob(child)
	}
	top := r.push(index, "3")
	plainDigest := trust.SumOf(encode(t, plain))

	learned := map[trust.Digest]Kind{}
	for range 2 { // the second time from what is remembered
		c := r.contentsWithin(Limits{}, func(d trust.Digest) (Kind, bool) { k, ok := learned[d]; return k, ok })
		wantImages(t, c, a, b, top)
		wantReferences(t, c, a, map[trust.Digest]string{byTag: "attestations", bySignatureTag: "attestations", bySubject: "attestations", signature: "cosign-tag"})
		wantReferences(t, c, b, map[trust.Digest]string{plainDigest: "attestations"})
		maps.Copy(learned, c.Learned)
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
	if len(second.Remembered) != len(kinds) {
		t.Errorf("remembered %d", len(second.Remembered))
	}
	first.Opened, first.Learned, second.Learned, second.Remembered = 0, nil, nil, nil
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

// The newest image is the last in index.json that a tag names, whatever the tags are
// called; signatures and artifacts that come after it are none.
func TestNewest(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.index()
	if got := r.contents().Newest; got != "" {
		t.Errorf("of nothing: %q", got)
	}
	a := r.push(image("a"), "z-first")
	r.push(image("b"), "a-second")
	r.push(simple("s"), sigTag(a))
	r.push(image("c"))
	if got := r.contents().Newest; got != "a-second" {
		t.Errorf("newest is %q", got)
	}
	r.push(image("d"), "z-first") // names two digests now
	if got := r.contents().Newest; got != "a-second" {
		t.Errorf("newest is %q", got)
	}
}

// A signature manifest that Contents has read is not read again by the one look that
// follows, within a bound; the next look reads what storage has then.
func TestSignatureManifestsAreReadOnce(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "1")
	small := r.push(simple("s"), sigTag(a))
	large := r.push(with(referrer(typeSigstoreBundle, a, "b"), object{"annotations": object{"x": strings.Repeat("b", maxReadBytes)}}))
	p := r.open(Limits{})
	if _, err := p.Contents(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, d := range []trust.Digest{a, small, large} {
		if err := os.Remove(r.path(d)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := p.Manifest(t.Context(), small); err != nil || len(m.Layers) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, d := range []trust.Digest{a, small, large} {
		if _, err := p.Manifest(t.Context(), d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", d, err)
		}
	}
}
