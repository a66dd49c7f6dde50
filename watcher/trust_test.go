package watcher

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// stage is a Trust with a puppet for a source, in a synctest bubble: times are
// exact. The directories are real.
type stage struct {
	t     *testing.T
	dir   string // the trust directory
	p     *puppet
	trust *Trust
	start time.Time
	run   func()
}

// onStage runs f in a bubble; f calls run once all is set.
func onStage(t *testing.T, opts Options, f func(*stage)) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, dir: filepath.Join(dir, "keys"), p: &puppet{}, start: time.Now()}
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s.trust = NewTrust([]string{s.dir}, opts)
		s.trust.open = s.p.open
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		s.run = func() { go func() { done <- s.trust.Run(ctx) }() }
		f(s)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// next returns the next notice and the moment it came, from the start.
func (s *stage) next() (Notice, time.Duration) {
	n := <-s.trust.C()
	return n, time.Since(s.start)
}

// expect wants the next notice to come at a moment from the start, not before.
func (s *stage) expect(at time.Duration, cause Cause, rescan bool) Notice {
	s.t.Helper()
	n, got := s.next()
	if got != at || n.Cause != cause || n.Rescan != rescan {
		s.t.Errorf("notice %+v after %v; want cause %s, rescan %v, after %v", n, got, cause, rescan, at)
	}
	return n
}

func TestFirstNotice(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		if err := os.MkdirAll(s.dir+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		s.run()
		n := s.expect(0, CauseStart, true)
		for _, dir := range []string{"/", filepath.Dir(s.dir), s.dir, s.dir + "/a", s.dir + "/a/b"} {
			if !s.p.watches(t, dir) { // I1
				t.Errorf("%s is not watched at the first notice", dir)
			}
		}
		if n.Seq != 1 || s.trust.Status().Mode != ModeEvents {
			t.Errorf("%+v %+v", n, s.trust.Status())
		}
	})
}

// W3, W18: a directory is made in the instant before its parent's watch exists,
// when no event can tell; it is watched before the first notice all the same.
func TestGrowsWhileWatched(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.p.set(func(p *puppet) {
			p.onAdd = func(dir string) {
				if strings.HasPrefix(dir, s.dir) && strings.Count(dir[len(s.dir):], "/") < 4 {
					os.Mkdir(dir+"/new", 0o755)
				}
			}
		})
		s.run()
		s.expect(0, CauseStart, true)
		if deepest := s.dir + "/new/new/new/new"; !s.p.watches(t, deepest) {
			t.Errorf("%s is not watched: %q", deepest, s.p.current().WatchList())
		}
	})
}

// A directory that was only on the way becomes a trust directory, by a link that
// is replaced. What happens in it while that is found out is judged by the old
// view of it, as noise; it is listed once more.
func TestWayBecomesTree(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		parent := filepath.Dir(s.dir)
		s.run()
		s.expect(0, CauseStart, true)
		if err := os.Remove(s.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(".", s.dir); err != nil {
			t.Fatal(err)
		}
		s.p.set(func(p *puppet) { // after the listing, and no event tells
			p.onList = func() { os.Mkdir(parent+"/new", 0o755) }
		})
		s.p.say(s.dir, fsnotify.Create)
		s.expect(50*time.Millisecond, CauseEvents, false)
		if !s.p.watches(t, parent+"/new") {
			t.Errorf("watched %q", s.p.current().WatchList())
		}
	})
}

// A tree that grows each time it is looked at does not keep the notice back,
// and is looked at again.
func TestGrowsForEver(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		n := 0
		s.p.set(func(p *puppet) {
			p.onAdd = func(dir string) {
				if n++; n < 100 && strings.HasPrefix(dir, s.dir) {
					os.Mkdir(s.dir+"/"+strings.Repeat("n", n), 0o755)
				}
			}
		})
		s.run()
		s.expect(0, CauseStart, true)
		s.expect(50*time.Millisecond, CauseEvents, false)
	})
}

func TestEventsAreDebounced(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		time.Sleep(time.Second)
		s.p.say(s.dir+"/key.pub", fsnotify.Create)
		s.expect(1050*time.Millisecond, CauseEvents, false)

		for range 3 { // each event within 50 ms of the one before
			s.p.say(s.dir+"/key.pub", fsnotify.Write)
			time.Sleep(40 * time.Millisecond)
		}
		s.expect(1050*time.Millisecond+80*time.Millisecond+50*time.Millisecond, CauseEvents, false)
	})
}

