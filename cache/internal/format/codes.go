package format

import (
	"fmt"

	"trust-worker/trust"
)

// The codes of enumerations in the files. The position is the code; entries
// are appended, never moved (TestCodesAreStable).
var (
	ReasonCodes = []trust.Reason{
		"",
		trust.SignatureExpired, trust.CertificateExpired, trust.NotYetValid,
		trust.NoTrustedKey, trust.SignerRemoved, trust.SubjectMismatch, trust.DigestMismatch,
		trust.Malformed, trust.Ambiguous, trust.NoPolicy, trust.PolicyInvalid,
		trust.PolicyAmbiguous, trust.PolicyDoesNotVerify, trust.IdentityNotTrusted,
		trust.Revoked, trust.TimestampInvalid, trust.UnsupportedAlgorithm, trust.KeyTooSmall,
		trust.PluginRequired, trust.NoTrustedRoot,
		trust.IOError, trust.BlobMissing, trust.RevocationUnknown, trust.LimitExceeded,
		trust.Stale, trust.NoCache, trust.New, trust.PolicyChanged,
		trust.PayloadTypeUnknown, trust.UnsupportedDigest, trust.CertificateInvalid,
		trust.AuthorityRemoved, trust.NotLogged, trust.NoSignedTime, trust.SCTMissing, trust.TooFewSigners,
	}
	ToolCodes      = []trust.Tool{"", trust.Cosign, trust.Notation}
	StoreTypeCodes = []string{"", "ca", "signingAuthority"}
	FormatCodes    = []trust.Format{"", trust.SimpleSigning, trust.Bundle, trust.JWS, trust.COSE, trust.DSSE, trust.InToto}
)

// EncodeCode gives the code of a value, which has to be in the table.
func EncodeCode[T comparable](table []T, v T) uint32 {
	for i, t := range table {
		if t == v {
			return uint32(i)
		}
	}
	panic(fmt.Sprintf("cache: %v has no code", v)) // a programming error, found by TestCodesAreStable
}

// DecodeCode gives the zero value for codes of a later version; every zero
// value fails closed.
func DecodeCode[T comparable](table []T, code uint32) T {
	var zero T
	if int(code) >= len(table) {
		return zero
	}
	return table[code]
}

// DecodeReason maps codes of a later version to IOError: not decided, and
// never the empty reason.
func DecodeReason(code uint32) trust.Reason {
	if code != 0 && int(code) >= len(ReasonCodes) {
		return trust.IOError
	}
	return DecodeCode(ReasonCodes, code)
}
