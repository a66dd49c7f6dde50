package verifier

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// bounded fails a test whose one verification takes longer than a subject may.
func bounded(t *testing.T, ts *truststore.TrustStore, r *request) LayerOutcome {
	t.Helper()
	began := time.Now()
	lo := one(t, ts, r)
	if took := time.Since(began); took > 10*time.Second { // 2 s alone on a machine of its own
		t.Errorf("took %s", took)
	}
	if lo.Verdict.Matched() {
		t.Error("trusted")
	}
	return lo
}

// X1: the key in a certificate is the pusher's to choose. Go verifies with an RSA
// modulus of any size; the certificate's size bounds it.
func TestGiantKeys(t *testing.T) {
	img := image("A")
	ca := signtest.NewRoot(signtest.CertOptions{})
	ts := newDirs(t).load()
	for _, bits := range []int{16384, 60_000, 200_000} {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
		if err != nil {
			t.Fatal(err)
		}
		n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
		template := *ca.Leaf(signtest.CertOptions{}).Cert()
		der, err := x509.CreateCertificate(rand.Reader, &template, ca.Cert(), &rsa.PublicKey{N: n, E: 1<<31 - 1}, ca.Key.Private)
		if err != nil {
			t.Fatal(err)
		}
		header := signtest.Protected("PS256", time.Now())
		enc := base64.RawURLEncoding.EncodeToString
		e := must(json.Marshal(map[string]any{"payload": enc(signtest.Target(img.descriptor())), "protected": enc(must(json.Marshal(header))),
			"header": map[string]any{"x5c": [][]byte{der, ca.Cert().Raw}}, "signature": enc(bytes.Repeat([]byte{0x55}, bits/8))}))
		lo := bounded(t, ts, newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, e))
		if got := says(lo); (got == "problem limit-exceeded") != (bits == 200_000) {
			t.Errorf("%d bits: %s", bits, got)
		}
	}
}

