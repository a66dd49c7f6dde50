package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// Every value in every bucket is framed: kind, CRC32C over key and body, body.
// bbolt checks only its meta pages; the frame finds a damaged or misplaced
// value, which is then treated as missing and reported.
const (
	kindTombstone = 0x00 // in a delta: the key is gone
	kindLive      = 0x01

	frameSize = 1 + 4
	// maxValue bounds a value before it is decoded, and before it is written:
	// one that is larger would be damage.
	maxValue = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// seal frames body for key.
func seal(key, body []byte) []byte {
	v := make([]byte, frameSize, frameSize+len(body))
	v[0] = kindLive
	binary.BigEndian.PutUint32(v[1:], checksum(key, body))
	return append(v, body...)
}

// sealMessage frames a protobuf message for key.
func sealMessage(key []byte, m proto.Message) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	if frameSize+len(body) > maxValue {
		return nil, fmt.Errorf("encode %T: %d bytes are more than a value may have", m, len(body))
	}
	return seal(key, body), nil
}

// unseal returns the body, which aliases v. ok is false for no value and for a
// tombstone.
func unseal(key, v []byte) (body []byte, ok bool, err error) {
	if v == nil || len(v) == 1 && v[0] == kindTombstone {
		return nil, false, nil
	}
	if len(v) < frameSize || len(v) > maxValue || v[0] != kindLive ||
		binary.BigEndian.Uint32(v[1:]) != checksum(key, v[frameSize:]) {
		return nil, false, fmt.Errorf("%w under key %.40x", ErrDamaged, key)
	}
	return v[frameSize:], true, nil
}

func unsealMessage(key, v []byte, m proto.Message) (ok bool, err error) {
	body, ok, err := unseal(key, v)
	if !ok || err != nil {
		return false, err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return false, fmt.Errorf("%w under key %.40x: %w", ErrDamaged, key, err)
	}
	return true, nil
}

// The codes of enumerations in the files. The position is the code; entries
// are appended, never moved (TestCodesAreStable).
var (
	reasonCodes = []trust.Reason{
		"",
		trust.SignatureExpired, trust.CertificateExpired, trust.NotYetValid,
		trust.NoTrustedKey, trust.SignerRemoved, trust.SubjectMismatch, trust.DigestMismatch,
		trust.Malformed, trust.Ambiguous, trust.NoPolicy, trust.PolicyInvalid,
		trust.PolicyAmbiguous, trust.PolicyDoesNotVerify, trust.IdentityNotTrusted,
		trust.Revoked, trust.TimestampInvalid, trust.UnsupportedAlgorithm, trust.KeyTooSmall,
		trust.PluginRequired, trust.KeylessNotSupported,
		trust.IOError, trust.BlobMissing, trust.RevocationUnknown, trust.LimitExceeded,
		trust.Stale, trust.NoCache, trust.New, trust.PolicyChanged,
	}
	toolCodes      = []trust.Tool{"", trust.Cosign, trust.Notation}
	storeTypeCodes = []string{"", "ca", "signingAuthority"}
	formatCodes    = []trust.Format{"", trust.SimpleSigning, trust.Bundle, trust.JWS, trust.COSE}
)

func encodeCode[T comparable](table []T, v T) uint32 {
	for i, t := range table {
		if t == v {
			return uint32(i)
		}
	}
	panic(fmt.Sprintf("cache: %v has no code", v)) // a programming error, found by TestCodesAreStable
}

// decodeCode gives the zero value for codes of a later version; every zero
// value fails closed.
func decodeCode[T comparable](table []T, code uint32) T {
	var zero T
	if int(code) >= len(table) {
		return zero
	}
	return table[code]
}

// decodeReason maps codes of a later version to IOError: not decided, and
// never the empty reason.
func decodeReason(code uint32) trust.Reason {
	if code != 0 && int(code) >= len(reasonCodes) {
		return trust.IOError
	}
	return decodeCode(reasonCodes, code)
}

// authorKey is under what an author's text is stored.
type authorKey [16]byte

func authorKeyOf(text string) authorKey {
	sum := sha256.Sum256([]byte(text))
	return authorKey(sum[:len(authorKey{})])
}

// decodeSigners reads the signers of a ground. Bytes that are no whole number of
// them give none: such a ground holds never.
func decodeSigners(list []trust.SignerID, b []byte) []trust.SignerID {
	const size = len(trust.SignerID{})
	if len(b)%size != 0 {
		return list
	}
	for ; len(b) > 0; b = b[size:] {
		list = append(list, trust.SignerID(b))
	}
	return list
}

// decodePolicy gives the zero policy, which is cosign's, for what is none.
func decodePolicy(b []byte) (p trust.PolicyID) {
	if len(b) == len(p) {
		copy(p[:], b)
	}
	return p
}

// decodeVerdict decodes a verdict; author gives the text under a key.
func decodeVerdict(p *cachepb.Verdict, author func(key []byte) string) trust.Verdict {
	v := trust.Verdict{
		Format:               decodeCode(formatCodes, p.Format),
		StoreType:            decodeCode(storeTypeCodes, p.StoreType),
		Reason:               decodeReason(p.Reason),
		LoggedExpiry:         p.LoggedExpiry,
		RevocationNotChecked: p.RevocationNotChecked,
		RevocationLogged:     p.RevocationLogged,
		RevocationUntil:      p.RevocationUntil,
		VerifiedAt:           p.VerifiedAt,
		Epoch:                p.Epoch,
	}
	copy(v.Layer[:], p.Layer)
	v.Policy = decodePolicy(p.Policy)
	if len(p.Author) > 0 {
		v.Author = author(p.Author)
	}
	for _, g := range p.Grounds {
		ground := trust.Ground{From: g.From, Until: g.Until, Limit: decodeReason(g.Limit)}
		if len(g.ProtoReflect().GetUnknown()) == 0 {
			ground.Signers = decodeSigners(nil, g.Signers)
		}
		v.Grounds = append(v.Grounds, ground)
	}
	return v
}

// encodeVerdict is the inverse; author stores a text and returns its key.
func encodeVerdict(v *trust.Verdict, author func(text string) ([]byte, error)) (_ *cachepb.Verdict, err error) {
	p := &cachepb.Verdict{
		Format:               encodeCode(formatCodes, v.Format),
		StoreType:            encodeCode(storeTypeCodes, v.StoreType),
		Reason:               encodeCode(reasonCodes, v.Reason),
		LoggedExpiry:         v.LoggedExpiry,
		RevocationNotChecked: v.RevocationNotChecked,
		RevocationLogged:     v.RevocationLogged,
		RevocationUntil:      v.RevocationUntil,
		VerifiedAt:           v.VerifiedAt,
		Epoch:                v.Epoch,
	}
	if v.Layer != (trust.LayerID{}) {
		p.Layer = v.Layer[:]
	}
	if v.Policy != (trust.PolicyID{}) {
		p.Policy = v.Policy[:]
	}
	if v.Author != "" {
		if p.Author, err = author(v.Author); err != nil {
			return nil, err
		}
	}
	for _, g := range v.Grounds {
		pg := &cachepb.Ground{From: g.From, Until: g.Until, Limit: encodeCode(reasonCodes, g.Limit)}
		for _, s := range g.Signers {
			pg.Signers = append(pg.Signers, s[:]...)
		}
		p.Grounds = append(p.Grounds, pg)
	}
	return p, nil
}

// number is n as a key: 8 bytes, big endian.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// idOf reads a number key.
func idOf(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
