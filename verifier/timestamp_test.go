package verifier

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Dates, countersignatures, and the other signing scheme.

func date(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }

// Dates become bounds and are judged when read: C4, N3, S3.
func TestDates(t *testing.T) {
	img := image("A")
	strict := signtest.Policy("strict", "", "ca:acme", "signingAuthority:sa")
	permissive := signtest.Policy("permissive", "", "ca:acme", "signingAuthority:sa")
	root := signtest.NewRoot(signtest.CertOptions{})
	valid := root.Leaf(signtest.CertOptions{})
	past := root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)})
	future := root.Leaf(signtest.CertOptions{NotBefore: date(2080), NotAfter: date(2085)})
	pastMid := root.Intermediate(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)}).Leaf(signtest.CertOptions{})
	type at struct {
		when time.Time
		want string // status reason notes
	}
	for _, c := range []struct {
		name, policy string
		chain        *signtest.Chain
		o            signtest.NotationOptions
		at           []at
	}{
		{"no expiry", strict, valid, signtest.NotationOptions{}, []at{
			{date(1985), "expired not-yet-valid []"}, {time.Now(), "trusted  []"}, {date(2089), "trusted  []"},
			{date(2090), "expired certificate-expired []"}, {date(2091), "expired certificate-expired []"}}},
		{"expiry", strict, valid, signtest.NotationOptions{Time: date(2001), Expiry: date(2050)}, []at{
			{time.Now(), "trusted  []"}, {date(2050).Add(-time.Second), "trusted  []"}, {date(2050), "expired signature-expired []"}, {date(2095), "expired signature-expired []"}}},
		{"expired", strict, valid, signtest.NotationOptions{Time: date(2001), Expiry: date(2002)}, []at{
			{date(2001), "trusted  []"}, {time.Now(), "expired signature-expired []"}}},
		{"expired, permissive", permissive, valid, signtest.NotationOptions{Time: date(2001), Expiry: date(2002)}, []at{
			{date(2001), "trusted  []"}, {time.Now(), "trusted  [expiry-logged]"}, {date(2095), "trusted  [expiry-logged]"}}},
		{"certificate in the past", strict, past, signtest.NotationOptions{Time: date(2005)}, []at{
			{date(2005), "trusted  []"}, {time.Now(), "expired certificate-expired []"}}},
		{"certificate in the past, permissive", permissive, past, signtest.NotationOptions{Time: date(2005)}, []at{{time.Now(), "trusted  []"}}},
		{"certificate in the past, authority", strict, past, signtest.NotationOptions{Time: date(2005), SigningAuthority: true}, []at{
			{time.Now(), "trusted  []"}, {date(2095), "trusted  []"}}},
		{"certificate to come", strict, future, signtest.NotationOptions{Time: date(2081)}, []at{
			{time.Now(), "expired not-yet-valid []"}, {date(2081), "trusted  []"}}},
		{"S3 intermediate expired", strict, pastMid, signtest.NotationOptions{Time: date(2005)}, []at{{time.Now(), "expired certificate-expired []"}}},
		{"sooner of the two", strict, past, signtest.NotationOptions{Time: date(2005), Expiry: date(2006)}, []at{
			{date(2007), "expired signature-expired []"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("signingAuthority/sa", "r.pem", root.Cert()).policy(c.policy).load()
			for _, cose := range []bool{false, true} {
				c.o.COSE = cose
				r := notated(img, c.chain, c.o)
				lo := one(t, ts, r)
				want(t, lo, "trusted")
				for _, a := range c.at {
					d := decide(ts, r, lo, a.when)
					if got := fmt.Sprintf("%s %s %v", d.Status, d.Reason, d.Notes); got != a.want {
						t.Errorf("at %s: %q, want %q", a.when, got, a.want)
					}
					if d.Author == "" {
						t.Error("no author, though the signer is authentic")
					}
				}
			}
		})
	}
}

