package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"trust-worker/internal/signtest"
)

func TestUploadToken(t *testing.T) {
	reads := filepath.Join(t.TempDir(), "read.tokens")
	check(t, os.WriteFile(reads, []byte("# readers\nreader-token-0123456789\n"), 0o600))
	w := start(t, func(c *Config) { c.Auth.ReadTokens = []string{reads} })
	key := signtest.NewKey(signtest.P256)
	fi := must[os.FileInfo](t)(os.Stat(filepath.Join(w.state, uploadToken)))
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"none", nil, 401},
		{"wrong", []string{"Authorization", "Bearer wrong"}, 401},
		{"empty", []string{"Authorization", "Bearer "}, 401},
		{"not a bearer", []string{"Authorization", w.token()}, 401},
		{"a prefix", []string{"Authorization", "Bearer " + w.token()[:20]}, 401},
		{"a reader's", []string{"Authorization", "Bearer reader-token-0123456789"}, 403},
		{"basic without users", []string{"Authorization", "Basic YTpi"}, 401},
	} {
		a := w.call("POST", pathCosign, key.PEM(), c.header...)
		if a.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, a.StatusCode, c.status)
		}
		if c.status == 401 && a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.name)
		}
	}
	if len(w.files()) != 0 {
		t.Errorf("on disk: %v", w.files())
	}
	w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil).want(t, 401)
	w.call("POST", pathCosign, key.PEM(), "Authorization", "Bearer "+w.token()).want(t, 200)
	// Reads are open on loopback, but a wrong credential is always refused.
	w.get(pathCosign).want(t, 200)
	w.call("GET", pathCosign, nil, "Authorization", "Bearer wrong").want(t, 401)
	// What zot's client sends when it has no credential is none.
	w.call("GET", pathCosign, nil, "Authorization", "Basic Og==").want(t, 200)
	w.call("POST", pathCosign, key.PEM(), "Authorization", "Basic Og==").want(t, 401)

	// A second start keeps the token.
	token := w.token()
	check(t, makeToken(filepath.Join(w.state, uploadToken)))
	if w.token() != token {
		t.Error("the token was replaced")
	}
	if !strings.Contains(w.srv.Curl(), "upload.token") {
		t.Errorf("curl line: %s", w.srv.Curl())
	}
}

func TestReadsByCredential(t *testing.T) {
	w := start(t, func(c *Config) { c.Auth.Reads = "credential" })
	w.get(pathCosign).want(t, 401)
	w.get("/metrics").want(t, 401)
	w.get("/readyz?verbose").want(t, 401)
	w.get("/readyz").want(t, 200)
	w.call("GET", pathCosign, nil, "Authorization", "Bearer "+w.token()).want(t, 200)
}

func TestGuessingIsLimited(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits.FailRate, c.Limits.FailBurst = 1e-6, 3 })
	for range 3 {
		w.call("GET", pathCosign, nil, "Authorization", "Bearer wrong").want(t, 401)
	}
	w.call("GET", pathCosign, nil, "Authorization", "Bearer wrong").want(t, 429)
	w.call("GET", pathCosign, nil, "Authorization", "Bearer "+w.token()).want(t, 200)
}

func TestChangesAreLimited(t *testing.T) {
	w := start(t, func(c *Config) { openUploads(c); c.Limits.WriteRate, c.Limits.WriteBurst = 1e-6, 2 })
	for range 2 {
		w.call("POST", pathCosign, []byte("x")).want(t, 400)
	}
	w.call("POST", pathCosign, []byte("x")).want(t, 429)
}

func TestHtpasswd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	hash := func(p string) string {
		return string(must[[]byte](t)(bcrypt.GenerateFromPassword([]byte(p), bcrypt.MinCost)))
	}
	check(t, os.WriteFile(file, []byte("alice:"+hash("secret")+"\nbob:"+hash("other")+"\n"), 0o600))
	w := start(t, func(c *Config) { c.Auth.Htpasswd, c.Auth.Admins, c.Auth.Reads = file, []string{"alice"}, "credential" })
	key := signtest.NewKey(signtest.P256)
	as := func(method, user, password string) int {
		req := w.request(method, pathCosign, key.PEM())
		req.SetBasicAuth(user, password)
		return w.do(req).StatusCode
	}
	for _, c := range []struct {
		method, user, password string
		status                 int
	}{
		{"POST", "bob", "other", 403}, {"GET", "bob", "other", 200}, {"GET", "bob", "secret", 401}, {"GET", "carol", "other", 401},
		{"POST", "alice", "other", 401}, {"POST", "alice", "secret", 200}, {"POST", "alice", "secret", 200}, {"GET", "", "", 401},
	} {
		if got := as(c.method, c.user, c.password); got != c.status {
			t.Errorf("%+v: %d", c, got)
		}
	}
	// A changed file counts; the memory of what was right goes with it.
	check(t, os.WriteFile(file, []byte("bob:"+hash("other")+"\n"), 0o600))
	w.srv.users.mu.Lock()
	w.srv.users.files.looked = time.Time{}
	w.srv.users.mu.Unlock()
	if got := as("POST", "alice", "secret"); got != 401 {
		t.Errorf("after alice was removed: %d", got)
	}
	if _, err := newUsers(writeTemp(t, "eve:{SHA}abc\n"), w.srv.log); err == nil {
		t.Error("a hash that is not bcrypt was taken")
	}
}

