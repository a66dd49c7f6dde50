package trust

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
)

// Meaning is the part of a notation trust policy statement that decides whether a
// signature verifies. Names, scopes and the list of stores are not part of it: they are
// applied when an answer is read.
type Meaning struct {
	// Enforcement maps each check (integrity, authenticity,
	// authenticTimestamp, expiry, revocation) to enforce, log or skip.
	Enforcement map[string]string
	// VerifyTimestamp is "always" or "afterCertExpiry".
	VerifyTimestamp string
	// TSA is set when the statement names a tsa store and VerifyTimestamp is
	// "always": notation-go then refuses signatures without a
	// countersignature, so that this much of the store list changes what
	// verifies (ADR 0004).
	TSA bool
	// Identities are the trusted identities.
	Identities []string
	// Revocation is the daemon's own mode: online, offline or ignore.
	Revocation string
}

// ID hashes the meaning. It is never zero.
func (m Meaning) ID() PolicyID {
	m.Identities = slices.Sorted(slices.Values(m.Identities))
	b, err := json.Marshal(m) // maps are written in key order
	if err != nil {
		panic(err) // strings and maps of strings cannot fail
	}
	sum := sha256.Sum256(append([]byte("trust-worker policy 1\n"), b...))
	return PolicyID(sum[:len(PolicyID{})])
}

// Statement is one trust policy statement as the join needs it.
type Statement struct {
	Name string
	// Scopes are "*" or "host/repository".
	Scopes []string
	// Stores are "type:name".
	Stores []string
	Policy PolicyID
	// Verifies is false for the levels audit and skip, which never make
	// anything trusted.
	Verifies bool
}

// Material is one signer, in force or no longer, with the file that holds or held it.
type Material struct {
	Signer Signer
	// Scope is the repository prefix below which it may sign; empty: everywhere. A
	// signer that several scopes hold has a Material for each. It is cosign's alone.
	Scope string
	// File is the file that holds it, the first by name if several do, relative to
	// what holds the trust directories: "_cosign/team.pub".
	File string
	// Author is the PEM text of the key file (cosign) or the certificate's
	// subject (notation).
	Author string
	// Since is when it came into force or, of those that left, when it left, Unix seconds.
	// Who loads the trust directories does not know it (0): it is known of what is published.
	Since int64
}

// Terms is the plain content of an InForce: what is published.
type Terms struct {
	Cosign, Notation bool // the tools that are switched on
	Materials        []Material
	// Left are signers that were in force and are no longer. They make nothing
	// trusted; answers that read SignerRemoved name them.
	Left       []Material
	Statements []Statement
	// PolicyProblem is PolicyInvalid when the operator's policy cannot be
	// used, else empty. PolicyDetail says why, for people.
	PolicyProblem Reason
	PolicyDetail  string
	// DefaultPolicy: the statement is the default, which nobody wrote. It names
	// every store that holds a certificate.
	DefaultPolicy bool
	// RegistryNames are the hosts that scopes may name; empty: any.
	RegistryNames []string
	// Roots are the trusted roots, each an independent domain and each among the
	// Materials, and Identities who may sign by them.
	Roots      []Root
	Identities []IdentityRule
	// Scopes narrow who may sign in which repository.
	Scopes []Narrowing
}
