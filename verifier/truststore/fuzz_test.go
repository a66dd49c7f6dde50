package truststore

import (
	"testing"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Whatever a policy file holds, it is the default, the operator's in full, or
// invalid; audit and skip never verify.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(signtest.Policy("strict", "", "ca:acme")))
	f.Add([]byte(signtest.Policy("audit", `,"override":{"expiry":"log"}`, "ca:acme", "tsa:t")))
	f.Add([]byte(`{"version":"1.0","trustPolicies":[{"name":"default-config","registryScopes":["*"],"signatureVerification":{"level":"strict"},"trustStores":[],"trustedIdentities":["*"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePolicy(b)
		if (p == nil) != (err != nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if p == nil {
			return
		}
		for i := range p.doc.TrustPolicies {
			st := &p.doc.TrustPolicies[i]
			s, join, err := newStatement(st, RevocationOffline)
			if err != nil {
				t.Fatalf("a statement of an accepted document: %v", err)
			}
			level := st.SignatureVerification.VerificationLevel
			if s.verifies != (level == "strict" || level == "permissive") || join.Policy == (trust.PolicyID{}) {
				t.Errorf("level %q verifies: %v", level, s.verifies)
			}
		}
	})
}

// A key file that is accepted holds one public key, strong enough, and says so.
func FuzzKeyFile(f *testing.F) {
	for _, kind := range []signtest.Kind{signtest.P256, signtest.RSA2048, signtest.RSA1024, signtest.Ed25519, signtest.P224} {
		f.Add(signtest.NewKey(kind).PEM())
	}
	f.Add(signtest.NewKey(signtest.P256).PrivatePEM())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b)
		if (k == nil) != (err != nil) {
			t.Fatalf("%v, %v", k, err)
		}
		if k != nil && (k.Fingerprint == (trust.Digest{}) || k.pem != string(b) || len(k.Ways) == 0 || k.Class == 0) {
			t.Errorf("%+v", k)
		}
	})
}

func FuzzCertificateFile(f *testing.F) {
	root := signtest.NewRoot(signtest.CertOptions{})
	f.Add(signtest.CertPEM(root.Cert()))
	f.Add(root.Cert().Raw)
	f.Add(signtest.CertPEM(root.Leaf(signtest.CertOptions{}).Cert(), root.Cert()))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, st := range truststore.Types {
			certs, err := parseCertificates(b, st)
			if (len(certs) == 0) != (err != nil) {
				t.Fatalf("%d certificates, %v", len(certs), err)
			}
			if err == nil && truststore.ValidateCertificates(certs) != nil {
				t.Error("accepted what notation would not")
			}
		}
	})
}
