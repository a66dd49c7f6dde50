package verifier

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const (
	actions  = "https://token.actions.test"
	workflow = "https://github.test/acme/app/.github/workflows/release.yml@refs/tags/v1"
	byActor  = "- issuer: " + actions + "\n  subject: " + workflow + "\n"
)

// keylessly makes a request for each carrier.
func keylessly(s Subject, by *signtest.Sigstore, o signtest.KeylessOptions) map[string]*request {
	if o.Subject == "" {
		o.Issuer, o.Subject = actions, workflow
	}
	d, b := by.Layer(s.Digest, o)
	return map[string]*request{
		"layer":  newRequest(s, trust.CosignTag).layer(d, b),
		"bundle": newRequest(s, trust.CosignBundle).blob(signtest.BundleMediaType, by.Bundle(s.Digest, o)),
	}
}

func (d *trustDirs) file(name, content string) *trustDirs {
	d.st.TrustFile(name, []byte(content))
	return d
}

func (d *trustDirs) root(name string, r *signtest.RootFile) *trustDirs {
	return d.file(name, string(r.JSON()))
}

// decide verifies and joins under what the directories hold.
func (d *trustDirs) decide(t *testing.T, r *request) (trust.Decision, LayerOutcome) {
	t.Helper()
	ts := d.load()
	o, err := New(ts, Options{}).Verify(t.Context(), r.Request)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Layers) != 1 || o.Panics > 0 {
		t.Fatalf("%+v", o)
	}
	lo := o.Layers[0]
	if lo.Problem != "" {
		return trust.Decision{Status: lo.Problem.Status(), Reason: lo.Problem}, lo
	}
	return ts.InForce().Decide(r.Subject.Repository, trust.Cosign, &lo.Verdict, time.Now()), lo
}

