package verifier

import (
	"context"
	"crypto/x509"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/result"
)

// revocationCheck is the revocation validator of one notation-go run. It is always
// ours: with none, notation-go would make one and dial addresses that come from
// the signer's certificate. This one has no network; it keeps what it said, since
// notation-go reports it as text alone.
type revocationCheck struct {
	mode RevocationMode
	// What was found, over all chains that were asked about.
	unknown, revoked, notChecked bool
}

var _ revocation.Validator = (*revocationCheck)(nil)

// ValidateContext answers for each certificate of the chain. One without OCSP
// and CRL addresses cannot be revoked and passes, and so does the root, as in
// notation-core-go.
func (c *revocationCheck) ValidateContext(_ context.Context, o revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results := make([]*result.CertRevocationResult, len(o.CertChain))
	for i, cert := range o.CertChain {
		r := result.ResultNonRevokable
		if i < len(o.CertChain)-1 && hasRevocationAddress(cert) {
			if c.mode == RevocationIgnore {
				r, c.notChecked = result.ResultOK, true
			} else {
				r, c.unknown = result.ResultUnknown, true
			}
		}
		results[i] = &result.CertRevocationResult{Result: r, ServerResults: []*result.ServerResult{result.NewServerResult(r, "", nil)}}
	}
	return results, nil
}

func hasRevocationAddress(c *x509.Certificate) bool {
	return len(c.OCSPServer) > 0 || len(c.CRLDistributionPoints) > 0
}
