package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"trust-worker/changes"
	"trust-worker/trust"
)

// Config is one receiver.
type Config struct {
	// URL is where events are posted: http or https, without a user.
	URL string
	// SecretFile holds the secret that events are signed with: a line of 16
	// characters or more, or "whsec_" and base64. It is read at each attempt.
	SecretFile string
}

const (
	minSecret = 16
	maxSecret = 4096
	// attemptTimeout bounds one attempt, answer included.
	attemptTimeout = 10 * time.Second
	// firstPause and longestPause bound the time between attempts, which
	// doubles.
	firstPause, longestPause = time.Second, 5 * time.Minute
	// maxRefusals is how often one event is offered to a receiver that answers
	// and does not want it.
	maxRefusals = 5
)

// Check validates a receiver.
func (c Config) Check() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("webhook %.80q: give an absolute http or https URL", c.URL)
	case u.User != nil:
		return fmt.Errorf("webhook %s: give no user in the URL; events are signed", u.Redacted())
	case c.SecretFile == "":
		return fmt.Errorf("webhook %s: secretFile is missing", c.URL)
	}
	_, err = c.secret()
	return err
}

func (c Config) secret() ([]byte, error) {
	f, err := os.Open(c.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	b = bytes.TrimSpace(b)
	if rest, ok := bytes.CutPrefix(b, []byte("whsec_")); ok {
		if b, err = base64.StdEncoding.DecodeString(string(rest)); err != nil {
			return nil, fmt.Errorf("webhook secret %s: what follows whsec_ is not base64", c.SecretFile)
		}
	}
	if len(b) < minSecret || len(b) > maxSecret {
		return nil, fmt.Errorf("webhook secret %s: give %d to %d bytes", c.SecretFile, minSecret, maxSecret)
	}
	return b, nil
}

// Status is how a receiver does. Target is its URL without the query.
type Status struct {
	Target    string
	Delivered uint64
	Refused   uint64 // events that it did not want, given up
	Dropped   uint64 // events that it was too far behind for
	Retries   uint64
	Behind    uint64 // events that wait
	Problem   string `json:",omitempty"` // of the last attempt
}

// hook is one receiver at work.
type hook struct {
	cfg     Config
	target  string
	journal *changes.Journal
	client  *http.Client
	log     *slog.Logger

	mu sync.Mutex // guards what follows
	at changes.Position
	st Status
}

func newHook(cfg Config, j *changes.Journal, transport http.RoundTripper, at changes.Position, log *slog.Logger) (*hook, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	u.RawQuery, u.Fragment = "", "" // it may hold a credential
	h := &hook{cfg: cfg, target: u.String(), journal: j, at: at, log: log,
		client: &http.Client{Transport: transport, Timeout: attemptTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	h.st.Target = h.target
	return h, nil
}

// run delivers until ctx ends.
func (h *hook) run(ctx context.Context) {
	for ctx.Err() == nil {
		at := h.position()
		list, more, ok := h.journal.After(at, 100)
		if !ok {
			missed := h.journal.Missed(at)
			h.note(func(st *Status) { st.Dropped += max(missed, 1) })
			last := h.journal.Last()
			list = []changes.Change{{Position: last, Time: time.Now().UTC(), Kind: changes.Reset,
				Detail: "changes were dropped: the receiver was too far behind, or the cache was begun anew"}}
		}
		for i := range list {
			if h.deliver(ctx, &list[i]) != nil {
				break // the end, or too far behind: look again
			}
			h.mu.Lock()
			h.at = list[i].Position
			h.mu.Unlock()
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-more:
		}
	}
}

var errBehind = errors.New("too far behind")

// deliver tries until the event is delivered or given up. It fails when ctx ends
// and when the journal does not hold the event any more.
func (h *hook) deliver(ctx context.Context, c *changes.Change) error {
	refusals, pause := 0, firstPause
	for {
		err := h.attempt(ctx, c)
		var refused refusal
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			h.note(func(st *Status) { st.Delivered++; st.Problem = "" })
			return nil
		case errors.As(err, &refused):
			if refusals++; refusals == maxRefusals {
				h.log.Error("a webhook does not want an event; given up", "target", h.target, "event", c.Position.String(), "error", err)
				h.note(func(st *Status) { st.Refused++; st.Problem = err.Error() })
				return nil
			}
		}
		h.note(func(st *Status) { st.Retries++; st.Problem = err.Error() })
		h.log.Warn("cannot deliver an event; will retry", "target", h.target, "event", c.Position.String(), "error", err, "in", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause*4/5 + rand.N(pause*2/5)): // receivers that come back are not met by all at once
		}
		pause = min(2*pause, longestPause)
		if _, _, ok := h.journal.After(c.Position, 0); !ok && c.Kind != changes.Reset {
			return errBehind
		}
	}
}

// refusal is an answer that says no to the event, not "later".
type refusal int

func (r refusal) Error() string { return fmt.Sprintf("it answers %d", int(r)) }

// attempt offers an event once.
func (h *hook) attempt(ctx context.Context, c *changes.Change) error {
	secret, err := h.cfg.secret()
	if err != nil {
		return err
	}
	id, body, err := encode(c)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "trust-worker")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", now)
	req.Header.Set("Webhook-Signature", "v1,"+sign(secret, id, now, body))
	resp, err := h.client.Do(req)
	if err != nil {
		return without(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	switch s := resp.StatusCode; {
	case s/100 == 2:
		return nil
	case s/100 == 5, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		return fmt.Errorf("it answers %d", s)
	default:
		return refusal(s)
	}
}

// without leaves the URL out of a client's error: its query may hold a
// credential.
func without(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func sign(secret []byte, id, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	for _, part := range []string{id, ".", timestamp, "."} {
		m.Write([]byte(part))
	}
	m.Write(body)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// cloudEvent is an event in structured mode.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            *changes.Change `json:"data"`
}

func encode(c *changes.Change) (id string, body []byte, err error) {
	e := cloudEvent{SpecVersion: "1.0", ID: c.Position.String(), Source: "/trust-worker/" + c.Position.CacheID,
		Type: "trust-worker." + string(c.Kind), Time: c.Time.UTC(), DataContentType: "application/json", Data: c}
	switch {
	case c.Kind == changes.Reset: // at the position of another change
		e.ID += "-reset"
	case c.Repository != "" && c.Count == 0:
		e.Subject = c.Repository + "@" + c.Digest.String()
	case c.Signer != (trust.Digest{}):
		e.Subject = c.Signer.String()
	}
	body, err = json.Marshal(&e)
	return e.ID, body, err
}

func (h *hook) note(edit func(*Status)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit(&h.st)
}

func (h *hook) position() changes.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hook) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.st
	if last := h.journal.Last(); last.CacheID == h.at.CacheID && last.Number > h.at.Number {
		st.Behind = last.Number - h.at.Number
	}
	st.Problem = strings.ToValidUTF8(st.Problem, "·")
	return st
}