// TestKeyless has each piece of evidence there, missing, foreign or at another time, under
// roots that demand it or not.
func TestKeyless(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	at := time.Now().AddDate(-1, 0, 0).UTC().Truncate(time.Second)
	full := s.Root
	noTSA := func() *signtest.RootFile { r := s.Root(); r.TimestampAuthorities = nil; return r }
	stampsOnly := func() *signtest.RootFile { r := s.Root(); r.Tlogs = nil; return r }
	before := at.Add(-time.Hour).Format(time.RFC3339)
	after := at.Add(time.Hour).Format(time.RFC3339)
	type options = signtest.KeylessOptions
	for name, c := range map[string]struct {
		o    options
		root *signtest.RootFile
		want trust.Reason
	}{
		"as cosign signs":                     {options{}, full(), ""},
		"with a time stamp":                   {options{Stamp: true}, full(), ""},
		"without an SCT":                      {options{NoSCT: true}, full(), trust.SCTMissing},
		"an SCT of another log":               {options{CT: other.CT}, full(), trust.SCTMissing},
		"no SCT is demanded":                  {options{NoSCT: true}, func() *signtest.RootFile { r := full(); r.CTLogs = nil; return r }(), ""},
		"not logged":                          {options{NoEntry: true}, full(), trust.NotLogged},
		"not logged but stamped":              {options{NoEntry: true, Stamp: true}, full(), trust.NotLogged},
		"logged elsewhere":                    {options{Log: other.Log}, full(), trust.NotLogged},
		"the log has another signature":       {options{EntryFor: []byte("another")}, full(), trust.NotLogged},
		"stamps are enough":                   {options{NoEntry: true, Stamp: true}, stampsOnly(), ""},
		"no log is listed and nothing stamps": {options{}, stampsOnly(), trust.NoSignedTime},
		"a stamp of another authority":        {options{Stamp: true, TSA: other.TSA}, full(), ""},
		"only that stamp":                     {options{Stamp: true, TSA: other.TSA, NoEntry: true}, stampsOnly(), trust.NoSignedTime},
		"a stamp too late":                    {options{Stamp: true, StampedAt: at.Add(time.Hour)}, full(), trust.TimestampInvalid},
		"a stamp too early":                   {options{Stamp: true, StampedAt: at.Add(-time.Hour)}, full(), trust.TimestampInvalid},
		"a foreign stamp too late":            {options{Stamp: true, TSA: other.TSA, StampedAt: at.Add(time.Hour)}, full(), ""},
		"a late stamp that nobody lists":      {options{Stamp: true, StampedAt: at.Add(time.Hour)}, noTSA(), ""},
		"logged too late":                     {options{LoggedAt: at.Add(time.Hour)}, full(), trust.TimestampInvalid},
		"the authority has ended":             {options{}, func() *signtest.RootFile { r := full(); r.CertificateAuthorities[0].ValidFor.End = before; return r }(), trust.AuthorityRemoved},
		"the authority begins later":          {options{}, func() *signtest.RootFile { r := full(); r.CertificateAuthorities[0].ValidFor.Start = after; return r }(), trust.AuthorityRemoved},
		"the authority ends later":            {options{}, func() *signtest.RootFile { r := full(); r.CertificateAuthorities[0].ValidFor.End = after; return r }(), ""},
		"the log has ended":                   {options{}, func() *signtest.RootFile { r := full(); r.Tlogs[0].PublicKey.ValidFor.End = before; return r }(), trust.NotLogged},
		"the CT log has ended":                {options{}, func() *signtest.RootFile { r := full(); r.CTLogs[0].PublicKey.ValidFor.End = before; return r }(), trust.SCTMissing},
		"CA of one, log of another":           {options{Log: other.Log}, full(), trust.NotLogged},
		"another instance":                    {options{}, other.Root(), trust.NoTrustedRoot},
		"two names":                           {options{Change: func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} }}, full(), trust.CertificateInvalid},
		"a host":                              {options{Change: func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"b.test"} }}, full(), trust.CertificateInvalid},
		"no name":                             {options{Change: func(c *x509.Certificate) { c.URIs = nil }}, full(), trust.CertificateInvalid},
		"two issuers": {options{Change: func(c *x509.Certificate) {
			c.ExtraExtensions[1] = signtest.FulcioText(signtest.OIDIssuerV2, "https://evil.test")
		}}, full(), trust.CertificateInvalid},
		"the new issuer alone": {options{Change: func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[1:] }}, full(), ""},
		"the old issuer alone": {options{Change: func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[:1] }}, full(), ""},
		"another issuer": {options{Change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{signtest.FulcioText(signtest.OIDIssuerV2, "https://evil.test")}
		}}, full(), trust.IdentityNotTrusted},
		"another workflow": {options{Change: func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "https", Host: "github.test", Path: "/evil/app"}}
		}}, full(), trust.IdentityNotTrusted},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.At = at
			dirs := newDirs(t).root("trusted_root.json", c.root).file("identities.yaml", byActor)
			for carrier, r := range keylessly(image("x"), s, c.o) {
				d, lo := dirs.decide(t, r)
				if d.Reason != c.want || (d.Status == trust.Trusted) != (c.want == "") {
					t.Errorf("%s: %s %s (%s), want %q", carrier, d.Status, d.Reason, d.Detail, c.want)
				}
				if c.want == "" && (d.Author != workflow || d.Issuer != actions || d.Root != "trusted_root.json" || !d.SignedAt.Equal(at.Add(time.Minute)) || d.File != "_cosign/identities.yaml") {
					t.Errorf("%s: %+v", carrier, d)
				}
				if c.want != "" && (d.Author != "" || d.Subject != "") {
					t.Errorf("%s: the author %q is shown", carrier, d.Author)
				}
				if (lo.Verdict.Identity != nil) != lo.Verdict.Matched() {
					t.Errorf("%s: %+v", carrier, lo.Verdict)
				}
			}
		})
	}
}

