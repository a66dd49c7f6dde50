package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// Tool is the program family that made a signature.
type Tool string

// The tools.
const (
	Cosign   Tool = "cosign"
	Notation Tool = "notation"
)

// Format is the encoding of one signature.
type Format string

// The formats: cosign's simple signing payload and sigstore bundle, notation's
// two envelopes.
const (
	SimpleSigning Format = "simple-signing"
	Bundle        Format = "bundle"
	JWS           Format = "jws"
	COSE          Format = "cose"
	// DSSE is the envelope of an attestation that cosign keeps by a tag.
	DSSE Format = "dsse"
	// InToto is a statement in no envelope, as BuildKit writes it: nobody has signed it.
	InToto Format = "in-toto"
)

// Digest is a SHA-256 value. Its text form is "sha256:" and 64 lower-case hex
// digits (OCI image-spec v1.1, descriptor, section Digests). What storage names by
// another algorithm is listed and not verified; see ForeignDigest.
type Digest [sha256.Size]byte

// ErrDigest is returned for text that is not exactly a SHA-256 digest.
var ErrDigest = errors.New(`not a digest of the form "sha256:" and 64 lower-case hex digits`)

// SumOf returns the digest of b.
func SumOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads the text form, strictly: nothing else is ever used to
// build a path.
func ParseDigest(s string) (Digest, error) {
	rest, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return Digest{}, ErrDigest
	}
	return ParseHex(rest)
}

// ParseHex reads 64 lower-case hex digits.
func ParseHex(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) || strings.ToLower(s) != s {
		return Digest{}, ErrDigest
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, ErrDigest
	}
	return d, nil
}

// Hex returns the 64 hex digits alone.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

func (d Digest) String() string { return "sha256:" + d.Hex() }