func writeTemp(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestTokenFileChanges(t *testing.T) {
	path := writeTemp(t, "first-token-0123456789\n")
	f := must[*tokenFile](t)(newTokenFile(path, toWrite, slog.New(slog.DiscardHandler)))
	look := func(token string) bool { f.files.looked = time.Time{}; return f.has(token) }
	if !look("first-token-0123456789") || look("second-token-0123456789") || look("") {
		t.Fatal("the first file is not in force")
	}
	check(t, os.WriteFile(path, []byte("\n#x\nsecond-token-0123456789 \n"), 0o600))
	if look("first-token-0123456789") || !look("second-token-0123456789") {
		t.Error("the second file is not in force")
	}
	if _, err := newTokenFile(writeTemp(t, "short\n"), toWrite, nil); err == nil {
		t.Error("a short token was taken")
	}
}

func TestCrossOriginRefused(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	for _, headers := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Host", "evil.example"}, // DNS rebinding
		{"Host", "evil.example:80", "Origin", "http://evil.example:80"},
	} {
		a := w.call("POST", pathCosign, key.PEM(), headers...)
		if a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%v: %d", headers, a.StatusCode)
		}
		if a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: CORS is on", headers)
		}
	}
	a := w.call("OPTIONS", pathCosign, nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
	if a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a preflight was answered")
	}
	if len(w.files()) != 0 {
		t.Errorf("on disk: %v", w.files())
	}
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:80", "LOCALHOST"} {
		w.call("POST", pathCosign, key.PEM(), "Host", host).want(t, 200)
	}
}

// A client that dribbles its header, or its body, is cut off. The read below
// ends when the server closes the connection, however long that takes.
func TestSlowClients(t *testing.T) {
	w := start(t, func(c *Config) {
		openUploads(c)
		c.Limits.ReadHeaderTimeout, c.Limits.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond
	})
	for name, sent := range map[string]string{
		"header": "POST " + pathCosign + " HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"body":   "POST " + pathCosign + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n-----BEGIN",
	} {
		c := dial(t, w.srv.Addresses()[0].String())
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: the connection was not closed: %v", name, err)
		}
		if strings.Contains(string(b), " 200 ") {
			t.Errorf("%s: %s", name, b)
		}
	}
	if len(w.files()) != 0 {
		t.Errorf("on disk: %v", w.files())
	}
}