// A certificate that was not valid at the time an authority says it signed.
func TestSigningAuthorityOutsideValidity(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	past := root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)})
	h := signtest.Protected("ES256", date(2015))
	h["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority"
	h["io.cncf.notary.authenticSigningTime"] = h["io.cncf.notary.signingTime"]
	h["crit"] = []string{"io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime"}
	delete(h, "io.cncf.notary.signingTime")
	r := newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(must(json.Marshal(h)), signtest.Target(img.descriptor()), past))
	d := newDirs(t).cert("signingAuthority/sa", "r.pem", root.Cert())
	want(t, one(t, d.load(), r), "timestamp-invalid")
	// Nor is there a ground, and with it an author, once the signature has expired.
	h["io.cncf.notary.expiry"] = date(2016).Format(time.RFC3339)
	h["crit"] = append(h["crit"].([]string), "io.cncf.notary.expiry")
	expired := newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(must(json.Marshal(h)), signtest.Target(img.descriptor()), past))
	want(t, one(t, d.load(), expired), "timestamp-invalid")
	want(t, one(t, d.policy(signtest.Policy("permissive", "", "signingAuthority:sa")).load(), r), "trusted")
}

func TestTimestamps(t *testing.T) {
	img := image("A")
	root, tsaRoot, otherRoot := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "TSA root"}), signtest.NewRoot(signtest.CertOptions{CommonName: "Other"})
	past := root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)})
	tsa := signtest.NewTSA(tsaRoot, signtest.CertOptions{})
	revocable := signtest.NewTSA(tsaRoot, signtest.CertOptions{OCSP: "http://127.0.0.1:1/"})
	stamped := signtest.NotationOptions{Time: date(2005), TSA: tsa}
	late := signtest.NotationOptions{Time: date(2005), TSA: tsa, Stamped: date(2015)}
	stores := []string{"ca:acme", "tsa:stamps"}
	always, after := signtest.Policy("strict", "", stores...), signtest.Policy("strict", `,"verifyTimestamp":"afterCertExpiry"`, stores...)
	for _, c := range []struct {
		name, policy string
		tsas         []*signtest.Chain
		o            signtest.NotationOptions
		want         string
		now, then    trust.Status // today, and in 2005
	}{
		{"always, stamped", always, []*signtest.Chain{tsaRoot}, stamped, "trusted", trust.Trusted, trust.Trusted},
		{"always, among others", always, []*signtest.Chain{otherRoot, tsaRoot}, stamped, "trusted", trust.Trusted, trust.Trusted},
		{"always, not stamped", always, []*signtest.Chain{tsaRoot}, signtest.NotationOptions{Time: date(2005)}, "timestamp-invalid", "", ""},
		{"always, stamped too late", always, []*signtest.Chain{tsaRoot}, late, "timestamp-invalid", "", ""},
		{"always, stranger's stamp", always, []*signtest.Chain{otherRoot}, stamped, "timestamp-invalid", "", ""},
		{"always, no TSA certificate", always, nil, stamped, "timestamp-invalid", "", ""},
		{"always, revocation unknown", always, []*signtest.Chain{tsaRoot}, signtest.NotationOptions{Time: date(2005), TSA: revocable}, "problem revocation-unknown", "", ""},
		{"after, stamped", after, []*signtest.Chain{tsaRoot}, stamped, "trusted", trust.Trusted, trust.Trusted},
		{"after, not stamped", after, []*signtest.Chain{tsaRoot}, signtest.NotationOptions{Time: date(2005)}, "trusted", trust.Expired, trust.Trusted},
		{"after, stamped too late", after, []*signtest.Chain{tsaRoot}, late, "trusted", trust.Expired, trust.Trusted},
		{"stamp not looked at", signtest.Policy("strict", "", "ca:acme"), []*signtest.Chain{tsaRoot}, stamped, "trusted", trust.Expired, trust.Trusted},
		{"timestamps only logged", signtest.Policy("permissive", "", stores...), []*signtest.Chain{tsaRoot}, late, "trusted", trust.Trusted, trust.Trusted},
		{"stamped, signature expired", always, []*signtest.Chain{tsaRoot}, signtest.NotationOptions{Time: date(2005), Expiry: date(2006), TSA: tsa}, "trusted", trust.Expired, trust.Trusted},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.policy)
			for i, r := range c.tsas {
				d.cert("tsa/stamps", fmt.Sprint(i), r.Cert())
			}
			ts := d.load()
			r := notated(img, past, c.o)
			lo := one(t, ts, r)
			want(t, lo, c.want)
			if c.want != "trusted" {
				return
			}
			for when, w := range map[time.Time]trust.Status{time.Now(): c.now, date(2005): c.then} {
				if got := decide(ts, r, lo, when).Status; got != w {
					t.Errorf("at %s: %s, want %s; %+v", when, got, w, lo.Verdict.Grounds)
				}
			}
			// A TSA's certificate is a signer like any other: without it, the
			// ground that rests on it is not in force.
			if c.now == trust.Trusted && strings.Contains(c.policy, "strict") {
				without := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.policy).load()
				if d := decide(without, r, lo, time.Now()); d.Status == trust.Trusted {
					t.Errorf("trusted without the TSA's certificate: %+v", d)
				}
			}
		})
	}
	// A ground that rests on the stamp begins when the certificates end. Until then
	// it does not hide why the other one is over.
	valid := root.Leaf(signtest.CertOptions{})
	dated := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("tsa/stamps", "t.pem", tsaRoot.Cert()).policy(after).load()
	r := notated(img, valid, signtest.NotationOptions{Time: date(2001), Expiry: date(2002), TSA: tsa})
	if d := decide(dated, r, one(t, dated, r), time.Now()); d.Reason != trust.SignatureExpired {
		t.Errorf("an expired signature with a stamp: %+v", d)
	}
	// Envelopes with a stamp that nothing vouches for are filed for when it comes.
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(always).load()
	hints := one(t, ts, notated(img, past, stamped)).Hints
	if hints[len(hints)-1].Kind != HintTimestamp {
		t.Errorf("hints %v", hints)
	}
}

