package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

const responder = "http://responder.invalid/"

// bubble runs f under a clock that moves when everybody waits, and begins at the
// time that files have.
func bubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		p := filepath.Join(t.TempDir(), "now")
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(fi.ModTime()).Truncate(time.Second) + time.Second)
		f(t)
	})
}

// newQuietWorld looks at storage and trust directories so seldom that hours pass
// quickly.
func newQuietWorld(t *testing.T) *world {
	w := newWorld(t)
	w.opts.Lease = -1
	w.edit = func(c *Config) { c.ScanInterval, c.ConfirmInterval = time.Hour, 50*time.Second }
	return w
}

// by makes checkers whose requests r answers.
func by(r http.RoundTripper) func() *revocation.Checker {
	return func() *revocation.Checker { return revocation.New(revocation.Options{Transport: r}) }
}

// A hundred signatures with one chain in ten repositories make one request, in one
// pass; another process makes none.
func TestOneChainIsOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newQuietWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		w.asks = by(r)
		leaf := root.Leaf(signtest.CertOptions{OCSP: responder})
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		var images []signtest.Image
		for i := range 100 {
			img := w.st.Content(fmt.Sprint("r", i%10), fmt.Sprint(i), fmt.Sprint(i))
			w.st.SignNotation(img, leaf, signtest.NotationOptions{})
			images = append(images, img)
		}
		w.scan()
		for _, img := range images {
			w.want(img, "trusted")
		}
		if n := len(r.Served()); n != 1 {
			t.Errorf("%d requests", n)
		}
		if work := w.scan(); work.Verified != 0 || len(r.Served()) != 1 {
			t.Errorf("another process: %+v, %d requests", work, len(r.Served()))
		}
		until := w.image(images[0]).SignatureInfo[0].ValidUntil
		if until == nil || until.After(time.Now().Add(time.Hour)) {
			t.Errorf("valid until %v", until)
		}
	})
}

// The life of an answer under a daemon: asked anew ahead of its end, standing while
// the responder is away, unknown from the end on, revoked when the responder says
// so. A restart in between asks nothing.
func TestAnAnswersLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newQuietWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		w.asks = by(r)
		img := w.st.Content("a", "1", "1")
		w.st.SignNotation(img, root.Leaf(signtest.CertOptions{OCSP: responder}), signtest.NotationOptions{})
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		stop := w.run()
		expect := func(what, state string, reason trust.Reason, requests int) {
			t.Helper()
			synctest.Wait()
			sig := w.image(img).SignatureInfo[0]
			if string(sig.Status) != state || sig.Reason != reason || len(r.Served()) != requests {
				t.Errorf("%s: %s %s after %d requests, want %s %s after %d; until %v", what, sig.Status, sig.Reason, len(r.Served()), state, reason, requests, sig.ValidUntil)
			}
		}
		time.Sleep(10 * time.Second)
		expect("answered", "trusted", "", 1) // until 1:00
		time.Sleep(30 * time.Minute)
		expect("young", "trusted", "", 1)
		time.Sleep(28 * time.Minute)
		expect("asked ahead of the end", "trusted", "", 2) // at 0:45, until 1:45
		stop()
		w.close()
		time.Sleep(10 * time.Minute) // 1:08
		r.Do(signtest.NoAnswer)
		stop = w.run()
		time.Sleep(time.Second)
		expect("another process", "trusted", "", 2)
		time.Sleep(32 * time.Minute) // 1:40; the responder has been asked and is away
		if len(r.Served()) < 3 {
			t.Error("not asked again")
		}
		expect("responder away", "trusted", "", len(r.Served()))
		time.Sleep(6 * time.Minute)
		expect("past its end", "unknown", trust.RevocationUnknown, len(r.Served()))
		time.Sleep(5 * time.Hour) // tried again each hour by now: longer than answers live
		r.Say(signtest.OCSPOptions{Status: ocsp.Revoked}, signtest.CRLOptions{})
		time.Sleep(65 * time.Minute)
		expect("revoked", "untrusted", trust.Revoked, len(r.Served()))
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{})
		time.Sleep(2 * time.Hour)
		expect("a hold that was lifted", "trusted", "", len(r.Served()))
		stop()
	})
}

// The look that is to ask ahead of an answer's end comes when the checker asks
// anew, whatever parts of a second both have.
func TestLookingAgainIsNotTooEarlyToAsk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		fetched := time.Unix(1_800_000_000, r.Int64N(1e9))
		until := fetched.Add(time.Duration(1 + r.Int64N(int64(24*time.Hour))))
		looked := fetched.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
		s := &examiner{now: func() time.Time { return looked }}
		again, refresh := time.Unix(s.again(until.Unix()), 0), revocation.Refresh(fetched, until)
		if again.Before(refresh) || !again.After(looked) {
			t.Fatalf("fetched %v, looked at %v, until %v: again at %v, asked anew from %v", fetched, looked, until, again, refresh)
		}
		if left := until.Sub(again); left <= 0 && until.Sub(looked) > 12*time.Second {
			t.Fatalf("fetched %v, looked at %v, until %v: again at %v", fetched, looked, until, again)
		}
	}
}

// A revoked certificate ends trust at the next look, which is before the next
// update of the answer that it contradicts.
func TestRevocationIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newQuietWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		w.asks = by(r)
		leaf := root.Leaf(signtest.CertOptions{CRL: responder + "a.crl"})
		img := w.st.Content("a", "1", "1")
		w.st.SignNotation(img, leaf, signtest.NotationOptions{})
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{Next: time.Now().Add(90 * 24 * time.Hour)})
		stop := w.run()
		time.Sleep(time.Minute)
		w.want(img, "trusted")
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{Revoked: leaf.Certs[:1], Next: time.Now().Add(90 * 24 * time.Hour)})
		time.Sleep(revocation.MaxAge)
		w.reason(img, trust.Revoked)
		stop()
	})
}

