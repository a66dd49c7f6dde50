package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/big"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/recovery"
	"trust-worker/verifier/truststore"
)

// S20: every algorithm, with every hash that its tools have chosen, and none else.
func TestAlgorithms(t *testing.T) {
	img := image("A")
	for _, kind := range signtest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			k, other, stranger := pooled(kind, 0), pooled(kind, 1), pooled(kind, 2)
			ts := newDirs(t).key("k", k).load()
			both := newDirs(t).key("k", k).key("other", other).load()
			options := []signtest.CosignOptions{{}}
			switch kind {
			case signtest.Ed25519:
				options = append(options, signtest.CosignOptions{Pure: true})
			default:
				options = append(options, signtest.CosignOptions{Hash: crypto.SHA256})
			}
			for _, o := range options {
				for _, ts := range []*truststore.TrustStore{ts, both} {
					for _, r := range []*request{simple(img, k, o), bundled(img, k, o)} {
						lo := one(t, ts, r)
						want(t, lo, "trusted")
						d := decide(ts, r, lo, time.Now())
						if d.Status != trust.Trusted || d.Author != string(k.PEM()) || d.Signer != k.Signer() {
							t.Errorf("decision %+v", d)
						}
						if len(lo.Hints) > 0 {
							t.Errorf("hints for a match: %v", lo.Hints)
						}
					}
					want(t, one(t, ts, simple(img, stranger, o)), "no-trusted-key")
				}
			}
			if kind == signtest.Ed25519 {
				return
			}
			wrong := []crypto.Hash{crypto.SHA1, crypto.SHA224}
			if kind == signtest.P256 {
				wrong = append(wrong, crypto.SHA512)
			}
			for _, h := range wrong {
				want(t, one(t, ts, simple(img, k, signtest.CosignOptions{Hash: h})), "no-trusted-key")
				want(t, one(t, ts, bundled(img, k, signtest.CosignOptions{Hash: h})), "no-trusted-key")
			}
		})
	}
}

// S1: a genuine signature attached to another image.
func TestSubjectMismatch(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	a, b := image("A"), image("B")
	for _, r := range []*request{simple(a, k, signtest.CosignOptions{}), bundled(a, k, signtest.CosignOptions{})} {
		want(t, one(t, ts, r), "trusted")
		r.Subject = b
		want(t, one(t, ts, r), "subject-mismatch")
	}
}

