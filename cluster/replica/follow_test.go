package replica_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cluster/replica"
	"trust-worker/server"
)

const stale = "unknown/stale"

// A replica reads as its source does, follows what it publishes, and goes on by itself
// when one of the two was away.
func TestFollow(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	f := follow(t, replica.Source{URL: w.url})
	f.becomes(1, "trusted")
	w.push(2)
	f.becomes(2, "trusted")
	w.trust(keyB)
	f.becomes(1, "untrusted")
	w.trust(keyA, keyB)
	f.becomes(2, "trusted")
	f.eventually("it has everything", func() bool { st := f.Status(); return st.Connected && st.Behind == 0 && st.Generation == st.Data })
	// The source is away: what is here is believed.
	address := strings.TrimPrefix(w.url, "http://")
	w.stop()
	f.eventually("it says so", func() bool { st := f.Status(); return !st.Connected && st.Problem != "" })
	if got := f.status(1); got != "trusted" {
		t.Errorf("without the source: %s", got)
	}
	w.trust(keyB)
	w.push(3)
	w.serve(address)
	f.becomes(1, "untrusted")
	f.becomes(3, "untrusted")
	// The replica is away.
	f.stop()
	w.trust(keyA)
	f = followIn(t, f.state, replica.Source{URL: w.url})
	f.becomes(3, "trusted")
	if st := f.Status(); st.Bytes > 200_000 {
		t.Errorf("%d bytes were fetched for a change of trust", st.Bytes)
	}
}

// A source that has no answers has none here; one whose cache is another has everything
// fetched anew.
func TestFollowASourceThatIsWithdrawnOrRebuilt(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	f := follow(t, replica.Source{URL: w.url})
	f.becomes(1, "trusted")
	current := filepath.Join(w.state, "published", "CURRENT")
	check(t, os.Rename(current, current+".away"))
	f.becomes(1, cache.ErrNoCache.Error())
	check(t, os.Rename(current+".away", current))
	f.becomes(1, "trusted")
	other := newWorker(t, time.Minute, nil)
	other.push(2)
	f.stop()
	f = followIn(t, f.state, replica.Source{URL: other.url})
	f.becomes(2, "trusted")
	if got := f.status(1); got == "trusted" {
		t.Errorf("an image of another cache is %s", got)
	}
}

// Whatever keeps the source from being heard, answers are stale after its lease, and not
// before; when it is heard again, nobody has to do anything.
func TestLeaseGoesThrough(t *testing.T) {
	const lease = 2 * time.Second
	w := newWorker(t, lease, nil)
	w.push(1)
	var silent, kept atomic.Bool
	var old atomic.Pointer[http.Response]
	for what, proxy := range map[string]string{
		"no answer": between(t, w, nil, func(r *http.Response) error {
			if silent.Load() {
				r.Body.Close()
				r.Body = io.NopCloser(&failing{})
			}
			return nil
		}),
		"answers that somebody has kept": between(t, w, nil, func(r *http.Response) error {
			if r.Request.URL.Path != "/api/v1/publication" {
				return nil
			}
			if was := old.Load(); kept.Load() && was != nil {
				r.StatusCode, r.Header = http.StatusNotModified, was.Header
				r.Body.Close()
				r.Body = http.NoBody
			} else if r.StatusCode == http.StatusNotModified {
				old.Store(r)
			}
			return nil
		}),
	} {
		t.Run(what, func(t *testing.T) {
			silent.Store(false)
			kept.Store(false)
			f := follow(t, replica.Source{URL: proxy})
			stop := confirming(t, w)
			f.becomes(1, "trusted")
			f.eventually("it is confirmed several times", func() bool {
				return time.Since(f.Status().LastHeard) < lease/4 && old.Load() != nil || what == "no answer"
			})
			silent.Store(true)
			kept.Store(true)
			f.becomes(1, stale)
			// A reader looks at the confirmation once a second.
			if age := f.Status().Age; age < lease-1500*time.Millisecond {
				t.Errorf("stale %v after it was confirmed, with a lease of %v", age, lease)
			}
			silent.Store(false)
			kept.Store(false)
			f.becomes(1, "trusted")
			// The source itself hangs: it answers, and confirms nothing.
			stop()
			f.becomes(1, stale)
			defer confirming(t, w)()
			f.becomes(1, "trusted")
		})
	}
}

