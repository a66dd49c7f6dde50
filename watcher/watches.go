package watcher

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// source places watches on directories. [fsnotify.Watcher] is one; tests have
// others that forget, refuse, fall silent or die.
//
// Add follows a symbolic link, and does nothing if the directory is watched
// already, under whatever path. A directory that is removed or renamed loses
// its watch and, once its events have been received, leaves WatchList. Close
// closes the channels of the feed.
type source interface {
	Add(dir string) error
	Remove(dir string) error
	WatchList() []string
	Close() error
}

// feed is a source and the two channels it sends on, which somebody must
// receive from at all times, see pump.
type feed struct {
	source
	events <-chan fsnotify.Event
	errors <-chan error

	retired atomic.Bool // we closed it: the end of its channels is no death
}

func openNotify() (*feed, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &feed{source: w, events: w.Events, errors: w.Errors}, nil
}

// errDied is reported when the channels of a feed end that we did not close.
var errDied = errors.New("event source ended")

// errResting: the source was replaced so recently that it is left alone.
var errResting = errors.New("event source waits to be replaced")

// pump receives all that f sends until it is closed. It has to run in a
// goroutine of its own, beside whoever calls f's methods: fsnotify sends some
// errors while it holds the lock that Add takes (a directory that is renamed
// and removed before its events are read), and a queue that is not emptied
// overflows.
func (f *feed) pump(event func(fsnotify.Event), fault func(error)) {
	for events, errs := f.events, f.errors; events != nil || errs != nil; {
		select {
		case ev, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			event(ev)
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			fault(err)
		}
	}
	if !f.retired.Load() {
		fault(errDied)
	}
}

// watches is the set of watched directories. One goroutine owns it.
type watches struct {
	open  func() (*feed, error)
	start func(*feed) // runs the pump of a new feed
	rest  time.Duration

	feed      *feed
	notBefore time.Time // no new feed until then, see ensure
	have      map[string]*watch
}

// watch is on the directory with this identity.
type watch struct {
	identity
	alias bool // see record
}

// ensure opens a feed if there is none. One that dies, or cannot be opened, is
// not replaced again at once: whatever ails it would make us spin.
func (w *watches) ensure() error {
	if w.feed != nil {
		return nil
	}
	now := time.Now()
	if now.Before(w.notBefore) {
		return errResting
	}
	w.notBefore = now.Add(w.rest)
	f, err := w.open()
	if err != nil {
		return fmt.Errorf("start event source: %w", err)
	}
	w.feed, w.have = f, map[string]*watch{}
	w.start(f)
	return nil
}

// discard closes the feed with all its watches. The next ensure opens another,
// at once unless the old one died.
func (w *watches) discard(died bool) {
	if !died {
		w.notBefore = time.Time{}
	}
	if w.feed == nil {
		return
	}
	w.feed.retired.Store(true)
	w.feed.Close() // nothing to do about an error: it is not used again
	w.feed, w.have = nil, nil
}

// apply makes want the set of watched directories and returns those that were
// not watched before, or not in this incarnation: whatever happened in these
// until now has gone unseen, so the caller lists them (again). Only when it
// returns none has everything in want been watched since before it was listed.
//
// A directory that refuses is left out and the first such error returned. At the
// limit of watches what stands last in want gives its watch up for what stands
// first; at any limit of the system the rest is left out.
//
// A path that is in the list is never added: if the directory there is one that
// is watched under another path (a rename that was not received yet), fsnotify
// 1.10.1 mixes up its two tables and panics later, also in its own goroutine.
func (w *watches) apply(want []*place) (added []string, err error) {
	dropped := w.drop(want)
	var placed []*place
	listed := w.listed()
	fresh := w.fresh(want, listed, dropped)
	last, full := len(want), false
	for i, p := range want {
		if listed[p.path] {
			if !fresh[p.path] {
				continue
			}
			w.feed.Remove(p.path)
		}
		e := w.feed.Add(p.path)
		for errors.Is(e, syscall.ENOSPC) {
			full = true
			for last--; last > i && w.have[want[last].path] == nil; last-- {
			}
			if last <= i {
				break
			}
			w.feed.Remove(want[last].path)
			delete(w.have, want[last].path)
			e = w.feed.Add(p.path)
		}
		if e == nil {
			placed = append(placed, p)
			continue
		}
		delete(w.have, p.path)
		if gone(e) {
			continue // since it was listed: its parent's watch tells
		}
		if limit(e) {
			err, full = fmt.Errorf("limit of the system reached: %w", bare(e)), true
			break
		}
		if err == nil {
			err = fmt.Errorf("cannot watch %s: %w", p.path, bare(e))
		}
	}
	added = w.record(placed)
	if full { // a watch that ended may have been an alias's as well
		listed := w.listed()
		for dir, h := range w.have {
			if h.alias || !listed[dir] {
				delete(w.have, dir)
			}
		}
	}
	return added, err
}

// fresh is which of want have no watch, or not one that can be relied on: below a
// directory whose watch was lost, the end of a watch may not have been received
// either, and its beginning anew never will be.
func (w *watches) fresh(want []*place, listed, dropped map[string]bool) map[string]bool {
	fresh, lost := make(map[string]bool, len(want)), map[string]bool{}
	// A directory comes before what is in it.
	for _, p := range slices.SortedFunc(slices.Values(want), func(a, b *place) int { return strings.Compare(a.path, b.path) }) {
		was := w.have[p.path]
		if dropped[p.path] || lost[filepath.Dir(p.path)] || was != nil && !was.alias && !listed[p.path] { // an alias never is in the list
			lost[p.path] = true
		}
		fresh[p.path] = was == nil || lost[p.path]
	}
	return fresh
}

// record notes what was just placed and returns what is news. A directory that
// does not appear in the list under its name is already watched under another:
// a bind mount, for good, or a rename whose event has not been received yet, in
// which case the watch is about to go. Either way it is placed again at each
// look, which costs one call; it is news only when its state changes.
func (w *watches) record(placed []*place) (added []string) {
	if len(placed) == 0 {
		return nil
	}
	listed := w.listed()
	for _, p := range placed {
		was, is := w.have[p.path], &watch{identity: p.identity, alias: !listed[p.path]}
		w.have[p.path] = is
		if was == nil || !was.alias || !is.alias {
			added = append(added, p.path)
		}
	}
	return added
}

// aliased says whether events of some directory come under another name.
func (w *watches) aliased() bool {
	for _, h := range w.have {
		if h.alias {
			return true
		}
	}
	return false
}

func (w *watches) listed() map[string]bool {
	listed := map[string]bool{}
	for _, dir := range w.feed.WatchList() {
		listed[dir] = true
	}
	return listed
}

// drop removes watches on what is not wanted any more, and on directories that
// are no longer the ones that the name leads to. It returns them.
func (w *watches) drop(want []*place) map[string]bool {
	dropped := map[string]bool{}
	keep := make(map[string]identity, len(want))
	for _, p := range want {
		keep[p.path] = p.identity
	}
	for dir, was := range w.have {
		if is, ok := keep[dir]; !ok || !is.same(was.identity) {
			w.feed.Remove(dir) // fails if the watch went with the directory
			delete(w.have, dir)
			dropped[dir] = true
		}
	}
	return dropped
}

// limit reports errors of a full system rather than of one directory.
func limit(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
