package verifier

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"testing"
	"time"

	"github.com/notaryproject/notation-go"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	notationstore "github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// What notation-go says under the operator's document itself, as "notation verify"
// runs it, is what facts and join together say: over levels, overrides, timestamp
// policies, dates, identities and stores.
func TestSameAsNotation(t *testing.T) {
	img := image("A")
	root, other := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "Other"})
	tsaRoot := signtest.NewRoot(signtest.CertOptions{CommonName: "TSA root"})
	tsa, badTSA := signtest.NewTSA(tsaRoot, signtest.CertOptions{}), signtest.NewTSA(other, signtest.CertOptions{})
	chains := map[string]*signtest.Chain{
		"valid":    root.Leaf(signtest.CertOptions{}),
		"past":     root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)}),
		"future":   root.Leaf(signtest.CertOptions{NotBefore: date(2080), NotAfter: date(2085)}),
		"revoke":   root.Leaf(signtest.CertOptions{OCSP: "http://127.0.0.1:1/"}),
		"stranger": other.Leaf(signtest.CertOptions{}),
		"mid":      root.Intermediate(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)}).Leaf(signtest.CertOptions{}),
	}
	signatures := map[string]*request{}
	for name, c := range chains {
		at := date(2005)
		if name == "future" {
			at = date(2081)
		}
		for kind, o := range map[string]signtest.NotationOptions{
			"":         {Time: at},
			"expired":  {Time: at, Expiry: at.AddDate(0, 1, 0)},
			"expires":  {Time: at, Expiry: date(2088)},
			"stamped":  {Time: at, TSA: tsa},
			"late":     {Time: at, TSA: tsa, Stamped: date(2086)},
			"badstamp": {Time: at, TSA: badTSA},
			"sa":       {Time: at, SigningAuthority: true},
			"saexp":    {Time: at, SigningAuthority: true, Expiry: at.AddDate(0, 1, 0)},
			"cose":     {Time: at, COSE: true},
			"stampexp": {Time: at, TSA: tsa, Expiry: at.AddDate(0, 1, 0)},
		} {
			signatures[name+" "+kind] = notated(img, c, o)
		}
	}
	stores := func(withTSA bool) []string {
		if withTSA {
			return []string{"ca:acme", "signingAuthority:acme", "tsa:stamps"}
		}
		return []string{"ca:acme", "signingAuthority:acme"}
	}
	overrides := []string{"", `"expiry":"log"`, `"expiry":"enforce"`, `"authenticTimestamp":"log"`, `"authenticTimestamp":"enforce"`,
		`"revocation":"skip"`, `"revocation":"log"`, `"revocation":"enforce"`, `"expiry":"log","authenticTimestamp":"log","revocation":"skip"`}
	if testing.Short() {
		overrides = overrides[:2]
	}
	verdicts := map[bool]int{}
	for _, level := range []string{"strict", "permissive"} {
		for _, override := range overrides {
			for _, when := range []string{"", "always", "afterCertExpiry"} {
				for _, withTSA := range []bool{false, true} {
					rest := ""
					if override != "" {
						rest += `,"override":{` + override + `}`
					}
					if when != "" {
						rest += `,"verifyTimestamp":"` + when + `"`
					}
					document := signtest.Policy(level, rest, stores(withTSA)...)
					ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("signingAuthority/acme", "r.pem", root.Cert()).
						cert("tsa/stamps", "t.pem", tsaRoot.Cert()).policy(document).load()
					for name, r := range signatures {
						lo := one(t, ts, r)
						got := lo.Problem == "" && decide(ts, r, lo, time.Now()).Status == trust.Trusted
						if w := notationSays(t, document, r, all{
							notationstore.TypeCA: {root.Cert()}, notationstore.TypeSigningAuthority: {root.Cert()}, notationstore.TypeTSA: {tsaRoot.Cert()}}); got != w {
							t.Errorf("%s, level %s%s, tsa %v: trusted %v, notation says %v (%s)", name, level, rest, withTSA, got, w, says(lo))
						}
						verdicts[got]++
					}
				}
			}
		}
	}
	if min(verdicts[true], verdicts[false]) < 300 {
		t.Errorf("too one-sided to mean much: %v", verdicts)
	}
}

// all serves every store name.
type all map[notationstore.Type][]*x509.Certificate

func (a all) GetCertificates(_ context.Context, t notationstore.Type, _ string) ([]*x509.Certificate, error) {
	return a[t], nil
}

func notationSays(t *testing.T, document string, r *request, certs all) bool {
	t.Helper()
	var doc trustpolicy.Document
	if err := json.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatal(err)
	}
	v, err := nverifier.NewWithOptions(&doc, certs, nil, nverifier.VerifierOptions{
		RevocationCodeSigningValidator:  &revocationCheck{mode: truststore.RevocationOffline},
		RevocationTimestampingValidator: &revocationCheck{mode: truststore.RevocationOffline}})
	if err != nil {
		t.Fatal(err)
	}
	layer := r.Signature.Layers[0]
	_, err = v.Verify(t.Context(), r.Subject.descriptor(), r.blobs[must(trust.ParseDigest(string(layer.Digest)))],
		notation.VerifierVerifyOptions{ArtifactReference: "host/" + repo + "@" + r.Subject.Digest.String(), SignatureMediaType: layer.MediaType})
	return err == nil
}
