package truststore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"

	"filippo.io/edwards25519"
)

// Keys under which somebody other than their owner can sign, or that belong to
// nobody, are refused when they are loaded, whatever a library makes of them later.

// weakness says why a public key of a kind that is known must not be trusted, or
// returns nil. Other kinds are not judged here.
func weakness(pub crypto.PublicKey) *fileError {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		switch {
		case p.N.Sign() <= 0 || p.N.Bit(0) == 0:
			return refusef("is an RSA key with an even modulus, under which signatures prove nothing")
		case p.N.BitLen() <= 4096 && p.N.ProbablyPrime(0): // larger ones take a second to tell
			return refusef("is an RSA key whose modulus is a prime, under which anyone can sign")
		case p.N.BitLen() < MinRSABits:
			return refusef("is an RSA key of %d bits; use at least %d", p.N.BitLen(), MinRSABits)
		case p.N.BitLen() > maxRSABits:
			return refusef("is an RSA key of %d bits; use at most %d", p.N.BitLen(), maxRSABits)
		case p.E < 3 || p.E%2 == 0:
			return refusef("is an RSA key with the exponent %d, under which signatures prove nothing", p.E)
		}
	case *ecdsa.PublicKey:
		supported := p.Curve == elliptic.P256() || p.Curve == elliptic.P384() || p.Curve == elliptic.P521()
		if _, err := p.ECDH(); err != nil && supported { // which checks the point
			return refusef("is an ECDSA key whose point is not on its curve")
		}
	case ed25519.PublicKey:
		return weakEd25519(p)
	}
	return nil
}

// weakEd25519 refuses what is not the one encoding of a point (RFC 8032, section
// 5.1.3), and points of small order: for those signatures exist that verify over
// any message, and Go's verifier takes them.
func weakEd25519(k ed25519.PublicKey) *fileError {
	point, err := new(edwards25519.Point).SetBytes(k)
	switch {
	case err != nil:
		return refusef("is an Ed25519 key whose point is not on its curve")
	case !bytes.Equal(point.Bytes(), k):
		return refusef("is an Ed25519 key that is not written as its point is (RFC 8032); take it from the signer anew")
	case new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1:
		return refusef("is an Ed25519 key of small order, which anyone can sign for")
	}
	return nil
}