// TestInclusionAloneProvesNoTime: a bundle's entry without a signed entry timestamp needs
// a time stamp, and the log's window is held against that time.
func TestInclusionAloneProvesNoTime(t *testing.T) {
	s := signtest.NewSigstore("one")
	at := time.Now().AddDate(-1, 0, 0)
	ended := s.Root()
	ended.Tlogs[0].PublicKey.ValidFor.End = at.Add(-time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct {
		o    signtest.KeylessOptions
		root *signtest.RootFile
		want trust.Reason
	}{
		{signtest.KeylessOptions{NoSET: true}, s.Root(), trust.NoSignedTime},
		{signtest.KeylessOptions{NoSET: true, Stamp: true}, s.Root(), ""},
		{signtest.KeylessOptions{NoSET: true, Stamp: true}, ended, trust.AuthorityRemoved},
	} {
		c.o.At = at
		d, _ := newDirs(t).root("trusted_root.json", c.root).file("identities.yaml", byActor).decide(t, keylessly(image("x"), s, c.o)["bundle"])
		if d.Reason != c.want {
			t.Errorf("%+v: %s %s, want %q", c.o, d.Reason, d.Detail, c.want)
		}
	}
}

// TestOneRootForAll: what was verified under one root holds under another that demands the
// same of the same authorities, without a look; and nothing is put together of two.
func TestOneRootForAll(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{Stamp: true}) {
		_, lo := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).decide(t, r)
		under := func(change func(*signtest.RootFile), more ...*signtest.RootFile) trust.Reason {
			root := s.Root()
			change(root)
			dirs := newDirs(t).root("trusted_root.json", root).file("identities.yaml", byActor)
			for _, m := range more {
				dirs.root("trusted_root_more.json", m)
			}
			return dirs.load().InForce().Decide(repo, trust.Cosign, &lo.Verdict, time.Now()).Reason
		}
		half := other.Root()
		half.CertificateAuthorities = s.Root().CertificateAuthorities
		for name, c := range map[string]struct{ got, want trust.Reason }{
			"the same":         {under(func(*signtest.RootFile) {}), ""},
			"without CT logs":  {under(func(r *signtest.RootFile) { r.CTLogs = nil }), ""},
			"without logs":     {under(func(r *signtest.RootFile) { r.Tlogs = nil }), ""},
			"with another CT":  {under(func(r *signtest.RootFile) { r.CTLogs = other.Root().CTLogs }), trust.SCTMissing},
			"with another log": {under(func(r *signtest.RootFile) { r.Tlogs = other.Root().Tlogs }), trust.NotLogged},
			// It has a time stamp, so that another authority has to be asked about it.
			"without a stamper": {under(func(r *signtest.RootFile) { r.TimestampAuthorities = nil }), trust.PolicyChanged},
			"with a new stamper": {under(func(r *signtest.RootFile) {
				r.TimestampAuthorities = append(r.TimestampAuthorities, other.Root().TimestampAuthorities...)
			}), trust.PolicyChanged},
			"with a new CA": {under(func(r *signtest.RootFile) {
				r.CertificateAuthorities = append(other.Root().CertificateAuthorities, r.CertificateAuthorities...)
			}), ""},
			"without the CA":   {under(func(r *signtest.RootFile) { r.CertificateAuthorities = other.Root().CertificateAuthorities }), trust.AuthorityRemoved},
			"the CA elsewhere": {under(func(r *signtest.RootFile) { r.CertificateAuthorities = other.Root().CertificateAuthorities }, half), trust.PolicyChanged},
			"ended since":      {under(func(r *signtest.RootFile) { r.CertificateAuthorities[0].ValidFor.End = "2001-01-01T00:00:00Z" }), trust.AuthorityRemoved},
			"the log ended":    {under(func(r *signtest.RootFile) { r.Tlogs[0].PublicKey.ValidFor.End = "2001-01-01T00:00:00Z" }), trust.AuthorityRemoved},
		} {
			if c.got != c.want {
				t.Errorf("%s, %s: %q, want %q", carrier, name, c.got, c.want)
			}
		}
	}
}

