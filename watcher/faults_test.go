package watcher

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// W6, I4: an overflow leads to a new source with all watches, and to a rescan.
func TestOverflowRescans(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		old := s.p.current()
		old.fail(fsnotify.ErrEventOverflow)
		s.expect(50*time.Millisecond, CauseLost, true)
		if s.p.current() == old || !old.closed || !s.p.watches(t, s.dir) {
			t.Errorf("opened %d, old closed %v, watched %q", s.p.opened, old.closed, s.p.current().WatchList())
		}
		st := s.trust.Status()
		if st.Overflows != 1 || st.Restarts != 1 || st.Errors != 0 || st.Mode != ModeEvents {
			t.Errorf("%+v", st)
		}
	})
}

// Overflows without end: one new source for each MaxDelay, no more.
func TestOverflowStorm(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		for time.Since(s.start) < 5*time.Second {
			source := s.p.current()
			select {
			case source.errors <- fsnotify.ErrEventOverflow:
			case <-source.done: // replaced meanwhile
			case n := <-s.trust.C():
				if !n.Rescan {
					t.Errorf("%+v without rescan", n)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.p.set(func(p *puppet) {
			if p.opened > 12 {
				t.Errorf("%d sources in 5 s", p.opened)
			}
		})
	})
}

// W4: the watch of a directory is gone although the directory is the same (it
// was renamed and renamed back). It is watched again, and listed after that.
func TestForgottenWatch(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		s.p.set(func(p *puppet) {
			p.onAdd = func(string) { os.Mkdir(s.dir+"/new", 0o755) }
		})
		s.p.forget(s.dir)
		s.expect(60*time.Second, CausePoll, false)
		if !s.p.watches(t, s.dir) || !s.p.watches(t, s.dir+"/new") {
			t.Errorf("watched %q", s.p.current().WatchList())
		}
	})
}

// W4: below a directory whose watch was lost, none is trusted: fsnotify may not
// have heard yet that it is gone, so that it is still in the list.
func TestStaleList(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		for _, dir := range []string{s.dir + "/a/b", filepath.Dir(s.dir) + "/sibling"} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		s.run()
		s.expect(0, CauseStart, true)
		s.p.set(func(p *puppet) { p.live.dirs[s.dir+"/a"], p.live.dirs[s.dir+"/a/b"] = 0, 0 })
		s.p.forget(s.dir)
		s.expect(60*time.Second, CausePoll, false)
		s.p.set(func(p *puppet) {
			for dir, times := range p.live.dirs {
				if times != 1 {
					t.Errorf("%s was placed %d times", dir, times)
				}
			}
		})
	})
}

// W7: refused watches make it poll, visibly, and it returns to events.
func TestRefusedWatchesPollUntilTheyAreTaken(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.p.set(func(p *puppet) { p.limit = 1 })
		s.run()
		s.expect(0, CauseStart, true)
		for i := range 3 {
			s.expect(time.Duration(i+1)*2*time.Second, CausePoll, false)
			st := s.trust.Status()
			if st.Mode != ModePolling || !strings.Contains(st.Reason, "no space left on device") || st.Interval != 2*time.Second {
				t.Errorf("%+v", st)
			}
		}
		s.p.set(func(p *puppet) { p.limit = 0 })
		s.expect(8*time.Second, CausePoll, false)
		if st := s.trust.Status(); st.Mode != ModeEvents || st.Reason != "" {
			t.Errorf("%+v", st)
		}
		s.expect(68*time.Second, CausePoll, false)

		// A watch is lost and can't be had again.
		dirs := s.trust.Status().Dirs
		s.p.set(func(p *puppet) { p.limit = 1 })
		s.p.forget(s.dir)
		s.expect(128*time.Second, CausePoll, false)
		if st := s.trust.Status(); st.Mode != ModePolling || st.Dirs != dirs-1 {
			t.Errorf("%+v, had %d", st, dirs)
		}
	})
}

func TestPollsWhileThereIsNoSource(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.p.set(func(p *puppet) { p.refuse = syscall.EMFILE })
		s.run()
		s.expect(0, CauseStart, true)
		if st := s.trust.Status(); st.Mode != ModePolling || !strings.Contains(st.Reason, "too many open files") {
			t.Errorf("%+v", st)
		}
		s.expect(2*time.Second, CausePoll, false)
		s.p.set(func(p *puppet) { p.refuse = nil })
		s.expect(4*time.Second, CausePoll, true) // whatever happened before is news
		if st := s.trust.Status(); st.Mode != ModeEvents || !s.p.watches(t, s.dir) {
			t.Errorf("%+v", st)
		}
	})
}

// W17: a source that dies is replaced at once, and one that keeps dying no more
// often than PollWithoutEvents, by which it polls.
func TestDeadSourceIsReplaced(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		s.run()
		s.expect(0, CauseStart, true)
		time.Sleep(10 * time.Second)
		s.p.current().Close()
		s.expect(10*time.Second+50*time.Millisecond, CauseLost, true)
		if st := s.trust.Status(); st.Mode != ModeEvents || st.Restarts != 1 {
			t.Errorf("%+v", st)
		}
		s.p.current().Close()
		s.expect(10*time.Second+100*time.Millisecond, CauseLost, true)
		if st := s.trust.Status(); st.Mode != ModePolling || st.Reason != "event source ended" {
			t.Errorf("%+v", st)
		}
		s.expect(12*time.Second+100*time.Millisecond, CausePoll, true)
		if st := s.trust.Status(); st.Mode != ModeEvents || st.Restarts != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A directory that is watched under another name (a bind mount): its events
// come under that name, so none is taken for noise any more.
func TestDirectoryWatchedUnderAnotherName(t *testing.T) {
	onStage(t, Options{}, func(s *stage) {
		parent := filepath.Dir(s.dir)
		if err := os.Mkdir(s.dir+"/sub", 0o755); err != nil {
			t.Fatal(err)
		}
		s.p.set(func(p *puppet) { p.aliases = map[string]string{s.dir: parent} })
		s.run()
		s.expect(0, CauseStart, true)
		s.p.say(parent+"/key.pub", fsnotify.Create)
		s.expect(50*time.Millisecond, CauseEvents, false)
		s.p.set(func(p *puppet) {
			if looks, sub := s.trust.Status().Looks, p.live.dirs[s.dir+"/sub"]; looks != 2 || sub != 1 {
				t.Errorf("%d looks, %d watches below: an alias is news each time", looks, sub)
			}
		})
		s.expect(60*time.Second+50*time.Millisecond, CausePoll, false)
	})
}
