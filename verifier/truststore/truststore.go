package truststore

import (
	"slices"
	"time"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
	"trust-worker/verifier/recovery"
)

// CurveHash is a curve together with a hash that a trusted key uses on it. The
// values are stored: never renumber them.
type CurveHash uint8

// The pairs: every curve with SHA-256, and with the hash that cosign sign
// chooses for it.
const (
	P256SHA256 CurveHash = 1
	P384SHA384 CurveHash = 2
	P384SHA256 CurveHash = 3
	P521SHA512 CurveHash = 4
	P521SHA256 CurveHash = 5
)

// File is one piece of trust material that was loaded.
type File struct {
	// Path is relative to the parent of the trust directory, for example
	// "_cosign/a.pub".
	Path string
	// Line is that of an entry of identities.yaml, and of a root in a .jsonl; else 0.
	Line int
	// Scope is the repository prefix below which it may sign; empty: everywhere.
	Scope string
	// Signer is, for an entry of identities.yaml, no signer: its fingerprint is of what
	// the entry says, since who it stands for is known when somebody has signed.
	Signer trust.Signer
	Kind   Kind
	// Algorithm is "P-256", "RSA 2048", "Ed25519".
	Algorithm string
	// Subject, NotBefore and NotAfter are a certificate's.
	Subject             string
	NotBefore, NotAfter time.Time
	// Authorities are a trusted root's.
	Authorities []trust.Authority
	// Identity is an entry of identities.yaml.
	Identity *trust.IdentityRule
}

// Kind is what a piece of trust material is.
type Kind string

// The kinds.
const (
	KindKey         Kind = "public key"
	KindCertificate Kind = "certificate"
	KindRoot        Kind = "trusted root"
	KindIdentity    Kind = "identity"
)

// Refusal is one file or directory that was not loaded, or only from memory.
type Refusal struct {
	Path string
	// Reason says what is wrong and what to do, in one sentence.
	Reason string
	// Grace is set while the file's last good content is still in force.
	Grace bool
}

// PolicySource says whose notation policy is in force.
type PolicySource string

// The sources.
const (
	PolicyDefault  PolicySource = "default" // computed from the stores on disk
	PolicyOperator PolicySource = "operator"
	PolicyInvalid  PolicySource = "invalid"
	PolicyOff      PolicySource = "off" // notation is switched off
)

// PolicySummary says which notation policy is in force, and what is wrong with it.
type PolicySummary struct {
	Source PolicySource
	// File is the name of the file that decided, if one did.
	File string
	// Problem is why no policy can be used, or why the last good one still
	// stands in; Note is what else a person should know.
	Problem, Note string
	// Lacking are the trust stores that statements name and that hold nothing:
	// what they govern and need reads policy-invalid.
	Lacking []string
}

// String is "default (computed)", "operator (FILE)", "invalid: …" or "off", with
// what is to be known besides.
func (p PolicySummary) String() string {
	s := string(p.Source)
	switch p.Source {
	case PolicyDefault:
		s = "default (computed)"
	case PolicyInvalid:
		return "invalid: " + p.Problem
	case PolicyOperator:
		s = "operator (" + p.File + ")"
	}
	for _, more := range append([]string{p.Problem, p.Note}, p.Lacking...) {
		if more != "" {
			s += "; " + more
		}
	}
	return s
}

// TrustStore is the trust material and the policy at one moment. It is immutable.
type TrustStore struct {
	inForce *trust.InForce
	loaded  []File
	refused []Refusal
	missing []string
	policy  PolicySummary
	ignored int
	id      trust.Digest

	roots    []*Root
	scopes   []string
	warnings []Refusal

	keys       keyring
	anchors    anchorage
	statements map[string]*Statement // by name
	revocation RevocationMode
}

// Empty returns a store that trusts nothing.
func Empty() *TrustStore {
	return &TrustStore{
		inForce:    trust.NewInForce(trust.Terms{}),
		policy:     PolicySummary{Source: PolicyOff},
		keys:       newKeyring(),
		anchors:    anchorage{byPrint: map[truststore.Type]map[trust.Digest]*Anchor{}},
		statements: map[string]*Statement{},
		revocation: RevocationOffline,
	}
}