// W14: a storm costs no more than a look each MaxDelay, and is not waited out.
func TestStormCostsALookEachMaxDelay(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		const length = 10 * time.Second
		go func() {
			for time.Since(s.start) < length {
				s.p.say(s.dir+"/key.pub", fsnotify.Chmod)
				time.Sleep(time.Millisecond)
			}
		}()
		notices, last := 0, time.Duration(0)
		for last < length {
			_, at := s.next()
			if at-last > 501*time.Millisecond { // an event each millisecond
				t.Errorf("no notice between %v and %v", last, at)
			}
			notices, last = notices+1, at
		}
		if most := int(length/(500*time.Millisecond)) + 2; notices > most {
			t.Errorf("%d notices, want at most %d", notices, most)
		}
	})
}

func TestPollsWithoutEvents(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		s.expect(60*time.Second, CausePoll, false)
		s.expect(120*time.Second, CausePoll, false)
		// A look for another reason serves as well.
		time.Sleep(10 * time.Second)
		s.p.say(s.dir, fsnotify.Chmod)
		s.expect(130*time.Second+50*time.Millisecond, CauseEvents, false)
		s.expect(190*time.Second+50*time.Millisecond, CausePoll, false)
	})
}

// What happens in directories on the way to a trust directory does not matter,
// unless it concerns the way.
func TestEventsOnTheWayThatDoNotConcernIt(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		parent := filepath.Dir(s.dir)
		for range 100 {
			s.p.say(parent+"/meta.db", fsnotify.Write)
			s.p.say(parent+"/keys-old", fsnotify.Create)
			s.p.say("//var-tmp-whatever", fsnotify.Create)
			time.Sleep(10 * time.Millisecond)
		}
		s.expect(60*time.Second, CausePoll, false)
		for i, name := range []string{s.dir, parent, "//" + strings.Split(parent, "/")[1], s.dir + "/x", "/unheard/of"} {
			s.p.say(name, fsnotify.Rename)
			s.expect(60*time.Second+time.Duration(i+1)*50*time.Millisecond, CauseEvents, false)
		}
	})
}

// I3: a caller that does not come holds nothing up and misses nothing.
func TestSlowCaller(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		synctest.Wait()
		for i := range 1000 {
			time.Sleep(100 * time.Millisecond)
			if i == 500 {
				s.p.current().fail(fsnotify.ErrEventOverflow)
			} else {
				s.p.say(s.dir+"/key.pub", fsnotify.Write)
			}
		}
		time.Sleep(time.Second)
		n, _ := s.next()
		st := s.trust.Status()
		if n.Seq < 1000 || n.Seq != st.Notified || !n.Rescan || n.Cause != CauseEvents {
			t.Errorf("%+v %+v", n, st)
		}
		s.trust.Reconciled(n)
		st = s.trust.Status()
		if st.Reconciled != n.Seq || st.LastReconcile.IsZero() {
			t.Errorf("%+v", st)
		}
		s.trust.Reconciled(Notice{Seq: 1}) // late: does not go back
		if got := s.trust.Status().Reconciled; got != n.Seq {
			t.Errorf("reconciled %d, want %d", got, n.Seq)
		}
	})
}

// I8, and Status after the end.
func TestStatusBeforeAndAfterTheEnd(t *testing.T) {
	var trust *Trust
	onStage(t, Options{}, func(s *stage) {
		trust = s.trust
		if st := trust.Status(); st.Mode != ModeOff {
			t.Errorf("before: %+v", st)
		}
		s.run()
		s.expect(0, CauseStart, true)
		if err := trust.Run(t.Context()); err == nil {
			t.Error("runs twice")
		}
	})
	if st := trust.Status(); st.Mode != ModeOff || st.Dirs != 0 {
		t.Errorf("after: %+v", st)
	}
}

func TestRefusedOptions(t *testing.T) {
	dir := []string{t.TempDir()}
	for _, c := range []struct {
		dirs []string
		opts Options
		want string
	}{
		{nil, Options{}, "no directory"},
		{[]string{""}, Options{}, "no name"},
		{dir, Options{Debounce: -1}, "Debounce is negative"},
		{dir, Options{MaxDirs: -1}, "MaxDirs is negative"},
		{dir, Options{Debounce: 2, MaxDelay: 1}, "shorter than Debounce"},
		{dir, Options{Stop: "relative"}, "not an absolute path"},
	} {
		err := NewTrust(c.dirs, c.opts).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %+v: %v, want %q", c.dirs, c.opts, err, c.want)
		}
	}
}