// confirming confirms as a worker's loop does, until stop is called.
func confirming(t *testing.T, w *worker) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if err := w.s.Confirm(time.Now()); err != nil {
				t.Error(err)
			}
			select {
			case <-end:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

// What is cut is fetched on, not again; what is altered on its way is not taken over.
func TestCutAndAlteredDownloads(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	for n := range 200 {
		w.push(n)
	}
	var served, whole atomic.Int64
	proxy := between(t, w, nil, func(r *http.Response) error {
		if r.Request.URL.Path == "/api/v1/publication" || strings.Contains(r.Request.URL.Path, "trust-") {
			return nil
		}
		if r.StatusCode == http.StatusOK {
			whole.Add(1)
		}
		n := int64(20_000)
		served.Add(min(n, r.ContentLength))
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r.Body, n), &failing{}), r.Body}
		return nil
	})
	f := follow(t, replica.Source{URL: proxy})
	f.becomes(199, "trusted")
	if st := f.Status(); served.Load() > st.Bytes+100_000 || st.Bytes < 40_000 {
		t.Errorf("%d bytes were sent for the %d that there are", served.Load(), st.Bytes)
	}
	f.stop()

	altered := between(t, w, nil, func(r *http.Response) error {
		if strings.Contains(r.Request.URL.Path, "base-") {
			r.Body = struct {
				io.Reader
				io.Closer
			}{&flipping{r.Body}, r.Body}
		}
		return nil
	})
	f = follow(t, replica.Source{URL: altered})
	f.eventually("it says so", func() bool { return strings.Contains(f.Status().DataProblem, "not what the source told of") })
	if got := f.status(1); got != cache.ErrNoCache.Error() {
		t.Errorf("of altered data: %s", got)
	}
}

type flipping struct{ r io.Reader }

func (f *flipping) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if n > 0 {
		b[n-1] ^= 1
	}
	return n, err
}

