package replica

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"trust-worker/cache/mirror"
)

// Source says where a worker, or another replica, serves HTTP, and who asks.
type Source struct {
	// URL is https://host[:port], unix:/path, or http://host[:port], which only a
	// loopback address may have unless Insecure is set: whoever can answer in its
	// place decides what is trusted here.
	URL      string
	Insecure bool
	// TokenFile holds a token that may read, in its first line; read for each request.
	TokenFile string
	// CAFile holds the certificates that the source's is to be from; empty: the system's.
	CAFile string
	// CertFile and KeyFile are a client certificate, read for each connection.
	CertFile, KeyFile string
}

// Check finds mistakes in what an operator says, without asking the network.
func (s *Source) Check() error {
	u, err := s.base()
	if err != nil {
		return err
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		return errors.New("a client certificate needs both its file and the file of its key")
	}
	if u.Scheme != "https" && (s.CertFile != "" || s.CAFile != "") {
		return fmt.Errorf("source %s: certificates need https://", s.URL)
	}
	if u.Scheme == "http" && s.socket() == "" && !s.Insecure && !loopback(u.Hostname()) {
		return fmt.Errorf("source %s: without TLS whoever is on the way can make anything trusted here: use https://, or say that the network can be relied on with --insecure-source", s.URL)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *Source) socket() string {
	p, _ := strings.CutPrefix(s.URL, "unix:")
	if p == s.URL {
		return ""
	}
	return p
}

func (s *Source) base() (*url.URL, error) {
	if p := s.socket(); p != "" {
		if !path.IsAbs(p) {
			return nil, fmt.Errorf("source %q: give the absolute path of the socket, as unix:/path", s.URL)
		}
		return &url.URL{Scheme: "http", Host: "localhost"}, nil
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("source %q: give https://host[:port], http://127.0.0.1:port or unix:/path (a token goes into --token-file)", s.URL)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

// client asks one source.
type client struct {
	Source
	base *url.URL
	http *http.Client
}

// Times of a request: for a connection, and for the head of an answer beyond what the
// source was asked to wait. While a file comes, it has to come on.
const (
	dialTimeout  = 5 * time.Second
	replyTimeout = 10 * time.Second
	stallTimeout = 15 * time.Second
	trustTimeout = 30 * time.Second
)

func newClient(s Source) (*client, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	base, err := s.base()
	if err != nil {
		return nil, err
	}
	if s.TokenFile != "" {
		if _, err := readToken(s.TokenFile); err != nil {
			return nil, err
		}
	}
	dial := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	if socket := s.socket(); socket != "" {
		plain := dial
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return plain(ctx, "unix", socket) }
	}
	t := &http.Transport{DialContext: dial, TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 8,
		IdleConnTimeout: time.Minute, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	if s.socket() == "" {
		t.Proxy = http.ProxyFromEnvironment
	}
	if base.Scheme == "https" {
		if t.TLSClientConfig, err = s.tls(); err != nil {
			return nil, err
		}
	}
	return &client{Source: s, base: base, http: &http.Client{Transport: t,
		// A credential goes to nobody else, and nobody else is the source.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func (s *Source) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		b, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA of the source: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("CA of the source: %s holds no certificate in PEM form", s.CAFile)
		}
	}
	if s.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
			return &cert, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}

// answerError is what the source says no with.
type answerError struct {
	status  int
	message string
}

func (e *answerError) Error() string {
	s := fmt.Sprintf("the source answers %d %s: %s", e.status, http.StatusText(e.status), e.message)
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		s += " (give a token that may read there with --token-file, or a client certificate with --source-cert and --source-key)"
	case http.StatusNotFound:
		s += " (is there a trust-worker at that address, of a version that has replicas?)"
	}
	return s
}

// errWithdrawn: the source says that it publishes nothing.
var errWithdrawn = errors.New("the source publishes nothing at present")

// get sends a request; the caller closes the body. known is the status that is no error
// besides 200.
func (c *client) get(ctx context.Context, name string, query url.Values, header http.Header, known ...int) (*http.Response, error) {
	u := *c.base
	u.Path += "/api/v1/publication" + name
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	if c.TokenFile != "" {
		token, err := readToken(c.TokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // which repeats the whole address
			err = ue.Err
		}
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return nil, fmt.Errorf("ask the source: %w (name the file of its CA with --tls-ca)", err)
		}
		return nil, fmt.Errorf("ask the source: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	for _, status := range known {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	return resp, refused(resp)
}

// refused is what an answer that is none says.
func refused(resp *http.Response) error {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<10)) // what came of it is shown
	var body struct {
		Errors []struct{ Code, Message string }
	}
	e := &answerError{status: resp.StatusCode, message: "it does not say why"}
	if text := strings.TrimSpace(string(b)); text != "" && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || resp.Header.Get("Content-Type") == "" && text != "" {
		e.message = fmt.Sprintf("%.100q", text) // a server of another kind, or TLS is wanted
	}
	if json.Unmarshal(b, &body) == nil && len(body.Errors) > 0 {
		e.message = fmt.Sprintf("%.200s", body.Errors[0].Message)
		if resp.StatusCode == http.StatusServiceUnavailable && body.Errors[0].Code == "WITHDRAWN" {
			return errWithdrawn
		}
	}
	return e
}

// readToken reads the first line that is a token.
func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == '#':
		case bytes.ContainsAny(line, " \t") || bytes.HasPrefix(line, []byte("-----")):
			return "", fmt.Errorf("token file %s: its first line is no token", file)
		default:
			return string(line), nil
		}
	}
	return "", fmt.Errorf("token file %s holds no token", file)
}