func TestHeaderLimit(t *testing.T) {
	w := start(t, nil)
	resp, err := http.DefaultClient.Do(w.request("GET", "/livez", nil, "X-Large", strings.Repeat("a", 64<<10)))
	if err != nil {
		return // it did not read to the end of what was sent, and closed
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	// A dead socket is replaced.
	dead := must[net.Listener](t)(net.Listen("unix", path))
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	check(t, dead.Close())
	w := start(t, func(c *Config) { c.Listen = []string{"unix:" + path} })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	if fi := must[os.FileInfo](t)(os.Stat(path)); fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", fi.Mode())
	}
	w.url = "http://localhost"
	key := signtest.NewKey(signtest.P256)
	doWith(t, client, w.request("POST", pathCosign, key.PEM())).want(t, 200)
	if !strings.Contains(w.log.String(), "who=\"uid ") || !strings.Contains(w.log.String(), "at="+path+" ") {
		t.Errorf("the log does not say who, or where: %s", w.log.String())
	}
	// One that is alive is not taken away.
	if _, err := listenUnix(path); err == nil {
		t.Error("a socket in use was replaced")
	}
	check(t, w.stop())
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket was left behind")
	}
	other := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(other, nil, 0o644))
	if _, err := listenUnix(other); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestTLSRenewalAndClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := makeCA(t)
	write := func(name string) (cert, key string) {
		cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		ca.issue(t, name, cert, key)
		return cert, key
	}
	cert, key := write("first")
	caFile := filepath.Join(dir, "ca.crt")
	check(t, os.WriteFile(caFile, ca.pem, 0o644))
	w := start(t, func(c *Config) {
		c.TLS = TLS{CertFile: cert, KeyFile: key, ClientCA: caFile}
		c.Auth.Admins, c.Auth.Reads = []string{"deployer"}, "credential"
	})
	w.url = "https" + strings.TrimPrefix(w.url, "http")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	try := func(clientName string) (status int, server string) {
		cfg := &tls.Config{RootCAs: pool, ServerName: "localhost"}
		if clientName != "" {
			c, k := filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key")
			ca.issue(t, clientName, c, k)
			cfg.Certificates = []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(c, k))}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		a := doWith(t, client, w.request("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()))
		return a.StatusCode, a.TLS.PeerCertificates[0].Subject.CommonName
	}
	for name, want := range map[string]int{"": 401, "someone": 403, "deployer": 200} {
		if status, server := try(name); status != want || server != "first" {
			t.Errorf("%q: %d from %s", name, status, server)
		}
	}
	lookAgain := func() {
		w.srv.tls.mu.Lock()
		defer w.srv.tls.mu.Unlock()
		w.srv.tls.watched.looked = time.Time{}
	}
	write("second")
	lookAgain()
	if _, server := try(""); server != "second" {
		t.Errorf("after renewal: %s", server)
	}
	check(t, os.WriteFile(cert, []byte("half a cert"), 0o644))
	lookAgain()
	if _, server := try(""); server != "second" {
		t.Errorf("with half a file: %s", server)
	}
	write("third")
	lookAgain()
	if _, server := try(""); server != "third" {
		t.Errorf("after the second renewal: %s", server)
	}
}

// A request in progress at shutdown is answered.
func TestRequestAtShutdownIsAnswered(t *testing.T) {
	w := start(t, func(c *Config) { openUploads(c); c.Limits.DrainTimeout = 20 * time.Second })
	key := signtest.NewKey(signtest.P256)
	body, feed := io.Pipe()
	req := must[*http.Request](t)(http.NewRequest("POST", w.url+pathCosign, body))
	// The body is sent once the handler has begun to read it.
	req.Header.Set("Expect", "100-continue")
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: 20 * time.Second}}
	defer client.CloseIdleConnections()
	done := make(chan int, 1)
	go func() {
		status := 0
		if resp, err := client.Do(req); err == nil {
			status = resp.StatusCode
			_ = resp.Body.Close()
		}
		done <- status
	}()
	_, err := feed.Write(key.PEM()[:10])
	check(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	for !w.srv.draining.Load() {
		time.Sleep(time.Millisecond) // until the shutdown has begun
	}
	_, err = feed.Write(key.PEM()[10:])
	check(t, err)
	check(t, feed.Close())
	if status := <-done; status != 200 {
		t.Errorf("status %d", status)
	}
	check(t, <-stopped)
}

func TestHealth(t *testing.T) {
	w := start(t, nil)
	for _, path := range []string{"/livez", "/startupz", "/readyz"} {
		w.get(path).want(t, 200, "ok")
	}
	st := w.d.Status()
	st.FirstPass = false
	w.d.status.Store(&st)
	w.get("/readyz").want(t, 503, "not ok")
	w.get("/readyz?verbose").want(t, 503, "[-] first pass: running", "[+] published")
	w.get("/startupz").want(t, 200)
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	w.get("/startupz").want(t, 503)
	w.get("/livez").want(t, 200)
}

func TestMetrics(t *testing.T) {
	w := start(t, openUploads)
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 200)
	w.call("POST", notationUpload, signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{CommonName: "R"}).Cert())).want(t, 200)
	w.call("POST", pathCosign, []byte("x")).want(t, 400)
	a := w.get("/metrics")
	a.want(t, 200, `trust_worker_trust_changes_total{action="upload",result="done"} 2`,
		`trust_worker_trust_changes_total{action="upload",result="refused"} 1`, `trust_worker_trust_files_loaded{tool="cosign"} 1`,
		`trust_worker_certificate_expiry_timestamp_seconds{`, `trust_worker_answers_believed 1`)
	for _, line := range strings.Split(a.body, "\n") {
		if line != "" && line[0] != '#' && !strings.HasPrefix(line, "trust_worker_") {
			t.Errorf("a metric of another name: %s", line)
		}
	}
}