// Key returns the cosign key with a fingerprint, or nil.
func (t *TrustStore) Key(fingerprint trust.Digest) *Key { return t.keys.byPrint[fingerprint] }

// Keys returns the cosign keys that may have made a signature of a class.
func (t *TrustStore) Keys(c recovery.Class) []*Key { return t.keys.byClass[c] }

// Roots returns the trusted roots, in the order of their files.
func (t *TrustStore) Roots() []*Root { return t.roots }

// Issuers returns the issuers that certificates name which the root may vouch for, see
// [IssuerKey]; none for other signers.
func (t *TrustStore) Issuers(s trust.Signer) []trust.Digest {
	for _, r := range t.roots {
		if r.Signer() == s {
			return slices.Clone(r.issuers)
		}
	}
	return nil
}

// Scopes returns the repository prefixes that have a directory of their own.
func (t *TrustStore) Scopes() []string { return slices.Clone(t.scopes) }

// Warnings returns what is odd about material that was loaded.
func (t *TrustStore) Warnings() []Refusal { return slices.Clone(t.warnings) }

// Anchor returns the certificate with a fingerprint that trust stores of a type hold,
// or nil.
func (t *TrustStore) Anchor(storeType truststore.Type, fingerprint trust.Digest) *Anchor {
	return t.anchors.byPrint[storeType][fingerprint]
}

// TSA returns the certificates of all tsa stores, by fingerprint.
func (t *TrustStore) TSA() []*Anchor { return t.anchors.tsa }

// Statement returns a statement of the policy in force by its name, or nil.
func (t *TrustStore) Statement(name string) *Statement { return t.statements[name] }

// Revocation is the mode in which notation signatures are verified.
func (t *TrustStore) Revocation() RevocationMode { return t.revocation }

// InForce returns the signers and statements in force, for the join.
func (t *TrustStore) InForce() *trust.InForce { return t.inForce }

// Same reports whether two stores publish the same: the same trust, held by files of
// the same names. Either may be nil.
func (t *TrustStore) Same(o *TrustStore) bool {
	if t == nil || o == nil {
		return t == o
	}
	a, b := t.inForce.Terms(), o.inForce.Terms()
	return t.ID() == o.ID() && slices.Equal(a.Materials, b.Materials) && slices.Equal(a.Identities, b.Identities)
}

// ID hashes everything that a verdict under t can depend on: two loads with the
// same ID need no verification between them.
func (t *TrustStore) ID() trust.Digest { return t.id }

// Loaded returns the material in force, by path.
func (t *TrustStore) Loaded() []File { return slices.Clone(t.loaded) }

// Refused returns what was not loaded and why, by path.
func (t *TrustStore) Refused() []Refusal { return slices.Clone(t.refused) }

// Missing returns the trust directories that are not there, never were and need
// not be: nothing is wrong with them, and nothing is trusted by them.
func (t *TrustStore) Missing() []string { return slices.Clone(t.missing) }

// Ignored counts the names that are never loaded: hidden ones, backups,
// editors' and package managers' leftovers.
func (t *TrustStore) Ignored() int { return t.ignored }

// Policy says where the notation policy comes from.
func (t *TrustStore) Policy() PolicySummary { return t.policy }

// InUse returns the curves and hashes of the trusted ECDSA keys, sorted.
func (t *TrustStore) InUse() []CurveHash { return slices.Clone(t.keys.inUse) }

// Filing returns how signatures by a cosign key are filed: their class and, for
// ECDSA, the key's curve with each hash. Both are zero for notation signers and
// for keys that are not in force.
func (t *TrustStore) Filing(s trust.Signer) (recovery.Class, []CurveHash) {
	k := t.keys.byPrint[s.Fingerprint]
	if k == nil || s != k.Signer() {
		return 0, nil
	}
	return k.Class, slices.Clone(k.Curves)
}