// Every reason that a simple signing layer can have.
func TestSimpleReasons(t *testing.T) {
	k, e := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	good := string(signtest.Payload(img.Digest))
	signed := func(payload string) *request {
		return simple(img, k, signtest.CosignOptions{Payload: []byte(payload)})
	}
	annotated := func(value string) *request {
		r := simple(img, k, signtest.CosignOptions{})
		r.Signature.Layers[0].Annotations[signtest.SignatureAnnotation] = value
		return r
	}
	edit := func(f func(*request)) *request {
		r := simple(img, k, signtest.CosignOptions{})
		f(r)
		return r
	}
	pubE := string(e.PEM())
	live := string(signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{}).Cert()))
	annotating := func(pairs ...string) *request {
		o := signtest.CosignOptions{Annotations: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			o.Annotations["dev.sigstore.cosign/"+pairs[i]] = pairs[i+1]
		}
		return simple(img, k, o)
	}
	tekton := `{"Critical":{"Identity":{"docker-reference":""},"Image":{"Docker-manifest-digest":"` + img.Digest.String() +
		`"},"Type":"Tekton container signature"},"Optional":{}}`
	for _, c := range []struct {
		name string
		r    *request
		want string
	}{
		{"good", signed(good), "trusted"},
		{"stranger", simple(img, e, signtest.CosignOptions{}), "no-trusted-key"},
		{"S4 public key as certificate", simple(img, e, signtest.CosignOptions{Certificate: pubE}), "malformed"},
		{"trusted with garbage certificate", simple(img, k, signtest.CosignOptions{Certificate: "garbage"}), "malformed"},
		{"trusted with a live certificate", annotating("certificate", live), "trusted"},
		{"S15 empty certificate", simple(img, e, signtest.CosignOptions{Annotations: map[string]string{signtest.CertificateAnnotation: "\n"}}), "no-trusted-key"},
		{"S15 empty PEM", simple(img, e, signtest.CosignOptions{Certificate: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"}), "malformed"},
		{"S6 someone's rekor bundle", simple(img, k, signtest.CosignOptions{Annotations: map[string]string{"dev.sigstore.cosign/bundle": `{"Payload":{"body":{}}}`}}), "trusted"},
		{"empty rekor bundle", annotating("bundle", ""), "trusted"},
		{"garbage as rekor bundle", annotating("bundle", "garbage"), "malformed"},
		{"rekor bundle of another shape", annotating("bundle", `{"Payload":{"logIndex":"1"}}`), "malformed"},
		{"endless rekor bundle", annotating("bundle", `{"Payload":{"body":[`+strings.Repeat("{},", maxChainDER)+`{}]}}`), "malformed"},
		{"time stamp", annotating("rfc3161timestamp", `{"SignedRFC3161Timestamp":"AAAA"}`), "trusted"},
		{"white space as certificate", annotating("certificate", "\n"), "malformed"},
		{"white space as chain", annotating("chain", "\n", "certificate", live), "trusted"},
		{"garbage as time stamp", annotating("rfc3161timestamp", `{"SignedRFC3161Timestamp":"?"}`), "malformed"},
		{"garbage as chain of nothing", annotating("chain", "garbage"), "trusted"},
		{"garbage as chain of a certificate", annotating("chain", "garbage", "certificate", live), "malformed"},
		{"chain of a certificate", annotating("chain", live+live, "certificate", live), "trusted"},
		{"no annotation", edit(func(r *request) { r.Signature.Layers[0].Annotations = nil }), "malformed"},
		{"empty annotation", annotated(""), "malformed"},
		{"annotation not base64", annotated("****"), "malformed"},
		{"annotation too long", annotated(strings.Repeat("A", maxSigText+4)), "malformed"},
		{"annotation base64 of nothing", annotated("\n"), "malformed"},
		{"annotation of garbage", annotated("AAAA"), "no-trusted-key"},
		{"payload not JSON", signed("hello"), "malformed"},
		{"S18 gzip", signed("\x1f\x8b\x08\x00"), "malformed"},
		{"S5 array", signed("[]"), "malformed"},
		{"S5 null", signed("null"), "malformed"},
		{"S5 string", signed(`"x"`), "malformed"},
		{"S14 digest is a number", signed(strings.Replace(good, `"`+img.Digest.String()+`"`, "123", 1)), "malformed"},
		{"empty object", signed("{}"), "payload-type-unknown"},
		{"trailing", signed(good + "{}"), "malformed"},
		{"deep", signed(`{"optional":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`), "malformed"},
		{"atomic", signed(strings.Replace(good, "cosign container image", "atomic container", 1)), "trusted"},
		{"Tekton Chains", signed(strings.Replace(good, "cosign container image", "Tekton container", 1)), "trusted"},
		{"early Tekton Chains", signed(tekton), "trusted"},
		{"early Tekton Chains, another's", signed(strings.Replace(tekton, img.Digest.Hex(), strings.Repeat("0", 64), 1)), "subject-mismatch"},
		{"members in two spellings", signed(strings.Replace(tekton, `"Image":{`, `"image":{"docker-manifest-digest":"sha256:00"},"Image":{`, 1)), "ambiguous"},
		{"types in two spellings", signed(strings.Replace(tekton, `"Type":`, `"type":"cosign container image signature","Type":`, 1)), "ambiguous"},
		{"a third spelling", signed(strings.Replace(tekton, `"Type"`, `"TYPE"`, 1)), "ambiguous"},
		{"type in another case", signed(strings.Replace(tekton, "Tekton c", "tekton c", 1)), "payload-type-unknown"},
		{"other type", signed(strings.Replace(good, "cosign container image", "cosign blob", 1)), "payload-type-unknown"},
		{"no type", signed(strings.Replace(good, `"type"`, `"kind"`, 1)), "payload-type-unknown"},
		{"type is no string", signed(strings.Replace(good, `"cosign container image signature"`, `7`, 1)), "malformed"},
		{"duplicate digest", signed(strings.Replace(good, `"image":{`, `"image":{"docker-manifest-digest":"sha256:00",`, 1)), "ambiguous"},
		{"case variant", signed(strings.Replace(good, `"critical"`, `"CRITICAL"`, 1)), "ambiguous"},
		{"both cases", signed(strings.Replace(good, `{"critical"`, `{"Critical":{},"critical"`, 1)), "ambiguous"},
		{"optional may repeat in other case", signed(strings.Replace(good, "null", `{"a":1,"A":2}`, 1)), "trusted"},
		{"other digest", signed(string(signtest.Payload(trust.SumOf(nil)))), "subject-mismatch"},
		{"digest in capitals", signed(strings.Replace(good, img.Digest.Hex(), strings.ToUpper(img.Digest.Hex()), 1)), "subject-mismatch"},
		{"subject ambiguous", edit(func(r *request) { r.Subject.Ambiguous = true }), "ambiguous"},
		{"signature ambiguous", edit(func(r *request) { r.Signature.Ambiguous = true }), "ambiguous"},
		{"layer digest not sha256", edit(func(r *request) { r.Signature.Layers[0].Digest = "sha512:00" }), "malformed"},
		{"Z9 layer digest a path", edit(func(r *request) { r.Signature.Layers[0].Digest = "sha256:../../_cosign/x" }), "malformed"},
		{"S9 negative size", edit(func(r *request) { r.Signature.Layers[0].Size = -1 }), "malformed"},
		{"S9 huge size", edit(func(r *request) { r.Signature.Layers[0].Size = 9e18 }), "problem limit-exceeded"},
		{"S9 size too small", edit(func(r *request) { r.Signature.Layers[0].Size = 1 }), "problem digest-mismatch"},
		{"blob missing", edit(func(r *request) { clear(r.blobs) }), "problem blob-missing"},
		{"Z6 blob altered", edit(func(r *request) {
			for d, b := range r.blobs {
				b = bytes.Clone(b)
				b[0] ^= 1
				r.blobs[d] = b
			}
		}), "problem digest-mismatch"},
		{"C6 read error", edit(func(r *request) {
			r.Fetch = func(context.Context, trust.Digest, int64, int64) ([]byte, error) { return nil, errors.New("EIO") }
		}), "problem io-error"},
		{"a place cannot decide", edit(func(r *request) {
			r.Fetch = func(context.Context, trust.Digest, int64, int64) ([]byte, error) {
				return nil, &trust.ReasonError{Reason: trust.NoTrustedKey, Err: errors.New("?")}
			}
		}), "problem io-error"},
		{"no layers", newRequest(img, trust.CosignTag), "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lo := one(t, ts, c.r)
			want(t, lo, c.want)
			if lo.Verdict.Format != trust.SimpleSigning || lo.Verdict.Epoch != Epoch || lo.Verdict.VerifiedAt == 0 {
				t.Errorf("verdict %+v", lo.Verdict)
			}
			if d := decide(ts, c.r, lo, time.Now()); (d.Status == trust.Trusted) != (c.want == "trusted") || lo.Problem == "" && d.Status != trust.Trusted && d.Author != "" {
				t.Errorf("decision %+v", d)
			}
		})
	}
}

// C1: the garbage beside a genuine signature of the same payload stays apart.
func TestSharedPayload(t *testing.T) {
	k, e := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	for range 20 {
		r := newRequest(img, trust.CosignTag)
		genuine := mrand.IntN(4)
		for i := range 4 {
			signer := e
			if i == genuine {
				signer = k
			}
			r.layer(signtest.SimpleLayer(img.Digest, signer, signtest.CosignOptions{}))
		}
		for i, lo := range verify1(t, ts, r).Layers {
			w := "no-trusted-key"
			if i == genuine {
				w = "trusted"
			}
			want(t, lo, w)
		}
	}
}

// S8: at most MaxLayers signatures of one manifest, and equal ones once.
func TestLayerLimit(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	img := image("A")
	r := newRequest(img, trust.CosignTag)
	d, b := signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{})
	for range trust.MaxLayers + 500 {
		r.layer(d, b)
	}
	o := verify1(t, ts, r)
	if len(o.Layers) != trust.MaxLayers+1 {
		t.Fatalf("%d layers, want %d", len(o.Layers), trust.MaxLayers+1)
	}
	want(t, o.Layers[0], "trusted")
	want(t, o.Layers[trust.MaxLayers-1], "trusted")
	want(t, o.Layers[trust.MaxLayers], "problem limit-exceeded")
	calls := 0
	for _, lo := range o.Layers {
		calls += lo.Calls
	}
	if calls != 1 {
		t.Errorf("%d calls for equal layers, want 1", calls)
	}
}

