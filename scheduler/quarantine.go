package scheduler

import (
	"log/slog"
	"slices"
	"sync"

	"trust-worker/cache/store"
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
