package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ocsp"

	"trust-worker/internal/signtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running starts a checker; what is returned stops it and waits for that.
func running(t *testing.T, c *Checker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func check(c *Checker, chain *signtest.Chain) Answer {
	return c.Check(chain.Certs, purpose.CodeSigning, time.Time{})
}

// settled asks, waits, and asks again.
func settled(t *testing.T, c *Checker, chain *signtest.Chain) Answer {
	t.Helper()
	check(c, chain)
	c.Settle(t.Context())
	return check(c, chain)
}

// What responders can say, and what comes of it.
func TestAnswers(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	other := signtest.NewRoot(signtest.CertOptions{CommonName: "Other"})
	r := signtest.NewResponder(root)
	server := httptest.NewServer(r)
	defer server.Close()
	elsewhere := signtest.NewResponder(root)
	elsewhereServer := httptest.NewServer(elsewhere)
	defer elsewhereServer.Close()

	forOCSP := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }
	delegate := root.Leaf(signtest.CertOptions{CommonName: "Responder", Change: forOCSP})
	lapsed := root.Leaf(signtest.CertOptions{CommonName: "Responder", NotAfter: time.Now().Add(-time.Hour), Change: forOCSP})
	sibling := root.Leaf(signtest.CertOptions{CommonName: "Somebody with a certificate by the same CA"})
	foreign := other.Leaf(signtest.CertOptions{CommonName: "Responder", Change: forOCSP})

	good, hour := signtest.OCSPOptions{}, time.Now().Add(time.Hour)
	raw := func(f http.HandlerFunc) func(*x509.Certificate) { return func(*x509.Certificate) { r.Do(f) } }
	ocspIs := func(o signtest.OCSPOptions) func(*x509.Certificate) {
		return func(*x509.Certificate) { r.Say(o, signtest.CRLOptions{}) }
	}
	crlIs := func(o signtest.CRLOptions) func(*x509.Certificate) {
		return func(*x509.Certificate) { r.Say(good, o) }
	}
	crlWith := func(e ...pkix.Extension) func(*x509.Certificate) {
		return crlIs(signtest.CRLOptions{Change: func(l *x509.RevocationList) { l.ExtraExtensions = e }})
	}
	idp := func(v issuingDistributionPoint) pkix.Extension {
		return pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: must(asn1.Marshal(v))}
	}
	point := func(address string) distributionPointName {
		return distributionPointName{FullName: []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(address)}}}
	}
	address := func(suffix string) string { return server.URL + suffix }

	for _, c := range []struct {
		name      string
		ocsp, crl string
		say       func(leaf *x509.Certificate)
		want      State
	}{
		{"OCSP good", "/", "", ocspIs(good), Good},
		{"OCSP revoked", "/", "", ocspIs(signtest.OCSPOptions{Status: ocsp.Revoked}), Revoked},
		{"OCSP unknown", "/", "", ocspIs(signtest.OCSPOptions{Status: ocsp.Unknown}), Unknown},
		{"OCSP by a delegate", "/", "", ocspIs(signtest.OCSPOptions{By: delegate}), Good},
		{"OCSP by a delegate whose certificate is over", "/", "", ocspIs(signtest.OCSPOptions{By: lapsed}), Unknown},
		{"OCSP by another certificate of the issuer", "/", "", ocspIs(signtest.OCSPOptions{By: sibling}), Unknown},
		{"OCSP by a stranger", "/", "", ocspIs(signtest.OCSPOptions{By: foreign}), Unknown},
		{"OCSP over", "/", "", ocspIs(signtest.OCSPOptions{This: time.Now().Add(-2 * time.Hour), Next: time.Now().Add(-time.Hour)}), Unknown},
		{"OCSP from the future", "/", "", ocspIs(signtest.OCSPOptions{This: hour, Next: hour.Add(time.Hour)}), Unknown},
		{"OCSP about another certificate", "/", "", raw(func(w http.ResponseWriter, _ *http.Request) {
			w.Write(signtest.OCSPResponse(root, big.NewInt(4711), good))
		}), Unknown},
		{"OCSP by another issuer", "/", "", raw(func(w http.ResponseWriter, req *http.Request) {
			w.Write(signtest.OCSPResponse(other, must(signtest.AskedSerial(req)), good))
		}), Unknown},
		{"OCSP without an end", "/", "", raw(func(w http.ResponseWriter, req *http.Request) {
			w.Write(must(ocsp.CreateResponse(root.Cert(), root.Cert(), ocsp.Response{SerialNumber: must(signtest.AskedSerial(req)), ThisUpdate: time.Now()}, root.Key.Private)))
		}), Unknown},
		{"OCSP too large", "/", "", raw(func(w http.ResponseWriter, req *http.Request) {
			w.Write(append(signtest.OCSPResponse(root, must(signtest.AskedSerial(req)), good), make([]byte, maxOCSP)...))
		}), Unknown},
		{"OCSP nonsense", "/", "", raw(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>Log in to the network</html>") }), Unknown},
		{"OCSP nothing", "/", "", raw(func(http.ResponseWriter, *http.Request) {}), Unknown},
		{"OCSP 500", "/", "", raw(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), Unknown},
		{"OCSP elsewhere", "/", "", raw(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhereServer.URL+req.URL.EscapedPath(), http.StatusTemporaryRedirect)
		}), Unknown},
		{"OCSP over https", "https", "", ocspIs(good), Unknown},
		{"CRL good", "", "/a.crl", crlIs(signtest.CRLOptions{}), Good},
		{"CRL revoked", "", "/a.crl", func(leaf *x509.Certificate) {
			r.Say(good, signtest.CRLOptions{Revoked: []*x509.Certificate{leaf}})
		}, Revoked},
		{"CRL over", "", "/a.crl", crlIs(signtest.CRLOptions{This: time.Now().Add(-2 * time.Hour), Next: time.Now().Add(-time.Hour)}), Unknown},
		{"CRL by another issuer", "", "/a.crl", raw(func(w http.ResponseWriter, _ *http.Request) {
			w.Write(signtest.CRL(other, signtest.CRLOptions{}))
		}), Unknown},
		{"CRL of this point", "", "/a.crl", crlWith(idp(issuingDistributionPoint{Point: point(address("/a.crl"))})), Good},
		{"CRL of another point", "", "/a.crl", crlWith(idp(issuingDistributionPoint{Point: point(address("/b.crl"))})), Unknown},
		{"CRL for users", "", "/a.crl", crlWith(idp(issuingDistributionPoint{OnlyUserCerts: true})), Good},
		{"CRL for CAs", "", "/a.crl", crlWith(idp(issuingDistributionPoint{OnlyCACerts: true})), Unknown},
		{"CRL indirect", "", "/a.crl", crlWith(idp(issuingDistributionPoint{Indirect: true})), Unknown},
		{"CRL delta instead", "", "/a.crl", crlWith(pkix.Extension{Id: oidDeltaCRLIndicator, Critical: true, Value: must(asn1.Marshal(1))}), Unknown},
		{"CRL nonsense", "", "/a.crl", raw(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "nonsense") }), Unknown},
		{"OCSP unknown, CRL good", "/", "/a.crl", ocspIs(signtest.OCSPOptions{Status: ocsp.Unknown}), Good},
		{"OCSP revoked, CRL good", "/", "/a.crl", ocspIs(signtest.OCSPOptions{Status: ocsp.Revoked}), Revoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := signtest.CertOptions{}
			if c.ocsp != "" {
				o.OCSP = strings.Replace(server.URL, "http://", strings.TrimPrefix(c.ocsp, "/")+"://", 1)
				if c.ocsp == "/" {
					o.OCSP = server.URL
				}
			}
			if c.crl != "" {
				o.CRL = server.URL + c.crl
			}
			leaf := root.Leaf(o)
			c.say(leaf.Cert())
			checker := New(Options{})
			defer running(t, checker)()
			if first := check(checker, leaf); first.State != Unknown || !first.Until.IsZero() {
				t.Errorf("known before it was asked: %+v", first)
			}
			a := settled(t, checker, leaf)
			if a.State != c.want {
				t.Errorf("state %d, want %d: %v", a.State, c.want, firstError(a.Results))
			}
			if a.Until.IsZero() != (c.want == Unknown) || a.Until.After(time.Now().Add(time.Hour)) {
				t.Errorf("until %v", a.Until)
			}
			if s := checker.Stats(); s.Good+s.Revoked+s.Unknown != 1 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	if n := len(elsewhere.Served()); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// What is endless or slow ends at the bounds.
func TestEndless(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	for name, o := range map[string]signtest.CertOptions{"OCSP": {OCSP: "http://r.invalid/"}, "CRL": {CRL: "http://r.invalid/a.crl"}} {
		synctest.Test(t, func(t *testing.T) {
			endless, slow := &endlessBody{}, &endlessBody{every: time.Second}
			bodies := []io.ReadCloser{endless, slow}
			checker := New(Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				b := bodies[0]
				bodies = bodies[1:]
				if s, ok := b.(*endlessBody); ok {
					s.ctx = r.Context()
				}
				return &http.Response{StatusCode: 200, Body: b}, nil
			})})
			defer running(t, checker)()
			for _, body := range []*endlessBody{endless, slow} {
				if a := settled(t, checker, root.Leaf(o)); a.State != Unknown {
					t.Errorf("%s: state %d", name, a.State)
				}
				if !body.closed || body.read > maxCRL+1<<16 || name == "OCSP" && body.read > maxOCSP+1<<10 {
					t.Errorf("%s: closed %v after %d bytes", name, body.closed, body.read)
				}
				time.Sleep(time.Hour) // the address is asked again
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// endlessBody never ends; with every it gives a byte in that time, until the
// request's context ends, as a connection would.
type endlessBody struct {
	ctx    context.Context
	every  time.Duration
	read   int
	closed bool
}

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.every > 0 {
		select {
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		case <-time.After(b.every):
			p = p[:1]
		}
	}
	b.read += len(p)
	return len(p), nil
}

func (b *endlessBody) Close() error { b.closed = true; return nil }

// A responder that never answers keeps those who ask it, and nobody else: a
// hundred chains wait for it, and a chain that names another host is answered
// before the first of them is given up. A stop does not wait for it either.
func TestHangingResponderDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := signtest.NewRoot(signtest.CertOptions{})
		fine := signtest.NewResponder(root)
		var hanging atomic.Int32
		checker := New(Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "hangs.invalid" {
				return fine.RoundTrip(r)
			}
			hanging.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})})
		stop := running(t, checker)
		leaf := root.Leaf(signtest.CertOptions{OCSP: "http://hangs.invalid/"})
		for i := range 100 {
			checker.Check(leaf.Certs, purpose.CodeSigning, time.Unix(int64(i), 0))
		}
		chain := root.Leaf(signtest.CertOptions{OCSP: "http://fine.invalid/"})
		synctest.Wait()
		check(checker, chain)
		synctest.Wait() // no time has passed
		if s := checker.Stats(); check(checker, chain).State != Good || s.Unknown != 0 || s.Waiting != 100 || hanging.Load() != perHost {
			t.Errorf("%+v, %d requests hang", s, hanging.Load())
		}
		began := time.Now()
		if stop(); time.Since(began) > 0 || checker.Stats().Unknown != 0 {
			t.Errorf("the stop took until %v: %+v", time.Since(began), checker.Stats())
		}
	})
}

