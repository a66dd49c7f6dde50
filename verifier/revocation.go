package verifier

import (
	"context"
	"crypto/x509"
	"time"

	nrevocation "github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"

	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// revocationCheck is the revocation validator of one notation-go run. It is always
// ours: with none, notation-go would make one and dial addresses that come from
// the signer's certificate. notation-go calls it once the chain is found to end at
// a trusted certificate and the identity to be trusted; this one never waits for
// the network, and keeps what it said, since notation-go reports it as text alone.
type revocationCheck struct {
	mode    truststore.RevocationMode
	checker *revocation.Checker // nil: nobody to ask
	purpose purpose.Purpose

	// What was found, over all chains that were asked about.
	unknown, revoked, notChecked bool
	pending                      bool              // unknown, and being asked about
	until                        time.Time         // zero if nothing ends
	root                         *x509.Certificate // of the last chain asked about
}

var _ nrevocation.Validator = (*revocationCheck)(nil)

// ValidateContext answers for each certificate of the chain. One without OCSP
// and CRL addresses cannot be revoked and passes, and so does the root, as in
// notation-core-go.
func (c *revocationCheck) ValidateContext(_ context.Context, o nrevocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	if n := len(o.CertChain); n > 0 {
		c.root = o.CertChain[n-1]
	}
	if !revocation.HasAddress(o.CertChain) {
		return uniform(len(o.CertChain), result.ResultNonRevokable), nil
	}
	switch {
	case c.mode == truststore.RevocationIgnore:
		c.notChecked = true
		return uniform(len(o.CertChain), result.ResultOK), nil
	case c.mode != truststore.RevocationOnline || c.checker == nil:
		c.unknown = true
		return uniform(len(o.CertChain), result.ResultUnknown), nil
	}
	answer := c.checker.Check(o.CertChain, c.purpose, o.AuthenticSigningTime)
	switch {
	case answer.Until.IsZero() || answer.State != revocation.Good && answer.State != revocation.Revoked:
		// Also should an answer ever come without an end.
		c.unknown, c.pending = true, c.pending || answer.Pending
		return uniform(len(o.CertChain), result.ResultUnknown), nil
	case answer.State == revocation.Revoked:
		c.revoked = true
	}
	if c.until.IsZero() || answer.Until.Before(c.until) {
		c.until = answer.Until
	}
	return answer.Results, nil
}

// concerned reports whether a chain that was asked about names revocation services.
func (c *revocationCheck) concerned() bool {
	return c.unknown || c.revoked || c.notChecked || !c.until.IsZero()
}

func uniform(n int, r result.Result) []*result.CertRevocationResult {
	results := make([]*result.CertRevocationResult, n)
	for i := range results {
		results[i] = &result.CertRevocationResult{Result: r, ServerResults: []*result.ServerResult{result.NewServerResult(r, "", nil)}}
	}
	return results
}