// Nobody else than the source is followed.
func TestWhoIsFollowed(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	var asked atomic.Int64
	elsewhere := between(t, w, func(r *http.Request) { asked.Add(1) }, nil)
	for what, answer := range map[string]func(r *http.Response) error{
		"a redirect": func(r *http.Response) error {
			r.StatusCode = http.StatusTemporaryRedirect
			r.Header.Set("Location", elsewhere+r.Request.URL.RequestURI())
			return nil
		},
		"an answer to another request": func(r *http.Response) error { r.Header.Set("Trust-Nonce", "another"); return nil },
		"no age":                       func(r *http.Response) error { r.Header.Del("Trust-Age"); return nil },
		"a negative age":               func(r *http.Response) error { r.Header.Set("Trust-Age", "-1"); return nil },
		"an age that is no number":     func(r *http.Response) error { r.Header.Set("Trust-Age", "NaN"); return nil },
		"something else":               func(r *http.Response) error { r.Body = io.NopCloser(strings.NewReader(`{"Current":"x"}`)); return nil },
		"a very long answer": func(r *http.Response) error {
			r.Body, r.ContentLength = io.NopCloser(io.LimitReader(zeros{}, 1<<30)), 1<<30
			r.Header.Del("Content-Length")
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			f := follow(t, replica.Source{URL: between(t, w, nil, answer)})
			f.eventually("it says so", func() bool { return f.Status().Problem != "" })
			if got := f.status(1); got != cache.ErrNoCache.Error() || asked.Load() > 0 {
				t.Errorf("%s; %d requests went elsewhere", got, asked.Load())
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// What an operator says of a source is checked before anything is asked.
func TestCheckSource(t *testing.T) {
	for _, c := range []struct {
		s    replica.Source
		part string // of the error; empty: none
	}{
		{replica.Source{URL: "https://worker.example"}, ""}, {replica.Source{URL: "https://worker.example:8428/below"}, ""},
		{replica.Source{URL: "unix:/run/w.sock"}, ""}, {replica.Source{URL: "http://127.0.0.1:8428"}, ""}, {replica.Source{URL: "http://[::1]:8428"}, ""},
		{replica.Source{URL: "http://localhost:8428"}, ""}, {replica.Source{URL: "http://worker.example", Insecure: true}, ""},
		{replica.Source{URL: "http://worker.example"}, "--insecure-source"}, {replica.Source{URL: "http://localhost.example"}, "--insecure-source"},
		{replica.Source{URL: "worker.example"}, "give https"}, {replica.Source{URL: "ftp://worker.example"}, "give https"}, {replica.Source{URL: "unix:w.sock"}, "unix:/path"},
		{replica.Source{URL: "https://user:secret@worker.example"}, "give https"}, {replica.Source{URL: "https://worker.example?x"}, "give https"},
		{replica.Source{URL: "https://worker.example", CertFile: "c"}, "its key"}, {replica.Source{URL: "http://localhost", CAFile: "c"}, "need https"},
	} {
		err := c.s.Check()
		if (err == nil) != (c.part == "") || err != nil && !strings.Contains(err.Error(), c.part) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.part)
		}
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	for what, s := range map[string]replica.Source{
		"no CA file": {URL: "https://x", CAFile: filepath.Join(dir, "none")}, "no CA in the file": {URL: "https://x", CAFile: file("ca", "x")},
		"no token file": {URL: "https://x", TokenFile: filepath.Join(dir, "none")}, "no token in the file": {URL: "https://x", TokenFile: file("empty", "# none\n")},
		"a private key for a token": {URL: "https://x", TokenFile: file("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n")},
		"no client certificate":     {URL: "https://x", CertFile: filepath.Join(dir, "none"), KeyFile: filepath.Join(dir, "none")},
	} {
		if _, err := replica.New(replica.Config{Source: s, State: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: it is followed", what)
		}
	}
}

// A token, a client certificate or the socket's mode gives the right to read; without,
// nothing is followed, and the reason is told.
func TestRightToRead(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, content, 0o600))
		return path
	}
	ca, caKey := certificate(t, "CA", nil, nil)
	cert, key := certificate(t, "127.0.0.1", ca, caKey)
	client, clientKey := certificate(t, "replica", ca, caKey)
	socket := filepath.Join(dir, "s")
	token := file("token", []byte("# of the replica\n0123456789abcdef0123\n"))
	w := newWorker(t, time.Minute, func(c *server.Config) {
		c.Auth = server.Auth{Reads: "credential", ReadTokens: []string{token}}
		c.TLS = server.TLS{CertFile: file("cert.pem", pemOf(cert)), KeyFile: file("key.pem", pemOfKey(t, key)), ClientCA: file("ca.pem", pemOf(ca))}
		c.Listen = append(c.Listen, "unix:"+socket)
	})
	w.push(1)
	url := "https" + strings.TrimPrefix(w.url, "http")
	clientFile, clientKeyFile := file("client.pem", pemOf(client)), file("client.key", pemOfKey(t, clientKey))
	for what, c := range map[string]struct {
		s    replica.Source
		part string // of the problem; empty: it is followed
	}{
		"token":          {replica.Source{URL: url, CAFile: filepath.Join(dir, "ca.pem"), TokenFile: token}, ""},
		"certificate":    {replica.Source{URL: url, CAFile: filepath.Join(dir, "ca.pem"), CertFile: clientFile, KeyFile: clientKeyFile}, ""},
		"socket":         {replica.Source{URL: "unix:" + socket}, ""},
		"nothing":        {replica.Source{URL: url, CAFile: filepath.Join(dir, "ca.pem")}, "401"},
		"another token":  {replica.Source{URL: url, CAFile: filepath.Join(dir, "ca.pem"), TokenFile: file("other", []byte("another-token-of-some-length"))}, "401"},
		"another source": {replica.Source{URL: url, TokenFile: token}, "certificate"}, // whose CA is not known
	} {
		t.Run(what, func(t *testing.T) {
			f := follow(t, c.s)
			if c.part == "" {
				f.becomes(1, "trusted")
				return
			}
			f.eventually("it says so", func() bool { return strings.Contains(f.Status().Problem, c.part) })
			if got := f.status(1); got != cache.ErrNoCache.Error() {
				t.Error(got)
			}
		})
	}
}

func certificate(t *testing.T, name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: ca == nil, KeyUsage: x509.KeyUsageDigitalSignature}
	if ca == nil {
		c.KeyUsage = x509.KeyUsageCertSign
		ca, caKey = c, key
	} else {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		c.IPAddresses = append(c.IPAddresses, []byte{127, 0, 0, 1})
	}
	der := must(x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey))(t)
	return must(x509.ParseCertificate(der))(t), key
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pemOfKey(t *testing.T, key *ecdsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))(t)})
}

