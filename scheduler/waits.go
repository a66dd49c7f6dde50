package scheduler

import (
	"cmp"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"trust-worker/trust"
)

// Where another worker is before this one, and what it tells: waits for facts, hints, and what
// this worker says of itself.

// deferred is what visits of a repository have left to other workers.
type deferred struct {
	name   string
	since  time.Time // owed since
	asked  time.Time // what is known was asked after this
	wait   time.Duration
	images []trust.Digest
}

// maxImages is of how many images a wait knows that it is about them. Facts about others are
// found when it is over.
const maxImages = 1000

func (d *deferred) about(image trust.Digest) {
	if n := len(d.images); n < maxImages && (n == 0 || d.images[n-1] != image) {
		d.images = append(d.images, image)
	}
}

// and is both; either may be nil.
func (d *deferred) and(more *deferred) *deferred {
	if d == nil || more == nil {
		return cmp.Or(d, more)
	}
	for _, image := range more.images {
		d.about(image)
	}
	d.wait = more.wait // the later visit knows better
	return d
}

// waits are the repositories in which facts of other workers are waited for, until they are
// looked at again. What is owed to them is marked in the store.
type waits struct {
	mu sync.Mutex
	by map[string]*wait
	// about are the waits by image.
	about map[trust.Digest]map[*wait]bool
	// arrived is when facts came last: one may come between a question and its wait.
	arrived *lru.Cache[trust.Digest, time.Time]
}

// wait is one of a repository; its timer always ends it.
type wait struct {
	*deferred
	level priority
	timer *time.Timer
	due   time.Time
}

const maxArrived = 1 << 14

func newWaits() *waits {
	w := &waits{by: map[string]*wait{}, about: map[trust.Digest]map[*wait]bool{}}
	w.arrived, _ = lru.New[trust.Digest, time.Time](maxArrived) // fails with a size below 1 alone
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

// firstWaits is for how long the first pass is not over because of waits alone: they end, but
// somebody who pushes all the time can begin others.
const firstWaits = 15 * time.Second

// waitedEnough reports whether the first pass, of which nothing else is left to do, need not
// wait for other workers. quiet is when it was first asked.
func (s *Scheduler) waitedEnough(quiet *time.Time) bool {
	if quiet.IsZero() {
		*quiet = time.Now()
	}
	_, unhurried := s.waits.size()
	return unhurried == 0 || time.Since(*quiet) > firstWaits
}

// over ends the wait for a repository, if there is one.
func (w *waits) over(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if is := w.by[name]; is != nil {
		w.drop(is)
	}
}

// drop forgets a wait. mu is held.
func (w *waits) drop(is *wait) {
	is.timer.Stop()
	delete(w.by, is.name)
	for _, image := range is.images {
		if delete(w.about[image], is); len(w.about[image]) == 0 {
			delete(w.about, image)
		}
	}
}

// await looks at a repository again when its wait is over, or sooner if a fact arrives.
func (s *Scheduler) await(d *deferred, level priority) {
	w, pause := s.waits, d.wait
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, image := range d.images {
		if at, ok := w.arrived.Get(image); ok && at.After(d.asked) {
			pause = min(pause, factPause)
		}
	}
	is := &wait{deferred: d, level: level, due: time.Now().Add(pause)}
	if was := w.by[d.name]; was != nil {
		is.level = min(is.level, was.level)
		w.drop(was)
	}
	is.timer = time.AfterFunc(pause, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.by[d.name] == is { // owed before it is forgotten: one of both is always seen
			s.agenda.add(item{repository: d.name}, is.level, func(w *work) { w.settle, w.at, w.owed = true, place{}, d.since })
			w.drop(is)
		}
	})
	w.by[d.name] = is
	for _, image := range d.images {
		if w.about[image] == nil {
			w.about[image] = map[*wait]bool{}
		}
		w.about[image][is] = true
	}
}

// factPause is how long a look waits for further facts once one has arrived.
const factPause = 20 * time.Millisecond

// FactArrived says that another worker has told a fact about an image. What waits for it is
// looked at.
func (s *Scheduler) FactArrived(image trust.Digest) {
	w := s.waits
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arrived.Add(image, time.Now())
	for is := range w.about[image] {
		if time.Until(is.due) > factPause {
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