// One chain asked about a hundred times is one request; a hundred leaves below
// one intermediate share its response and the CRL.
func TestOneRequestForAll(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	rootResponder := httptest.NewServer(signtest.NewResponder(root))
	defer rootResponder.Close()
	mid := root.Intermediate(signtest.CertOptions{CommonName: "Mid", OCSP: rootResponder.URL})
	answers := signtest.NewResponder(mid)
	server := httptest.NewServer(answers)
	defer server.Close()
	checker := New(Options{})
	defer running(t, checker)()
	one := mid.Leaf(signtest.CertOptions{OCSP: server.URL})
	for range 100 {
		check(checker, one)
	}
	checker.Settle(t.Context())
	for range 100 {
		if a := check(checker, one); a.State != Good {
			t.Fatal(a)
		}
	}
	if s := checker.Stats(); s.Requests != 2 || s.Good != 1 { // the leaf's, the intermediate's
		t.Errorf("%+v", s)
	}
	for range 20 {
		if a := settled(t, checker, mid.Leaf(signtest.CertOptions{CRL: server.URL + "/mid.crl"})); a.State != Good {
			t.Fatal(a)
		}
	}
	if s := checker.Stats(); s.Requests != 3 || s.Good != 21 {
		t.Errorf("%+v", s)
	}
	// Another authentic signing time is another question, with the same answer.
	checker.Check(one.Certs, purpose.CodeSigning, time.Now())
	checker.Settle(t.Context())
	if s := checker.Stats(); s.Requests != 3 || s.Good != 22 {
		t.Errorf("%+v", s)
	}
}