// Certificates and policies that come later ask as well, and what they decide has
// its end looked after too.
func TestAnchorsAndPoliciesThatComeLater(t *testing.T) {
	const statement = `{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],"signatureVerification":{"level":%q},"trustStores":["ca:acme"],"trustedIdentities":["*"]}]}`
	bubble(t, func(t *testing.T) {
		w := newQuietWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		w.asks = by(r)
		img := w.st.Content("a", "1", "1")
		w.st.SignNotation(img, root.Leaf(signtest.CertOptions{OCSP: responder}), signtest.NotationOptions{})
		stop := w.run()
		time.Sleep(time.Minute)
		w.reason(img, trust.NoTrustedKey)
		if n := len(r.Served()); n != 0 {
			t.Errorf("%d requests about a stranger", n)
		}
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		time.Sleep(time.Minute)
		w.want(img, "trusted")
		time.Sleep(3 * time.Hour) // answers end each hour, and are asked anew
		w.want(img, "trusted")
		r.Say(signtest.OCSPOptions{Status: ocsp.Revoked}, signtest.CRLOptions{})
		time.Sleep(time.Hour)
		w.reason(img, trust.Revoked)
		w.st.Policy(fmt.Sprintf(statement, "permissive"))
		time.Sleep(time.Minute)
		w.want(img, "trusted")
		if notes := w.image(img).SignatureInfo[0].Notes; len(notes) != 1 || notes[0] != trust.RevocationLogged {
			t.Errorf("notes %v", notes)
		}
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{})
		time.Sleep(time.Hour)
		if notes := w.image(img).SignatureInfo[0].Notes; len(notes) != 0 {
			t.Errorf("notes %v", notes)
		}
		// While nothing can be learnt, an edited policy does not wait for the
		// retry of what the other policy could not decide.
		r.Do(signtest.NoAnswer)
		w.st.Policy(fmt.Sprintf(statement, "strict"))
		time.Sleep(5 * time.Hour)
		w.reason(img, trust.RevocationUnknown)
		w.st.Policy(fmt.Sprintf(statement, "permissive"))
		time.Sleep(time.Minute)
		w.want(img, "trusted")
		stop()
	})
}

// One hanging responder delays no other repository's answers: all of them are
// there while it still hangs, and a stop does not wait for it.
func TestHangingResponder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newQuietWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		w.asks = by(hanging{signtest.NewResponder(root)})
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		key := signtest.NewKey(signtest.P256)
		w.st.TrustKey("k.pub", key)
		var hung, others []signtest.Image
		for i := range 30 {
			img := w.st.Content(fmt.Sprint("a/hanging", i), "1", fmt.Sprint("h", i))
			w.st.SignNotation(img, root.Leaf(signtest.CertOptions{OCSP: "http://hangs.invalid/"}), signtest.NotationOptions{})
			hung = append(hung, img)
			img = w.st.Content(fmt.Sprint("b/other", i), "1", fmt.Sprint("o", i))
			w.st.SignSimple(img, key, signtest.CosignOptions{})
			others = append(others, img)
		}
		asked := w.st.Content("c/asked", "1", "c")
		w.st.SignNotation(asked, root.Leaf(signtest.CertOptions{OCSP: responder}), signtest.NotationOptions{})
		began := time.Now()
		stop := w.run() // the first pass is over
		for _, img := range others {
			w.want(img, "trusted")
		}
		time.Sleep(time.Until(began.Add(2500 * time.Millisecond))) // none has been given up
		w.want(asked, "trusted")
		for _, img := range hung {
			w.reason(img, trust.RevocationUnknown)
		}
		if r := w.last.Status().Revocation; r.Waiting != len(hung) || r.Unknown != 0 {
			t.Errorf("%+v", r)
		}
		began = time.Now()
		if stop(); time.Since(began) > 0 {
			t.Errorf("the stop took %v", time.Since(began))
		}
	})
}

// hanging answers all hosts but one.
type hanging struct{ *signtest.Responder }

func (h hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "hangs.invalid" {
		return h.Responder.RoundTrip(r)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// VerifyNow waits for the answers.
func TestVerifyNowAsks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		root := signtest.NewRoot(signtest.CertOptions{})
		w.st.TrustCert("ca:acme", "root.pem", root.Cert())
		img := w.st.Content("a", "1", "1")
		w.st.SignNotation(img, root.Leaf(signtest.CertOptions{OCSP: responder}), signtest.NotationOptions{})
		r := signtest.NewResponder(root)
		loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(w.st.Dir, "_cosign"), NotationDir: filepath.Join(w.st.Dir, "_notation"),
			Cosign: true, Notation: true, Revocation: truststore.RevocationOnline})
		if err != nil {
			t.Fatal(err)
		}
		store, err := loader.Load(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		root1, err := layout.Open(w.st.Dir, layout.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer root1.Close()
		for _, c := range []struct {
			say    func()
			reason trust.Reason
		}{
			{func() {}, ""},
			{func() { r.Say(signtest.OCSPOptions{Status: ocsp.Revoked}, signtest.CRLOptions{}) }, trust.Revoked},
			{func() { r.Do(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }) }, trust.RevocationUnknown},
		} {
			c.say()
			a, err := VerifyNow(context.Background(), []Storage{{Root: root1, Dir: w.st.Dir}}, store, by(r)(), "a", "1", trust.Digest{})
			if err != nil || len(a.SignatureInfo) != 1 || a.SignatureInfo[0].Reason != c.reason {
				t.Errorf("%v, %+v, want %q", err, a.SignatureInfo, c.reason)
			}
		}
	})
}
