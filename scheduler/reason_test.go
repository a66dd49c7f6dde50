package scheduler

import (
	"fmt"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const countersigned = `{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],
	"signatureVerification":{"level":"strict","verifyTimestamp":"always"},
	"trustStores":["ca:acme","ca:other","tsa:stamp"],"trustedIdentities":[%q]}]}`

// What a signature lacks besides a signer is said only while a trusted one vouches
// for it.
func TestAReasonGoesWithItsSigner(t *testing.T) {
	for reason, identity := range map[trust.Reason]string{trust.TimestampInvalid: "*",
		trust.IdentityNotTrusted: "x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=someone else"} {
		t.Run(string(reason), func(t *testing.T) {
			w := newWorld(t)
			w.opts.MaxFiled = 1 // the going of a signer is not bounded
			root, other := signtest.NewRoot(signtest.CertOptions{CommonName: "root"}), signtest.NewRoot(signtest.CertOptions{CommonName: "other"})
			stamp := signtest.NewRoot(signtest.CertOptions{CommonName: "stamp"})
			w.st.TrustCert("ca:acme", "root.pem", root.Cert())
			w.st.TrustCert("ca:other", "other.pem", other.Cert())
			w.st.TrustCert("ca:acme", "other.pem", other.Cert()) // no store is empty
			w.st.TrustCert("tsa:stamp", "stamp.pem", stamp.Cert())
			w.st.Policy(fmt.Sprintf(countersigned, identity))
			img := w.st.Content("a", "1", "x")
			o := signtest.NotationOptions{}
			if reason == trust.IdentityNotTrusted {
				o = signtest.NotationOptions{TSA: signtest.NewTSA(stamp, signtest.CertOptions{}), Time: time.Now().Add(-time.Hour)}
			}
			w.st.SignNotation(img, root.Leaf(signtest.CertOptions{}), o)
			w.scan()
			w.reason(img, reason)
			w.st.Untrust("_notation/truststore/x509/ca/acme/root.pem")
			w.scan()
			w.reason(img, trust.NoTrustedKey)
		})
	}
}

// A TSA's certificate finds the signatures beyond the bound of the index as well.
func TestATimestampBeyondTheBoundIsFound(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxFiled = 1
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	stamp, another := signtest.NewRoot(signtest.CertOptions{CommonName: "stamp"}), signtest.NewRoot(signtest.CertOptions{CommonName: "another"})
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.st.TrustCert("ca:other", "root.pem", root.Cert())
	w.st.TrustCert("tsa:stamp", "another.pem", another.Cert())
	w.st.Policy(fmt.Sprintf(countersigned, "*"))
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, root.Leaf(signtest.CertOptions{}),
		signtest.NotationOptions{Time: time.Now().Add(-time.Hour), TSA: signtest.NewTSA(stamp, signtest.CertOptions{})})
	w.scan()
	w.reason(img, trust.TimestampInvalid)
	w.st.TrustCert("tsa:stamp", "stamp.pem", stamp.Cert())
	w.scan()
	w.want(img, "trusted")
}

// So does another anchor of a chain whose first one has left.
func TestAnotherAnchorBeyondTheBoundIsFound(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxFiled = 1
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	mid := root.Intermediate(signtest.CertOptions{CommonName: "mid"})
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, mid.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	w.st.TrustCert("ca:acme", "mid.pem", mid.Cert())
	w.scan()
	w.want(img, "trusted")
	w.st.Untrust("_notation/truststore/x509/ca/acme/mid.pem")
	w.scan()
	w.reason(img, trust.SignerRemoved)
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.scan()
	w.want(img, "trusted")
}

// And another anchor of a chain whose first one is still there: rotating one of two
// leaves no gap.
func TestASecondAnchorBeyondTheBoundIsFound(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxFiled = 1
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	mid := root.Intermediate(signtest.CertOptions{CommonName: "mid"})
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, mid.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	w.st.TrustCert("ca:acme", "mid.pem", mid.Cert())
	w.scan()
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.scan()
	w.st.Untrust("_notation/truststore/x509/ca/acme/mid.pem")
	if err := reload(t.Context(), w.scheduler()); err != nil { // nothing is verified again
		t.Fatal(err)
	}
	w.want(img, "trusted")
}
