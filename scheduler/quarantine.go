package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// quarantine keeps away from the verifier what makes it crash: a signature whose
// verification panicked twice in this process, or at which two processes died.
// It reads unknown, limit-exceeded. See docs/adr/0006.
type quarantine struct {
	record *crashes // nil without a daemon: nothing outlives the process

	// alone is held for writing while a signature is verified that a process
	// died at: should it happen again, it is known which one it was.
	alone sync.RWMutex

	mu     sync.Mutex
	panics map[panicked]int
}

// panicked is one layer of a signature manifest; -1 is all of it.
type panicked struct {
	signature trust.Digest
	layer     int
}

// tolerated is how often a signature may make the verifier crash.
const tolerated = 2

// maxPanicked bounds what is remembered. Beyond it the memory begins anew, which
// costs some more panics.
const maxPanicked = 10_000

// open begins to remember what outlives the process.
func (q *quarantine) open(store *store.Store, log *slog.Logger) {
	record := openCrashes(store.PrivatePath("verifying"), verifier.Epoch, log)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.record = record
}

// close ends that.
func (q *quarantine) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.record != nil {
		q.record.close()
	}
}

func (q *quarantine) panicked(d trust.Digest, layer int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.panics == nil || len(q.panics) > maxPanicked {
		q.panics = map[panicked]int{}
	}
	q.panics[panicked{d, layer}]++
}

// holds reports whether a layer, or with -1 the whole signature, is not to be
// verified.
func (q *quarantine) holds(d trust.Digest, layer int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.panics[panicked{d, layer}] >= tolerated
}

// list returns what is in quarantine, in order, up to a limit, and how many.
func (q *quarantine) list(limit int) ([]string, int) {
	var all []string
	q.mu.Lock()
	for p, n := range q.panics {
		if n >= tolerated {
			all = append(all, p.signature.String())
		}
	}
	record := q.record
	q.mu.Unlock()
	if record != nil {
		for _, d := range record.list(tolerated) {
			all = append(all, d.String())
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), limit)], len(all)
}

// begin is called before a signature is looked at; ok is false when it must not
// be.
func (q *quarantine) begin(d trust.Digest) (done func(), ok bool) {
	if q.holds(d, -1) {
		return nil, false
	}
	if q.record == nil {
		return func() {}, true
	}
	unlock := q.alone.RUnlock
	switch deaths := q.record.deaths(d); {
	case deaths >= tolerated:
		return nil, false
	case deaths > 0:
		q.alone.Lock()
		unlock = q.alone.Unlock
	default:
		q.alone.RLock()
	}
	end := q.record.begin(d)
	return func() { end(); unlock() }, true
}

// look looks at one reference, unless it is in quarantine. prior are verdicts on
// layers that may be used again. An error means that the turn cannot go on; what
// is wrong with this reference alone is in the problems. A panic outside of the
// verifier's own guard costs this reference, not the turn.
func (s *Scheduler) look(ctx context.Context, in *trustInUse, p *layout.Repository, name string, row *store.Row, ref *store.Reference, prior map[trust.LayerID]trust.Verdict) (l looked, err error) {
	done, ok := s.quarantine.begin(ref.Digest)
	if !ok {
		return whole(trust.LimitExceeded), nil
	}
	defer done()
	defer func() {
		if p := recover(); p != nil {
			s.counters.panics.Add(1)
			s.quarantine.panicked(ref.Digest, -1)
			s.log.Error("looking at a signature panicked", "repository", name, "subject", row.Digest.String(),
				"signature", ref.Digest.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			l, err = whole(trust.LimitExceeded), nil
		}
	}()
	return s.lookAt(ctx, in, p, name, row, ref, prior)
}

// notePanics counts the layers at which a library panicked.
func (s *Scheduler) notePanics(d trust.Digest, o *verifier.Outcome) {
	s.counters.panics.Add(int64(o.Panics))
	for n := range o.Layers {
		if o.Layers[n].Panicked {
			s.quarantine.panicked(d, n)
		}
	}
}
