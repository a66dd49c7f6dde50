package trust

import "slices"

// Status is the answer about one signature.
type Status string

// The statuses. Only Trusted may be acted on as trust; Unknown and Pending
// mean that nothing has been decided, never that something is wrong with the
// signature.
const (
	Trusted   Status = "trusted"   // a ground holds
	Expired   Status = "expired"   // authenticated signer, outside its enforced dates
	Untrusted Status = "untrusted" // decided
	Unknown   Status = "unknown"   // could not be decided; nearly always tried again
	Pending   Status = "pending"   // not yet looked at under the trust in force
)

// Reason says why an answer is not Trusted. It is empty exactly when the
// status is Trusted.
type Reason string

// The reasons, by status. The first block is Expired, then Untrusted, Unknown
// and Pending.
const (
	SignatureExpired   Reason = "signature-expired"
	CertificateExpired Reason = "certificate-expired"
	NotYetValid        Reason = "not-yet-valid"

	NoTrustedKey         Reason = "no-trusted-key"
	SignerRemoved        Reason = "signer-removed"
	SubjectMismatch      Reason = "subject-mismatch"
	DigestMismatch       Reason = "digest-mismatch"
	Malformed            Reason = "malformed"
	Ambiguous            Reason = "ambiguous"
	NoPolicy             Reason = "no-policy"
	PolicyInvalid        Reason = "policy-invalid"
	PolicyAmbiguous      Reason = "policy-ambiguous"
	PolicyDoesNotVerify  Reason = "policy-does-not-verify"
	IdentityNotTrusted   Reason = "identity-not-trusted"
	Revoked              Reason = "revoked"
	TimestampInvalid     Reason = "timestamp-invalid"
	UnsupportedAlgorithm Reason = "unsupported-algorithm"
	KeyTooSmall          Reason = "key-too-small"
	PluginRequired       Reason = "plugin-required"
	NoTrustedRoot        Reason = "no-trusted-root"
	AuthorityRemoved     Reason = "authority-removed"
	NotLogged            Reason = "not-logged"
	NoSignedTime         Reason = "no-signed-time"
	SCTMissing           Reason = "sct-missing"
	TooFewSigners        Reason = "too-few-signers"
	PayloadTypeUnknown   Reason = "payload-type-unknown"
	CertificateInvalid   Reason = "certificate-invalid"

	IOError           Reason = "io-error"
	BlobMissing       Reason = "blob-missing"
	RevocationUnknown Reason = "revocation-unknown"
	LimitExceeded     Reason = "limit-exceeded"
	UnsupportedDigest Reason = "unsupported-digest"
	Stale             Reason = "stale"
	NoCache           Reason = "no-cache"

	New           Reason = "new"
	PolicyChanged Reason = "policy-changed"
)

// statuses is the one table from reason to status.
var statuses = map[Reason]Status{
	"": Trusted,

	SignatureExpired: Expired, CertificateExpired: Expired, NotYetValid: Expired,

	NoTrustedKey: Untrusted, SignerRemoved: Untrusted, SubjectMismatch: Untrusted,
	DigestMismatch: Untrusted, Malformed: Untrusted, Ambiguous: Untrusted,
	NoPolicy: Untrusted, PolicyInvalid: Untrusted, PolicyAmbiguous: Untrusted,
	PolicyDoesNotVerify: Untrusted, IdentityNotTrusted: Untrusted, Revoked: Untrusted,
	TimestampInvalid: Untrusted, UnsupportedAlgorithm: Untrusted, KeyTooSmall: Untrusted,
	PluginRequired: Untrusted, PayloadTypeUnknown: Untrusted, CertificateInvalid: Untrusted,
	NoTrustedRoot: Untrusted, AuthorityRemoved: Untrusted, NotLogged: Untrusted,
	NoSignedTime: Untrusted, SCTMissing: Untrusted, TooFewSigners: Untrusted,

	IOError: Unknown, BlobMissing: Unknown, RevocationUnknown: Unknown,
	LimitExceeded: Unknown, UnsupportedDigest: Unknown, Stale: Unknown, NoCache: Unknown,

	New: Pending, PolicyChanged: Pending,
}

// Status returns the status that r belongs to. The empty reason and reasons
// that this version does not know are Unknown: this table never says Trusted.
func (r Reason) Status() Status {
	if s, ok := statuses[r]; ok && r != "" {
		return s
	}
	return Unknown
}

// Undecided reports whether r says that nothing could be decided, so that the
// signature has to be looked at again.
func (r Reason) Undecided() bool { return r.Status() == Unknown || r.Status() == Pending }

// Reasons returns every reason, sorted.
func Reasons() []Reason {
	all := make([]Reason, 0, len(statuses))
	for r := range statuses {
		if r != "" {
			all = append(all, r)
		}
	}
	slices.Sort(all)
	return all
}

// Note is something the policy only logs; it accompanies a Trusted answer.
type Note string

// The notes.
const (
	ExpiryLogged         Note = "expiry-logged"
	RevocationLogged     Note = "revocation-logged"
	RevocationNotChecked Note = "revocation-not-checked"
)

// Exit codes of get and verify; see [Fold].
const (
	ExitTrusted    = 0
	ExitUnsigned   = 10
	ExitNotFound   = 11
	ExitNotTrusted = 12
	ExitUndecided  = 14
)

// Fold reduces the statuses of one image's signatures to its exit code: any
// trusted → 0; else any unknown or pending → 14; else 12; none at all → 10.
func Fold(signatures []Status) int {
	code := ExitUnsigned
	for _, s := range signatures {
		switch s {
		case Trusted:
			return ExitTrusted
		case Expired, Untrusted:
			if code == ExitUnsigned {
				code = ExitNotTrusted
			}
		default:
			code = ExitUndecided
		}
	}
	return code
}

// Worst returns the worse of two exit codes, for commands with several
// answers: not decided, not found, not trusted, unsigned, trusted.
func Worst(a, b int) int {
	rank := []int{ExitTrusted, ExitUnsigned, ExitNotTrusted, ExitNotFound, ExitUndecided}
	if slices.Index(rank, b) > slices.Index(rank, a) {
		return b
	}
	return a
}

// ReasonError is an error whose cause has a reason in the table: the packages
// that meet a problem (a missing blob, a limit) say which one it is, so that
// callers do not guess it from text.
type ReasonError struct {
	Reason Reason
	Err    error
}

func (e *ReasonError) Error() string { return string(e.Reason) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ReasonError) Unwrap() error { return e.Err }
