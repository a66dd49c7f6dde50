package server

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"trust-worker/changes"
	"trust-worker/internal/signtest"
)

// event is one of a stream.
type event struct {
	name, id string
	changes.Change
}

// stream reads events from a path.
type stream struct {
	t    *testing.T
	resp *http.Response
	b    *bufio.Reader
}

func (w *world) stream(t *testing.T, path string, headers ...string) *stream {
	t.Helper()
	resp := must[*http.Response](t)(http.DefaultClient.Do(w.request("GET", path, nil, headers...)))
	t.Cleanup(func() { _ = resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("status %d, %s", resp.StatusCode, got)
	}
	return &stream{t, resp, bufio.NewReader(resp.Body)}
}

// next returns the next event or, if the stream ends, false.
func (s *stream) next() (e event, ok bool) {
	s.t.Helper()
	timer := time.AfterFunc(30*time.Second, func() { _ = s.resp.Body.Close() })
	defer timer.Stop()
	for {
		line, err := s.b.ReadString('\n')
		if err != nil {
			return e, false
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			check(s.t, json.Unmarshal([]byte(value), &e.Change))
		case "":
			if e.name != "" {
				return e, true
			}
		}
	}
}

func (s *stream) want(name string) event {
	s.t.Helper()
	e, ok := s.next()
	if !ok || e.name != name {
		s.t.Fatalf("event %q (%t), want %q", e.name, ok, name)
	}
	if e.name != "ready" && (e.id != e.Position.String() || string(e.Kind) != name) {
		s.t.Errorf("event %+v", e)
	}
	return e
}

// The stream tells what changes, and goes on where the client was cut off; where
// that is not held any more it says so.
func TestEvents(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	w.image("team/app", "1.0", byKey(key))
	check(t, w.o.Look(t.Context()))
	s := w.stream(t, pathAPI+"/events")
	begin := s.want("ready")
	w.call("POST", pathCosign, key.PEM()).want(t, 200)
	check(t, w.o.Look(t.Context()))
	s.want("signer-added")
	e := s.want("signature-trusted")
	if e.Repository != "team/app" || e.Tag != "1.0" || e.Signer != key.Fingerprint() || e.State != "trusted" {
		t.Errorf("%+v", e)
	}
	_ = s.resp.Body.Close()

	before := w.generation()
	w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil).want(t, 200)
	check(t, w.o.Look(t.Context()))
	for _, from := range []string{e.id, before} {
		s = w.stream(t, pathAPI+"/events", "Last-Event-ID", from)
		s.want("ready")
		if from == before { // may tell once more what that generation brought
			s.want("signer-added")
			s.want("signature-trusted")
		}
		if e := s.want("signer-removed"); e.Signatures != 1 {
			t.Errorf("%+v", e)
		}
		if e := s.want("signature-lost"); e.Reason != "signer-removed" || e.Was != "trusted" || e.State != "untrusted" {
			t.Errorf("%+v", e)
		}
	}
	s = w.stream(t, pathAPI+"/events?after="+begin.id)
	s.want("ready")
	s.want("signer-added")

	s = w.stream(t, pathAPI+"/events", "Last-Event-ID", "0123456789abcdef-3.4")
	s.want("ready")
	last := s.want("reset")
	w.call("POST", pathCosign, key.PEM()).want(t, 200)
	check(t, w.o.Look(t.Context()))
	s.want("signer-added")
	w.get(pathAPI+"/events?after=nonsense").want(t, 400, "position")

	// The same in pages.
	var p changePage
	page := func(query string, n int, reset bool) {
		t.Helper()
		p = changePage{}
		check(t, json.Unmarshal([]byte(w.get(pathAPI+"/changes?"+query).body), &p))
		if len(p.Changes) != n || p.Reset != reset {
			t.Errorf("%s: %d changes, reset %t: %+v", query, len(p.Changes), p.Reset, p)
		}
	}
	page("", 6, false)
	page("limit=1", 1, false)
	page("limit=4&after="+begin.id, 4, false)
	page("after="+p.Next.String(), 2, false)
	page("after="+p.Next.String(), 0, false)
	page("after="+last.id, 2, false)
	page("after=0123456789abcdef-3.4", 0, true)
	page("after="+p.Next.String(), 0, false)
}

// A stream outlives the time that a request has to be read and answered in,
// shows that it lives, and ends with the server, after its time, and when there
// are too many.
func TestEventLimits(t *testing.T) {
	w := start(t, func(c *Config) {
		openUploads(c)
		c.Limits.ReadTimeout, c.Limits.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
		c.Limits.Heartbeat, c.Limits.MaxStreams = 100*time.Millisecond, 1
	})
	s := w.stream(t, pathAPI+"/events")
	s.want("ready")
	for beats := 0; beats < 8; { // longer than both time-outs
		line := must[string](t)(s.b.ReadString('\n'))
		if strings.HasPrefix(line, ":") {
			beats++
		}
	}
	w.get(pathAPI+"/events").want(t, 503, "too many streams")
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 200)
	check(t, w.o.Look(t.Context()))
	s.want("signer-added")
	began := time.Now()
	check(t, w.stop())
	if _, ok := s.next(); ok || time.Since(began) > 4*time.Second { // DrainTimeout is 5 s
		t.Errorf("the stream held the server up for %s", time.Since(began))
	}
	if strings.Contains(w.log.String(), "cut off") {
		t.Error("the stream was cut off at shutdown")
	}

	w = start(t, func(c *Config) { c.Limits.StreamLife = 50 * time.Millisecond })
	s = w.stream(t, pathAPI+"/events")
	s.want("ready")
	if e, ok := s.next(); ok {
		t.Errorf("%+v after the stream's life", e)
	}
}