// One chain's use of an address decides nothing for another's: a CRL for users that a
// leaf fetched does not cover a CA that names the same address, and an address
// that is of no use to one chain is asked for by the next.
func TestChainsThatShareAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "http://r.invalid/a.crl"
		root, other := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{CommonName: "Other"})
		r := signtest.NewResponder(root)
		checker := New(Options{Transport: r})
		defer running(t, checker)()
		leaf := signtest.CertOptions{CRL: address}
		if a := settled(t, checker, other.Leaf(leaf)); a.State != Unknown {
			t.Errorf("a CRL by another issuer: %+v", a)
		}
		usersOnly := must(asn1.Marshal(issuingDistributionPoint{OnlyUserCerts: true}))
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{Change: func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: oidIssuingDistributionPoint, Critical: true, Value: usersOnly}}
		}})
		if a := settled(t, checker, root.Leaf(leaf)); a.State != Good {
			t.Errorf("the issuer's CRL: %+v", a)
		}
		below := root.Intermediate(signtest.CertOptions{CommonName: "Mid", CRL: address}).Leaf(signtest.CertOptions{})
		if a := settled(t, checker, below); a.State != Unknown {
			t.Errorf("a CA that the CRL does not cover: %+v", a)
		}
		if a := settled(t, checker, root.Leaf(leaf)); a.State != Good {
			t.Errorf("the issuer's CRL, again: %+v", a)
		}
	})
}

