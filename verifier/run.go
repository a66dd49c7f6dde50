package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-go"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	notationstore "github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// run is one call of notation-go's verifier with exactly one anchor, and at most
// one TSA certificate when its result is to make a ground.
type run struct {
	outcome     *notation.VerificationOutcome // may be nil
	err         error
	began       time.Time
	code, stamp *revocationCheck // of the signer's chain, of the TSA's
}

// The store names within one run. They stand for the certificates handed over,
// not for the stores they come from.
const anchorStore, tsaStore = "anchor", "stamp"

// run asks notation-go whether the envelope is good under one anchor. The document
// has one statement for everything; checks that depend on the clock or on the
// network are logged rather than enforced, so that their results come back next
// to the others, to be read against the operator's statement. Authenticity, the
// identity included, is enforced: it ends the run before revocation is asked
// about.
func (e *examination) run(ctx context.Context, a *truststore.Anchor, tsa []*truststore.Anchor, identities []string, mode truststore.RevocationMode) *run {
	out := &run{began: time.Now(),
		code:  &revocationCheck{mode: mode, checker: e.v.revocation, purpose: purpose.CodeSigning},
		stamp: &revocationCheck{mode: mode, checker: e.v.revocation, purpose: purpose.Timestamping}}
	e.lo.Calls++
	revocation := trustpolicy.ActionLog
	if e.statement.Level.Enforcement[trustpolicy.TypeRevocation] == trustpolicy.ActionSkip {
		revocation = trustpolicy.ActionSkip
	}
	stores := memoryStore{a.StoreType: {a.Cert}}
	names := []string{string(a.StoreType) + ":" + anchorStore}
	if len(tsa) > 0 {
		names = append(names, string(notationstore.TypeTSA)+":"+tsaStore)
		for _, t := range tsa {
			stores[notationstore.TypeTSA] = append(stores[notationstore.TypeTSA], t.Cert)
		}
	}
	doc := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:           e.statement.Name,
		RegistryScopes: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{
			VerificationLevel: trustpolicy.LevelStrict.Name,
			VerifyTimestamp:   trustpolicy.OptionAlways,
			Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{
				trustpolicy.TypeExpiry:             trustpolicy.ActionLog,
				trustpolicy.TypeAuthenticTimestamp: trustpolicy.ActionLog,
				trustpolicy.TypeRevocation:         revocation,
			},
		},
		TrustStores:       names,
		TrustedIdentities: identities,
	}}}
	// The plugin manager is nil: an envelope may name a program to run before
	// anything about it is authenticated (N5).
	nv, err := nverifier.NewWithOptions(doc, stores, nil, nverifier.VerifierOptions{
		RevocationCodeSigningValidator: out.code, RevocationTimestampingValidator: out.stamp})
	if err != nil {
		out.err = err
		return out
	}
	out.outcome, out.err = nv.Verify(ctx, e.r.Subject.descriptor(), e.blob, notation.VerifierVerifyOptions{
		// Selects the statement, whose scope is *; the real repository has
		// selected it already.
		ArtifactReference:  "registry.invalid/subject@" + e.r.Subject.Digest.String(),
		SignatureMediaType: e.mediaType,
	})
	e.lo.Asked = e.lo.Asked || out.code.pending || out.stamp.pending
	e.lo.Service = e.lo.Service || out.code.concerned() || out.stamp.concerned()
	if out.outcome == nil && out.err == nil {
		out.err = errors.New("no outcome")
	}
	return out
}

// memoryStore serves exactly the certificates of one run: notation-go's own store
// reads the directory each time, and fails whole on one bad file.
type memoryStore map[notationstore.Type][]*x509.Certificate

// GetCertificates implements truststore.X509TrustStore.
func (s memoryStore) GetCertificates(_ context.Context, t notationstore.Type, name string) ([]*x509.Certificate, error) {
	if certs := s[t]; len(certs) > 0 && (name == anchorStore) == (t != notationstore.TypeTSA) {
		return certs, nil
	}
	return nil, fmt.Errorf("no certificates in %s:%s", t, name)
}

func ociDigest(d trust.Digest) digest.Digest { return digest.Digest(d.String()) }

// failed reports whether a check has no result, more than one, or an error.
func (r *run) failed(t trustpolicy.ValidationType) bool {
	res := r.result(t)
	return res == nil || res.Error != nil
}

// result returns the one result of a check, or nil.
func (r *run) result(t trustpolicy.ValidationType) *notation.ValidationResult {
	if r.outcome == nil {
		return nil
	}
	var found *notation.ValidationResult
	for _, res := range r.outcome.VerificationResults {
		if res == nil || res.Type != t {
			continue
		}
		if found != nil {
			return nil
		}
		found = res
	}
	return found
}
