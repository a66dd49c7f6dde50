package truststore

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
)

// policyDoc is a parsed trust policy.
type policyDoc struct{ doc trustpolicy.Document }

// policyRules name every member that notation knows: in another spelling it would
// take them for the same, other readers would not.
var policyRules = strictjson.Rules{
	Members: []string{"version", "trustPolicies", "name", "registryScopes", "signatureVerification", "level",
		"override", "verifyTimestamp", "trustStores", "trustedIdentities"},
}

// parsePolicy reads a trust policy. Every member is honoured or the document is
// refused: a member that was silently ignored would be a restriction that is not
// there (Z12). Only bytes that are not JSON at all count as unfinished.
func parsePolicy(b []byte) (*policyDoc, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, unfinishedf("is empty")
	}
	switch err := policyRules.Check(b); {
	case errors.Is(err, strictjson.ErrSyntax):
		if odd := oddText(b, wantPolicy); odd != "" {
			return nil, unfinishedf("%s", odd)
		}
		return nil, unfinishedf("is %v", err)
	case err != nil:
		return nil, refusef("cannot be used (%v)", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	p := &policyDoc{}
	if err := d.Decode(&p.doc); err != nil {
		return nil, refusef("is not a trust policy that is understood in full (%s)", strictjson.Explain(b, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refusef("has something after the document")
	}
	if err := p.doc.Validate(); err != nil {
		return nil, refusef("%v", err)
	}
	return p, nil
}

// Statement is one policy statement, ready to verify under.
type Statement struct {
	Name       string
	Identities []string
	Level      *trustpolicy.VerificationLevel // the effective one
	tsa        bool                           // names a tsa store
	always     bool                           // verifyTimestamp
	verifies   bool                           // level strict or permissive, as written
	id         trust.PolicyID
}

// Enforces reports whether the operator's statement enforces a check.
func (s *Statement) Enforces(t trustpolicy.ValidationType) bool {
	return s.Level.Enforcement[t] == trustpolicy.ActionEnforce
}

// StampRequired reports whether a signature without a countersignature is
// refused: verifyTimestamp is "always" and a tsa store is named. Without one,
// notation-go never looks at countersignatures, so that "always" means nothing.
func (s *Statement) StampRequired() bool { return s.tsa && s.always }

// newStatement prepares a statement of a valid document, for verifying and for
// the join.
func newStatement(p *trustpolicy.TrustPolicy, mode RevocationMode) (*Statement, trust.Statement, error) {
	level, err := p.SignatureVerification.GetVerificationLevel()
	if err != nil {
		return nil, trust.Statement{}, err
	}
	written := p.SignatureVerification.VerificationLevel
	s := &Statement{
		Name:       p.Name,
		Identities: p.TrustedIdentities,
		Level:      level,
		tsa: slices.ContainsFunc(p.TrustStores, func(s string) bool {
			return strings.HasPrefix(s, string(truststore.TypeTSA)+":")
		}),
		always: p.SignatureVerification.VerifyTimestamp != trustpolicy.OptionAfterCertExpiry,
		// audit and skip never make anything trusted, whatever they override.
		verifies: written == trustpolicy.LevelStrict.Name || written == trustpolicy.LevelPermissive.Name,
	}
	m := trust.Meaning{
		Enforcement:     map[string]string{},
		VerifyTimestamp: string(trustpolicy.OptionAfterCertExpiry),
		TSA:             s.StampRequired(),
		Identities:      p.TrustedIdentities,
		Revocation:      string(mode),
	}
	if s.StampRequired() {
		m.VerifyTimestamp = string(trustpolicy.OptionAlways)
	}
	for t, a := range level.Enforcement {
		m.Enforcement[string(t)] = string(a)
	}
	s.id = m.ID()
	return s, trust.Statement{Name: p.Name, Scopes: p.RegistryScopes, Stores: p.TrustStores,
		Policy: s.id, Verifies: s.verifies}, nil
}