// Signatures in each encoding that sigstore accepts, with many keys in the store,
// so that the recovered candidates decide which key is asked.
func TestEncodings(t *testing.T) {
	d := newDirs(t)
	var keys []*signtest.Key
	for i := range 20 {
		keys = append(keys, signtest.NewKey([]signtest.Kind{signtest.P256, signtest.P384, signtest.P521}[i%3]))
		d.key(fmt.Sprint(i), keys[i])
	}
	ts := d.load()
	img := image("A")
	payload := signtest.Payload(img.Digest)
	for _, k := range keys {
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(k.Sign(payload, k.CosignHash()), &rs); err != nil {
			t.Fatal(err)
		}
		params := k.Public().(*ecdsa.PublicKey).Params()
		n := (params.BitSize + 7) / 8
		high := new(big.Int).Sub(params.N, rs.S)
		for name, sig := range map[string][]byte{
			"der":      must(asn1.Marshal(rs)),
			"der -s":   must(asn1.Marshal(struct{ R, S *big.Int }{rs.R, high})),
			"p1363":    append(rs.R.FillBytes(make([]byte, n)), rs.S.FillBytes(make([]byte, n))...),
			"p1363 66": append(rs.R.FillBytes(make([]byte, 66)), high.FillBytes(make([]byte, 66))...),
		} {
			r := newRequest(img, trust.CosignTag).layer(ocispec.Descriptor{Digest: digest.FromBytes(payload), Size: int64(len(payload)),
				Annotations: map[string]string{signtest.SignatureAnnotation: base64.StdEncoding.EncodeToString(sig)}}, payload)
			lo := one(t, ts, r)
			if says(lo) != "trusted" || lo.Verdict.Grounds[0].Signers[0] != k.Signer().ID() {
				t.Errorf("%s %s: %s", k.Kind, name, says(lo))
			}
			if lo.Calls > 2 {
				t.Errorf("%s %s: %d calls among %d keys", k.Kind, name, lo.Calls, len(keys))
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What an unmatched signature is filed under leads to it when its key comes.
func TestHints(t *testing.T) {
	img := image("A")
	for _, kind := range signtest.Kinds() {
		for _, format := range []func(Subject, *signtest.Key, signtest.CosignOptions) *request{simple, bundled} {
			k := pooled(kind, 0)
			r := format(img, k, signtest.CosignOptions{})
			// A key of the same kind is in use, so that candidates are recovered.
			before := newDirs(t).key("other", pooled(kind, 1)).load()
			lo := one(t, before, r)
			want(t, lo, "no-trusted-key")
			after := newDirs(t).key("k", k).load()
			class, curves := after.Filing(k.Signer())
			var byClass, byPrint bool
			for _, h := range lo.Hints {
				byClass = byClass || h.Kind == HintClass && h.Class == class
				byPrint = byPrint || h.Kind == HintCandidate && h.Fingerprint == k.Fingerprint()
			}
			if !byClass || byPrint != (len(curves) > 0) {
				t.Errorf("%s: class %v, candidate %v; hints %v", kind, byClass, byPrint, lo.Hints)
			}
			// With no key of its curve in use there is nothing to recover for.
			for _, h := range one(t, newDirs(t).load(), r).Hints {
				if h.Kind == HintCandidate {
					t.Errorf("%s: candidate for a curve that is not in use", kind)
				}
			}
		}
	}
}

func TestNoTrials(t *testing.T) {
	rsa, ed, p256 := signtest.NewKey(signtest.RSA2048), signtest.NewKey(signtest.Ed25519), signtest.NewKey(signtest.P256)
	d := newDirs(t).key("rsa", rsa).key("ed", ed)
	ts := d.load()
	img := image("A")
	for _, k := range []*signtest.Key{rsa, ed} {
		r := simple(img, k, signtest.CosignOptions{})
		lo := one(t, ts, r)
		want(t, lo, "trusted")
		if lo.Trials == 0 || lo.Trials != lo.Calls {
			t.Errorf("%s: %d trials of %d calls", k.Kind, lo.Trials, lo.Calls)
		}
		r.NoTrials = true
		want(t, one(t, ts, r), "problem limit-exceeded")
		// Without a key of that family there is nothing to try.
		want(t, one(t, newDirs(t).key("p256", p256).load(), r), "no-trusted-key")
	}
	r := simple(img, signtest.NewKey(signtest.RSA3072), signtest.CosignOptions{})
	r.NoTrials = true
	want(t, one(t, ts, r), "no-trusted-key")
	r = simple(img, p256, signtest.CosignOptions{})
	r.NoTrials = true
	want(t, one(t, d.key("p256", p256).load(), r), "trusted")
}

func TestPrior(t *testing.T) {
	k, e := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	d := newDirs(t).key("k", k)
	ts := d.load()
	img := image("A")
	r := newRequest(img, trust.CosignTag).layer(signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{})).
		layer(signtest.SimpleLayer(img.Digest, e, signtest.CosignOptions{}))
	first := verify1(t, ts, r)
	r.Prior = map[trust.LayerID]trust.Verdict{}
	for _, lo := range first.Layers {
		r.Prior[lo.Verdict.Layer] = lo.Verdict
	}
	for i, lo := range verify1(t, ts, r).Layers {
		if matched := i == 0; lo.Reused != matched || says(lo) != says(first.Layers[i]) || !slices.Equal(lo.Hints, first.Layers[i].Hints) {
			t.Errorf("layer %d: %+v", i, lo)
		}
	}
	// The key is gone: its verdict does not live, and is made again.
	other := newDirs(t).key("other", signtest.NewKey(signtest.P256)).load()
	lo := verify1(t, other, r).Layers[0]
	want(t, lo, "no-trusted-key")
	if lo.Reused {
		t.Error("reused a verdict whose signer is gone")
	}
	// A problem with the place is seen in spite of an earlier verdict.
	clear(r.blobs)
	want(t, verify1(t, ts, r).Layers[0], "problem blob-missing")
	r.layer(signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{}))
	r.blobs.put(signtest.Payload(img.Digest))
	for id, v := range r.Prior {
		v.Epoch--
		r.Prior[id] = v
	}
	if verify1(t, ts, r).Layers[0].Reused {
		t.Error("reused a verdict of another epoch")
	}
}

// Layers that differ in an annotation that cosign reads share no verdict, neither
// within a manifest nor by way of an earlier one.
func TestAnnotationsAreNotShared(t *testing.T) {
	img, k := image("A"), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	good, payload := signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{})
	for _, name := range []string{"certificate", "bundle", "rfc3161timestamp"} {
		bad := good
		bad.Annotations = maps.Clone(good.Annotations)
		bad.Annotations["dev.sigstore.cosign/"+name] = "garbage"
		r := newRequest(img, trust.CosignTag).layer(good, payload).layer(bad, payload)
		o := verify1(t, ts, r)
		r.Prior = map[trust.LayerID]trust.Verdict{o.Layers[0].Verdict.Layer: o.Layers[0].Verdict}
		for _, o := range []Outcome{o, verify1(t, ts, r)} {
			want(t, o.Layers[0], "trusted")
			want(t, o.Layers[1], "malformed")
		}
	}
}

func TestLayerIDs(t *testing.T) {
	img, k := image("A"), signtest.NewKey(signtest.P256)
	a, _ := signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{})
	b, _ := signtest.SimpleLayer(img.Digest, k, signtest.CosignOptions{}) // another nonce
	withCert := a
	withCert.Annotations = map[string]string{signtest.SignatureAnnotation: a.Annotations[signtest.SignatureAnnotation], signtest.CertificateAnnotation: "x"}
	ids := map[trust.LayerID]bool{layerID(a): true, layerID(b): true, layerID(withCert): true, layerID(ocispec.Descriptor{}): true}
	if len(ids) != 4 {
		t.Errorf("%d distinct of 4", len(ids))
	}
	a.MediaType = "other"
	if !ids[layerID(a)] {
		t.Error("the media type is part of the ID")
	}
	a.Size++ // wrong: malformed, or another blob's
	if ids[layerID(a)] {
		t.Error("the size is not part of the ID")
	}
	joined := func(signature, certificate string) ocispec.Descriptor {
		return ocispec.Descriptor{Annotations: map[string]string{signtest.SignatureAnnotation: signature, signtest.CertificateAnnotation: certificate}}
	}
	if layerID(joined("a\x00b", "")) == layerID(joined("a", "b")) || layerID(joined("a1:b", "")) == layerID(joined("a", "b")) {
		t.Error("fields run into each other")
	}
}

