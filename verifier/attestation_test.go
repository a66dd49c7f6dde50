package verifier

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const slsa = "https://slsa.dev/provenance/v1"

// An attestation by a tag is verified as a signature is, by the same keys, and is none: what
// its payload says it is, and not what is written beside it.
func TestAttestationsByTag(t *testing.T) {
	k, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ed, rsa := signtest.NewKey(signtest.Ed25519), signtest.NewKey(signtest.RSA2048)
	ts := newDirs(t).key("k", k).key("ed", ed).key("rsa", rsa).load()
	img := image("A")
	layer := func(mediaType string, b []byte) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: ociDigest(trust.SumOf(b)), Size: int64(len(b))}
	}
	type att struct {
		blob   []byte
		reason trust.Reason
		kind   string
	}
	dsse := func(by *signtest.Key, o signtest.CosignOptions) []byte { return signtest.DSSE(img.Digest, by, o) }
	said := func(text string) signtest.CosignOptions { return signtest.CosignOptions{Payload: []byte(text)} }
	statement := string(signtest.Statement(img.Digest, slsa))
	good := dsse(k, signtest.CosignOptions{PredicateType: slsa})
	for name, c := range map[string]att{
		"by a key":                           {good, "", slsa},
		"by an Ed25519 key":                  {dsse(ed, signtest.CosignOptions{PredicateType: slsa}), "", slsa},
		"by an RSA key":                      {dsse(rsa, signtest.CosignOptions{PredicateType: slsa}), "", slsa},
		"with a predicate of its own":        {dsse(k, said(strings.Replace(statement, `"predicate":{}`, `"predicate":{"a":1,"A":[`+strings.Repeat("0,", 20_000)+`0]}`, 1))), "", slsa},
		"with an older statement":            {dsse(k, said(strings.Replace(statement, "Statement/v1", "Statement/v0.1", 1))), "", slsa},
		"what cosign sign says":              {dsse(k, signtest.CosignOptions{PredicateType: signPredicate}), "", signPredicate},
		"by a stranger":                      {dsse(stranger, signtest.CosignOptions{PredicateType: slsa}), trust.NoTrustedKey, slsa},
		"about another image":                {signtest.DSSE(image("B").Digest, k, signtest.CosignOptions{PredicateType: slsa}), trust.SubjectMismatch, slsa},
		"of another payload type":            {dsse(k, signtest.CosignOptions{PredicateType: slsa, PayloadType: "text/plain"}), trust.PayloadTypeUnknown, ""},
		"with a predicate type in two cases": {dsse(k, said(strings.Replace(statement, `"predicateType"`, `"PredicateType":"x","predicateType"`, 1))), trust.Ambiguous, ""},
		"with two subjects' lists":           {dsse(k, said(strings.Replace(statement, `"subject"`, `"subject":[],"subject"`, 1))), trust.Ambiguous, slsa},
		"with a digest twice":                {dsse(k, said(strings.Replace(statement, `{"sha256":`, `{"sha256":"00","sha256":`, 1))), trust.Ambiguous, slsa},
		"without a predicate type":           {dsse(k, signtest.CosignOptions{PredicateType: ""}), trust.Malformed, ""},
		"with a very long predicate type":    {dsse(k, signtest.CosignOptions{PredicateType: strings.Repeat("x", 256)}), trust.Malformed, ""},
		"of another statement type":          {dsse(k, said(strings.Replace(statement, "in-toto.io", "elsewhere", 1))), trust.Malformed, slsa},
		"no statement":                       {dsse(k, said("x")), trust.Malformed, ""},
		"no envelope":                        {[]byte("x"), trust.Malformed, ""},
		"with two signatures":                {[]byte(strings.Replace(string(good), `"signatures":[`, `"signatures":[{"keyid":"","sig":"AAAA"},`, 1)), trust.Ambiguous, ""},
		"with a member twice":                {[]byte(strings.Replace(string(good), `"payloadType"`, `"payloadtype":"x","payloadType"`, 1)), trust.Ambiguous, ""},
		"with an edited payload":             {[]byte(strings.Replace(string(good), `"payload":"e`, `"payload":"E`, 1)), trust.Malformed, ""},
	} {
		r := newRequest(img, trust.Attestations).layer(layer("application/vnd.dsse.envelope.v1+json", c.blob), c.blob)
		o := verify1(t, ts, r)
		if !o.Attachment || len(o.Layers) != 1 {
			t.Errorf("%s: %+v", name, o)
			continue
		}
		v := o.Layers[0].Verdict
		if v.Reason != c.reason || v.Matched() != (c.reason == "") || v.Predicate != c.kind || v.Format != trust.DSSE || v.Size != int64(len(c.blob)) {
			t.Errorf("%s: %s %q, a %q in %s: %s", name, v.Reason, v.Detail, v.Predicate, v.Format, o.Layers[0].Problem)
		}
	}
	// BuildKit's are in no envelope: nobody has signed them, whatever they say.
	plain := []byte(statement)
	o := verify1(t, ts, newRequest(img, trust.Attestations).layer(layer("application/vnd.in-toto+json", plain), plain))
	if v := o.Layers[0].Verdict; !o.Attachment || v.Format != trust.InToto || v.Predicate != slsa || v.Matched() || v.Reason == "" {
		t.Errorf("%+v", o)
	}
	// A certificate beside it is not asked about, and named.
	blob := dsse(stranger, signtest.CosignOptions{PredicateType: slsa})
	certified := layer("application/vnd.dsse.envelope.v1+json", blob)
	certified.Annotations = map[string]string{"dev.sigstore.cosign/certificate": "a certificate"}
	if v := verify1(t, ts, newRequest(img, trust.Attestations).layer(certified, blob)).Layers[0].Verdict; v.Reason != trust.NoTrustedKey || !strings.Contains(v.Detail, "in bundles alone") {
		t.Errorf("%+v", v)
	}
	// A million of them are not read at once.
	large := layer("application/vnd.dsse.envelope.v1+json", nil)
	large.Size = trust.MaxAttestation + 1
	if o := verify1(t, ts, newRequest(img, trust.Attestations).layer(large, nil)); o.Layers[0].Problem != trust.LimitExceeded {
		t.Errorf("%+v", o)
	}
}

