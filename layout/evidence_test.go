package layout

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"trust-worker/trust"
)

// A manifest is evidence by its layers and config alone. What dresses as a signature, by
// artifact type, subject, tag or the media types of its layers, and could be run, is none.
func TestEvidence(t *testing.T) {
	r := newRepo(t, t.TempDir(), "team/app")
	blob := func(mediaType string, content any) object {
		return object{"mediaType": mediaType, "digest": r.blob(content).String(), "size": len(encode(t, content))}
	}
	manifest := func(config string, layers ...any) object {
		return object{"mediaType": manifestTypes[0], "config": blob(config, "{}"), "layers": layers}
	}
	const image = "application/vnd.oci.image.config.v1+json"
	const empty = "application/vnd.oci.empty.v1+json"
	gzip := append([]byte{0x1f, 0x8b}, bytes.Repeat([]byte("x"), 100)...)
	subject := r.blob("subject")
	// A tar header of the oldest form, of nothing but what a JSON string may hold, is read as
	// an archive by Go's reader, which container engines use.
	printable := append(tarHeader(`{"a":"`), []byte(strings.Repeat("#", 510)+`"}`)...)
	if h, err := tar.NewReader(bytes.NewReader(printable)).Next(); err != nil || !json.Valid(printable) {
		t.Fatalf("the trick does not work: %v, %v", h, err)
	}
	behind := append([]byte(`{"a":"`+strings.Repeat("x", 506)), tarHeader("")...)
	behind = append(behind, `"}`...)
	within := append([]byte{0xd2, 0x84}, tarHeader("")[2:]...)
	within = append(tarHeader("\xd2\x84"), within...)
	for name, c := range map[string]struct {
		m    object
		want bool
	}{
		"cosign's tagged signature":                {manifest(image, blob(typeSimpleSigning, object{"critical": 1}), blob(typeSimpleSigning, object{"critical": 2})), true},
		"cosign's tagged attestation":              {manifest(image, blob(typeDSSE, object{"payload": strings.Repeat("x", 2<<20)})), true},
		"a bundle":                                 {with(manifest(empty, blob(typeSigstoreBundle, object{})), object{"artifactType": typeSigstoreBundle}), true},
		"notation, JWS":                            {with(manifest(typeNotationSignature, blob(typeJWS, object{})), object{"subject": object{"digest": subject.String()}}), true},
		"notation, COSE":                           {manifest(typeNotationSignature, blob(typeCOSE, []byte{0xd2, 0x84})), true},
		"an artifact manifest":                     {object{"mediaType": typeArtifactManifest, "artifactType": typeNotationSignature, "blobs": []any{blob(typeCOSE, []byte{0xd2, 0x84})}}, true},
		"one payload signed twice":                 {manifest(image, blob(typeSimpleSigning, object{}), blob(typeSimpleSigning, object{})), true},
		"an image":                                 {manifest(image, blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip)), false},
		"an image with cosign's artifact type":     {with(manifest(image, blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip)), object{"artifactType": typeCosignSignature, "subject": object{"digest": subject.String()}}), false},
		"one layer of many is an image's":          {manifest(image, blob(typeSimpleSigning, object{}), blob("application/vnd.oci.image.layer.v1.tar", gzip)), false},
		"an archive with a signature's media type": {manifest(image, blob(typeSimpleSigning, gzip)), false},
		"an archive as an attestation":             {manifest(image, blob(typeDSSE, object{}), blob(typeDSSE, gzip)), false},
		"an archive and the config of an artifact": {manifest(empty, blob(typeDSSE, gzip)), false},
		"an archive and notation's config":         {manifest(typeNotationSignature, blob(typeCOSE, gzip)), false},
		"an archive as JWS, with no config's type": {manifest("", blob(typeJWS, gzip)), false},
		"an archive in printable text":             {manifest(image, blob(typeSimpleSigning, printable)), false},
		"an archive behind other text":             {manifest(image, blob(typeSimpleSigning, behind)), false},
		"an archive within COSE":                   {manifest(typeNotationSignature, blob(typeCOSE, within)), false},
		"one blob as two kinds":                    {manifest(empty, blob(typeCOSE, []byte{0xd2, 0x84}), blob(typeJWS, []byte{0xd2, 0x84})), false},
		"a number is no envelope":                  {manifest(image, blob(typeSimpleSigning, "1")), false},
		"no layers":                                {manifest(empty), false},
		"an index":                                 {r.indexOf(manifest(image, blob(typeSimpleSigning, object{}))), false},
		"an index with layers":                     {with(manifest(image, blob(typeSimpleSigning, object{})), object{"manifests": []any{}}), false},
		"a layer that is elsewhere":                {manifest(image, with(blob(typeSimpleSigning, object{}), object{"urls": []any{"https://elsewhere.example"}})), false},
		"a layer that is embedded":                 {manifest(image, with(blob(typeSimpleSigning, object{}), object{"data": "e30="})), false},
		"too much in all":                          {manifest(empty, with(blob(typeDSSE, object{"a": 1}), object{"size": MaxEvidence}), with(blob(typeDSSE, object{"a": 2}), object{"size": 1})), false},
		"another hash":                             {manifest(image, object{"mediaType": typeSimpleSigning, "digest": "sha512:" + strings.Repeat("0", 128), "size": 1}), false},
	} {
		d := r.blob(c.m)
		if got, err := r.open(Limits{}).Evidence(t.Context(), d, MaxEvidence); got != c.want || err != nil {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
	twice := bytes.Replace(encode(t, manifest(empty, blob(typeJWS, object{}))), []byte(`"layers"`), []byte(`"layers":[],"layers"`), 1)
	if got, err := r.open(Limits{}).Evidence(t.Context(), r.blob(twice), MaxEvidence); got || err != nil {
		t.Errorf("a member given twice: %t, %v", got, err)
	}
	missing := manifest(image, object{"mediaType": typeSimpleSigning, "digest": trust.SumOf([]byte("gone")).String(), "size": 4})
	if got, err := r.open(Limits{}).Evidence(t.Context(), r.blob(missing), MaxEvidence); got || reasonIn(t, err) != trust.BlobMissing {
		t.Errorf("a layer is missing: %t, %v", got, err)
	}
}

// tarHeader is the header of a file, in printable characters, whose name begins as given.
func tarHeader(begin string) []byte {
	h := bytes.Repeat([]byte("x"), 512)
	copy(h, begin)
	copy(h[100:], "0000755 0000000 0000000 00000000010 00000000000         0")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o  ", sum))
	return h
}

// What is large is not read unless the caller wants it.
func TestLargeEvidence(t *testing.T) {
	r := newRepo(t, t.TempDir(), "team/app")
	content := object{"x": strings.Repeat("x", 1000)}
	d := r.blob(object{"mediaType": manifestTypes[0], "layers": []any{object{"mediaType": typeDSSE, "digest": r.blob(content).String(), "size": len(encode(t, content))}}})
	for most, want := range map[int64]error{999: ErrLarge, 1 << 20: nil} {
		if got, err := r.open(Limits{}).Evidence(t.Context(), d, most); got != (want == nil) || err != want {
			t.Errorf("%d bytes: %t, %v", most, got, err)
		}
	}
}

// The tags of signatures and referrers are read from index.json; what names two digests
// names none.
func TestCompanions(t *testing.T) {
	r := newRepo(t, t.TempDir(), "team/app")
	d := r.push(image("a"), "1.0")
	other := trust.SumOf([]byte("other"))
	sig, att := r.push(simple("s"), sigTag(d)), r.push(simple("t"), "sha256-"+d.Hex()+".att")
	index := r.push(r.indexOf(image("b")), "sha256-"+d.Hex())
	r.push(simple("u"), sigTag(other))
	r.push(simple("v"), sigTag(other))
	r.index()
	p := r.open(Limits{})
	var last *Companions
	for tag, want := range map[string]trust.Digest{sigTag(d): sig, "sha256-" + d.Hex() + ".att": att, "sha256-" + d.Hex(): index,
		sigTag(other): {}, "1.0": {}, "sha256-" + d.Hex() + ".sbom": {}, "sha256-0.sig": {}, "": {}} {
		got, referrers, next, err := p.Companion(t.Context(), tag, last)
		if got != want || err != nil || want != (trust.Digest{}) && referrers != (want == index) {
			t.Errorf("%s: %s, %t, %v", tag, got, referrers, err)
		}
		if last != nil && next != last {
			t.Errorf("%s: what is unchanged was read again", tag)
		}
		last = next
	}
	if last.Len() != 4 || last.stamp == (Stamp{}) {
		t.Errorf("%d tags, stamp %s", last.Len(), last.stamp)
	}
	r.push(simple("w"), "sha256-"+d.Hex()+".sbom")
	r.index()
	if got, _, next, err := p.Companion(t.Context(), "sha256-"+d.Hex()+".sbom", last); got == (trust.Digest{}) || err != nil || next == last {
		t.Errorf("what has changed was not read again: %s, %v", got, err)
	}
	for _, is := range []struct {
		d    trust.Digest
		want bool
	}{{index, true}, {sig, false}, {d, false}, {r.blob(object{"mediaType": indexTypes[0], "manifests": []any{with(descriptor(manifestTypes[0], "x"), object{"data": "e30="})}}), false},
		{r.blob(object{"mediaType": indexTypes[0], "manifests": []any{with(descriptor(manifestTypes[0], "x"), object{"urls": []any{"https://x"}})}}), false}} {
		if got, err := r.open(Limits{}).IsReferrers(t.Context(), is.d); got != is.want || err != nil {
			t.Errorf("%s: %t, %v", is.d, got, err)
		}
	}
}
