package scheduler

import (
	"encoding/hex"
	"sync"
	"time"

	"trust-worker/trust"
)

// item is what the queue holds: a repository by name, or a signer that came
// or went.
type item struct {
	repository string
	signer     trust.SignerID
}

// String names the item for the log.
func (i item) String() string {
	if i.isRepository() {
		return "repository " + i.repository
	}
	return "signer " + hex.EncodeToString(i.signer[:])
}

func (i item) isRepository() bool { return i.repository != "" }

// priority orders the queue; equal ones take turns.
type priority int

// The classes, first to last: what a signer's going touched; what somebody waits for,
// which is what a new signer may have made and what the watcher saw; passes over all of
// storage; what another worker of a cluster looks at first; retries; the slow pass.
const (
	urgent priority = iota
	fresh
	bulk
	theirs
	retry
	slow
	priorities
)

// work is what is owed to one item. The queue says which item is next, this
// says what to do with it; both are changed together.
type work struct {
	scan   bool // compare index.json with what is remembered
	force  bool // also when its stamp has not changed
	settle bool // go through the rows for what is not decided
	rehash bool // re-read signature bytes (the slow pass)
	due    []trust.Digest
	dueAt  place  // how far a retry has come in one of them
	at     place  // where settle goes on
	asOf   uint64 // the store's sequence when it began
	reread place  // where rehash goes on
	pass   *pass  // a signer's
	level  priority
	since  time.Time // owed since
	// deferred is what settle has left to other workers so far.
	deferred *deferred
	owed     time.Time // since when that was owed which other workers were waited for; zero: it was not
	long     bool      // a scan that may take long: set when it is taken from that queue
}

// visits reports whether something is owed to the rows of the repository.
func (w *work) visits() bool { return w.settle || w.rehash || len(w.due) > 0 }

// class is the class of what is owed to the rows: nobody waits for the slow pass.
func (w *work) class() priority {
	if !w.settle && len(w.due) == 0 {
		return slow
	}
	return w.level
}

// merge owes what other owed as well.
func (w *work) merge(other *work) {
	w.scan = w.scan || other.scan
	w.force = w.force || other.force
	if other.settle && !w.settle {
		w.settle, w.at, w.asOf, w.deferred = true, other.at, other.asOf, other.deferred
	}
	if w.owed.IsZero() || !other.owed.IsZero() && other.owed.Before(w.owed) {
		w.owed = other.owed
	}
	if other.rehash && !w.rehash {
		w.rehash, w.reread = true, other.reread
	}
	w.due = append(w.due, other.due...)
	if other.dueAt != (place{}) {
		w.dueAt = other.dueAt
	}
	if w.pass == nil {
		w.pass = other.pass
	}
}

// agenda is the queue of items with the work owed to each: one FIFO for each class,
// first to last. An item is in it at most once, and in work by one worker at a time;
// what is owed to it meanwhile has the next turn. It is in work from the first add
// until its turn's results are committed and nothing more is owed to it.
//
// Scans that have taken longer than a turn may are queued apart, for a worker of
// their own: however many large repositories there are, others wait for none of them.
type agenda struct {
	mu      sync.Mutex
	more    *sync.Cond // something is queued, or nothing will be
	lanes   [2]lanes   // ordinary turns, long scans
	long    map[item]bool
	queued  map[item]lane // where an item counts; elsewhere it is passed over
	owed    map[item]*work
	running map[item]bool
	idle    chan struct{} // closed while nothing is owed
	fails   map[item]int
	ended   bool
	pops    int
}

// lanes are a queue for each class.
type lanes [priorities][]item

// lane is one of them.
type lane struct {
	kind  int // ordinary or longScans
	level priority
}

// The kinds of turns, each with workers of its own.
const (
	ordinary  = 0
	longScans = 1
)

func newAgenda() *agenda {
	a := &agenda{long: map[item]bool{}, queued: map[item]lane{}, owed: map[item]*work{}, running: map[item]bool{}, fails: map[item]int{}, idle: make(chan struct{})}
	a.more = sync.NewCond(&a.mu)
	close(a.idle)
	return a
}