// TestAKeyIsEnough: what an annotation says besides takes no trust from a key in force.
func TestAKeyIsEnough(t *testing.T) {
	s, k := signtest.NewSigstore("one"), pooled(signtest.P256, 0)
	r := keylessly(image("x"), s, signtest.KeylessOptions{Key: k, Issuer: actions, Subject: workflow})["layer"]
	d, lo := newDirs(t).key("k.pub", k).decide(t, r)
	if d.Status != trust.Trusted || d.File != "_cosign/k.pub" || !d.Until.IsZero() {
		t.Errorf("%+v", d)
	}
	if len(lo.Verdict.Grounds) != 1 {
		t.Errorf("%+v", lo.Verdict.Grounds)
	}
	// With a root both vouch: the key for a part of the repositories, the identity for
	// the rest.
	dirs := newDirs(t).file("elsewhere/k.pub", string(k.PEM())).root("trusted_root.json", s.Root())
	if d, lo = dirs.decide(t, r); d.Reason != trust.IdentityNotTrusted || len(lo.Verdict.Grounds) != 2 {
		t.Errorf("%+v", d)
	}
	if d, _ = dirs.file("team/identities.yaml", byActor).decide(t, r); d.Status != trust.Trusted || d.File != "_cosign/team/identities.yaml" {
		t.Errorf("%+v", d)
	}
}

// TestAnAttestationIsNoSignature: not by an identity either.
func TestAnIdentitysAttestationIsNoSignature(t *testing.T) {
	s := signtest.NewSigstore("one")
	r := newRequest(image("x"), trust.CosignBundle).blob(signtest.BundleMediaType, s.Bundle(image("x").Digest,
		signtest.KeylessOptions{Issuer: actions, Subject: workflow, Predicate: "https://slsa.dev/provenance/v1"}))
	o, err := New(newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).load(), Options{}).Verify(t.Context(), r.Request)
	if err != nil || !o.Attachment || len(o.Layers) != 1 || o.Layers[0].Verdict.Predicate != "https://slsa.dev/provenance/v1" || !o.Layers[0].Verdict.Matched() {
		t.Errorf("%+v %v", o, err)
	}
}