// Each CA numbers its certificates as it likes, often from one up: a serial number
// says which certificate only together with its issuer.
func TestSerialNumbersOfTwoIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := signtest.CertOptions{OCSP: "http://r.invalid/", Change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(4096) }}
		root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
		named := first
		named.CommonName = "Mid"
		mid := root.Intermediate(named)
		leaf := mid.Leaf(first)
		for _, c := range []struct {
			root, mid int // what each says of its first certificate
			want      State
		}{{ocsp.Good, ocsp.Good, Good}, {ocsp.Revoked, ocsp.Good, Revoked}, {ocsp.Good, ocsp.Revoked, Revoked}, {ocsp.Good, ocsp.Unknown, Unknown}} {
			r := signtest.NewResponder(root)
			r.Do(func(w http.ResponseWriter, req *http.Request) {
				asked := must((&question{url: req.URL}).ocsp())
				by, status := root, c.root
				if about := must(ocsp.ParseRequest(must(ocsp.CreateRequest(leaf.Cert(), mid.Cert(), nil)))); bytes.Equal(asked.IssuerKeyHash, about.IssuerKeyHash) {
					by, status = mid, c.mid
				}
				w.Write(signtest.OCSPResponse(by, asked.SerialNumber, signtest.OCSPOptions{Status: status}))
			})
			checker := New(Options{Transport: r})
			stop := running(t, checker)
			if a := settled(t, checker, leaf); a.State != c.want || len(r.Served()) != 2 {
				t.Errorf("%+v: state %d after %d questions: %v", c, a.State, len(r.Served()), firstError(a.Results))
			}
			stop()
		}
	})
}

