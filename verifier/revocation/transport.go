package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// transport is what notation-core-go's clients send requests with. It answers
// from what is kept, keeps what it fetches once judge has nothing against it
// (R3), and bounds both. A response of any status but 200 is an error, so that the
// client above never sees a redirect.
type transport struct {
	c       *Checker
	limit   int64
	timeout time.Duration
	judge   func(a *ask, q *question, body []byte) (dates, error)
}

// dates are a response's own.
type dates struct{ this, next time.Time }

var errNotAsked = errors.New("no question that this request belongs to")

// RoundTrip implements http.RoundTripper. The responses it returns are in memory.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	a, ok := r.Context().Value(askKey{}).(*ask)
	if !ok {
		return nil, errNotAsked
	}
	q, err := readQuestion(r)
	if err != nil {
		return nil, err
	}
	key := q.key()
	kept := t.c.responses
	now := time.Now()
	old := kept.get(key, now)
	if old != nil {
		// Another chain may have fetched it, which it suited better.
		if _, err := t.judge(a, q, old.body); err != nil {
			old = nil
		}
	}
	// What an address of no use to this chain says may be of use to another.
	useless := fmt.Sprintf("%s %x", key, a.id)
	if old != nil && now.Before(old.refresh) {
		return old.serve(a, r), nil
	}
	err = kept.resting(now, useless, r.URL.Host)
	if err == nil {
		var e *response
		if e, err = t.fetch(a, r, q); err == nil {
			kept.rested(useless, r.URL.Host)
			if old != nil && old.this.After(e.this) {
				e = old // a replica that lags, or a replay
			}
			kept.put(key, e)
			return e.serve(a, r), nil
		}
		if rest := r.URL.Host; r.Context().Err() == nil || errors.Is(r.Context().Err(), context.DeadlineExceeded) {
			if answered := (*answeredError)(nil); errors.As(err, &answered) {
				rest = useless // the host lives
			}
			kept.rest(now, rest)
		}
	}
	if old != nil {
		return old.serve(a, r), nil
	}
	return nil, err
}

// question is what a request asks. OCSP requests hold the certificate's serial
// number and its issuer, in the path or in the body.
type question struct {
	url    *url.URL
	posted []byte // nil for GET
}

func readQuestion(r *http.Request) (*question, error) {
	if r.URL.Scheme != "http" {
		return nil, fmt.Errorf("unsupported scheme %q", r.URL.Scheme)
	}
	q := &question{url: r.URL}
	if r.Body == nil {
		return q, nil
	}
	defer r.Body.Close()
	var err error
	q.posted, err = io.ReadAll(io.LimitReader(r.Body, 1<<16)) // notation-core-go's own bytes
	return q, err
}

func (q *question) key() string {
	if q.posted == nil {
		return q.url.String()
	}
	return fmt.Sprintf("%s %x", q.url, sha256.Sum256(q.posted))
}

// answeredError is a response that is of no use, as opposed to none.
type answeredError struct{ err error }

func (e *answeredError) Error() string { return e.err.Error() }
func (e *answeredError) Unwrap() error { return e.err }

func (t *transport) fetch(a *ask, r *http.Request, q *question) (*response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), t.timeout)
	defer cancel()
	t.c.mu.Lock()
	t.c.stats.Requests++
	t.c.mu.Unlock()
	sent := r.Clone(ctx)
	if q.posted != nil {
		sent.Body = io.NopCloser(bytes.NewReader(q.posted))
	}
	resp, err := t.c.base.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &answeredError{fmt.Errorf("%s answers with status %d", r.URL.Host, resp.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, t.limit))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) >= t.limit {
		return nil, &answeredError{fmt.Errorf("%s answers with more than %d bytes", r.URL.Host, t.limit)}
	}
	d, err := t.judge(a, q, body)
	if err != nil {
		return nil, &answeredError{fmt.Errorf("%s: %w", r.URL.Host, err)}
	}
	now := time.Now()
	switch {
	case d.next.IsZero() || !now.Before(d.next):
		return nil, &answeredError{fmt.Errorf("%s: response has no next update, or it is over", r.URL.Host)}
	case d.this.After(now.Add(5 * time.Minute)): // clocks differ
		return nil, &answeredError{fmt.Errorf("%s: response is from the future", r.URL.Host)}
	}
	until := now.Add(MaxAge)
	if d.next.Before(until) {
		until = d.next
	}
	return &response{body: body, this: d.this, until: until, refresh: Refresh(now, until)}, nil
}

// response is one that judge accepted. It does not change.
type response struct {
	body                 []byte
	this, until, refresh time.Time
}

// serve hands the response out again; the answer will end with it.
func (e *response) serve(a *ask, r *http.Request) *http.Response {
	a.uses(e.until)
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(e.body)), ContentLength: int64(len(e.body)), Request: r}
}

// responses are the responses kept, and the hosts and addresses left alone.
type responses struct {
	mu    sync.Mutex
	kept  *bounded[string, *response]
	rests *bounded[string, resting]
}

// resting is how often something failed in a row, and until when it is left alone.
type resting struct {
	fails int
	until time.Time
}

func newResponses() *responses {
	return &responses{kept: newBounded[string, *response](maxEntries, maxBytes), rests: newBounded[string, resting](maxEntries, maxEntries)}
}

func (s *responses) get(key string, now time.Time) *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.kept.get(key)
	if !ok || !now.Before(e.until) {
		return nil
	}
	return e
}

func (s *responses) put(key string, e *response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.put(key, e, len(e.body)+len(key))
}

// resting returns an error while one of the names is left alone.
func (s *responses) resting(now time.Time, names ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if r, ok := s.rests.get(name); ok && now.Before(r.until) {
			return fmt.Errorf("%.200s gave no answer lately, not asked before %s", name, r.until.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// rest leaves a name alone: 5 s, then twice as long each time, up to 5 minutes.
func (s *responses) rest(now time.Time, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.rests.get(name)
	if now.Before(r.until) {
		return // another request has said so already
	}
	d := min(5*time.Second<<min(r.fails, 10), 5*time.Minute)
	s.rests.put(name, resting{r.fails + 1, now.Add(d)}, 1)
}

func (s *responses) rested(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.rests.remove(name)
	}
}