// told is what the source said of its publication.
type told struct {
	pub   *mirror.Publication // nil: what tag names, still
	tag   string
	heard mirror.Heard
}

// maxPublication bounds what is said of a publication.
const maxPublication = 64 << 10

// ask asks what is published, and waits for what differs from tag. errWithdrawn is the
// source's own word for that nothing is.
func (c *client) ask(ctx context.Context, tag string, wait time.Duration) (*told, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+replyTimeout)
	defer cancel()
	nonce := rand.Text()
	header := http.Header{"Cache-Control": {"no-cache"}}
	if tag != "" {
		header.Set("If-None-Match", tag)
	}
	t := &told{}
	t.heard.Sent = mirror.Now()
	resp, err := c.get(ctx, "", url.Values{"wait": {wait.String()}, "nonce": {nonce}}, header, http.StatusNotModified)
	if resp != nil && resp.Header.Get("Trust-Nonce") != nonce && (err == nil || errors.Is(err, errWithdrawn)) {
		// What somebody on the way has kept, or a server of another kind, confirms nothing.
		return nil, errors.Join(errors.New("the answer is not to this request: is there a trust-worker at that address, and no cache before it?"), resp.Body.Close())
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	age, err := strconv.ParseFloat(resp.Header.Get("Trust-Age"), 64)
	if err != nil || !(age >= 0) { // nor what is no number
		return nil, errors.New("the source does not say how old its confirmation is")
	}
	t.heard.Age = time.Duration(min(age, 1e9) * float64(time.Second))
	if t.tag = resp.Header.Get("ETag"); t.tag == "" {
		return nil, errors.New("the answer does not name its publication: does something on the way remove ETag?")
	}
	if resp.StatusCode == http.StatusNotModified {
		if t.tag != tag {
			return nil, errors.New("the source answers about another publication than it was asked for")
		}
		return t, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPublication+1))
	if err != nil {
		return nil, fmt.Errorf("read the source's answer: %w", err)
	}
	if len(b) > maxPublication {
		return nil, fmt.Errorf("the source's answer has more than %d bytes", maxPublication)
	}
	t.pub = &mirror.Publication{}
	if err := json.Unmarshal(b, t.pub); err != nil {
		return nil, fmt.Errorf("read the source's answer: %w", err)
	}
	return t, nil
}

// trust fetches a trust file.
func (c *client) trust(ctx context.Context, f mirror.File) ([]byte, error) {
	if f.Size > mirror.MaxTrust {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", f.Name, f.Size, mirror.MaxTrust)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, trustTimeout, errSlowTrust)
	defer cancel()
	var b bytes.Buffer
	err := c.fetch(ctx, f, 0, &b, nil)
	if errors.Is(context.Cause(ctx), errSlowTrust) {
		err = errSlowTrust
	}
	return b.Bytes(), err
}

// fetch writes what a file holds from an offset on. If the source sends all of it
// instead, restart is called before.
func (c *client) fetch(ctx context.Context, f mirror.File, from int64, w io.Writer, restart func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stalled.Stop()
	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		header.Set("If-Range", `"`+f.SHA256.String()+`"`)
	}
	resp, err := c.get(ctx, "/"+url.PathEscape(f.Name), nil, header, http.StatusPartialContent)
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	if from > 0 && resp.StatusCode == http.StatusOK {
		if err := restart(); err != nil {
			return err
		}
		from = 0
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", from, f.Size-1, f.Size); from > 0 && resp.Header.Get("Content-Range") != want {
		return fmt.Errorf("the source sends %.60q, asked for %q", resp.Header.Get("Content-Range"), want)
	}
	n, err := io.Copy(w, &watched{io.LimitReader(resp.Body, f.Size-from+1), func() { stalled.Reset(stallTimeout) }})
	if err == nil && from+n != f.Size {
		err = fmt.Errorf("%s: %d of %d bytes came: %w", f.Name, from+n, f.Size, io.ErrUnexpectedEOF)
	}
	return cause(ctx, err)
}

var errSlowTrust = fmt.Errorf("the trust file does not come within %v", trustTimeout)

var errStalled = fmt.Errorf("nothing has come for %v", stallTimeout)

// cause names why a request was given up.
func cause(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// watched tells of each read.
type watched struct {
	io.Reader
	read func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if n > 0 {
		w.read()
	}
	return n, err
}
