package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"

	"trust-worker/trust"
)

// Kind is an algorithm and size of key.
type Kind string

// The kinds. RSA1024 and P224 are for being refused.
const (
	P224    Kind = "P-224"
	P256    Kind = "P-256"
	P384    Kind = "P-384"
	P521    Kind = "P-521"
	RSA1024 Kind = "RSA 1024"
	RSA2048 Kind = "RSA 2048"
	RSA3072 Kind = "RSA 3072"
	RSA4096 Kind = "RSA 4096"
	Ed25519 Kind = "Ed25519"
)

// Kinds returns the kinds that cosign and this program accept.
func Kinds() []Kind { return []Kind{P256, P384, P521, RSA2048, RSA3072, RSA4096, Ed25519} }

// Key is a key pair.
type Key struct {
	Kind    Kind
	Private crypto.Signer
}

// NewKey makes a key pair.
func NewKey(kind Kind) *Key {
	k := &Key{Kind: kind}
	switch kind {
	case P224, P256, P384, P521:
		curve := map[Kind]elliptic.Curve{P224: elliptic.P224(), P256: elliptic.P256(), P384: elliptic.P384(), P521: elliptic.P521()}[kind]
		k.Private = must(ecdsa.GenerateKey(curve, rand.Reader))
	case RSA1024, RSA2048, RSA3072, RSA4096:
		bits := map[Kind]int{RSA1024: 1024, RSA2048: 2048, RSA3072: 3072, RSA4096: 4096}[kind]
		k.Private = must(rsa.GenerateKey(rand.Reader, bits))
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		check(err)
		k.Private = private
	default:
		panic("signtest: no such kind of key: " + string(kind))
	}
	return k
}

// FixedKey is a P-256 key that depends on seed alone: the processes of a fuzz test
// need the same one.
func FixedKey(seed string) *Key {
	scalar := sha256.Sum256([]byte(seed))
	return &Key{Kind: P256, Private: must(ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:]))}
}

// Public returns the public half.
func (k *Key) Public() crypto.PublicKey { return k.Private.Public() }

// PEM is the public key's file, as cosign writes it.
func (k *Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k.Public()))})
}

// PrivatePEM is the private key's file, for checking that it is refused.
func (k *Key) PrivatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(k.Private))})
}

// Fingerprint is the SHA-256 of the SubjectPublicKeyInfo.
func (k *Key) Fingerprint() trust.Digest {
	return sha256.Sum256(must(x509.MarshalPKIXPublicKey(k.Public())))
}

// Signer is the key as trust material.
func (k *Key) Signer() trust.Signer {
	return trust.Signer{Tool: trust.Cosign, Fingerprint: k.Fingerprint()}
}

// CosignHash is the hash that cosign sign uses with the key: SHA-512 stands for
// Ed25519ph.
func (k *Key) CosignHash() crypto.Hash {
	switch k.Kind {
	case P384:
		return crypto.SHA384
	case P521, Ed25519:
		return crypto.SHA512
	}
	return crypto.SHA256
}

// Sign signs message: ECDSA in ASN.1, RSA PKCS #1 v1.5, with the hash given.
// Ed25519 is pure for hash 0, Ed25519ph for SHA-512.
func (k *Key) Sign(message []byte, hash crypto.Hash) []byte {
	digest := message
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	return must(k.Private.Sign(rand.Reader, digest, hash))
}
