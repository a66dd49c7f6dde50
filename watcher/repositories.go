package watcher

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"
)

// Dir is what a directory of registry storage is to whoever watches it.
type Dir struct {
	// Repository is the name of the repository that it is, or is in; "" for a directory that
	// only leads to some.
	Repository string
	// Above: it leads to all repositories of a root, as the root does.
	Above bool
	// Inside: it is in a repository, and leads to no other. An event in it says to look at
	// the repository, and never to list repositories anew.
	Inside bool
}

// Repositories watches repository directories, each by itself: index.json is
// replaced by a rename, which is an event of its directory. Its methods are
// safe for concurrent use.
type Repositories struct {
	opts    Options
	open    func() (*feed, error) // tests replace it before Run
	running atomic.Bool
	intake  intake
	hints   *hints

	mu sync.Mutex
	// want is replaced, never changed.
	want    map[string]Dir
	changed bool // want, since watches were last placed

	// Owned by Run's goroutine.
	mode      Mode
	checked   time.Time
	last      map[string]Dir // want at the last check
	watches   *watches
	unwatched unwatched
	looked    time.Time // at what is unwatched
}

// NewRepositories returns an idle watcher of nothing, see Set.
func NewRepositories(opts Options) *Repositories {
	opts = opts.forRepositories()
	return &Repositories{
		opts:   opts,
		open:   openNotify,
		intake: intake{wake: make(chan struct{}, 1)},
		hints:  newHints(opts),
	}
}

// C receives a value when Take has something to say; always the same channel,
// never closed.
func (r *Repositories) C() <-chan struct{} { return r.hints.signal }

// Take returns the hints since it was last called, and forgets them. There may
// be none.
func (r *Repositories) Take() Hint { return r.hints.take() }

// Status returns the watcher's condition. Dirs may lag behind Set for a moment.
func (r *Repositories) Status() Status { return r.intake.get() }

// Set replaces what is watched, by absolute directory; the root is one of those that only
// lead to repositories. Call it after a walk that found other directories than the one before:
// the watcher looks after its watches by itself. A directory that was not watched before, is another one than before, or
// has another name now, is hinted as soon as its watch is in place: so what
// happened there between the walk and the watch, or was taken for something
// else, is not missed.
func (r *Repositories) Set(dirs map[string]Dir) {
	want := make(map[string]Dir, len(dirs))
	for dir, is := range dirs {
		want[filepath.Clean(dir)] = is
	}
	r.mu.Lock()
	r.want, r.changed = want, true
	r.mu.Unlock()
	r.intake.poke()
}

// Run watches until ctx ends and then returns nil. It returns an error for
// unusable options only: what goes wrong with the system is in Status. It must
// not run twice at a time.
func (r *Repositories) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("watcher: Repositories runs already")
	}
	defer r.running.Store(false)
	if err := r.opts.validate(); err != nil {
		return err
	}
	var pumps errgroup.Group
	r.watches = &watches{open: r.open, rest: r.opts.PollWithoutEvents}
	r.watches.start = func(f *feed) {
		pumps.Go(func() error { f.pump(r.event, r.intake.fault); return nil })
	}
	r.loop(ctx)
	r.watches.discard(false) // ends the pump
	r.intake.update(func(s *Status) { s.Mode, s.Reason, s.Dirs = ModeOff, "", 0 })
	return pumps.Wait()
}

func (r *Repositories) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	r.check()
	for ctx.Err() == nil {
		now := time.Now()
		next := r.nextCheck(now)
		if !next.After(now) {
			r.check()
			continue
		}
		look := r.looked.Add(r.opts.PollWithoutEvents)
		switch {
		case len(r.unwatched.order) == 0:
		case !look.After(now):
			r.look(now)
			continue
		case look.Before(next):
			next = look
		}
		due, news := r.hints.flush(now)
		if news {
			r.intake.update(func(s *Status) { s.LastNotice = now })
		}
		if !due.IsZero() && due.Before(next) {
			next = due
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return
		case <-r.intake.wake:
		case <-timer.C:
		}
	}
}

// nextCheck says when all watches are to be looked after: at once after Set,
// soon after trouble (but a storm of overflows must not keep us busy with
// nothing else), otherwise at the poll.
func (r *Repositories) nextCheck(now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.changed:
		return now
	case r.intake.troubled():
		return r.checked.Add(r.opts.MaxDelay)
	case r.watches.feed == nil:
		return r.checked.Add(r.opts.PollWithoutEvents)
	}
	return r.checked.Add(r.opts.Poll)
}