// No edit of an attestation's bytes makes it one by the key over another image.
func TestAttestationMutations(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	good := signtest.DSSE(image("A").Digest, k, signtest.CosignOptions{PredicateType: slsa})
	other := image("B")
	counts := map[string]int{}
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 1
		r := newRequest(other, trust.Attestations).layer(ocispec.Descriptor{MediaType: "application/vnd.dsse.envelope.v1+json", Digest: ociDigest(trust.SumOf(b)), Size: int64(len(b))}, b)
		if o := verify1(t, ts, r); o.Layers[0].Verdict.Matched() {
			t.Fatalf("byte %d: trusted over another subject", i)
		}
		r.Subject = image("A")
		counts[fmt.Sprint(verify1(t, ts, r).Layers[0].Verdict.Reason)]++
	}
	if counts[""] > 40 || len(counts) < 4 { // keyid and base64's spare bits change nothing
		t.Errorf("%v", counts)
	}
}

// What a manifest repeats is verified once, whatever is written beside it, and of many only so
// many bytes are read.
func TestManyAttestations(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	envelope := func(n int) ([]byte, ocispec.Descriptor) {
		text := strings.Replace(string(signtest.Statement(img.Digest, slsa)), `"predicate":{}`, fmt.Sprintf(`"predicate":{"n":%d,"a":"%s"}`, n, strings.Repeat("x", 2<<20)), 1)
		b := signtest.DSSE(img.Digest, k, signtest.CosignOptions{Payload: []byte(text)})
		return b, ocispec.Descriptor{MediaType: "application/vnd.dsse.envelope.v1+json", Digest: ociDigest(trust.SumOf(b)), Size: int64(len(b))}
	}
	r := newRequest(img, trust.Attestations)
	b, d := envelope(0)
	for i := range 100 {
		d.Annotations = map[string]string{"dev.cosignproject.cosign/signature": fmt.Sprint(i)}
		r.layer(d, b)
	}
	o := verify1(t, ts, r)
	calls := 0
	for i := range o.Layers {
		calls += o.Layers[i].Calls
		if !o.Layers[i].Verdict.Matched() {
			t.Errorf("layer %d: %+v", i, o.Layers[i])
		}
	}
	if calls != 1 || len(o.Layers) != 100 {
		t.Errorf("%d calls for %d layers", calls, len(o.Layers))
	}
	r = newRequest(img, trust.Attestations)
	for i := range 10 {
		b, d := envelope(i)
		r.layer(d, b)
	}
	o = verify1(t, ts, r)
	read := 0
	for i := range o.Layers {
		if lo := &o.Layers[i]; lo.Verdict.Matched() {
			read++
		} else if lo.Problem != trust.LimitExceeded {
			t.Errorf("layer %d: %+v", i, lo)
		}
	}
	if most := int(trust.MaxAttestations / d.Size); read != most {
		t.Errorf("%d are read, want %d", read, most)
	}
}

// BenchmarkAttestation verifies one of the largest, of a predicate that is hard to read.
func BenchmarkAttestation(b *testing.B) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(b).key("k", k).load()
	img := image("A")
	text := strings.Replace(string(signtest.Statement(img.Digest, slsa)), `"predicate":{}`, `"predicate":[`+strings.Repeat("[],", 990_000)+`0]`, 1)
	o := signtest.CosignOptions{Payload: []byte(text), PredicateType: slsa}
	dsse, bundle := signtest.DSSE(img.Digest, k, o), signtest.BundleJSON(img.Digest, k, o)
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			trust.SumOf(dsse)
			if !json.Valid([]byte(text)) {
				b.Fatal("no JSON")
			}
		}
	})
	for name, r := range map[string]*request{
		"tag":    newRequest(img, trust.Attestations).layer(ocispec.Descriptor{MediaType: "application/vnd.dsse.envelope.v1+json", Digest: ociDigest(trust.SumOf(dsse)), Size: int64(len(dsse))}, dsse),
		"bundle": newRequest(img, trust.CosignBundle).layer(ocispec.Descriptor{MediaType: bundleMediaType, Digest: ociDigest(trust.SumOf(bundle)), Size: int64(len(bundle))}, bundle),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if o := verify1(b, ts, r); !o.Attachment || !o.Layers[0].Verdict.Matched() {
					b.Fatalf("%+v", o)
				}
			}
		})
	}
}