// However many TSA certificates there are, the one that vouches for a stamp is
// found, and all that do: a statement may name the store of any of them.
func TestManyTSAs(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	past := root.Leaf(signtest.CertOptions{NotBefore: date(2000), NotAfter: date(2010)})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(signtest.Policy("strict", "", "ca:acme", "tsa:stamps"))
	var roots []*signtest.Chain
	for i := range maxTSARuns + 4 {
		roots = append(roots, signtest.NewRoot(signtest.CertOptions{CommonName: fmt.Sprint("TSA ", i)}))
		d.cert("tsa/stamps", fmt.Sprint(i), roots[i].Cert())
	}
	renewed := signtest.NewRoot(signtest.CertOptions{CommonName: "TSA 0", Key: roots[0].Key})
	d.cert("tsa/renewed", "r.pem", renewed.Cert())
	ts := d.load()
	for i, r := range roots {
		lo := one(t, ts, notated(img, past, signtest.NotationOptions{Time: date(2005), TSA: signtest.NewTSA(r, signtest.CertOptions{})}))
		want(t, lo, "trusted")
		if lo.Incomplete != "" {
			t.Errorf("TSA %d: incomplete, %s", i, lo.Incomplete)
		}
		stores := map[string]bool{}
		for _, g := range lo.Verdict.Grounds {
			signer, ok := ts.InForce().Signer(g.Signers[1])
			if !ok {
				t.Error("a signer that nobody knows")
			}
			stores[signer.StoreName] = true
		}
		if !stores["stamps"] || stores["renewed"] != (i == 0) {
			t.Errorf("TSA %d: by %v", i, stores)
		}
	}
}
