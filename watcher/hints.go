package watcher

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Hint names what is worth a look before the next scan is due. Hints may be
// missing and may be wrong; the scan is what finds everything.
type Hint struct {
	// All: events may have been lost, or not all directories can be watched
	// from now on. Walk and scan everything.
	All bool
	// Walk: directories have appeared, gone or moved. List repositories anew
	// and give the result to Set.
	Walk bool
	// Names of repositories of which events were seen: an index may have
	// changed. In order.
	Names []string
	// Watched are repositories without events that are watched only now. What
	// changed between the walk that found them and their watch gave no event.
	Watched []string
}

// hints collects hints until they are taken. Each repository has its own
// debounce, so that a busy one does not delay the others; "" stands for a walk.
type hints struct {
	quiet, limit time.Duration
	max          int // of names held ready; more of them are All

	signal chan struct{} // capacity 1: there is something to take

	mu     sync.Mutex
	bursts map[string]*burst // events were seen, and may not be over
	ready  map[string]bool   // to be taken; true if events were seen
	all    bool
}

func newHints(o Options) *hints {
	return &hints{
		quiet: o.Debounce, limit: o.MaxDelay, max: o.MaxDirs,
		signal: make(chan struct{}, 1),
		bursts: map[string]*burst{},
		ready:  map[string]bool{},
	}
}

type burst struct {
	debounce
	event bool // else its watch has begun
}

// touch notes an event at now for a repository, or for a walk if name is "".
// Names are those of Set, which bounds bursts.
func (h *hints) touch(name string, now time.Time) { h.note(name, now, true) }

// watched notes that a repository is watched from now on.
func (h *hints) watched(name string, now time.Time) { h.note(name, now, false) }

func (h *hints) note(name string, now time.Time, event bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.bursts[name]
	if b == nil {
		b = &burst{debounce: debounce{quiet: h.quiet, limit: h.limit}}
		h.bursts[name] = b
	}
	b.touch(now)
	b.event = b.event || event
}

// everything replaces all that was collected, at once.
func (h *hints) everything() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.everythingLocked()
}

func (h *hints) everythingLocked() {
	h.all = true
	clear(h.bursts)
	clear(h.ready)
	h.announce()
}

func (h *hints) announce() {
	select {
	case h.signal <- struct{}{}:
	default: // the last one is still to be seen
	}
}

// flush makes ready what is due at now, and says whether that is anything, and
// when the next burst is due (zero if there is none).
func (h *hints) flush(now time.Time) (next time.Time, news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, b := range h.bursts {
		due, _ := b.due()
		if due.After(now) {
			if next.IsZero() || due.Before(next) {
				next = due
			}
			continue
		}
		h.ready[name] = h.ready[name] || b.event
		delete(h.bursts, name)
		news = true
	}
	if len(h.ready) > h.max {
		// Nobody takes, while repositories come and go under new names.
		h.everythingLocked()
		return time.Time{}, true
	}
	if news {
		h.announce()
	}
	return next, news
}

// take returns what is ready and forgets it.
func (h *hints) take() Hint {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, walk := h.ready[""]
	out := Hint{All: h.all, Walk: h.all || walk}
	delete(h.ready, "")
	for _, name := range slices.Sorted(maps.Keys(h.ready)) {
		switch {
		case h.all:
		case h.ready[name]:
			out.Names = append(out.Names, name)
		default:
			out.Watched = append(out.Watched, name)
		}
	}
	clear(h.ready)
	h.all = false
	return out
}