// MarshalText and UnmarshalText use the text form; the zero digest is "".
func (d Digest) MarshalText() ([]byte, error) {
	if d == (Digest{}) {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	*d, err = ParseDigest(string(b))
	return err
}

// Signer is one piece of trust material: for cosign a public key, for notation
// a certificate in a trust store. It is comparable.
type Signer struct {
	Tool Tool
	// StoreType and StoreName are notation's: "ca", "signingAuthority" or
	// "tsa", and the name of the directory. Empty for cosign.
	StoreType, StoreName string
	// Fingerprint is the SHA-256 of the key's SubjectPublicKeyInfo (cosign)
	// or of the certificate's DER (notation).
	Fingerprint Digest
}

// Store returns "type:name" as trust policies write it, or "".
func (s Signer) Store() string {
	if s.Tool != Notation {
		return ""
	}
	return s.StoreType + ":" + s.StoreName
}

// SignerID names a signer wherever it is stored; see [Signer.ID].
type SignerID [16]byte

// ID is the first half of a SHA-256 over the tool, the store's type, its name and
// the fingerprint, each with its length. It is the same on every machine.
func (s Signer) ID() SignerID {
	b := []byte("trust-worker signer 1\n")
	for _, part := range []string{string(s.Tool), s.StoreType, s.StoreName, string(s.Fingerprint[:])} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	sum := sha256.Sum256(b)
	return SignerID(sum[:len(SignerID{})])
}

// PolicyID is the hash of a trust policy statement's effective meaning; see
// [Meaning.ID]. For cosign it is the zero value, a constant.
type PolicyID [16]byte

// Ground is one way in which a signature is good: all its signers in force,
// now ∈ [From, Until). The policy belongs to the verdict that holds it.
type Ground struct {
	Signers []SignerID
	// From and Until are Unix seconds; 0 means unbounded. Only dates that the
	// policy enforces are here.
	From, Until int64
	// Limit is what the ground reads once Until is reached:
	// SignatureExpired, CertificateExpired or RevocationUnknown.
	Limit Reason
	// Ends is when it would end by dates if Limit is RevocationUnknown, whose
	// answers are renewed; 0: never.
	Ends int64
	// Proof is what was proven of a keyless signature, which has no Signers and no
	// dates; nil for keys and certificates in trust stores.
	Proof *Proof
}

// Date is u, Unix seconds, within the years 1 to 9999, which are all that RFC 3339,
// and so JSON, can write. Dates come from certificates and envelopes, which can have
// others.
func Date(u int64) int64 {
	const first, last = -62135596799, 253402300799 // the second after the zero time; 9999-12-31T23:59:59Z
	return min(max(u, first), last)
}

// Verdict is the result of verifying one signature (one layer of a cosign signature
// manifest, or a notation envelope) over one subject: grounds, or the reason why there
// are none. It does not change with the clock. Without a ground it is made again when a
// signer comes that may have made the signature.
type Verdict struct {
	Format Format
	// Reason says why there is no ground; it is empty when there is one. An
	// undecided reason (see [Reason.Undecided]) is never stored as a fact.
	Reason Reason
	// Detail says more of the reason where there is more to say: one sentence for
	// people, of at most MaxVerdictDetail bytes, without a full stop. Beside
	// grounds it is what is to be said once they have expired.
	Detail  string
	Grounds []Ground
	// Author is the subject of a notation signature's leaf certificate. It is
	// empty for cosign, whose author is the text of the signer's key file,
	// and when nothing in the trust directories vouches for it.
	Author string
	// Identity is who a keyless signature's certificate was issued to, beside grounds
	// that prove it; nil for other signatures.
	Identity *Identity
	// Key is the first half of the SHA-256 of the leaf certificate's
	// SubjectPublicKeyInfo, beside a ground that rests on a certificate.
	Key KeyID
	// StoreType is the type of trust store that a notation signature's signing
	// scheme needs, "ca" or "signingAuthority"; empty for cosign, and where the
	// envelope does not say (Notary Project trust-store-trust-policy, "Trust
	// Store").
	StoreType string
	// Policy is the statement under which the verdict was made.
	Policy PolicyID
	// LoggedExpiry is the signature's own expiry (Unix seconds) where the
	// policy only logs it; 0 otherwise.
	LoggedExpiry int64
	// RevocationNotChecked is set when revocation services were not asked (the mode
	// ignore), or gave no answer under a policy that only logs revocation.
	RevocationNotChecked bool
	// RevocationLogged is set when a certificate is revoked and the policy only
	// logs that.
	RevocationLogged bool
	// RevocationUntil is when an answer of revocation services ends that no
	// ground's Until ends with (Unix seconds; 0: there is none): under a policy
	// that only logs revocation, and for what is not trusted because of it.
	RevocationUntil int64
	// Layer identifies a cosign layer independent of the manifest around it:
	// the first 16 bytes of SHA-256 over its digest and its annotation. A
	// co-signed manifest repeats the layers of its predecessor.
	Layer LayerID
	// Predicate is the predicate type of an attestation, from the payload that was verified,
	// and Size how many bytes it has. Neither decides anything: what is an attestation is
	// kept apart from signatures.
	Predicate string
	Size      int64
	// VerifiedAt is when the verdict was made, Unix seconds.
	VerifiedAt int64
	// Epoch is the verifier's epoch at that time.
	Epoch uint32
}

// MinEpoch is the oldest verifier's epoch whose verdicts are served. It is
// raised by hand when something was wrongly accepted; such verdicts then read
// Pending until they are made again.
const MinEpoch uint32 = 4

// KeyID names a public key.
type KeyID [16]byte

// LayerID names a cosign signature layer by content.
type LayerID [16]byte

// Matched reports whether the verdict has a ground.
func (v *Verdict) Matched() bool { return len(v.Grounds) > 0 }

// Recheck is when revocation services have to have been asked again (Unix
// seconds), or 0: the earliest end of an answer that v rests on.
func (v *Verdict) Recheck() int64 {
	at := v.RevocationUntil
	for i := range v.Grounds {
		if g := &v.Grounds[i]; g.Limit == RevocationUnknown && g.Until != 0 && (at == 0 || g.Until < at) {
			at = g.Until
		}
	}
	return at
}

// MaxDetail bounds Decision.Detail, and MaxVerdictDetail what is stored of it with
// each verdict, in bytes.
const (
	MaxDetail        = 512
	MaxVerdictDetail = 320
)

// ClipDetail cuts a detail to MaxVerdictDetail.
func ClipDetail(s string) string {
	if len(s) <= MaxVerdictDetail {
		return s
	}
	return strings.ToValidUTF8(s[:MaxVerdictDetail-len("…")], "") + "…"
}

// Decision is the answer about one signature in one repository at one time.
type Decision struct {
	Status Status
	Reason Reason
	// Detail says more of the reason where there is more to say: one sentence
	// for people, of at most MaxDetail bytes.
	Detail string
	Notes  []Note
	// Author, Signer and File, which holds the signer, are set only when the signer is
	// in force.
	Author string
	Signer Signer
	File   string
	// From and Until are the dates of the ground that decided; zero is
	// unbounded.
	From, Until time.Time
	// Issuer, Subject, SignedAt (the earliest proven time) and Root (the file's name)
	// are a keyless signature's.
	Issuer, Subject string
	SignedAt        time.Time
	Root            string

	identity *Identity
	key      KeyID // whose signature it is, see Quorum
}
