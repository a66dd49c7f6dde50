package imageverifier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"trust-worker/internal/inert"
	"trust-worker/trust"
)

// Judgement is the answer to containerd.
type Judgement struct {
	Allowed bool
	// Reason is one line for people.
	Reason string
}

// Judge asks about an image by the name under which it is pulled and the digest that it
// resolved to.
func (s *Settings) Judge(ctx context.Context, name, digest string) Judgement {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return refuse("the name %.200q cannot be read: %v", name, err)
	}
	d, err := trust.ParseDigest(digest)
	if err != nil {
		return refuse("%s: the digest %.100q is not sha256 and 64 hex digits", named, digest)
	}
	host, repository := reference.Domain(named), reference.Path(named)
	r := s.Registries[host]
	if r == nil {
		reason := fmt.Sprintf("%s is not among the registries that trust-worker answers for here: %s", host, s.OtherRegistries)
		return Judgement{s.OtherRegistries == Allow, reason}
	}
	image := fmt.Sprintf("%s/%s@%s", host, repository, d)
	a, err := r.ask(ctx, repository, d)
	switch {
	case errors.Is(err, errNoAnswer):
		return Judgement{r.Undecided == Allow, fmt.Sprintf("%s: %v: %s", image, err, r.Undecided)}
	case err != nil:
		return refuse("%s: %v", image, err)
	}
	why := a.State
	if a.Reason != "" {
		why += ", " + string(a.Reason)
	}
	switch {
	case a.trusted(d):
		return Judgement{true, image + " is trusted"}
	case a.State == string(trust.Trusted): // about another image, or with another status
	case a.status == http.StatusServiceUnavailable:
		return Judgement{r.Undecided == Allow, fmt.Sprintf("%s is not decided (%s): %s", image, why, r.Undecided)}
	case a.status == http.StatusNotFound:
		return refuse("%s is not in the storage that trust-worker knows", image)
	case a.status == http.StatusForbidden && a.State != "":
		return refuse("%s is %s: %s", image, why, a.Reason.Explain().What)
	}
	return refuse("%s: the answer from %s, with status %d, is none of a trust-worker's", image, r.URL, a.status)
}

func refuse(format string, args ...any) Judgement {
	return Judgement{Reason: strings.TrimSuffix(fmt.Sprintf(format, args...), ": ")}
}

// Line is the reason as one line, safe to print.
func (j Judgement) Line() string { return inert.Message(j.Reason, 1<<10) }

// answer is a trust-worker's, from /api/v1/check.
type answer struct {
	State  string
	Reason trust.Reason
	Digest string
	status int
}

// trusted: by the status and by the words, about this digest.
func (a *answer) trusted(d trust.Digest) bool {
	return a.status == http.StatusOK && a.State == string(trust.Trusted) && a.Digest == d.String()
}

// errNoAnswer: the worker cannot be reached, or not in time.
var errNoAnswer = errors.New("trust-worker does not answer")

// unavailable are what a proxy says of a worker that it does not reach, and a worker that has
// no time.
var unavailable = []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests}

// maxAnswer bounds what is read.
const maxAnswer = 64 << 10

func (r *Registry) ask(ctx context.Context, repository string, d trust.Digest) (*answer, error) {
	client, base, err := r.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/check/"+repository+"@"+d.String(), nil)
	if err != nil {
		return nil, err
	}
	if r.TokenFile != "" {
		b, err := os.ReadFile(r.TokenFile)
		if err != nil {
			return nil, err
		}
		token, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		var certificate *tls.CertificateVerificationError
		if errors.As(err, &certificate) {
			return nil, err // somebody else answers
		}
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	a := &answer{}
	if json.Unmarshal(b, a) != nil {
		*a = answer{}
	}
	a.status = resp.StatusCode
	switch {
	case a.status == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s wants a credential: give tokenFile, or certFile and keyFile", r.URL)
	case a.State == "" && slices.Contains(unavailable, a.status):
		return nil, fmt.Errorf("%w: %s", errNoAnswer, resp.Status)
	}
	return a, nil
}

// Reach asks each worker, in the order of its registry's name, whether it answers, with the
// credentials that questions about images have.
func (s *Settings) Reach(ctx context.Context, within time.Duration) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, host := range slices.Sorted(maps.Keys(s.Registries)) {
			r := *s.Registries[host]
			r.Timeout = Duration(within)
			_, err := r.ask(ctx, "trust-worker/reach", trust.Digest{1})
			if !yield(host, err) {
				return
			}
		}
	}
}

// client makes an HTTP client for the worker: no proxy, no redirect.
func (r *Registry) client() (c *http.Client, base string, err error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxResponseHeaderBytes: maxAnswer}
	base = strings.TrimSuffix(r.URL, "/")
	if path, ok := strings.CutPrefix(r.URL, "unix:"); ok {
		base = "http://localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	if r.CAFile != "" {
		b, err := os.ReadFile(r.CAFile)
		if err != nil {
			return nil, "", err
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
			return nil, "", fmt.Errorf("%s holds no certificate in PEM", r.CAFile)
		}
	}
	if r.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(r.CertFile, r.KeyFile)
		if err != nil {
			return nil, "", err
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, base, nil
}
