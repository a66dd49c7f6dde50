package watcher

import (
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// puppet is an event source without a kernel, for tests in a synctest bubble:
// it reports what the test tells it to.
type puppet struct {
	mu      sync.Mutex
	refuse  error             // of open
	limit   int               // of Add, ENOSPC beyond it; 0: none
	onAdd   func(dir string)  // before the watch is in place
	onList  func()            // before the watches are compared with the directories found
	aliases map[string]string // path → name under which it is already watched
	opened  int
	live    *puppetSource
}

type puppetSource struct {
	p      *puppet
	events chan fsnotify.Event // from the test
	errors chan error          // from the test
	done   chan struct{}
	dirs   map[string]int // → times added
	closed bool
}

func (p *puppet) open() (*feed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
	if p.refuse != nil {
		return nil, p.refuse
	}
	s := &puppetSource{
		p: p, events: make(chan fsnotify.Event), errors: make(chan error), done: make(chan struct{}),
		dirs: map[string]int{},
	}
	p.live = s
	events, errs := make(chan fsnotify.Event), make(chan error)
	go s.forward(events, errs)
	return &feed{source: s, events: events, errors: errs}, nil
}

// forward owns the channels that end with the source, as fsnotify's goroutine
// does; the test may still be sending when the watcher closes it.
func (s *puppetSource) forward(events chan<- fsnotify.Event, errs chan<- error) {
	defer close(events)
	defer close(errs)
	for {
		select {
		case <-s.done:
			return
		case ev := <-s.events:
			select {
			case events <- ev:
			case <-s.done:
			}
		case err := <-s.errors:
			select {
			case errs <- err:
			case <-s.done:
			}
		}
	}
}

func (s *puppetSource) Add(dir string) error {
	s.p.mu.Lock()
	hook := s.p.onAdd
	s.p.mu.Unlock()
	if hook != nil {
		hook(dir)
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.closed {
		return fsnotify.ErrClosed
	}
	if _, ok := s.p.aliases[dir]; ok {
		return nil
	}
	if s.p.limit > 0 && len(s.dirs) >= s.p.limit && s.dirs[dir] == 0 {
		return syscall.ENOSPC
	}
	s.dirs[dir]++
	return nil
}

func (s *puppetSource) Remove(dir string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if _, ok := s.dirs[dir]; !ok {
		return fsnotify.ErrNonExistentWatch
	}
	delete(s.dirs, dir)
	return nil
}

func (s *puppetSource) WatchList() []string {
	s.p.mu.Lock()
	if hook := s.p.onList; hook != nil {
		hook()
	}
	defer s.p.mu.Unlock()
	return slices.Collect(maps.Keys(s.dirs))
}

// Close also stands for death: the test calls it behind the watcher's back.
func (s *puppetSource) Close() error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

func (p *puppet) current() *puppetSource {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

func (p *puppet) set(f func(*puppet)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// say and fail report to the watcher, unless it has closed this source.
func (p *puppet) say(name string, op fsnotify.Op) {
	s := p.current()
	select {
	case s.events <- fsnotify.Event{Name: name, Op: op}:
	case <-s.done:
	}
}

func (s *puppetSource) fail(err error) {
	select {
	case s.errors <- err:
	case <-s.done:
	}
}

// forget is what the kernel does to the watch of a removed directory.
func (p *puppet) forget(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live.dirs, dir)
}

func (p *puppet) watches(t *testing.T, dir string) bool {
	t.Helper()
	return slices.Contains(p.current().WatchList(), dir)
}

// tap is fsnotify itself with the faults that are hard to bring about: it
// refuses watches, loses events, leaves them in the kernel's queue, and dies.
type tap struct {
	mu     sync.Mutex
	limit  int           // of watches; 0: none
	refuse bool          // open fails with EMFILE
	deaf   bool          // events are lost
	gate   chan struct{} // while not closed, nothing is received from fsnotify
	live   *fsnotify.Watcher
}

func newTap() *tap {
	open := make(chan struct{})
	close(open)
	return &tap{gate: open}
}

type tapSource struct {
	*fsnotify.Watcher
	t    *tap
	done chan struct{}
	once sync.Once
}

func (t *tap) open() (*feed, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refuse {
		return nil, syscall.EMFILE
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	t.live = w
	s := &tapSource{Watcher: w, t: t, done: make(chan struct{})}
	events, errs := make(chan fsnotify.Event), make(chan error)
	go s.forward(events, errs)
	return &feed{source: s, events: events, errors: errs}, nil
}

func (s *tapSource) forward(events chan<- fsnotify.Event, errs chan<- error) {
	defer close(events)
	defer close(errs)
	// Like the pump, it must not stop receiving before fsnotify's channels end:
	// Close waits for a lock that is held while an error is sent.
	defer func() {
		for range s.Watcher.Events {
		}
	}()
	go func() {
		<-s.done
		for range s.Watcher.Errors {
		}
	}()
	for {
		s.t.mu.Lock()
		gate := s.t.gate
		s.t.mu.Unlock()
		select {
		case <-gate:
		case <-s.done:
			return
		}
		select {
		case ev, ok := <-s.Watcher.Events:
			if !ok {
				return
			}
			s.t.mu.Lock()
			deaf := s.t.deaf
			s.t.mu.Unlock()
			if deaf {
				continue
			}
			select {
			case events <- ev:
			case <-s.done:
				return
			}
		case err, ok := <-s.Watcher.Errors:
			if !ok {
				return
			}
			select {
			case errs <- err:
			case <-s.done:
				return
			}
		}
	}
}

func (s *tapSource) Add(dir string) error {
	s.t.mu.Lock()
	limit := s.t.limit
	s.t.mu.Unlock()
	if list := s.WatchList(); limit > 0 && len(list) >= limit && !slices.Contains(list, dir) {
		return syscall.ENOSPC
	}
	return s.Watcher.Add(dir)
}

func (s *tapSource) Close() error {
	s.once.Do(func() { close(s.done) })
	return s.Watcher.Close()
}

func (t *tap) set(f func(*tap)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t)
}

func (t *tap) kill() {
	t.mu.Lock()
	w := t.live
	t.mu.Unlock()
	w.Close()
}

// stall leaves events in the kernel's queue until resume.
func (t *tap) stall()  { t.set(func(t *tap) { t.gate = make(chan struct{}) }) }
func (t *tap) resume() { t.set(func(t *tap) { close(t.gate) }) }