// A countersignature is not signed by the signer: anyone can replace it.
func TestHostileStamps(t *testing.T) {
	img := image("A")
	root, tsaRoot := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "TSA"})
	leaf := root.Leaf(signtest.CertOptions{})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("tsa/t", "t.pem", tsaRoot.Cert()).
		policy(signtest.Policy("strict", "", "ca:acme", "tsa:t")).load()
	stamped := func(stamp []byte) *request {
		_, b := signtest.Envelope(img.descriptor(), leaf, signtest.NotationOptions{})
		var e map[string]any
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		e["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = stamp
		return newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, must(json.Marshal(e)))
	}
	other := signtest.NewTSA(tsaRoot, signtest.CertOptions{}).Token([]byte("another signature"), time.Now())
	for name, c := range map[string]struct {
		stamp []byte
		want  string
	}{
		"garbage":               {[]byte("garbage"), "timestamp-invalid"},
		"of another signature":  {other, "timestamp-invalid"},
		"deeply nested":         {bytes.Repeat([]byte{0x30, 0x80}, 10_000), "timestamp-invalid"},
		"nested by length":      {nested(3000), "timestamp-invalid"},
		"larger than any is":    {make([]byte, maxStamp+1), "problem limit-exceeded"},
		"none":                  {nil, "timestamp-invalid"},
		"cut off in the middle": {other[:len(other)/2], "timestamp-invalid"},
	} {
		if got := says(bounded(t, ts, stamped(c.stamp))); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Anyone can make the certificates in a stamp, and have a chain sought for each of
// its signers, through keys as large as fit.
func TestCostlyStamps(t *testing.T) {
	img := image("A")
	root, tsaRoot := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "TSA"})
	leaf, tsa := root.Leaf(signtest.CertOptions{}), signtest.NewTSA(tsaRoot, signtest.CertOptions{})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("tsa/t", "t.pem", tsaRoot.Cert()).
		policy(signtest.Policy("strict", "", "ca:acme", "tsa:t")).load()
	mid := tsaRoot.Intermediate(signtest.CertOptions{})
	large := tsaRoot.Intermediate(signtest.CertOptions{Change: func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxCertDER)}}
	}})
	for name, c := range map[string]struct {
		signers int
		more    []*x509.Certificate
		want    string
	}{
		"one":                  {1, nil, "trusted"},
		"some certificates":    {1, slices.Repeat([]*x509.Certificate{mid.Cert()}, MaxChain-2), "trusted"},
		"two signers":          {2, nil, "problem limit-exceeded"},
		"a large certificate":  {1, []*x509.Certificate{large.Cert()}, "problem limit-exceeded"},
		"too many of them":     {1, slices.Repeat([]*x509.Certificate{mid.Cert()}, MaxChain-1), "problem limit-exceeded"},
		"many of all of these": {20, []*x509.Certificate{large.Cert(), large.Cert()}, "problem limit-exceeded"},
	} {
		_, b := signtest.Envelope(img.descriptor(), leaf, signtest.NotationOptions{})
		var e map[string]any
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		signature := must(base64.RawURLEncoding.DecodeString(e["signature"].(string)))
		e["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = tsa.OddToken(signature, time.Now(), c.signers, c.more...)
		if got := says(one(t, ts, newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, must(json.Marshal(e))))); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// nested is n constructed values, each in the one before.
func nested(n int) []byte {
	var b []byte
	for range n {
		switch l := len(b); {
		case l < 0x80:
			b = append([]byte{0x30, byte(l)}, b...)
		default:
			b = append([]byte{0x30, 0x82, byte(l >> 8), byte(l)}, b...)
		}
	}
	return b
}

// N12: labels doubled in a COSE header.
func TestCOSEDoubledLabel(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).load()
	_, good := signtest.Envelope(img.descriptor(), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{COSE: true})
	// d2 (tag) 84 (array) 58 nn (protected, a byte string) a2 (unprotected, two pairs)
	if good[0] != 0xd2 || good[1] != 0x84 || good[2] != 0x58 {
		t.Fatalf("% x", good[:8])
	}
	at := 4 + int(good[3])
	if good[at] != 0xa2 {
		t.Fatalf("% x", good[at:at+4])
	}
	for name, pair := range map[string][]byte{
		"x5chain":                  {0x18, 33, 0x81, 0x41, 0},
		"x5chain written long":     {0x19, 0, 33, 0x81, 0x41, 0},
		"x5chain as byte string":   {0x18, 33, 0x41, 0},
		"something else, harmless": {0x18, 99, 0x41, 0},
	} {
		b := append(append(append(bytes.Clone(good[:at]), 0xa3), pair...), good[at+1:]...)
		want := "malformed"
		if pair[1] == 99 {
			want = "trusted"
		}
		if got := says(one(t, ts, newRequest(img, trust.NotationReferrer).blob(signtest.COSEMediaType, b))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// One verifier serves many goroutines, and answers each as it would alone.
func TestConcurrent(t *testing.T) {
	k, ed := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.Ed25519)
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).key("k", k).key("k2", signtest.NewKey(signtest.P256)).key("ed", ed).cert("ca/acme", "r.pem", root.Cert())
	l := d.loader()
	ts := load(t, l, time.Now())
	v := New(ts, Options{})
	img := image("A")
	leaf := root.Leaf(signtest.CertOptions{})
	var requests []*request
	for _, signer := range []*signtest.Key{k, ed, signtest.NewKey(signtest.P256)} {
		requests = append(requests, simple(img, signer, signtest.CosignOptions{}), bundled(img, signer, signtest.CosignOptions{}))
	}
	requests = append(requests, notated(img, leaf, signtest.NotationOptions{}), notated(img, leaf, signtest.NotationOptions{COSE: true}))
	var wants []string
	for _, r := range requests {
		wants = append(wants, says(one(t, ts, r)))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				n := (g + i) % len(requests)
				o, err := v.Verify(t.Context(), requests[n].Request)
				if err != nil || fmt.Sprint(says(o.Layers[0])) != wants[n] {
					t.Errorf("request %d: %v, %v", n, o, err)
				}
				if i%5 == 0 {
					if _, err := l.Load(t.Context(), time.Now()); err != nil {
						t.Error(err)
					}
					l.RetryAt(time.Now())
				}
			}
		})
	}
	wg.Wait()
}
