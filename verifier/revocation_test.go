package verifier

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// online verifies under a checker whose requests a responder answers: once to ask,
// and again when it has answered.
func online(t *testing.T, d *trustDirs, r *signtest.Responder, q *request) LayerOutcome {
	t.Helper()
	return onlineAll(t, d, r, q)[0]
}

// onlineAll is online for several signatures, one after the other.
func onlineAll(t *testing.T, d *trustDirs, r *signtest.Responder, qs ...*request) (found []LayerOutcome) {
	t.Helper()
	d.cfg.Revocation = truststore.RevocationOnline
	c := revocation.New(revocation.Options{Transport: r})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	v := New(d.load(), Options{Revocation: c})
	for _, q := range qs {
		var o Outcome
		for range 3 { // the signer's chain, a TSA's, the answers
			var err error
			if o, err = v.Verify(t.Context(), q.Request); err != nil {
				t.Fatal(err)
			}
			c.Settle(t.Context())
		}
		if len(o.Layers) != 1 {
			o.Layers = []LayerOutcome{{Problem: o.Skipped}}
		}
		found = append(found, o.Layers[0])
	}
	return found
}

const responder = "http://responder.invalid/"

// What a responder says, under policies that enforce, log and skip revocation.
func TestRevocationOnline(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	leaf := root.Leaf(signtest.CertOptions{OCSP: responder})
	next := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	good, revoked := signtest.OCSPOptions{Next: next}, signtest.OCSPOptions{Status: ocsp.Revoked, Next: next}
	const silent = ocsp.Unknown
	for _, c := range []struct {
		name, policy string
		say          signtest.OCSPOptions
		want         string
		notes        []trust.Note
		later        trust.Reason // at the next update
		again        bool         // has to be looked at by the next update
	}{
		{"enforced, good", signtest.Policy("strict", "", "ca:acme"), good, "trusted", nil, trust.RevocationUnknown, true},
		{"enforced, revoked", signtest.Policy("strict", "", "ca:acme"), revoked, "revoked", nil, trust.Revoked, true},
		{"enforced, unknown", signtest.Policy("strict", "", "ca:acme"), signtest.OCSPOptions{Status: silent}, "problem revocation-unknown", nil, "", false},
		{"enforced by override", signtest.Policy("permissive", `,"override":{"revocation":"enforce"}`, "ca:acme"), revoked, "revoked", nil, trust.Revoked, true},
		{"logged, good", signtest.Policy("permissive", "", "ca:acme"), good, "trusted", nil, "", true},
		{"logged, revoked", signtest.Policy("permissive", "", "ca:acme"), revoked, "trusted", []trust.Note{trust.RevocationLogged}, "", true},
		{"logged, unknown", signtest.Policy("permissive", "", "ca:acme"), signtest.OCSPOptions{Status: silent}, "trusted", []trust.Note{trust.RevocationNotChecked}, "", false},
		{"skipped", signtest.Policy("strict", `,"override":{"revocation":"skip"}`, "ca:acme"), revoked, "trusted", nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := signtest.NewResponder(root)
			r.Say(c.say, signtest.CRLOptions{})
			d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.policy)
			q := notated(img, leaf, signtest.NotationOptions{})
			lo := online(t, d, r, q)
			want(t, lo, c.want)
			if asked := len(r.Served()); asked != 1 && c.name != "skipped" || asked != 0 && c.name == "skipped" {
				t.Errorf("asked %d times", asked)
			}
			if lo.Problem != "" {
				return
			}
			ts := d.load()
			if got := decide(ts, q, lo, time.Now()); !slices.Equal(got.Notes, c.notes) {
				t.Errorf("notes %v, want %v", got.Notes, c.notes)
			}
			if got := decide(ts, q, lo, next); got.Reason != c.later {
				t.Errorf("at the next update: %+v, want %q", got, c.later)
			}
			if at := lo.Verdict.Recheck(); (at == next.Unix()) != c.again || !c.again && at != 0 {
				t.Errorf("to be asked again at %d, next update %d", at, next.Unix())
			}
			if c.name == "logged, unknown" != (lo.Incomplete == trust.RevocationUnknown) {
				t.Errorf("incomplete: %q", lo.Incomplete)
			}
		})
	}
}

