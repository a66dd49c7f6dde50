package recovery

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"math/big"
	"math/bits"
	"strconv"
)

// Class is a family of keys that a signature's bytes could belong to, as far as length and magnitude tell. Bytes can be
// in several: 64 of them may be Ed25519 or IEEE P1363 for P-256. The values are stored in indexes: never renumber them.
// Those from 128 on are RSA's, and are the modulus length in bytes; see [RSA].
type Class uint16

const (
	ECDSA256 Class = 1 // r and s of at most 256 bits: P-256 and P-224
	ECDSA384 Class = 2 // the larger of r and s has 257 to 384 bits: P-384
	ECDSA521 Class = 3 // the larger of r and s has 385 to 521 bits: P-521
	Ed25519  Class = 4 // pure and Ed25519ph, which cannot be told apart
)

// rsaMinSize is the shortest modulus, in bytes, that crypto/rsa verifies with (GODEBUG=rsa1024min=0 is not supported).
// Starting lower would file every ECDSA signature under RSA as well.
const rsaMinSize = 128

// maxP1363 is the longest r‖s that sigstore reads, in bytes: two scalars of P-521.
const maxP1363 = 132

// RSA returns the class of RSA keys whose modulus, and so whose signatures, are size bytes long; 0, which is no class, for
// sizes that crypto/rsa refuses. Sizes beyond 65535 bytes share the last class, so that none is without one.
func RSA(size int) Class {
	if size < rsaMinSize {
		return 0
	}
	return Class(min(size, 1<<16-1))
}

// String returns a name for logs and metrics: "ecdsa-384", "ed25519", "rsa-2048".
func (c Class) String() string {
	switch {
	case c == ECDSA256:
		return "ecdsa-256"
	case c == ECDSA384:
		return "ecdsa-384"
	case c == ECDSA521:
		return "ecdsa-521"
	case c == Ed25519:
		return "ed25519"
	case c >= rsaMinSize:
		return "rsa-" + strconv.Itoa(8*int(c))
	}
	return "none"
}

// Classify returns the classes that sig could belong to: at most three, nil when nothing accepts it. An ECDSA signature
// is in exactly one ECDSA class, the smallest that holds both r and s. That is not yet its curve; see [ClassesFor].
func Classify(sig []byte) []Class {
	var found [3]Class
	classes := found[:0]
	if r, s, ok := scalars(sig); ok {
		switch n := max(bitLen(r), bitLen(s)); {
		case n <= 256:
			classes = append(classes, ECDSA256)
		case n <= 384:
			classes = append(classes, ECDSA384)
		case n <= 521:
			classes = append(classes, ECDSA521)
		}
	}
	// RFC 8032, section 5.1.7: S, little endian in the second half, is below the group's order, hence below 2^253.
	// crypto/ed25519 enforces it, so seven of eight P1363 signatures by P-256 keys are not filed here.
	if len(sig) == ed25519.SignatureSize && sig[63]&0xe0 == 0 {
		classes = append(classes, Ed25519)
	}
	if c := RSA(len(sig)); c != 0 {
		classes = append(classes, c)
	}
	if len(classes) == 0 {
		return nil
	}
	return classes
}