// add owes more to an item. merge changes the work under the lock.
func (a *agenda) add(i item, level priority, merge func(*work)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.owed[i]
	if w == nil {
		w = &work{level: level, since: time.Now()}
		if len(a.owed)+len(a.running) == 0 {
			a.idle = make(chan struct{})
		}
		a.owed[i] = w
	}
	w.level = min(w.level, level)
	merge(w)
	a.queue(i)
}

// laneOf says where an item with work owed belongs. mu is held.
func (a *agenda) laneOf(i item) lane {
	w := a.owed[i]
	if w.scan && a.long[i] {
		return lane{longScans, w.level}
	}
	return lane{ordinary, w.level}
}

// queue puts an item with work owed into its lane, unless it is in work or in that lane
// or a better one of its kind. mu is held.
func (a *agenda) queue(i item) {
	to := a.laneOf(i)
	if at, ok := a.queued[i]; a.running[i] || ok && at.kind == to.kind && at.level <= to.level {
		return
	}
	a.queued[i] = to
	a.lanes[to.kind][to.level] = append(a.lanes[to.kind][to.level], i)
	a.more.Broadcast()
}

// get blocks for the next item of a kind and takes what is owed to it.
func (a *agenda) get(kind int) (i item, w *work, shutdown bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.ended {
		if i, ok := a.pop(kind); ok {
			w := a.owed[i]
			w.long = kind == longScans
			delete(a.owed, i)
			a.running[i] = true
			return i, w, false
		}
		a.more.Wait()
	}
	return item{}, nil, true
}

// took says whether an item that is in work has a scan that takes longer than a turn may.
func (a *agenda) took(i item, long bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if long {
		a.long[i] = true
	} else {
		delete(a.long, i)
	}
}

// othersTurn is how often an item of the classes that nobody waits for has its turn
// before the others: a repository that is pushed to all the time must not keep them out.
const othersTurn = 8

// pop takes the first item of the best lane of a kind. mu is held.
func (a *agenda) pop(kind int) (item, bool) {
	if a.pops++; a.pops%othersTurn == 0 {
		first := bulk
		if n := a.pops / othersTurn; n%othersTurn == 0 { // those after it in turn, seldom
			first = theirs + priority(n/othersTurn)%(priorities-theirs)
		}
		if i, ok := a.popFrom(kind, first); ok {
			return i, true
		}
	}
	return a.popFrom(kind, urgent)
}

// popFrom takes the first item of the best lane from one on. mu is held.
func (a *agenda) popFrom(kind int, first priority) (item, bool) {
	l := &a.lanes[kind]
	for level := first; level < priorities; level++ {
		for len(l[level]) > 0 {
			i := l[level][0]
			l[level][0] = item{}
			l[level] = l[level][1:]
			if at, ok := a.queued[i]; ok && at == (lane{kind, level}) {
				delete(a.queued, i)
				return i, true
			}
		}
	}
	return item{}, false
}

// done ends an item's turn. What was added meanwhile keeps it in the queue.
func (a *agenda) done(i item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, i)
	if a.owed[i] != nil {
		a.queue(i)
	}
	if len(a.owed)+len(a.running) == 0 {
		close(a.idle)
	}
}

// end has get return at once, for good.
func (a *agenda) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	a.more.Broadcast()
}

// oldest returns how long the item of a class, or of one before it, that was owed first has
// been.
func (a *agenda) oldest(now time.Time, last priority) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var oldest time.Duration
	for _, w := range a.owed {
		if w.level <= last {
			oldest = max(oldest, now.Sub(w.since))
		}
	}
	return oldest
}

// failed returns how long to wait before an item that could not be worked on
// is tried again: doubling from a second to a minute.
func (a *agenda) failed(i item) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fails[i]++
	return backoff(uint32(a.fails[i]), time.Second, time.Minute)
}

func (a *agenda) succeeded(i item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.fails, i)
}

// backoff doubles from first with each try after the first one, up to limit.
func backoff(tries uint32, first, limit time.Duration) time.Duration {
	d := first
	for range min(max(tries, 1), 32) - 1 {
		if d *= 2; d >= limit {
			return limit
		}
	}
	return d
}

// quiet returns a channel that is closed when nothing is owed.
func (a *agenda) quiet() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.idle
}

// size returns how many items have work.
func (a *agenda) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.owed) + len(a.running)
}