// What is known of a chain for one signing time says nothing for another, nor for
// none: a certificate revoked since may have been good then. The time is the
// signer's to choose.
func TestAnswersAreForTheirSigningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := signtest.NewRoot(signtest.CertOptions{})
		leaf := root.Leaf(signtest.CertOptions{CRL: "http://r.invalid/a.crl"})
		r := signtest.NewResponder(root)
		since := must(asn1.MarshalWithParams(time.Now().Add(-24*time.Hour).UTC(), "generalized"))
		r.Say(signtest.OCSPOptions{}, signtest.CRLOptions{Change: func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: leaf.Cert().SerialNumber, RevocationTime: time.Now(),
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: since}}}} // invalidityDate
		}})
		checker := New(Options{Transport: r})
		defer running(t, checker)()
		at := func(signed time.Time) State {
			checker.Check(leaf.Certs, purpose.CodeSigning, signed)
			checker.Settle(t.Context())
			return checker.Check(leaf.Certs, purpose.CodeSigning, signed).State
		}
		wraps := time.Unix(0, 0).Add(1 << 62).Add(1 << 62).Add(1 << 62).Add(1 << 62) // 2^64 ns on
		for _, signed := range []time.Time{time.Unix(0, 0), time.Now().Add(-48 * time.Hour)} {
			if got := at(signed); got != Good {
				t.Errorf("signed at %v, before it became invalid: %d", signed, got)
			}
		}
		for _, signed := range []time.Time{{}, time.Now(), wraps} {
			if got := at(signed); got != Revoked {
				t.Errorf("signed at %v: %d, want revoked", signed, got)
			}
		}
	})
}

// Answers end at their next update, are asked for anew ahead of it, and stand
// until then when that fails.
func TestNextUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		checker := New(Options{Transport: r})
		defer running(t, checker)()
		leaf := root.Leaf(signtest.CertOptions{OCSP: "http://r.invalid/"})
		start := time.Now()
		expect := func(what string, state State, until time.Time, served int) {
			t.Helper()
			a := check(checker, leaf)
			if a.State != state || !a.Until.Equal(until) {
				t.Errorf("%s: state %d until %v, want %d until %v", what, a.State, a.Until, state, until)
			}
			if n := len(r.Served()); n != served {
				t.Errorf("%s: %d requests, want %d", what, n, served)
			}
			checker.Settle(t.Context())
		}
		r.Say(signtest.OCSPOptions{Next: start.Add(time.Hour)}, signtest.CRLOptions{})
		expect("first", Unknown, time.Time{}, 0)
		expect("answered", Good, start.Add(time.Hour), 1)
		time.Sleep(44 * time.Minute)
		expect("young", Good, start.Add(time.Hour), 1)
		time.Sleep(2 * time.Minute)
		r.Say(signtest.OCSPOptions{Next: start.Add(2 * time.Hour)}, signtest.CRLOptions{})
		expect("nearing its end", Good, start.Add(time.Hour), 1)
		expect("asked anew", Good, start.Add(2*time.Hour), 2)
		r.Do(signtest.NoAnswer)
		checker.responses.kept = newBounded[string, *response](maxEntries, maxBytes) // others took its place
		time.Sleep(time.Hour)                                                        // 1:46 of 2:00
		expect("responder gone", Good, start.Add(2*time.Hour), 2)
		expect("still stands", Good, start.Add(2*time.Hour), 3)
		time.Sleep(14*time.Minute - time.Nanosecond)
		expect("the last instant", Good, start.Add(2*time.Hour), 3)
		time.Sleep(time.Nanosecond)
		expect("over", Unknown, time.Time{}, 4)
		// A replay of an older response does not extend anything.
		r.Say(signtest.OCSPOptions{Status: ocsp.Revoked, Next: start.Add(100 * 24 * time.Hour)}, signtest.CRLOptions{})
		time.Sleep(10 * time.Minute)
		expect("asked again", Unknown, time.Time{}, 4)
		revokedUntil := time.Now().Add(MaxAge)
		expect("revoked, for a day at most", Revoked, revokedUntil, 5)
		r.Say(signtest.OCSPOptions{This: start, Next: start.Add(90 * 24 * time.Hour)}, signtest.CRLOptions{})
		time.Sleep(20 * time.Hour)
		expect("nearing its end", Revoked, revokedUntil, 5)
		expect("the older response does not count", Revoked, revokedUntil, 6)
	})
}