// N6: nobody is asked on behalf of a signature that would not be trusted anyway,
// nor in the other modes, nor under levels that do not verify.
func TestNobodyIsAskedBeforeAuthenticity(t *testing.T) {
	img := image("A")
	root, stranger := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "Stranger"})
	o := signtest.CertOptions{OCSP: responder, CRL: responder + "a.crl"}
	leaf, strangers := root.Leaf(o), stranger.Leaf(o)
	// A stranger's leaf with T's root behind it, and T's chain over a signature
	// that is not by it.
	grafted := &signtest.Chain{Certs: []*x509.Certificate{strangers.Cert(), root.Cert()}, Key: strangers.Key}
	forged := &signtest.Chain{Certs: leaf.Certs, Key: strangers.Key}
	strict := signtest.Policy("strict", "", "ca:acme")
	header := must(json.Marshal(signtest.Protected("ES256", time.Now())))
	for name, c := range map[string]struct {
		policy string
		mode   truststore.RevocationMode
		q      *request
	}{
		"stranger":          {strict, truststore.RevocationOnline, notated(img, strangers, signtest.NotationOptions{})},
		"grafted":           {strict, truststore.RevocationOnline, newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(header, signtest.Target(img.descriptor()), grafted))},
		"forged":            {strict, truststore.RevocationOnline, newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(header, signtest.Target(img.descriptor()), forged))},
		"another subject":   {strict, truststore.RevocationOnline, notated(image("B"), leaf, signtest.NotationOptions{}).about(img)},
		"another identity":  {identities(strict, "x509.subject: C=US, ST=WA, O=Somebody else"), truststore.RevocationOnline, notated(img, leaf, signtest.NotationOptions{})},
		"audit":             {signtest.Policy("audit", "", "ca:acme"), truststore.RevocationOnline, notated(img, leaf, signtest.NotationOptions{})},
		"skip":              {`{"version":"1.0","trustPolicies":[{"name":"s","registryScopes":["*"],"signatureVerification":{"level":"skip"}}]}`, truststore.RevocationOnline, notated(img, leaf, signtest.NotationOptions{})},
		"offline":           {strict, truststore.RevocationOffline, notated(img, leaf, signtest.NotationOptions{})},
		"ignore":            {strict, truststore.RevocationIgnore, notated(img, leaf, signtest.NotationOptions{})},
		"broken manifest":   {strict, truststore.RevocationOnline, newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, []byte("{}"))},
		"genuine (control)": {strict, truststore.RevocationOnline, notated(img, leaf, signtest.NotationOptions{})},
	} {
		t.Run(name, func(t *testing.T) {
			r := signtest.NewResponder(root)
			d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.policy)
			lo := LayerOutcome{}
			if c.mode == truststore.RevocationOnline {
				lo = online(t, d, r, c.q)
			} else {
				d.cfg.Revocation = c.mode
				checker := revocation.New(revocation.Options{Transport: r})
				o, err := New(d.load(), Options{Revocation: checker}).Verify(t.Context(), c.q.Request)
				if err != nil || checker.Stats() != (revocation.Stats{}) {
					t.Fatal(err, checker.Stats())
				}
				lo = o.Layers[0]
			}
			trusted := lo.Verdict.Matched()
			if control := name == "genuine (control)"; len(r.Served()) > 0 != control || trusted != (control || name == "ignore") {
				t.Errorf("%s, asked for %v", says(lo), r.Served())
			}
			if lo.Verdict.RevocationNotChecked != (name == "ignore") {
				t.Errorf("not checked: %v", lo.Verdict.RevocationNotChecked)
			}
		})
	}
}