// TestHostileEvidence is evidence at which a library panics, or that two readers take for
// different things.
func TestHostileEvidence(t *testing.T) {
	s := signtest.NewSigstore("one")
	dirs := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor)
	for name, change := range map[string]map[string]string{
		"a body that is no text": {"dev.sigstore.cosign/bundle": `{"SignedEntryTimestamp":"","Payload":{"body":{"a":1},"integratedTime":1,"logIndex":1,"logID":"00"}}`},
		"no payload":             {"dev.sigstore.cosign/bundle": `{}`},
		"a proposed entry": {"dev.sigstore.cosign/bundle": fmt.Sprintf(`{"SignedEntryTimestamp":"AAAA","Payload":{"body":%q,"integratedTime":1,"logIndex":1,"logID":%q}}`,
			base64.StdEncoding.EncodeToString([]byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"proposedContent":{}}}`)), hex.EncodeToString(s.Root().Tlogs[0].LogID.KeyID))},
		"a stamp of nothing": {"dev.sigstore.cosign/rfc3161timestamp": `{"SignedRFC3161Timestamp":"AAAA"}`},
		"two certificates":   {signtest.CertificateAnnotation: string(signtest.CertPEM(s.CA.Certs...))},
		"no certificate":     {signtest.CertificateAnnotation: "x"},
		"a huge stamp":       {"dev.sigstore.cosign/rfc3161timestamp": `{"SignedRFC3161Timestamp":"` + strings.Repeat("AAAA", 12<<10) + `"}`},
	} {
		layer, b := s.Layer(image("x").Digest, signtest.KeylessOptions{Issuer: actions, Subject: workflow})
		for k, v := range change {
			layer.Annotations[k] = v
		}
		d, lo := dirs.decide(t, newRequest(image("x"), trust.CosignTag).layer(layer, b))
		if stamp := strings.Contains(name, "stamp"); (d.Status == trust.Trusted) != stamp {
			t.Errorf("%s: %s %s %s", name, d.Status, d.Reason, d.Detail)
		}
		if proposed := name == "a proposed entry"; proposed && (lo.Calls != 0 || !strings.Contains(d.Detail, "proposedContent")) {
			t.Errorf("%s: %d calls, %s", name, lo.Calls, d.Detail)
		}
	}
}

// TestWhoWasAsked: what can count against a signature is asked of the authorities that a
// root lists, with their windows. A root that would ask others waits for a verification.
func TestWhoWasAsked(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	window := s.Root()
	window.TimestampAuthorities[0].ValidFor.Start = "2001-01-01T00:00:00Z"
	stampers := s.Root()
	stampers.TimestampAuthorities = append(stampers.TimestampAuthorities, other.Root().TimestampAuthorities...)
	logs := s.Root()
	logs.Tlogs = append(logs.Tlogs, other.Root().Tlogs...)
	for name, c := range map[string]struct {
		o       signtest.KeylessOptions
		several bool
		then    *signtest.RootFile
		want    trust.Reason
	}{
		"the same root":                          {signtest.KeylessOptions{Stamp: true}, true, s.Root(), ""},
		"a stamp, another window":                {signtest.KeylessOptions{Stamp: true}, false, window, trust.PolicyChanged},
		"a stamp, another authority":             {signtest.KeylessOptions{Stamp: true}, false, stampers, trust.PolicyChanged},
		"a stamp and one entry, another log":     {signtest.KeylessOptions{Stamp: true}, false, logs, ""},
		"no stamp, another window":               {signtest.KeylessOptions{}, false, window, ""},
		"no stamp, another authority":            {signtest.KeylessOptions{}, false, stampers, ""},
		"no stamp, several entries, another log": {signtest.KeylessOptions{}, true, logs, trust.PolicyChanged},
		"several entries, another window":        {signtest.KeylessOptions{}, true, window, ""},
		"both, another log":                      {signtest.KeylessOptions{Stamp: true}, true, logs, trust.PolicyChanged},
		"both, another window":                   {signtest.KeylessOptions{Stamp: true}, true, window, trust.PolicyChanged},
	} {
		c.o.Issuer, c.o.Subject = actions, workflow
		if c.several {
			c.o.AlsoLog = other.Log
		}
		r := newRequest(image("x"), trust.CosignBundle).blob(signtest.BundleMediaType, s.Bundle(image("x").Digest, c.o))
		d, lo := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).decide(t, r)
		if d.Status != trust.Trusted {
			t.Errorf("%s: before: %s %s", name, d.Reason, d.Detail)
		}
		f := newDirs(t).root("trusted_root.json", c.then).file("identities.yaml", byActor).load().InForce()
		if d := f.Decide(repo, trust.Cosign, &lo.Verdict, time.Now()); d.Reason != c.want || (d.Status == trust.Trusted) != (c.want == "") {
			t.Errorf("%s: %s %q %s, want %q", name, d.Status, d.Reason, d.Detail, c.want)
		}
	}
}

// TestChainsAreOfOneAuthority: what one authority has issued, no other has, and at no time
// at which a certificate of the chain was not valid.
func TestChainsAreOfOneAuthority(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	both := s.Root()
	both.CertificateAuthorities = append(both.CertificateAuthorities, other.Root().CertificateAuthorities...)
	rt := newDirs(t).root("trusted_root.json", both).load().Roots()[0]
	leafOf := func(by *signtest.Sigstore) *certified {
		layer, _ := by.Layer(image("x").Digest, signtest.KeylessOptions{Issuer: actions, Subject: workflow})
		certs, _ := annotatedCertificates(layer, signtest.CertificateAnnotation)
		return &certified{der: certs[0].Raw, leaf: certs[0]}
	}
	c, stranger := leafOf(s), leafOf(other)
	by, f := c.issuedBy(rt)
	if f.found() || len(by) != 1 || by[0].authority != 0 || len(by[0].chains) != 1 {
		t.Fatalf("%+v, %v", by, f)
	}
	w := newWitness(rt)
	w.issued = by
	at := c.leaf.NotBefore.Add(time.Minute)
	for name, q := range map[string]struct {
		authority int
		leaf      *x509.Certificate
		at        time.Time
		good      bool
	}{
		"as issued":             {0, c.leaf, at, true},
		"another authority":     {1, c.leaf, at, false},
		"another leaf":          {0, stranger.leaf, stranger.leaf.NotBefore, false},
		"another leaf, its own": {1, stranger.leaf, stranger.leaf.NotBefore, true},
		"too late":              {0, c.leaf, c.leaf.NotAfter.Add(time.Second), false},
		"too early":             {0, c.leaf, c.leaf.NotBefore.Add(-time.Second), false},
	} {
		if got, err := w.FulcioCertificateAuthorities()[q.authority].Verify(q.leaf, q.at); (err == nil) != q.good || q.good != (len(got) == 1) {
			t.Errorf("%s: %d chains, %v", name, len(got), err)
		}
	}
}

// TestAuthorityWhenIssued: cosign wants the certificate authority vouched for when the
// certificate begins, sigstore-go when it was signed; what was proven before is held to the
// same.
func TestAuthorityWhenIssued(t *testing.T) {
	s := signtest.NewSigstore("one")
	at := time.Now().AddDate(-1, 0, 0).UTC().Truncate(time.Second)
	later := s.Root()
	later.CertificateAuthorities[0].ValidFor.Start = at.Add(30 * time.Second).Format(time.RFC3339)
	for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{At: at}) {
		want := map[string]trust.Reason{"layer": trust.AuthorityRemoved}[carrier]
		d, lo := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).decide(t, r)
		if d.Status != trust.Trusted {
			t.Errorf("%s: %s %s", carrier, d.Reason, d.Detail)
		}
		then := newDirs(t).root("trusted_root.json", later).file("identities.yaml", byActor)
		if d := then.load().InForce().Decide(repo, trust.Cosign, &lo.Verdict, time.Now()); d.Reason != want {
			t.Errorf("%s, as it was proven: %q %s, want %q", carrier, d.Reason, d.Detail, want)
		}
		if d, _ := then.decide(t, r); d.Reason != want {
			t.Errorf("%s, verified afresh: %q %s, want %q", carrier, d.Reason, d.Detail, want)
		}
	}
}

// TestRenewedIntermediate: two authorities of a root that have the same name and key have
// both issued a certificate; either may be the one that the root vouches for.
func TestRenewedIntermediate(t *testing.T) {
	root, key := signtest.NewRoot(signtest.CertOptions{CommonName: "root"}), signtest.NewKey(signtest.P256)
	issuing := func() *signtest.Chain {
		return root.Intermediate(signtest.CertOptions{CommonName: "fulcio", Key: key, Change: func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}})
	}
	s := signtest.NewSigstore("one")
	s.CA = issuing()
	renewed := *s
	renewed.CA = issuing()
	both := s.Root()
	both.CertificateAuthorities = append(both.CertificateAuthorities, renewed.Root().CertificateAuthorities...)
	for _, closed := range []int{0, 1, 2} {
		file := *both
		file.CertificateAuthorities = slices.Clone(both.CertificateAuthorities)
		want := trust.AuthorityRemoved
		for i := range file.CertificateAuthorities {
			if i == closed || closed == 2 {
				file.CertificateAuthorities[i].ValidFor.End = "2001-01-01T00:00:00Z"
			} else {
				want = ""
			}
		}
		for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{}) {
			if d, _ := newDirs(t).root("trusted_root.json", &file).file("identities.yaml", byActor).decide(t, r); d.Reason != want && !(want != "" && d.Status == trust.Untrusted) {
				t.Errorf("%s, %d has ended: %q %s, want %q", carrier, closed, d.Reason, d.Detail, want)
			}
		}
	}
}

// TestSCTsOfOneLog: of two by one log nobody can say which the library went by.
func TestSCTsOfOneLog(t *testing.T) {
	s := signtest.NewSigstore("one")
	for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{SCTTwice: true}) {
		if d, lo := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).decide(t, r); d.Reason != trust.SCTMissing || lo.Calls != 0 {
			t.Errorf("%s: %s %s", carrier, d.Reason, d.Detail)
		}
	}
}

// TestCostlyStampsAreNotRead: with what else is in a stamp nothing is verified.
func TestCostlyStampsAreNotRead(t *testing.T) {
	s := signtest.NewSigstore("one")
	stampsOnly := s.Root()
	stampsOnly.Tlogs = nil
	certificate := func(kind signtest.Kind) []*x509.Certificate {
		return []*x509.Certificate{signtest.NewRoot(signtest.CertOptions{Kind: kind}).Cert()}
	}
	for name, c := range map[string]struct {
		o    signtest.KeylessOptions
		want trust.Reason
	}{
		"as it should be":             {signtest.KeylessOptions{}, ""},
		"two signers":                 {signtest.KeylessOptions{StampSigners: 2}, trust.NoSignedTime},
		"another certificate":         {signtest.KeylessOptions{StampWith: certificate(signtest.P256)}, ""},
		"a key that nobody would use": {signtest.KeylessOptions{StampWith: certificate(signtest.RSA1024)}, trust.NoSignedTime},
	} {
		c.o.NoEntry, c.o.Stamp = true, true
		for carrier, r := range keylessly(image("x"), s, c.o) {
			if d, _ := newDirs(t).root("trusted_root.json", stampsOnly).file("identities.yaml", byActor).decide(t, r); d.Reason != c.want {
				t.Errorf("%s, %s: %q %s, want %q", name, carrier, d.Reason, d.Detail, c.want)
			}
		}
	}
}

// TestCostlyLeafKeys: nothing is verified with a key whose cost has no bound.
func TestCostlyLeafKeys(t *testing.T) {
	s := signtest.NewSigstore("one")
	for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{Key: signtest.NewKey(signtest.RSA1024), NoEntry: true}) {
		d, lo := newDirs(t).root("trusted_root.json", s.Root()).file("identities.yaml", byActor).decide(t, r)
		if d.Reason != trust.CertificateInvalid || !strings.Contains(d.Detail, "below 2048 bits") || lo.Calls != 0 {
			t.Errorf("%s: %s %s, %d calls", carrier, d.Reason, d.Detail, lo.Calls)
		}
	}
}

// TestTakingAwayNeverWidens removes, breaks and empties each file and directory of the
// trust directories, one and two at a time: nothing is trusted then that was not before.
func TestTakingAwayNeverWidens(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	k := pooled(signtest.P256, 0)
	ended := other.Root()
	ended.CertificateAuthorities[0].ValidFor.End = "2001-01-01T00:00:00Z"
	build := func() *trustDirs {
		return newDirs(t).root("trusted_root.json", s.Root()).root("trusted_root_b.json", ended).
			file("identities.yaml", byActor+"- {issuer: "+actions+", subjectRegExp: '"+`https://github\.test/.*`+"', root: trusted_root_b.json}\n").
			file("team/identities.yaml", byActor).file("team/app/identities.yaml", "- {issuer: x, subject: y}\n").
			file("other/k.pub", string(k.PEM())).file("team/k.pub", string(k.PEM()))
	}
	var verdicts []trust.Verdict
	all := New(build().load(), Options{})
	for _, o := range []signtest.KeylessOptions{{}, {Stamp: true}, {NoSCT: true}, {NoEntry: true, Stamp: true}, {Log: other.Log}, {Subject: "a@b.test", Issuer: "https://i.test"}} {
		for _, by := range []*signtest.Sigstore{s, other} {
			for _, r := range keylessly(image("x"), by, o) {
				out, err := all.Verify(t.Context(), r.Request)
				if err != nil {
					t.Fatal(err)
				}
				verdicts = append(verdicts, out.Layers[0].Verdict)
			}
		}
	}
	out, err := all.Verify(t.Context(), simple(image("x"), k, signtest.CosignOptions{}).Request)
	if err != nil {
		t.Fatal(err)
	}
	verdicts = append(verdicts, out.Layers[0].Verdict)
	repositories := []string{"team", "team/app", "team/app/x", "other", "elsewhere"}
	trusted := func(f *trust.InForce) map[string]bool {
		m := map[string]bool{}
		for i := range verdicts {
			for _, r := range repositories {
				if f.Decide(r, trust.Cosign, &verdicts[i], time.Now()).Status == trust.Trusted {
					m[fmt.Sprint(r, " ", i)] = true
				}
			}
		}
		return m
	}
	before := trusted(build().load().InForce())
	if len(before) < len(repositories)*4+3 || len(before) == len(repositories)*len(verdicts) {
		t.Fatalf("%d answers are trusted", len(before))
	}
	files := []string{"trusted_root.json", "trusted_root_b.json", "identities.yaml", "team/identities.yaml", "team/app/identities.yaml", "other/k.pub", "team/k.pub", "team/app", "team", "other", "."}
	damage := map[string]func(string) error{
		"removed": os.RemoveAll,
		"broken":  func(p string) error { return os.WriteFile(p, []byte("{"), 0o644) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"linked": func(p string) error {
			return errors.Join(os.RemoveAll(p), os.Symlink("nowhere", p))
		},
	}
	lost := 0
	for i, one := range files {
		for _, two := range files[i:] {
			for name, harm := range damage {
				d := build()
				for _, f := range []string{one, two} {
					_ = harm(filepath.Join(d.st.Dir, "_cosign", f)) // a directory cannot be emptied
				}
				now := trusted(d.load().InForce())
				for answer := range now {
					if !before[answer] {
						t.Errorf("%s and %s %s: %s is trusted", one, two, name, answer)
					}
				}
				if len(now) < len(before) {
					lost++
				}
			}
		}
	}
	if lost == 0 {
		t.Error("nothing was lost by any of it")
	}
}

// TestARootThatRefusedIsNotAskedAgain: of two roots with different time stamp authorities
// one may refuse what the other accepts; the answer waits for neither.
func TestARootThatRefusedIsNotAskedAgain(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	at := time.Now().AddDate(-1, 0, 0)
	both := s.Root()
	both.TimestampAuthorities = append(both.TimestampAuthorities, other.Root().TimestampAuthorities...)
	for carrier, r := range keylessly(image("x"), s, signtest.KeylessOptions{At: at, Stamp: true, TSA: other.TSA, StampedAt: at.Add(time.Hour)}) {
		dirs := newDirs(t).root("trusted_root.json", both).root("trusted_root_b.json", s.Root()).file("identities.yaml", byActor)
		d, lo := dirs.decide(t, r)
		if d.Reason != trust.IdentityNotTrusted { // the root that the entry names has refused it
			t.Errorf("%s: %s %s", carrier, d.Reason, d.Detail)
		}
		if d, _ = dirs.file("team/identities.yaml", strings.TrimSpace(byActor)+"\n  root: trusted_root_b.json\n").decide(t, r); d.Status != trust.Trusted {
			t.Errorf("%s: %s %s", carrier, d.Reason, d.Detail)
		}
		// Somebody else's refusal is no proof.
		if f := newDirs(t).root("trusted_root.json", both).file("identities.yaml", byActor).load().InForce(); f.Decide(repo, trust.Cosign, &lo.Verdict, time.Now()).Status == trust.Trusted {
			t.Errorf("%s: trusted by the root that refused it", carrier)
		}
	}
}
