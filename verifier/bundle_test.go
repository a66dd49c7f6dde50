package verifier

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// edited is a bundle with f applied to its JSON.
func edited(s Subject, k *signtest.Key, f func(b map[string]any)) *request {
	var b map[string]any
	if err := json.Unmarshal(signtest.BundleJSON(s.Digest, k, signtest.CosignOptions{}), &b); err != nil {
		panic(err)
	}
	f(b)
	return newRequest(s, trust.CosignBundle).blob(signtest.BundleMediaType, must(json.Marshal(b)))
}

func envelopeOf(b map[string]any) map[string]any { return b["dsseEnvelope"].(map[string]any) }
func materialOf(b map[string]any) map[string]any { return b["verificationMaterial"].(map[string]any) }

// Every reason that a bundle can have, S4–S14, S21, J4, J5.
func TestBundleReasons(t *testing.T) {
	k, e := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	signed := func(statement string) *request {
		return bundled(img, k, signtest.CosignOptions{Payload: []byte(statement)})
	}
	statement := func(subject, predicate string) string {
		return `{"_type":"https://in-toto.io/Statement/v1","subject":` + subject + `,"predicateType":"` + predicate + `","predicate":{}}`
	}
	subject := `{"digest":{"sha256":"` + img.Digest.Hex() + `"}}`
	sign := signtest.SignPredicate
	raw := func(mediaType, blob string) *request {
		return newRequest(img, trust.CosignBundle).blob(mediaType, []byte(blob))
	}
	good := string(signtest.BundleJSON(img.Digest, k, signtest.CosignOptions{}))
	hint := func(k *signtest.Key) string {
		fp := k.Fingerprint()
		return base64.StdEncoding.EncodeToString(fp[:])
	}
	leaf := signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{Key: e})
	spki := base64.StdEncoding.EncodeToString([]byte(strings.Join(strings.Split(string(e.PEM()), "\n")[1:3], "")))
	with := func(f func(b map[string]any)) *request { return edited(img, k, f) }
	byE := func(f func(b map[string]any)) *request { return edited(img, e, f) }
	signatures := func(n int) func(b map[string]any) {
		return func(b map[string]any) {
			env := envelopeOf(b)
			one := env["signatures"].([]any)[0]
			all := []any{}
			for range n {
				all = append(all, one)
			}
			env["signatures"] = all
		}
	}
	tlog := func(n int) func(b map[string]any) {
		return func(b map[string]any) {
			all := []any{}
			for range n {
				all = append(all, map[string]any{"logIndex": "1"})
			}
			materialOf(b)["tlogEntries"] = all
		}
	}
	manyDigests := func(n int) string {
		d := map[string]string{"sha256": img.Digest.Hex()}
		for i := range n - 1 {
			d[fmt.Sprint("x", i)] = "00"
		}
		return string(must(json.Marshal([]any{map[string]any{"digest": d}})))
	}
	for _, c := range []struct {
		name string
		r    *request
		want string
	}{
		{"good", signed(statement("["+subject+"]", sign)), "trusted"},
		{"statement v0.1", signed(strings.Replace(statement("["+subject+"]", sign), "Statement/v1", "Statement/v0.1", 1)), "trusted"},
		{"among other subjects", signed(statement(`[{"digest":{"sha256":"00"}},`+subject+`]`, sign)), "trusted"},
		{"stranger", bundled(img, e, signtest.CosignOptions{}), "no-trusted-key"},
		{"S4 hint of T, signed by E", byE(func(b map[string]any) { materialOf(b)["publicKey"] = map[string]any{"hint": hint(k)} }), "no-trusted-key"},
		{"S21 other hint", with(func(b map[string]any) { materialOf(b)["publicKey"] = map[string]any{"hint": hint(e)} }), "trusted"},
		{"S4 certificate of E", byE(func(b map[string]any) {
			materialOf(b)["certificate"] = map[string]any{"rawBytes": leaf.Cert().Raw}
			delete(materialOf(b), "publicKey")
		}), "no-trusted-root"},
		{"S4 certificate, signed by T", with(func(b map[string]any) {
			materialOf(b)["certificate"] = map[string]any{"rawBytes": leaf.Cert().Raw}
			delete(materialOf(b), "publicKey")
		}), "no-trusted-root"},
		{"S4 SPKI as certificate", byE(func(b map[string]any) {
			materialOf(b)["certificate"] = map[string]any{"rawBytes": spki}
			delete(materialOf(b), "publicKey")
		}), "certificate-invalid"},
		{"S4 certificate and public key", byE(func(b map[string]any) {
			materialOf(b)["certificate"] = map[string]any{"rawBytes": leaf.Cert().Raw}
		}), "malformed"},
		{"S4 chain", byE(func(b map[string]any) {
			materialOf(b)["x509CertificateChain"] = map[string]any{"certificates": []any{map[string]any{"rawBytes": leaf.Cert().Raw}}}
			delete(materialOf(b), "publicKey")
		}), "malformed"},
		{"S11 the same signature thrice", with(signatures(3)), "ambiguous"},
		{"S11 no signature", with(signatures(0)), "malformed"},
		{"S11 two, one valid", with(func(b map[string]any) {
			env := envelopeOf(b)
			env["signatures"] = append([]any{map[string]any{"sig": "AAAA"}}, env["signatures"].([]any)...)
		}), "ambiguous"},
		{"null signature", with(func(b map[string]any) { envelopeOf(b)["signatures"] = []any{nil} }), "malformed"},
		{"empty signature", with(func(b map[string]any) { envelopeOf(b)["signatures"] = []any{map[string]any{"sig": ""}} }), "no-trusted-key"},
		{"foreign keyid", with(func(b map[string]any) {
			envelopeOf(b)["signatures"].([]any)[0].(map[string]any)["keyid"] = "x"
		}), "no-trusted-key"},
		{"S10 tlog entries", with(tlog(33)), "problem limit-exceeded"},
		{"S14 empty tlog entry", with(tlog(1)), "malformed"},
		{"S10 subjects", signed(statement("["+strings.Repeat(subject+",", maxSubjects)+subject+"]", sign)), "problem limit-exceeded"},
		{"S10 digests", signed(statement(manyDigests(33), sign)), "problem limit-exceeded"},
		{"as many digests as allowed", signed(statement(manyDigests(32), sign)), "trusted"},
		{"S13 null subject", signed(statement("[null]", sign)), "malformed"},
		{"no subject", signed(statement("[]", sign)), "subject-mismatch"},
		{"subject without digest", signed(statement("[{}]", sign)), "subject-mismatch"},
		{"only another algorithm", signed(statement(`[{"digest":{"sha512":"`+img.Digest.Hex()+`"}}]`, sign)), "subject-mismatch"},
		{"digest not hex", signed(statement(`[{"digest":{"sha256":"zz"}}]`, sign)), "malformed"},
		{"other subject", signed(string(signtest.Statement(trust.SumOf(nil), sign))), "subject-mismatch"},
		{"duplicate subject", signed(strings.Replace(statement("["+subject+"]", sign), `"subject"`, `"subject":[],"subject"`, 1)), "ambiguous"},
		{"case variant subject", signed(strings.Replace(statement("["+subject+"]", sign), `"subject"`, `"Subject":[],"subject"`, 1)), "ambiguous"},
		{"doubled digest", signed(statement(`[{"digest":{"sha256":"00","sha256":"`+img.Digest.Hex()+`"}}]`, sign)), "ambiguous"},
		{"S5 payload array", signed("[]"), "malformed"},
		{"S5 payload null", signed("null"), "malformed"},
		{"S5 payload string", signed(`"x"`), "malformed"},
		{"no predicate type", signed(statement("["+subject+"]", "")), "malformed"},
		{"other statement type", signed(strings.Replace(statement("["+subject+"]", sign), "in-toto.io", "example.com", 1)), "malformed"},
		{"unknown member", signed(strings.Replace(statement("["+subject+"]", sign), `"predicate"`, `"x":1,"predicate"`, 1)), "malformed"},
		{"J5 payload type", bundled(img, k, signtest.CosignOptions{PayloadType: "text/plain"}), "payload-type-unknown"},
		{"J4 payload type shifted", with(func(b map[string]any) { envelopeOf(b)["payloadType"] = "application/vnd.in-toto+jso" }), "payload-type-unknown"},
		{"S21 payload edited", with(func(b map[string]any) {
			p := must(base64.StdEncoding.DecodeString(envelopeOf(b)["payload"].(string)))
			envelopeOf(b)["payload"] = append(p, ' ')
		}), "no-trusted-key"},
		{"J4 base64url", with(func(b map[string]any) {
			env := envelopeOf(b)
			env["payload"] = strings.NewReplacer("+", "-", "/", "_").Replace(env["payload"].(string))
		}), "trusted"},
		{"S14 payload a number", with(func(b map[string]any) { envelopeOf(b)["payload"] = 123 }), "malformed"},
		{"S14 payload null", with(func(b map[string]any) { envelopeOf(b)["payload"] = nil }), "malformed"},
		{"message signature", with(func(b map[string]any) {
			delete(b, "dsseEnvelope")
			b["messageSignature"] = map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": img.Digest[:]}, "signature": []byte{1}}
		}), "payload-type-unknown"},
		{"both contents", with(func(b map[string]any) {
			b["messageSignature"] = map[string]any{"signature": []byte{1}}
		}), "malformed"},
		{"no content", with(func(b map[string]any) { delete(b, "dsseEnvelope") }), "malformed"},
		{"no material", with(func(b map[string]any) { delete(b, "verificationMaterial") }), "malformed"},
		{"v0.1", with(func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1" }), "malformed"},
		{"v0.4", with(func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }), "malformed"},
		{"no media type", with(func(b map[string]any) { delete(b, "mediaType") }), "malformed"},
		{"layer media type", raw("application/json", good), "malformed"},
		{"not JSON", raw(signtest.BundleMediaType, "{"), "malformed"},
		{"empty", raw(signtest.BundleMediaType, ""), "malformed"},
		{"doubled envelope", raw(signtest.BundleMediaType, strings.Replace(good, `"dsseEnvelope"`, `"dsseEnvelope":{},"dsseEnvelope"`, 1)), "ambiguous"},
		{"both spellings of the envelope", raw(signtest.BundleMediaType, strings.Replace(good, `"dsseEnvelope"`, `"dsse_envelope":{},"dsseEnvelope"`, 1)), "malformed"},
		{"two layers", raw(signtest.BundleMediaType, good).blob(signtest.BundleMediaType, []byte(good)), "ambiguous"},
		{"no layer", newRequest(img, trust.CosignBundle), "malformed"},
		{"too large", raw(signtest.BundleMediaType, good+strings.Repeat(" ", trust.MaxBlob)), "problem limit-exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := verify1(t, ts, c.r)
			if o.Attachment || len(o.Layers) != 1 {
				t.Fatalf("outcome %+v", o)
			}
			want(t, o.Layers[0], c.want)
			if o.Panics > 0 || o.Layers[0].Verdict.Format != trust.Bundle {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

// S7, D4: an attestation by a trusted key is not a signature, whatever it says.
func TestAttestationsAreNotSignatures(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	for _, predicate := range []string{"https://spdx.dev/Document", "https://slsa.dev/provenance/v1", "https://cosign.sigstore.dev/attestation/vuln/v1",
		"https://sigstore.dev/cosign/sign/v2", "https://sigstore.dev/cosign/sign/v1/", "x"} {
		o := verify1(t, ts, bundled(img, k, signtest.CosignOptions{PredicateType: predicate}))
		if !o.Attachment || len(o.Layers) != 1 || o.Layers[0].Verdict.Predicate != predicate || !o.Layers[0].Verdict.Matched() {
			t.Errorf("%s: %+v", predicate, o)
		}
	}
	// A predicate is the tool's own: members that differ in case are its business.
	statement := strings.Replace(string(signtest.Statement(img.Digest, "x")), `"predicate":{}`, `"predicate":{"a":1,"A":2}`, 1)
	if o := verify1(t, ts, bundled(img, k, signtest.CosignOptions{Payload: []byte(statement)})); !o.Attachment {
		t.Errorf("%+v", o)
	}
}

// S21: nothing unsigned that is edited makes anything better.
func TestBundleMutations(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	good := signtest.BundleJSON(img.Digest, k, signtest.CosignOptions{})
	other := image("B")
	counts := map[string]int{}
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 1
		r := newRequest(other, trust.CosignBundle).blob(signtest.BundleMediaType, b)
		o := verify1(t, ts, r)
		if len(o.Layers) == 1 && o.Layers[0].Verdict.Matched() {
			t.Fatalf("byte %d: trusted over another subject", i)
		}
		r.Subject = img
		if o = verify1(t, ts, r); len(o.Layers) == 1 {
			counts[says(o.Layers[0])]++
		}
	}
	if counts["trusted"] > 200 || len(counts) < 3 { // the hint and base64's spare bits alone change nothing
		t.Errorf("%v", maps.Collect(maps.All(counts)))
	}
}