// S16: a panic decides nothing, concerns this input alone and is counted.
func TestPanic(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	ts.Keys(recovery.ECDSA256)[0].Ways = []truststore.Way{{}} // cosign meets a nil CheckOpts
	r := simple(image("A"), k, signtest.CosignOptions{})
	o := verify1(t, ts, r)
	want(t, o.Layers[0], "problem limit-exceeded")
	if o.Panics != 1 || !o.Layers[0].Panicked || len(o.Layers[0].Hints) != 0 {
		t.Errorf("outcome %+v", o)
	}
	o = verify1(t, ts, bundled(image("A"), k, signtest.CosignOptions{}))
	want(t, o.Layers[0], "problem limit-exceeded")
	if o.Panics != 1 {
		t.Errorf("%d panics", o.Panics)
	}
	for _, r := range []*request{r, bundled(image("A"), k, signtest.CosignOptions{})} {
		r.Skip = func(layer int) bool { return layer == 0 }
		o = verify1(t, ts, r)
		want(t, o.Layers[0], "problem limit-exceeded")
		if o.Panics != 0 {
			t.Errorf("%d panics of what was to be left alone", o.Panics)
		}
	}
}

func TestCancelled(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	r := simple(image("A"), k, signtest.CosignOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	fetch := r.Fetch
	r.Fetch = func(ctx context.Context, d trust.Digest, s, l int64) ([]byte, error) {
		cancel()
		return fetch(ctx, d, s, l)
	}
	if o, err := New(ts, Options{}).Verify(ctx, r.Request); !errors.Is(err, context.Canceled) || len(o.Layers) != 0 {
		t.Errorf("%+v, %v; want no outcome and the context's error", o, err)
	}
}

// ending is a context that ends while the libraries are at work.
type ending struct {
	context.Context
	asked int
}

func (c *ending) Err() error {
	if c.asked++; c.asked > 2 { // before and after the blob is fetched
		return context.DeadlineExceeded
	}
	return nil
}

func TestEndsWhileVerifying(t *testing.T) {
	k, root := signtest.NewKey(signtest.P256), signtest.NewRoot(signtest.CertOptions{})
	ts := newDirs(t).key("k", k).cert("ca/acme", "r.pem", root.Cert()).load()
	for _, r := range []*request{simple(image("A"), k, signtest.CosignOptions{}), bundled(image("A"), k, signtest.CosignOptions{}),
		notated(image("A"), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})} {
		o, err := New(ts, Options{}).Verify(&ending{Context: t.Context()}, r.Request)
		if !errors.Is(err, context.DeadlineExceeded) || len(o.Layers) != 0 {
			t.Errorf("%+v, %v; want no outcome and the context's error", o, err)
		}
	}
}