// check places the watches that are missing and hints at what they are on.
func (r *Repositories) check() {
	r.checked = time.Now()
	r.mu.Lock()
	want := r.want
	r.changed = false // a Set from here on leads to another check
	r.mu.Unlock()
	lost, died := r.intake.take()
	if lost || died {
		r.opts.Log.Warn("repository watcher: events lost, watching anew", "died", died)
		r.watches.discard(died)
	}
	old, first := r.watches.feed, r.mode == ""
	added, reason := r.settle(want)
	fresh := r.watches.feed != old
	if fresh && !first {
		r.intake.update(func(s *Status) { s.Restarts++ })
	}
	degraded := r.report(reason) && reason != ""
	last := r.last
	r.last = want
	r.unwatched.set(r.left(want))
	if lost || degraded || fresh && len(added) > 0 {
		r.hints.everything()
		r.intake.update(func(s *Status) { s.LastNotice = time.Now() })
		return
	}
	for _, dir := range added {
		r.hints.watched(want[dir].Repository, r.checked)
	}
	for dir, was := range last {
		if is, ok := want[dir]; ok && is != was {
			r.hints.watched(is.Repository, r.checked)
		}
	}
}

// left is the directories that have no watch.
func (r *Repositories) left(want map[string]Dir) []string {
	if len(r.watches.have) >= len(want) {
		return nil
	}
	return slices.DeleteFunc(shares(want), func(dir string) bool { return r.watches.have[dir] != nil })
}

// look has a turn over what is unwatched.
func (r *Repositories) look(now time.Time) {
	r.looked = now
	r.unwatched.look(r.last, func(name string, first bool) {
		if first {
			r.hints.watched(name, now)
			return
		}
		r.hints.touch(name, now)
	})
}

func (r *Repositories) settle(want map[string]Dir) (added []string, reason string) {
	if err := r.watches.ensure(); err != nil {
		if errors.Is(err, errResting) {
			return nil, r.Status().LastError
		}
		r.intake.update(func(s *Status) { s.LastError = err.Error() })
		return nil, err.Error()
	}
	s := r.survey(want)
	added, err := r.watches.apply(s.places)
	if err != nil && s.reason == "" {
		return added, err.Error()
	}
	return added, s.reason
}

// survey looks up the directories that are wanted and exist, in the order in
// which they get a watch.
func (r *Repositories) survey(want map[string]Dir) *survey {
	s := &survey{max: r.opts.MaxDirs}
	for _, dir := range shares(want) {
		if len(s.places) >= s.max {
			s.fail("more than %d directories", s.max)
			break
		}
		// Stat, not Lstat: whether a repository may be reached by a link is for
		// the walk to decide. What is missing has an event in its parent.
		id, err := identify(dir, os.Stat)
		if err != nil {
			continue
		}
		s.places = append(s.places, &place{path: dir, identity: id})
		s.needEvents(dir)
	}
	return s
}

func (r *Repositories) report(reason string) (changed bool) {
	r.mode = ModeEvents
	if reason != "" {
		r.mode = ModePolling
	}
	changed = r.intake.setMode(r.mode, reason, r.opts.Poll, len(r.watches.have))
	if changed {
		logMode(r.opts.Log, "repositories", r.mode, reason, "directories", len(r.watches.have))
	}
	return changed
}

// event is called by the pump.
func (r *Repositories) event(ev fsnotify.Event) {
	path := filepath.Clean(ev.Name)
	r.mu.Lock()
	want := r.want
	r.mu.Unlock()

	walk := false
	is, known := want[path]
	if known {
		// An event for a directory itself, from its own watch or its parent's.
		walk = is.Repository == "" || ev.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename)
	} else {
		is, known = want[filepath.Dir(path)]
		walk = known && ev.Has(fsnotify.Create) && mayBeRepository(path, is.Repository != "")
	}
	walk = walk && !is.Inside
	name := is.Repository
	if !known || name == "" && !walk {
		return
	}
	now := time.Now()
	if walk {
		r.hints.touch("", now)
	}
	if name != "" {
		r.hints.touch(name, now)
	}
	r.intake.event()
}

// mayBeRepository says whether something that has just appeared is worth a
// walk: a directory or a link that layout would enter or, unless its directory
// is known as a repository (where each push replaces index.json), one of the
// files, or the directory, that make it one.
func mayBeRepository(path string, inRepository bool) bool {
	switch base := filepath.Base(path); {
	case base == "index.json" || base == "oci-layout" || base == "_manifests":
		return !inRepository
	case base == "blobs" || strings.HasPrefix(base, "_") || strings.HasPrefix(base, "."):
		return false
	}
	fi, err := os.Lstat(path)
	return err == nil && (fi.IsDir() || fi.Mode()&fs.ModeSymlink != 0)
}