// ClassesFor returns every class that can hold a signature which sigstore accepts under pub, its home class first. It
// returns nil for keys with which sigstore verifies nothing.
//
// What a key's owner signs is in the home class: an honest signature strays with probability 2^-256 (P-384; r and s both
// lose 128 bits) or 2^-274 (P-521), and to find a nonce with so small an r is 2^128 work. Strays exist all the same:
// whoever chooses small r and s and a message can compute a P-384 or P-521 key under which they verify, as [Candidates]
// does. Nobody knows its private half, but sigstore accepts it; and size does not tell it from an honest signature by
// a smaller curve. So going through the home class finds all that was really signed, and going through the others as
// well all that sigstore accepts (R3): low-priority work, at one P-384 or P-521 recovery for each P-256 signature.
func ClassesFor(pub crypto.PublicKey) []Class {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return nil
		}
		// P-224 has no class of its own: Candidates drops the P-256 signatures in this one by range, at no cost.
		switch n := k.Params().N.BitLen(); {
		case n <= 256:
			return []Class{ECDSA256}
		case n <= 384:
			return []Class{ECDSA384, ECDSA256}
		default:
			return []Class{ECDSA521, ECDSA384, ECDSA256}
		}
	case ed25519.PublicKey:
		return []Class{Ed25519}
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			return nil
		}
		if c := RSA(k.Size()); c != 0 {
			return []Class{c}
		}
	}
	return nil
}

// RSAFits reports whether sig can be a signature by pub at all: as long as the modulus (RFC 8017, section 8.2.2) and
// below it (section 5.2.2). The latter spares a part of the keys of one size, at no cost beside a verification.
func RSAFits(pub *rsa.PublicKey, sig []byte) bool {
	if pub == nil || pub.N == nil || len(sig) != pub.Size() {
		return false
	}
	return new(big.Int).SetBytes(sig).Cmp(pub.N) < 0
}

// scalars reads r and s, big endian and without leading zeros, from an ECDSA signature as sigstore does. Neither is
// zero when ok, and neither is longer than 255 bytes; no curve's upper bound has been applied.
//
// sigstore (pkg/signature/ecdsa.go) asks encoding/asn1 whether the bytes parse. If so, crypto/ecdsa must accept them as
// DER; if not, they are taken for IEEE P1363, r‖s of any even length up to 132 bytes. encoding/asn1 is more lenient, so
// some bytes (negative integers, something after the sequence) are read as P1363 here that sigstore refuses. That
// proposes more, never less. The other way round there is no gap: whatever derScalars takes, encoding/asn1 takes as
// well, with the same values (FuzzScalars).
func scalars(sig []byte) (r, s []byte, ok bool) {
	r, s, ok = derScalars(sig)
	if !ok {
		if len(sig) > maxP1363 || len(sig)%2 != 0 {
			return nil, nil, false
		}
		r, s = sig[:len(sig)/2], sig[len(sig)/2:]
	}
	r, s = trimZeros(r), trimZeros(s)
	return r, s, len(r) > 0 && len(s) > 0
}

// derScalars reads a strict DER Ecdsa-Sig-Value (RFC 3279, section 2.2.3) of non-negative integers, as crypto/ecdsa does.
func derScalars(sig []byte) (r, s []byte, ok bool) {
	body, rest, ok := derElement(sig, 0x30)
	if !ok || len(rest) != 0 {
		return nil, nil, false
	}
	if r, body, ok = derElement(body, 0x02); !ok || !isMinimal(r) {
		return nil, nil, false
	}
	if s, body, ok = derElement(body, 0x02); !ok || !isMinimal(s) || len(body) != 0 {
		return nil, nil, false
	}
	return r, s, true
}

// derElement cuts off the first element, which must have the given tag and a length in minimal form, of at most 255
// bytes: two scalars of P-521 take 141, headers included.
func derElement(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, b := int(b[1]), b[2:]
	if n >= 0x80 {
		if n != 0x81 || len(b) == 0 || b[0] < 0x80 {
			return nil, nil, false
		}
		n, b = int(b[0]), b[1:]
	}
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// isMinimal reports whether b is the DER content of a non-negative INTEGER.
func isMinimal(b []byte) bool {
	switch {
	case len(b) == 0, b[0]&0x80 != 0:
		return false
	case len(b) > 1 && b[0] == 0:
		return b[1]&0x80 != 0
	}
	return true
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// bitLen returns the bit length of a big-endian number that is not empty and has no leading zero byte.
func bitLen(b []byte) int { return 8*(len(b)-1) + bits.Len8(b[0]) }
