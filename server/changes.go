package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"trust-worker/changes"
)

// changePage is a part of the journal, oldest first. Next is where to go on.
// Reset says that the position asked for is not held any more: everything has to
// be read again, and then the changes after Next.
type changePage struct {
	Changes []changes.Change
	Next    changes.Position
	Reset   bool
}

const errNotHeld = "changes after that position are not held any more"

// restChanges answers with the changes after a position, or the last ones.
func (s *Server) restChanges(w http.ResponseWriter, r *http.Request, _ identity) error {
	q := r.URL.Query()
	limit, err := parseLimit(q, changes.MaxHeld)
	if err != nil {
		return err
	}
	after, given, err := parsePosition(q.Get("after"))
	if err != nil {
		return err
	}
	j := s.cfg.Changes
	page := changePage{Changes: []changes.Change{}, Next: j.Last()}
	if !given {
		page.Changes = append(page.Changes, j.Newest(limit)...)
	} else if list, _, ok := j.After(after, limit); ok {
		page.Changes, page.Next = append(page.Changes, list...), after
	} else {
		page.Reset = true
	}
	page.Changes = within(page.Changes, maxPageBytes, given)
	if n := len(page.Changes); n > 0 {
		page.Next = page.Changes[n-1].Position
	}
	return s.sendJSON(w, r, page)
}

// within keeps as many changes as take at most so many bytes, at least one: the first
// ones of a page, or else the last.
func within(list []changes.Change, most int, first bool) []changes.Change {
	n := 0
	for k := range list {
		i := k
		if !first {
			i = len(list) - 1 - k
		}
		if n += list[i].Size(); n > most && k > 0 {
			if first {
				return list[:i]
			}
			return list[i+1:]
		}
	}
	return list
}

func parsePosition(text string) (p changes.Position, given bool, err error) {
	if text == "" {
		return p, false, nil
	}
	if p, err = changes.ParsePosition(text); err != nil {
		return p, false, refuse(http.StatusBadRequest, codeInvalid, "the position cannot be read",
			"give the id of an event, Next of a page, or the header "+headerGeneration+" of a read")
	}
	return p, true, nil
}

// restEvents is the stream of changes (WHATWG HTML, "Server-sent events"). It
// holds no queue for a client: each reads the journal at its own pace, and one
// that is slower than the journal is told to reset. A stream ends after
// Limits.StreamLife, so that a credential that was withdrawn does not live on in
// it; clients come back by themselves, with the id of the last event.
func (s *Server) restEvents(w http.ResponseWriter, r *http.Request, _ identity) error {
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = r.URL.Query().Get("after")
	}
	at, given, err := parsePosition(from)
	if err != nil {
		return err
	}
	leave := s.streams.tryTake(clientOf(r))
	if leave == nil {
		return refuse(http.StatusServiceUnavailable, codeTooMany, "too many streams at once", "")
	}
	defer leave()
	e := &eventWriter{w: w, rc: http.NewResponseController(w)}
	if err := e.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	if !given {
		at = s.cfg.Changes.Last()
	}
	// What follows may fail only because the client is gone.
	e.send("retry: 1000\nevent: ready\nid: %s\ndata: {}\n\n", at)
	end := time.NewTimer(s.cfg.Limits.StreamLife)
	defer end.Stop()
	beat := time.NewTicker(s.cfg.Limits.Heartbeat)
	defer beat.Stop()
	for e.err == nil {
		list, more, ok := s.cfg.Changes.After(at, 100)
		if !ok {
			at = s.cfg.Changes.Last()
			list = []changes.Change{{Position: at, Time: s.cfg.Now().UTC(), Kind: changes.Reset, Detail: errNotHeld}}
		}
		for i := range list {
			e.change(&list[i])
			at = list[i].Position
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-more:
		case <-beat.C:
			e.send(": still here\n\n")
		case <-r.Context().Done():
			return nil
		case <-end.C:
			return nil
		case <-s.stopping:
			return nil
		}
	}
	return nil
}

// eventWriter writes events; after an error it writes nothing more.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

// eventTimeout is how long a client may take to accept one event.
const eventTimeout = 10 * time.Second

func (e *eventWriter) change(c *changes.Change) {
	b, err := json.Marshal(c)
	if err != nil {
		e.err = err
		return
	}
	e.send("event: %s\nid: %s\ndata: %s\n\n", c.Kind, c.Position, b)
}

func (e *eventWriter) send(format string, args ...any) {
	if e.err == nil {
		e.err = e.rc.SetWriteDeadline(time.Now().Add(eventTimeout))
	}
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
	if e.err == nil {
		e.err = e.rc.Flush()
	}
}
