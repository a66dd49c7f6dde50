package recovery

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"filippo.io/nistec"
)

// ErrCurve is returned for a curve other than P-224, P-256, P-384 and P-521. crypto/x509 reads keys on no other.
var ErrCurve = errors.New("recovery: unsupported curve")

// Fingerprint is the SHA-256 of a key's DER-encoded SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
type Fingerprint [sha256.Size]byte

// FingerprintOf returns pub's fingerprint. It errs for keys that crypto/x509 cannot encode.
func FingerprintOf(pub crypto.PublicKey) (Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("encode public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// Candidates returns the fingerprints of all keys on curve under which sig is an ECDSA signature over any of digests:
// two for each digest, four in the rare case that r is below p − n, none when r is not the x-coordinate of a point, is
// out of range, or sig cannot be read (R1, R2). It takes every encoding and both high and low s, as sigstore does.
//
// The digests are those of one message under different hashes; pass them together, since everything that takes long but
// one multiplication of the generator is shared between them. The results are in the order of the digests, which stay
// untouched. The only error is ErrCurve.
func Candidates(curve elliptic.Curve, sig []byte, digests ...[]byte) ([]Fingerprint, error) {
	keys, err := candidateKeys(curve, sig, digests)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	fps := make([]Fingerprint, len(keys))
	for i, der := range keys {
		fps[i] = sha256.Sum256(der)
	}
	return fps, nil
}

// The SubjectPublicKeyInfo of a key on each curve, as crypto/x509 encodes it, up to where the uncompressed point begins.
const (
	spkiP224 = "\x30\x4e\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x21\x03\x3a\x00"
	spkiP256 = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
	spkiP384 = "\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00"
	spkiP521 = "\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00"
)

// candidateKeys is Candidates before the fingerprints are taken: it returns SubjectPublicKeyInfo in DER.
func candidateKeys(curve elliptic.Curve, sig []byte, digests [][]byte) ([][]byte, error) {
	if curve == nil {
		return nil, ErrCurve
	}
	// As crypto/ecdsa tells the curves: by the identity of their parameters.
	switch params := curve.Params(); params {
	case elliptic.P224().Params():
		return recoverer[*nistec.P224Point]{params, spkiP224, nistec.NewP224Point}.keys(sig, digests), nil
	case elliptic.P256().Params():
		return recoverer[*nistec.P256Point]{params, spkiP256, nistec.NewP256Point}.keys(sig, digests), nil
	case elliptic.P384().Params():
		return recoverer[*nistec.P384Point]{params, spkiP384, nistec.NewP384Point}.keys(sig, digests), nil
	case elliptic.P521().Params():
		return recoverer[*nistec.P521Point]{params, spkiP521, nistec.NewP521Point}.keys(sig, digests), nil
	}
	return nil, ErrCurve
}

// point is what the nistec point types have in common. Add is complete: it doubles and passes through infinity.
type point[P any] interface {
	SetBytes([]byte) (P, error)
	Bytes() []byte
	Add(P, P) P
	Negate(P) P
	IsInfinity() int
	ScalarMult(P, []byte) (P, error)
	ScalarBaseMult([]byte) (P, error)
}

// recoverer recovers keys on one curve.
type recoverer[P point[P]] struct {
	params   *elliptic.CurveParams
	spki     string // what precedes the point in a SubjectPublicKeyInfo
	newPoint func() P
}

// keys recovers as SEC 1 version 2, section 4.1.6, does. A verifier computes R = (z/s)·G + (r/s)·Q and accepts when R's
// x-coordinate is r modulo n. Solved for Q, with u1 = −z/r and u2 = s/r:
//
//	Q = u1·G + u2·R
//
// R is any point whose x-coordinate is r, or r + n if that is still below p; each x has two points, R and −R. Nothing
// else fits, so these are all the keys there are (R1), and each verifies by construction (R2).
func (c recoverer[P]) keys(sig []byte, digests [][]byte) [][]byte {
	rBytes, sBytes, ok := scalars(sig)
	if !ok {
		return nil
	}
	n := c.params.N
	r, s := new(big.Int).SetBytes(rBytes), new(big.Int).SetBytes(sBytes)
	if r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return nil
	}

	rInv := new(big.Int).ModInverse(r, n)
	multiples := c.multiples(r, c.scalar(s.Mul(s, rInv)))
	if len(multiples) == 0 {
		return nil
	}
	negRInv := rInv.Sub(n, rInv)
	keys := make([][]byte, 0, 2*len(multiples)*len(digests))
	for _, digest := range digests {
		u1 := c.hashToInt(digest)
		u1G, err := c.newPoint().ScalarBaseMult(c.scalar(u1.Mul(u1, negRInv)))
		if err != nil {
			panic("recovery: scalar of the wrong length: " + err.Error())
		}
		for _, u2R := range multiples {
			for _, q := range [...]P{c.newPoint().Add(u1G, u2R), c.newPoint().Add(u1G, c.newPoint().Negate(u2R))} {
				// Infinity would need a private key of zero, and can be crafted: s = z/k for R = k·G. No verifier takes it.
				if q.IsInfinity() == 0 {
					keys = append(keys, append([]byte(c.spki), q.Bytes()...))
				}
			}
		}
	}
	return keys
}

// multiples returns u2·R, for one R of each x-coordinate that the verifier reduces to r: none, one or two.
func (c recoverer[P]) multiples(r *big.Int, u2 []byte) []P {
	n, p := c.params.N, c.params.P
	compressed := make([]byte, 1+(p.BitLen()+7)/8)
	compressed[0] = 2 // SEC 1, section 2.3.4: the point with even y; the caller adds the other
	var multiples []P
	// At most twice, since n > p/2 on these curves.
	for x := new(big.Int).Set(r); x.Cmp(p) < 0; x.Add(x, n) {
		x.FillBytes(compressed[1:])
		R, err := c.newPoint().SetBytes(compressed)
		if err != nil {
			continue // no point has this x
		}
		if R, err = R.ScalarMult(R, u2); err != nil {
			panic("recovery: scalar of the wrong length: " + err.Error())
		}
		multiples = append(multiples, R)
	}
	return multiples
}

// scalar reduces k modulo n, in place, and encodes it in the fixed length that nistec wants.
func (c recoverer[P]) scalar(k *big.Int) []byte {
	return k.Mod(k, c.params.N).FillBytes(make([]byte, (c.params.N.BitLen()+7)/8))
}

// hashToInt is FIPS 186-5, section 6.4.2, step 3: the leftmost bits of the digest, as many as n has, not reduced.
func (c recoverer[P]) hashToInt(digest []byte) *big.Int {
	z := new(big.Int).SetBytes(digest)
	return z.Rsh(z, uint(max(0, 8*len(digest)-c.params.N.BitLen())))
}