// A replica is a source for others, who read what the first source publishes, and no
// longer than it confirms.
func TestReplicaOfAReplica(t *testing.T) {
	w := newWorker(t, 3*time.Second, nil)
	stop := confirming(t, w)
	w.push(1)
	f := follow(t, replica.Source{URL: w.url})
	f.becomes(1, "trusted")
	between := &worker{t: t, state: f.state, edit: func(c *server.Config) { c.Replica = f.Status }}
	between.serve("127.0.0.1:0")
	g := follow(t, replica.Source{URL: between.url})
	g.becomes(1, "trusted")
	w.trust(keyB)
	g.becomes(1, "untrusted")
	w.trust(keyA)
	w.push(2)
	g.becomes(2, "trusted")
	stop()
	g.becomes(2, stale)
}

// Many replicas have the source read and hash each file once, and all follow.
func TestManyReplicas(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	var all []*follower
	for range 20 {
		all = append(all, follow(t, replica.Source{URL: w.url}))
	}
	for _, f := range all {
		f.becomes(1, "trusted")
	}
	w.trust(keyB)
	w.push(2)
	for _, f := range all {
		f.becomes(1, "untrusted")
		f.becomes(2, "untrusted")
	}
}

// Whatever something on the way does to requests that wait, the source is not asked
// without a pause.
func TestPace(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	var asked atomic.Int64
	for what, proxy := range map[string]string{
		"If-None-Match is removed": between(t, w, func(r *http.Request) { r.Header.Del("If-None-Match"); asked.Add(1) }, nil),
		"ETag is weakened": between(t, w, func(*http.Request) { asked.Add(1) }, func(r *http.Response) error {
			r.Header.Set("ETag", "W/"+r.Header.Get("ETag"))
			return nil
		}),
	} {
		t.Run(what, func(t *testing.T) {
			f := follow(t, replica.Source{URL: proxy})
			f.becomes(1, "trusted")
			asked.Store(0)
			time.Sleep(time.Second)
			if n := asked.Load(); n > 20 { // thousands without a pause
				t.Errorf("%d requests in a second", n)
			}
			f.stop()
		})
	}
}

// What somebody removes of a replica is fetched again, the directory itself included.
func TestRemovedFiles(t *testing.T) {
	w := newWorker(t, time.Minute, nil)
	w.push(1)
	f := follow(t, replica.Source{URL: w.url})
	f.becomes(1, "trusted")
	check(t, os.RemoveAll(filepath.Join(f.state, "published")))
	f.becomes(1, cache.ErrNoCache.Error())
	f.becomes(1, "trusted")
	w.push(2)
	f.becomes(2, "trusted")
}
