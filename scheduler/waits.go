package scheduler

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"trust-worker/trust"
)

// Where another worker is before this one, and what it tells: waits for facts, hints, and what
// this worker says of itself.

// waits are the repositories in which facts of other workers are waited for, until they are
// looked at again. What is owed to them is marked in the store.
type waits struct {
	mu sync.Mutex
	by map[string]*waited
	// arrived are images of facts that came last: one may come between a look and its wait.
	arrived *lru.Cache[trust.Digest, struct{}]
}

// waited is a wait; its timer always ends it.
type waited struct {
	since time.Time // owed since
	level priority
	timer *time.Timer
	due   time.Time
}

const maxArrived = 1 << 14

func newWaits() *waits {
	w := &waits{by: map[string]*waited{}}
	w.arrived, _ = lru.New[trust.Digest, struct{}](maxArrived) // fails with a size below 1 alone
	return w
}

// since is when what is waited for in a repository was first owed, now if nothing is.
func (w *waits) since(name string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if is := w.by[name]; is != nil {
		return is.since
	}
	return time.Now()
}

// size is in how many repositories something is waited for, and of how many of these nobody
// hurries.
func (w *waits) size() (all, unhurried int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, is := range w.by {
		if is.level > fresh {
			unhurried++
		}
	}
	return len(w.by), unhurried
}

func (s *Scheduler) waitsUnhurried() bool {
	_, n := s.waits.size()
	return n > 0
}

// take ends the wait for a repository.
func (w *waits) take(name string) (is *waited) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if is = w.by[name]; is != nil {
		is.timer.Stop()
		delete(w.by, name)
	}
	return is
}

// await looks at a repository again when its wait is over, or sooner if a fact arrives: a visit
// has left references to other workers.
func (s *Scheduler) await(v *visit, level priority) {
	w, name, wait := s.waits, v.name, v.wait
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range v.awaits {
		if w.arrived.Remove(d) {
			wait = min(wait, factPause)
		}
	}
	is := &waited{since: v.since, level: level, due: time.Now().Add(wait)}
	if was := w.by[name]; was != nil {
		was.timer.Stop()
		is.level = min(is.level, was.level)
	}
	is.timer = time.AfterFunc(wait, func() {
		if is := w.take(name); is != nil {
			s.agenda.add(item{repository: name}, is.level, func(w *work) { w.settle, w.at, w.owed = true, place{}, is.since })
		}
	})
	w.by[name] = is
}

// factPause is how long a look waits for further facts once one has arrived.
const factPause = 20 * time.Millisecond

// FactArrived says that another worker has told a fact about an image. What waits for it is
// looked at.
func (s *Scheduler) FactArrived(subject trust.Digest) {
	s.waits.arrived.Add(subject, struct{}{})
	if all, _ := s.waits.size(); all == 0 {
		return
	}
	names, err := s.cfg.Store.Repositories(subject)
	if err != nil {
		return // the wait ends anyway
	}
	s.waits.mu.Lock()
	defer s.waits.mu.Unlock()
	for _, name := range names {
		if is := s.waits.by[name]; is != nil && time.Until(is.due) > factPause {
			is.due = time.Now().Add(factPause)
			is.timer.Reset(factPause)
		}
	}
}

// A hint about trust is followed within hintPause, and the next one hintRest after it at the
// earliest: hints cost a look at all trust directories.
const hintPause, hintRest = 20 * time.Millisecond, 250 * time.Millisecond

// HintTrust has the trust directories looked at soon: another worker has seen a change.
func (s *Scheduler) HintTrust() {
	if !s.hinted.CompareAndSwap(false, true) {
		return
	}
	pause := hintPause
	if last := s.followed.Swap(nil); last != nil {
		pause = max(pause, time.Until(last.Add(hintRest)))
	}
	time.AfterFunc(pause, func() {
		now := time.Now()
		s.followed.Store(&now)
		s.hinted.Store(false)
		s.byHint.Store(true)
		s.Reload()
	})
}

// Load is what a worker says of itself to others of its cluster.
type Load struct {
	TrustStore trust.Digest
	// Owed is for how long the first of what nobody waits for has been owed, 0 if nothing is.
	Owed time.Duration
	// Done grows while anything is done.
	Done int64
}

// Load returns the present load.
func (s *Scheduler) Load() (l Load) {
	if in := s.trust.Load(); in != nil {
		l.TrustStore = in.store.ID()
	}
	c := &s.counters
	l.Owed = s.agenda.oldest(time.Now(), bulk)
	l.Done = c.walks.Load() + c.scanned.Load() + c.verified.Load() + c.reread.Load() + c.commits.Load()
	return l
}

// Waiting is in how many repositories a fact of another worker is waited for.
func (s *Scheduler) Waiting() int {
	all, _ := s.waits.size()
	return all
}

// Turns says of how many of the repositories it is this worker's turn first. It asks about each.
func (s *Scheduler) Turns() (first, all int) {
	l := s.listed.Load()
	if l == nil || s.cfg.Peers == nil {
		return 0, 0
	}
	for name := range l.found {
		if s.cfg.Peers.Rank(name) == 0 {
			first++
		}
	}
	return first, len(l.found)
}