func TestToolOff(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t).key("k", k)
	d.cfg.Cosign = false
	ts := d.load()
	if len(ts.Loaded()) != 0 {
		t.Errorf("loaded %v for a tool that is off", ts.Loaded())
	}
	if o := verify1(t, ts, simple(image("A"), k, signtest.CosignOptions{})); o.Skipped != trust.NoPolicy || len(o.Layers) != 0 {
		t.Errorf("outcome %+v", o)
	}
	// T2: no store, no trust.
	if o := verify1(t, nil, simple(image("A"), k, signtest.CosignOptions{})); o.Skipped == "" {
		t.Errorf("outcome %+v", o)
	}
	if _, err := New(ts, Options{}).Verify(t.Context(), Request{}); err == nil {
		t.Error("a signature of no kind has an outcome")
	}
}

// A certificate beside a genuine signature adds no trust and takes none, though cosign
// verify --key refuses one that has expired: keys come from the trust directory alone.
func TestAnnotatedCertificateIsNoBound(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("k", k).load()
	ended := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	old := signtest.NewRoot(signtest.CertOptions{NotBefore: ended.AddDate(-10, 0, 0), NotAfter: ended})
	lo := one(t, ts, simple(image("A"), k, signtest.CosignOptions{Certificate: string(signtest.CertPEM(old.Cert()))}))
	d := ts.InForce().Decide("a", trust.Cosign, &lo.Verdict, time.Now())
	if d.Status != trust.Trusted || !d.Until.IsZero() {
		t.Errorf("%+v", d)
	}
}