// A host that does not answer is left alone, for longer each time.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := signtest.NewRoot(signtest.CertOptions{})
		r := signtest.NewResponder(root)
		r.Do(signtest.NoAnswer)
		checker := New(Options{Transport: r})
		defer running(t, checker)()
		leaf := root.Leaf(signtest.CertOptions{OCSP: "http://r.invalid/"})
		ask := func() { // each time another question
			checker.Check(leaf.Certs, purpose.CodeSigning, time.Now())
			checker.Settle(t.Context())
			time.Sleep(time.Millisecond)
		}
		for range 100 {
			ask()
		}
		if n := len(r.Served()); n != 1 {
			t.Errorf("%d requests to a host that does not answer", n)
		}
		for range 720 {
			time.Sleep(5 * time.Second)
			ask()
		}
		if n := len(r.Served()); n < 12 || n > 20 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

// What is kept and what waits is bounded.
func TestBounds(t *testing.T) {
	b := newBounded[int, int](10, 100)
	for i := range 1000 {
		b.put(i, i, 7+i%20)
		if len(b.at) > 10 || b.used > 100 || b.order.Len() != len(b.at) {
			t.Fatalf("%d entries, weight %d", len(b.at), b.used)
		}
	}
	b.put(1, 1, 101)
	if _, ok := b.get(1); ok {
		t.Error("too heavy, and kept")
	}
	root := signtest.NewRoot(signtest.CertOptions{})
	checker := New(Options{Transport: roundTrip(nil)}) // nobody runs it
	leaf := root.Leaf(signtest.CertOptions{OCSP: "http://r.invalid/"})
	for i := range maxWaiting + 100 {
		checker.Check(leaf.Certs, purpose.CodeSigning, time.Unix(int64(i), 0))
	}
	if s := checker.Stats(); s.Waiting != maxWaiting || s.Dropped != 100 {
		t.Errorf("%+v", s)
	}
}

// A panic in the way of an answer is no answer.
func TestPanic(t *testing.T) {
	var calls atomic.Int32
	checker := New(Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) { calls.Add(1); panic("injected") })})
	defer running(t, checker)()
	leaf := signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{OCSP: "http://r.invalid/"})
	if a := settled(t, checker, leaf); a.State != Unknown || calls.Load() != 1 {
		t.Errorf("%+v after %d calls", a, calls.Load())
	}
}

// TSA chains are asked about with their own purpose, chains without addresses
// never.
func TestPurposesAndPlainChains(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	r := signtest.NewResponder(root)
	checker := New(Options{Transport: r})
	defer running(t, checker)()
	if a := check(checker, root.Leaf(signtest.CertOptions{})); a.State != Good || !a.Until.IsZero() || checker.Stats() != (Stats{}) {
		t.Errorf("no address: %+v, %+v", a, checker.Stats())
	}
	tsa := signtest.NewTSA(root, signtest.CertOptions{OCSP: "http://r.invalid/"}).Chain()
	for p, want := range map[purpose.Purpose]State{purpose.Timestamping: Good, purpose.CodeSigning: Unknown} {
		checker.Check(tsa.Certs, p, time.Time{})
		checker.Settle(t.Context())
		if a := checker.Check(tsa.Certs, p, time.Time{}); a.State != want {
			t.Errorf("purpose %v: %+v", p, a)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return v
}
