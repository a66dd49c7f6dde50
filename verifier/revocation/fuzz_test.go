package revocation

import (
	"context"
	"crypto/x509"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"golang.org/x/crypto/ocsp"

	"trust-worker/internal/signtest"
)

// The processes of a fuzz test must have the same certificates.
func fuzzChain(name string, o signtest.CertOptions) (root, leaf *signtest.Chain) {
	o.Key, o.Change = signtest.FixedKey(name+" leaf"), func(c *x509.Certificate) { c.SerialNumber = big.NewInt(2) }
	root = signtest.NewRoot(signtest.CertOptions{CommonName: name, Key: signtest.FixedKey(name),
		Change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }})
	return root, root.Leaf(o)
}

// fuzzResponses: whatever a responder sends, nothing is good that the issuer has not
// signed as good. The seeds hold all that the issuer may have signed otherwise.
func fuzzResponses(f *testing.F, o signtest.CertOptions, seeds func(root, stranger, leaf *signtest.Chain) [][]byte) {
	root, leaf := fuzzChain("T", o)
	stranger, _ := fuzzChain("E", o)
	for _, b := range seeds(root, stranger, leaf) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := signtest.NewResponder(root)
		r.Do(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) })
		c := New(Options{Transport: r})
		a := &ask{chain: leaf.Certs, purpose: purpose.CodeSigning}
		if answer := c.ask(context.Background(), a); answer.State == Good {
			t.Errorf("good: %+v", answer)
		}
	})
}

var far = time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC)

func FuzzOCSP(f *testing.F) {
	fuzzResponses(f, signtest.CertOptions{OCSP: "http://r.invalid/"}, func(root, stranger, leaf *signtest.Chain) [][]byte {
		serial := leaf.Cert().SerialNumber
		return [][]byte{
			signtest.OCSPResponse(root, serial, signtest.OCSPOptions{Status: ocsp.Revoked, Next: far}),
			signtest.OCSPResponse(root, serial, signtest.OCSPOptions{Status: ocsp.Unknown, Next: far}),
			signtest.OCSPResponse(root, big.NewInt(3), signtest.OCSPOptions{Next: far}),
			signtest.OCSPResponse(stranger, serial, signtest.OCSPOptions{Next: far}),
			signtest.OCSPResponse(root, serial, signtest.OCSPOptions{Next: far, By: leaf}),
			signtest.OCSPResponse(root, serial, signtest.OCSPOptions{Next: time.Now().Add(-time.Hour), This: time.Now().Add(-2 * time.Hour)}),
			ocsp.TryLaterErrorResponse,
		}
	})
}

func FuzzCRL(f *testing.F) {
	fuzzResponses(f, signtest.CertOptions{CRL: "http://r.invalid/a.crl"}, func(root, stranger, leaf *signtest.Chain) [][]byte {
		return [][]byte{
			signtest.CRL(root, signtest.CRLOptions{Revoked: leaf.Certs[:1], Next: far}),
			signtest.CRL(stranger, signtest.CRLOptions{Next: far}),
			signtest.CRL(root, signtest.CRLOptions{Next: time.Now().Add(-time.Hour), This: time.Now().Add(-2 * time.Hour)}),
		}
	})
}
