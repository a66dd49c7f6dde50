package recovery

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
)

var curves = []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()}

// hashes are those that sigstore's LoadVerifier takes for ECDSA.
var hashes = []crypto.Hash{crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// randomInt returns a number in [0, limit), nearly uniform.
func randomInt(rng *rand.Rand, limit *big.Int) *big.Int {
	x := new(big.Int).SetBytes(randomBytes(rng, limit.BitLen()/8+9))
	return x.Mod(x, limit)
}

// newSigner makes a private key from rng, so that a seed alone reproduces a test; ecdsa.GenerateKey would not.
func newSigner(tb testing.TB, rng *rand.Rand, curve elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	n := curve.Params().N
	d := randomInt(rng, new(big.Int).Sub(n, big.NewInt(1)))
	return rawSigner(tb, curve, d.Add(d, big.NewInt(1)))
}

func rawSigner(tb testing.TB, curve elliptic.Curve, d *big.Int) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, (curve.Params().N.BitLen()+7)/8)))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sum(h crypto.Hash, msg []byte) []byte {
	w := h.New()
	w.Write(msg)
	return w.Sum(nil)
}

// sign signs deterministically (RFC 6979), in DER.
func sign(tb testing.TB, key *ecdsa.PrivateKey, h crypto.Hash, msg []byte) []byte {
	tb.Helper()
	sig, err := key.Sign(nil, sum(h, msg), h)
	if err != nil {
		tb.Fatal(err)
	}
	return sig
}

// accepts is the judge: sigstore's verifier.
func accepts(tb testing.TB, pub crypto.PublicKey, h crypto.Hash, msg, sig []byte) bool {
	tb.Helper()
	v, err := signature.LoadVerifier(pub, h)
	if err != nil {
		tb.Fatal(err)
	}
	return v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(msg)) == nil
}

type ints struct{ R, S *big.Int }

// toDER is the standard library's encoder, which writes negative numbers and zero as well.
func toDER(tb testing.TB, r, s *big.Int) []byte {
	tb.Helper()
	der, err := asn1.Marshal(ints{r, s})
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func fromDER(tb testing.TB, der []byte) (r, s *big.Int) {
	tb.Helper()
	var v ints
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 {
		tb.Fatalf("%x: %v", der, err)
	}
	return v.R, v.S
}

// toP1363 writes r‖s, each in width bytes.
func toP1363(r, s *big.Int, width int) []byte {
	b := make([]byte, 2*width)
	r.FillBytes(b[:width])
	s.FillBytes(b[width:])
	return b
}

func parseKey(tb testing.TB, spki []byte) *ecdsa.PublicKey {
	tb.Helper()
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		tb.Fatalf("candidate %x is not a key: %v", spki, err)
	}
	return pub.(*ecdsa.PublicKey)
}

func fingerprint(tb testing.TB, pub crypto.PublicKey) Fingerprint {
	tb.Helper()
	fp, err := FingerprintOf(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return fp
}

// onCurve reports whether some point has x-coordinate x, with math/big alone: x³ − 3x + b is a square modulo p.
func onCurve(curve elliptic.Curve, x *big.Int) bool {
	p := curve.Params().P
	if x.Cmp(p) >= 0 {
		return false
	}
	y2 := new(big.Int).Mul(x, x)
	y2.Sub(y2, big.NewInt(3)).Mul(y2, x).Add(y2, curve.Params().B).Mod(y2, p)
	return big.Jacobi(y2, p) >= 0
}

// wantCandidates is how many keys (r, s) must have for one digest that crafts no infinity: two for each x-coordinate
// that a verifier would reduce to r, counted independently of the code under test.
func wantCandidates(curve elliptic.Curve, r, s *big.Int) int {
	n := curve.Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return 0
	}
	count := 0
	for _, x := range []*big.Int{r, new(big.Int).Add(r, n)} {
		if onCurve(curve, x) {
			count += 2
		}
	}
	return count
}
