package integration

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// The program asks a responder on loopback: verify, scan and the daemon alike, in
// each mode, and about nobody who is not trusted otherwise.
func TestRevocationOnLoopback(t *testing.T) {
	s := newSample(t)
	r, strangers := signtest.NewResponder(s.root), signtest.NewResponder(s.root)
	server, other := httptest.NewServer(r), httptest.NewServer(strangers)
	defer server.Close()
	defer other.Close()
	leaf := s.root.Leaf(signtest.CertOptions{CommonName: "Revocable", OCSP: server.URL})
	img := s.Image("app", "revocable")
	s.SignNotation(img, leaf, signtest.NotationOptions{})
	s.SignNotation(s.Image("app", "stranger"), signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{OCSP: other.URL, CRL: other.URL + "/a.crl"}), signtest.NotationOptions{})
	verify := func(code int, args ...string) {
		t.Helper()
		if e := command(t, append([]string{"verify", "app:revocable", "--root", s.Dir}, args...)...); e.code != code {
			t.Errorf("verify %v: exit code %d, want %d\n%s%s", args, e.code, code, e.stdout, e.stderr)
		}
	}
	verify(14, "--revocation", "offline")
	verify(0, "--revocation", "ignore")
	if n := len(r.Served()); n != 0 {
		t.Errorf("%d requests in the modes offline and ignore", n)
	}
	verify(0)
	r.Say(signtest.OCSPOptions{Status: ocsp.Revoked}, signtest.CRLOptions{})
	verify(12)
	r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{})
	asked := len(r.Served())
	found, _ := scanAndList(t, s.Dir)
	if n := len(r.Served()) - asked; n != 1 {
		t.Errorf("the scan made %d requests", n)
	}
	if got := found["app@"+img.Digest.String()][0]; got.Status != trust.Trusted || got.ValidUntil == nil {
		t.Errorf("scanned: %+v", got)
	}
	d := serve(t, s.Dir)
	reader := open(t, d.state)
	reader.becomes("app", "revocable", "trusted")
	// An answer that ends at once is asked for anew: the daemon notices.
	second := s.root.Leaf(signtest.CertOptions{CommonName: "Short-lived answers", OCSP: server.URL})
	r.Say(signtest.OCSPOptions{Next: time.Now().Add(8 * time.Second)}, signtest.CRLOptions{})
	s.SignNotation(s.Image("app", "second"), second, signtest.NotationOptions{})
	reader.becomes("app", "second", "trusted")
	r.Say(signtest.OCSPOptions{Status: ocsp.Revoked}, signtest.CRLOptions{})
	reader.becomes("app", "second", "untrusted")
	if got := reasons(reader.image("app", "second")); !slices.Equal(got, []trust.Reason{trust.Revoked}) {
		t.Errorf("reasons %v", got)
	}
	if n := strangers.Served(); len(n) != 0 {
		t.Errorf("a stranger's responder was asked for %v", n)
	}
}
