package scheduler

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"trust-worker/trust"
)

// item is what the queue holds: a repository by name, or a signer that came
// or went.
type item struct {
	repository string
	signer     trust.Signer
}

func (i item) isRepository() bool { return i.repository != "" }

// priority orders the queue; equal ones take turns.
type priority int

// The classes, first to last: what a signer's going touched, new content and
// what a new signer may have made, retries, the slow pass.
const (
	urgent priority = iota
	fresh
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
}

// merge owes what other owed as well.
func (w *work) merge(other *work) {
	w.scan = w.scan || other.scan
	w.force = w.force || other.force
	if other.settle && !w.settle {
		w.settle, w.at, w.asOf = true, other.at, other.asOf
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

// lanes is a workqueue.Queue with one FIFO for each priority. The workqueue
// calls it under its own lock, and never pushes an item that is in it. An item
// that becomes more urgent is put into the better lane as well; what is left
// of it in the other is passed over.
type lanes struct {
	level func(item) priority
	lane  [priorities][]item
	where map[item]priority
}

func newLanes(level func(item) priority) *lanes {
	return &lanes{level: level, where: map[item]priority{}}
}

func (l *lanes) Len() int { return len(l.where) }

func (l *lanes) Push(i item) { l.put(i, l.level(i)) }

func (l *lanes) Touch(i item) {
	if p, ok := l.where[i]; ok && l.level(i) < p {
		l.put(i, l.level(i))
	}
}

func (l *lanes) put(i item, p priority) {
	l.where[i] = p
	l.lane[p] = append(l.lane[p], i)
}

func (l *lanes) Pop() item {
	for p := range l.lane {
		for len(l.lane[p]) > 0 {
			i := l.lane[p][0]
			l.lane[p][0] = item{}
			l.lane[p] = l.lane[p][1:]
			if at, ok := l.where[i]; ok && at == priority(p) {
				delete(l.where, i)
				return i
			}
		}
	}
	return item{}
}

// agenda is the queue with the work owed to each item. An item is in work from
// the first add until its turn's results are committed and nothing more is
// owed to it.
type agenda struct {
	queue *workqueue.Typed[item]

	mu      sync.Mutex
	owed    map[item]*work
	running map[item]bool
	idle    chan struct{} // closed while nothing is owed
	fails   map[item]int
}

func newAgenda() *agenda {
	a := &agenda{owed: map[item]*work{}, running: map[item]bool{}, fails: map[item]int{}, idle: make(chan struct{})}
	close(a.idle)
	a.queue = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[item]{Queue: newLanes(a.level)})
	return a
}

func (a *agenda) level(i item) priority {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.owed[i]; w != nil {
		return w.level
	}
	return slow
}

// add owes more to an item. merge changes the work under the lock.
func (a *agenda) add(i item, level priority, merge func(*work)) {
	a.mu.Lock()
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
	a.mu.Unlock()
	a.queue.Add(i)
}

// get blocks for the next item and takes what is owed to it.
func (a *agenda) get() (i item, w *work, shutdown bool) {
	for {
		i, shutdown = a.queue.Get()
		if shutdown {
			return item{}, nil, true
		}
		a.mu.Lock()
		w = a.owed[i]
		if w != nil {
			delete(a.owed, i)
			a.running[i] = true
		}
		a.mu.Unlock()
		if w != nil {
			return i, w, false
		}
		a.queue.Done(i)
	}
}

// done ends an item's turn. What was added meanwhile keeps it in the queue.
func (a *agenda) done(i item) {
	a.mu.Lock()
	delete(a.running, i)
	if len(a.owed)+len(a.running) == 0 {
		close(a.idle)
	}
	a.mu.Unlock()
	a.queue.Done(i)
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