// Whoever has the key of a revoked certificate chooses the time that a signing
// authority's signature claims. What revocation services say of that time is no
// answer for a signature that claims none.
func TestRevokedWhateverTimeIsClaimed(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	leaf := root.Leaf(signtest.CertOptions{NotBefore: date(2000), CRL: responder + "a.crl"})
	r := signtest.NewResponder(root)
	since := must(asn1.MarshalWithParams(date(2020).UTC(), "generalized"))
	r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{Change: func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: leaf.Cert().SerialNumber, RevocationTime: time.Now(),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: since}}}} // invalidityDate
	}})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("signingAuthority/acme", "r.pem", root.Cert()).
		policy(signtest.Policy("strict", "", "ca:acme", "signingAuthority:acme"))
	h := signtest.Protected("ES256", time.Unix(0, 0))
	h["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority"
	h["io.cncf.notary.authenticSigningTime"] = h["io.cncf.notary.signingTime"]
	h["crit"] = []string{"io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime"}
	delete(h, "io.cncf.notary.signingTime")
	claims := newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(must(json.Marshal(h)), signtest.Target(img.descriptor()), leaf))
	for n, lo := range onlineAll(t, d, r, claims, notated(img, leaf, signtest.NotationOptions{})) {
		want(t, lo, []string{"timestamp-invalid", "revoked"}[n])
	}
}

// A countersignature's chain is asked about like the signer's.
func TestRevocationOfTSA(t *testing.T) {
	img := image("A")
	root, tsaRoot := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "TSA root"})
	past := root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)})
	valid := root.Leaf(signtest.CertOptions{})
	stamp := signtest.NotationOptions{Time: date(2005), TSA: signtest.NewTSA(tsaRoot, signtest.CertOptions{OCSP: responder})}
	next := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	always := signtest.Policy("strict", "", "ca:acme", "tsa:stamps")
	after := signtest.Policy("strict", `,"verifyTimestamp":"afterCertExpiry"`, "ca:acme", "tsa:stamps")
	for _, c := range []struct {
		name, policy string
		chain        *signtest.Chain
		status       int
		want         string
		now, later   trust.Reason
		until        int64
	}{
		{"always, good", always, past, ocsp.Good, "trusted", "", trust.RevocationUnknown, next.Unix()},
		{"always, revoked", always, past, ocsp.Revoked, "timestamp-invalid", trust.TimestampInvalid, trust.TimestampInvalid, next.Unix()},
		{"always, unknown", always, past, ocsp.Unknown, "problem revocation-unknown", "", "", 0},
		{"after, good", after, past, ocsp.Good, "trusted", "", trust.RevocationUnknown, next.Unix()},
		{"after, revoked, certificate over", after, past, ocsp.Revoked, "trusted", trust.CertificateExpired, trust.CertificateExpired, next.Unix()},
		{"after, revoked, certificate valid", after, valid, ocsp.Revoked, "trusted", "", "", next.Unix()},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := signtest.NewResponder(tsaRoot)
			r.Say(signtest.OCSPOptions{Status: c.status, Next: next}, signtest.CRLOptions{})
			d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("tsa/stamps", "t.pem", tsaRoot.Cert()).policy(c.policy)
			q := notated(img, c.chain, stamp)
			lo := online(t, d, r, q)
			want(t, lo, c.want)
			if lo.Problem != "" {
				return
			}
			if at := lo.Verdict.Recheck(); at != c.until {
				t.Errorf("recheck at %d, want %d", at, c.until)
			}
			if got := decide(d.load(), q, lo, time.Now()); got.Reason != c.now {
				t.Errorf("now %+v, want %q", got, c.now)
			}
			if got := decide(d.load(), q, lo, next); got.Reason != c.later {
				t.Errorf("at the next update %+v, want %q", got, c.later)
			}
		})
	}
}

func (r *request) about(s Subject) *request { r.Subject = s; return r }

func identities(document string, names string) string {
	return strings.Replace(document, `"trustedIdentities":["*"]`, `"trustedIdentities":["`+names+`"]`, 1)
}
