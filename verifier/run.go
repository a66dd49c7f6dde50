package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	nrevocation "github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"
	"github.com/notaryproject/notation-go"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"

	"trust-worker/trust"
)

// run is one call of notation-go's verifier with exactly one anchor, and at most
// one TSA certificate when its result is to make a ground.
type run struct {
	outcome     *notation.VerificationOutcome // may be nil
	err         error
	began       time.Time
	anchor      *anchor
	tsa         []*anchor
	code, stamp *revocationCheck // of the signer's chain, of the TSA's
}

// The store names within one run. They stand for the certificates handed over,
// not for the stores they come from.
const anchorStore, tsaStore = "anchor", "stamp"

// runVerifier makes notation-go's verifier for runs under a statement: with its
// identities or any, with or without TSA certificates. The document
// has one statement for everything; checks that depend on the clock or on the
// network are logged rather than enforced, so that their results come back next
// to the others, to be read against the operator's statement. Authenticity, the
// identity included, is enforced: it ends the run before revocation is asked
// about.
func runVerifier(s *statement, identities []string, tsa bool) (notation.Verifier, error) {
	revocation := trustpolicy.ActionLog
	if s.level.Enforcement[trustpolicy.TypeRevocation] == trustpolicy.ActionSkip {
		revocation = trustpolicy.ActionSkip
	}
	// Which of the two is asked for is the signing scheme's to say, and only the
	// type that the run's anchor has is served.
	names := []string{string(truststore.TypeCA) + ":" + anchorStore, string(truststore.TypeSigningAuthority) + ":" + anchorStore}
	if tsa {
		names = append(names, string(truststore.TypeTSA)+":"+tsaStore)
	}
	doc := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:           s.name,
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
	return nverifier.NewWithOptions(doc, runStores{}, nil, nverifier.VerifierOptions{
		RevocationCodeSigningValidator:  runRevocation{func(r *run) *revocationCheck { return r.code }},
		RevocationTimestampingValidator: runRevocation{func(r *run) *revocationCheck { return r.stamp }}})
}

// run asks notation-go whether the envelope is good under one anchor, signed by
// one of the statement's identities or, with anyone, by whomever.
func (e *examination) run(ctx context.Context, a *anchor, tsa []*anchor, anyone bool, mode RevocationMode) *run {
	out := &run{began: time.Now(), anchor: a, tsa: tsa,
		code:  &revocationCheck{mode: mode, checker: e.v.revocation, purpose: purpose.CodeSigning},
		stamp: &revocationCheck{mode: mode, checker: e.v.revocation, purpose: purpose.Timestamping}}
	e.lo.Calls++
	nv := e.statement.plain
	if len(tsa) > 0 {
		nv = e.statement.stamped
	}
	if anyone {
		if nv, out.err = runVerifier(e.statement, []string{"*"}, len(tsa) > 0); out.err != nil {
			return out
		}
	}
	out.outcome, out.err = nv.Verify(context.WithValue(ctx, runKey{}, out), e.r.Subject.descriptor(), e.blob, notation.VerifierVerifyOptions{
		// Selects the statement, whose scope is *; the real repository has
		// selected it already.
		ArtifactReference:  "registry.invalid/subject@" + e.r.Subject.Digest.String(),
		SignatureMediaType: e.mediaType,
	})
	e.lo.Asked = e.lo.Asked || out.code.pending || out.stamp.pending
	if out.outcome == nil && out.err == nil {
		out.err = errors.New("no outcome")
	}
	return out
}

// runKey is the context's key for the run, which notation-go hands on to
// whatever it asks.
type runKey struct{}

var errNoRun = errors.New("no run") // nothing is trusted, then

// runStores serves exactly the certificates of one run: notation-go's own store
// reads the directory each time, and fails whole on one bad file.
type runStores struct{}

// GetCertificates implements truststore.X509TrustStore.
func (runStores) GetCertificates(ctx context.Context, t truststore.Type, name string) ([]*x509.Certificate, error) {
	r, _ := ctx.Value(runKey{}).(*run)
	switch {
	case r == nil:
		return nil, errNoRun
	case t == r.anchor.storeType && name == anchorStore:
		return []*x509.Certificate{r.anchor.cert}, nil
	case t == truststore.TypeTSA && name == tsaStore && len(r.tsa) > 0:
		certs := make([]*x509.Certificate, len(r.tsa))
		for i, a := range r.tsa {
			certs[i] = a.cert
		}
		return certs, nil
	}
	return nil, fmt.Errorf("no certificates in %s:%s", t, name)
}

// runRevocation answers with one of the run's two validators.
type runRevocation struct{ of func(*run) *revocationCheck }

// ValidateContext implements revocation.Validator.
func (v runRevocation) ValidateContext(ctx context.Context, o nrevocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	r, _ := ctx.Value(runKey{}).(*run)
	if r == nil {
		return nil, errNoRun
	}
	return v.of(r).ValidateContext(ctx, o)
}

func ociDigest(d trust.Digest) digest.Digest { return digest.Digest(d.String()) }
