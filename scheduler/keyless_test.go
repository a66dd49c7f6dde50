package scheduler

import (
	"fmt"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Trusted roots, identities and scopes that come and go.

const (
	oidc     = "https://token.test"
	byAcme   = "- issuer: " + oidc + "\n  subjectRegExp: https://g\\.test/acme/.*\n"
	workflow = "https://g.test/acme/app/release.yml@refs/tags/v"
)

func acme(n int) signtest.KeylessOptions {
	return signtest.KeylessOptions{Issuer: oidc, Subject: workflow + fmt.Sprint(n)}
}

func (w *world) identities(file, text string) { w.st.TrustFile(file, []byte(text)) }

// calls scans and fails if it cost another number of verifications.
func (w *world) calls(what string, want int64) {
	w.t.Helper()
	if work := w.scan(); work.Calls != want {
		w.t.Errorf("%s: %d verifications, want %d (%+v)", what, work.Calls, want, work)
	}
}

// TestIdentitiesAreAJoin: an identity or a scope that comes or goes verifies nothing.
func TestIdentitiesAreAJoin(t *testing.T) {
	w, s := newWorld(t), signtest.NewSigstore("one")
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	a, b := w.st.Content("team/app", "1", "1"), w.st.Content("other", "1", "2")
	for n, img := range []signtest.Image{a, b} {
		w.st.SignKeyless(img, s, acme(n))
		w.st.SignKeylessBundle(img, s, acme(n))
	}
	w.calls("the first look", 4)
	w.want(a, "untrusted")
	w.reason(a, trust.IdentityNotTrusted)
	w.identities("team/identities.yaml", byAcme)
	w.calls("an identity", 0)
	w.want(a, "trusted")
	w.want(b, "untrusted")
	if sig := w.image(a).SignatureInfo[0]; sig.Author != workflow+"0" || sig.Issuer != oidc || sig.Subject != sig.Author || sig.SignedAt == nil || sig.Root != "trusted_root.json" || sig.SignerFile != "_cosign/team/identities.yaml" {
		t.Errorf("%+v", sig)
	}
	w.identities("identities.yaml", byAcme)
	w.calls("one at the top", 0)
	w.want(b, "trusted")
	w.st.Untrust("_cosign/identities.yaml")
	w.st.Untrust("_cosign/team/identities.yaml")
	w.calls("none", 0)
	w.want(a, "untrusted")
	w.want(b, "untrusted")
}

// TestARootVerifiesWhatNamesIt: and a swap for one with the same authorities nothing.
func TestARootVerifiesWhatNamesIt(t *testing.T) {
	w, s, other := newWorld(t), signtest.NewSigstore("one"), signtest.NewSigstore("other")
	w.identities("identities.yaml", byAcme)
	w.st.TrustFile("trusted_root_other.json", other.Root().JSON())
	var mine []signtest.Image
	for n := range 20 {
		img := w.st.Content(fmt.Sprintf("r%d", n%5), fmt.Sprint(n), fmt.Sprint(n))
		w.st.SignKeyless(img, other, acme(n))
		if n%5 == 0 {
			w.st.SignKeylessBundle(img, s, acme(n))
			mine = append(mine, img)
		}
	}
	w.calls("the first look", 20)
	w.reason(mine[0], trust.IdentityNotTrusted)
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	w.calls("a root", 4)
	for _, img := range mine {
		w.want(img, "trusted")
	}
	renamed := s.Root()
	renamed.CertificateAuthorities[0].URI = "https://elsewhere.test"
	w.st.TrustFile("trusted_root.json", renamed.JSON())
	w.calls("the same under another name", 0)
	w.want(mine[0], "trusted")
	more := s.Root()
	more.CertificateAuthorities = append(other.Root().CertificateAuthorities, more.CertificateAuthorities...)
	more.Tlogs = append(more.Tlogs, other.Root().Tlogs...)
	more.CTLogs = append(more.CTLogs, other.Root().CTLogs...)
	more.TimestampAuthorities = append(more.TimestampAuthorities, other.Root().TimestampAuthorities...)
	w.st.TrustFile("trusted_root.json", more.JSON())
	// The other instance's are accepted as they are: the proofs are known.
	w.calls("one that lists more", 0)
	w.want(mine[0], "trusted")
	w.st.Untrust("_cosign/trusted_root.json")
	w.calls("no root", 0)
	w.want(mine[0], "untrusted")
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	w.calls("the root is back", 0)
	w.want(mine[0], "trusted")
	ended := s.Root()
	ended.CertificateAuthorities[0].ValidFor.End = "2001-01-01T00:00:00Z"
	w.st.TrustFile("trusted_root.json", ended.JSON())
	w.scan()
	w.want(mine[0], "untrusted")
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	w.scan()
	w.want(mine[0], "trusted")
}

// TestOtherStampersAreAsked: a root whose time stamp authorities change is asked again
// about signatures with time stamps, and not about others.
func TestOtherStampersAreAsked(t *testing.T) {
	w, s, other := newWorld(t), signtest.NewSigstore("one"), signtest.NewSigstore("other")
	w.identities("identities.yaml", byAcme)
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	with, without := w.st.Content("a", "1", "1"), w.st.Content("a", "2", "2")
	stamped := acme(1)
	stamped.Stamp = true
	w.st.SignKeyless(with, s, stamped)
	w.st.SignKeyless(without, s, acme(2))
	bad := acme(3) // stamped by another authority, at another time
	bad.Stamp, bad.TSA, bad.At = true, other.TSA, time.Now().AddDate(-1, 0, 0)
	bad.StampedAt = bad.At.Add(time.Hour)
	late := w.st.Content("a", "3", "3")
	w.st.SignKeyless(late, s, bad)
	w.calls("the first look", 3)
	for _, img := range []signtest.Image{with, without, late} {
		w.want(img, "trusted")
	}
	more := s.Root()
	more.TimestampAuthorities = append(more.TimestampAuthorities, other.Root().TimestampAuthorities...)
	w.st.TrustFile("trusted_root.json", more.JSON())
	// The contradicted one is refused before cosign is asked.
	w.calls("another stamper", 1)
	w.want(with, "trusted")
	w.want(without, "trusted")
	w.want(late, "untrusted")
	w.reason(late, trust.TimestampInvalid)
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	w.scan()
	w.want(late, "trusted")
}

// TestAReasonEndsWithItsRoot: what a root demands is no reason once it is gone.
func TestAReasonEndsWithItsRoot(t *testing.T) {
	w, s := newWorld(t), signtest.NewSigstore("one")
	w.identities("identities.yaml", byAcme)
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	img := w.st.Content("a", "1", "1")
	o := acme(1)
	o.NoSCT = true
	w.st.SignKeyless(img, s, o)
	w.scan()
	w.reason(img, trust.SCTMissing)
	w.st.Untrust("_cosign/trusted_root.json")
	w.scan()
	w.reason(img, trust.NoTrustedRoot)
	lax := s.Root()
	lax.CTLogs = nil
	w.st.TrustFile("trusted_root.json", lax.JSON())
	w.scan()
	w.want(img, "trusted")
	w.st.TrustFile("trusted_root.json", s.Root().JSON()) // it lists CT logs again
	w.scan()
	w.want(img, "untrusted")
	w.reason(img, trust.SCTMissing)
}

// TestScopesOfKeysAreAJoin: a key that is moved into a scope verifies nothing.
func TestScopesOfKeysAreAJoin(t *testing.T) {
	w, k := newWorld(t), signtest.NewKey(signtest.P256)
	a, b := w.st.Content("team/app", "1", "1"), w.st.Content("other", "1", "2")
	for _, img := range []signtest.Image{a, b} {
		w.st.SignSimple(img, k, simple)
	}
	w.st.TrustKey("k.pub", k)
	w.calls("the first look", 2)
	w.st.TrustFile("team/k.pub", k.PEM())
	w.st.Untrust("_cosign/k.pub")
	w.calls("the key is in a scope", 0)
	w.want(a, "trusted")
	w.want(b, "untrusted")
	w.reason(b, trust.NoTrustedKey)
	if sig := w.image(b).SignatureInfo[0]; sig.Author != "" || sig.SignerFile != "" || sig.Detail == "" {
		t.Errorf("%+v", sig)
	}
	w.st.TrustFile("other/k.pub", k.PEM())
	w.calls("in two", 0)
	w.want(b, "trusted")
}

// TestAFurtherRootIsAsked: what one root vouches for is asked of another that comes, also
// in .sig manifests whose layers are known.
func TestAFurtherRootIsAsked(t *testing.T) {
	w, s, other := newWorld(t), signtest.NewSigstore("one"), signtest.NewSigstore("other")
	w.st.TrustFile("trusted_root.json", s.Root().JSON())
	w.identities("identities.yaml", "- {issuer: "+oidc+", subjectRegExp: 'https://g\\.test/acme/.*', root: trusted_root_b.json}\n")
	img := w.st.Content("a", "1", "1")
	o := acme(1)
	o.Stamp = true
	w.st.SignKeyless(img, s, o)
	w.calls("the first look", 1)
	w.reason(img, trust.IdentityNotTrusted)
	b := s.Root() // with other stampers, so that the proof is no good for it
	b.TimestampAuthorities = append(b.TimestampAuthorities, other.Root().TimestampAuthorities...)
	w.st.TrustFile("trusted_root_b.json", b.JSON())
	w.calls("another root", 2)
	w.want(img, "trusted")
	// One that comes while the signature is nowhere.
	w.st.Remove(img)
	w.scan()
	w.st.Untrust("_cosign/trusted_root_b.json")
	w.scan()
	c := s.Root()
	c.TimestampAuthorities = append(other.Root().TimestampAuthorities, other.Root().TimestampAuthorities...)
	w.st.TrustFile("trusted_root_b.json", c.JSON())
	w.scan()
	again := w.st.Content("a", "1", "1")
	w.scan()
	w.want(again, "trusted")
}
