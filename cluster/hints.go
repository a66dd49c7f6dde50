package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"

	"trust-worker/layout"
)

// Hints: what one worker has seen change, all look at. They are core NATS messages: one that
// is lost costs until the next look.

const (
	hintPause   = 20 * time.Millisecond // hints within it are one message
	hintsAtOnce = 100                   // repositories in a message
	hintsAhead  = 10_000                // repositories that wait to be told of; the passes find the others
	maxHint     = 64 << 10              // bytes of a message
)

// hints are what is to be told.
type hints struct {
	mu    sync.Mutex
	trust bool
	names map[string]bool // repositories, and whether somebody waits for them
	count uint64          // of messages
	more  chan struct{}
	heard *lru.Cache[string, *order] // by subject and node: each comes in order
}

// hint is the body of a message. Boot and Count are as a Member's.
type hint struct {
	Node         string
	Boot, Count  uint64
	Repositories []string `json:",omitempty"`
	Hurry        bool     `json:",omitempty"` // somebody waits for them
}

// HintTrust has the others look at their trust directories.
func (w *Worker) HintTrust() { w.owe(func(h *hints) { h.trust = true }) }

// HintRepository has the others look at a repository.
// hurry: somebody waits for what has changed.
func (w *Worker) HintRepository(name string, hurry bool) {
	w.owe(func(h *hints) {
		if h.names == nil {
			h.names = map[string]bool{}
		}
		if _, is := h.names[name]; is || len(h.names) < hintsAhead {
			h.names[name] = h.names[name] || hurry
		}
	})
}

func (w *Worker) owe(what func(*hints)) {
	if !w.online() {
		return
	}
	w.hints.mu.Lock()
	defer w.hints.mu.Unlock()
	what(&w.hints)
	select {
	case w.hints.more <- struct{}{}:
	default:
	}
}

func (w *Worker) hinting(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.hints.more:
		}
		w.hints.mu.Lock()
		trust, names := w.hints.trust, w.hints.names
		w.hints.trust, w.hints.names = false, nil
		w.hints.mu.Unlock()
		if trust {
			w.hint("trust", nil, true)
		}
		for _, hurry := range []bool{true, false} {
			var some []string
			for name, is := range names {
				if is == hurry {
					some = append(some, name)
				}
			}
			for part := range slices.Chunk(some, hintsAtOnce) {
				w.hint("repository", part, hurry)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(hintPause):
		}
	}
}

func (w *Worker) hint(kind string, names []string, hurry bool) {
	subject := w.prefix + "hint." + kind
	w.hints.mu.Lock()
	w.hints.count++
	h := hint{w.cfg.Node, w.boot, w.hints.count, names, hurry}
	w.hints.mu.Unlock()
	body, err := json.Marshal(h)
	if err == nil {
		err = w.link.Load().Publish(subject, w.cfg.Key.seal(subject, body))
	}
	if err != nil {
		w.cfg.Log.Debug("a hint is lost", "error", err)
	}
}

// isNew reports whether a hint is not one that somebody has kept and sends again.
func (h *hints) isNew(from string, m *hint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := h.heard.Get(from)
	if !ok {
		o = &order{}
		h.heard.Add(from, o)
	}
	return o.isNew(m.Boot, m.Count)
}

func (w *Worker) hinted(m *nats.Msg, l Listener) {
	if len(m.Data) > maxHint {
		w.refuse(refusedForm, m.Subject)
		return
	}
	body, ok := w.cfg.Key.open(m.Subject, m.Data)
	if !ok {
		w.refuse(refusedSeal, m.Subject)
		return
	}
	var h hint
	if err := json.Unmarshal(body, &h); err != nil || len(h.Repositories) > hintsAtOnce {
		w.refuse(refusedForm, m.Subject)
		return
	}
	if !w.hints.isNew(m.Subject+" "+h.Node, &h) {
		w.refuse(refusedOld, m.Subject)
		return
	}
	w.count(func(st *Status) { st.Hints++ })
	if strings.HasSuffix(m.Subject, ".trust") {
		l.HintTrust()
		return
	}
	for _, name := range h.Repositories {
		if layout.ValidName(name) {
			l.HintRepository(name, h.Hurry)
		}
	}
}

// event takes a registry's event as a hint. Anybody who may publish there can send one.
func (w *Worker) event(m *nats.Msg, l Listener) {
	const maxEvent = 8 << 20
	if len(m.Data) > maxEvent {
		return
	}
	name, err := w.cfg.ReadEvent(m.Data, m.Header)
	if err != nil || !layout.ValidName(name) {
		w.cfg.Log.Debug("an event names no repository", "subject", m.Subject, "error", err)
		return
	}
	w.count(func(st *Status) { st.Events++ })
	l.HintRepository(name, true)
}
