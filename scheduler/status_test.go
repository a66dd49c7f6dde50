package scheduler

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
)

// What keeps the answers from being kept up to date is a problem until it
// succeeds, and no longer: readiness rests on it.
func TestAProblemEndsWithItsCause(t *testing.T) {
	w := newWorld(t)
	w.scan()
	s := w.scheduler()
	s.commitFailed(nil, errors.New("no space left on device"))
	if got, want := s.Status().Problem, "cannot write the cache: no space left on device"; got != want {
		t.Fatalf("problem %q, want %q", got, want)
	}
	s.state.setTrustProblem("cannot publish trust: no space left on device")
	s.agenda.add(item{repository: "app"}, fresh, func(*work) {})
	i, _, _ := s.agenda.get(ordinary)
	if _, err := s.commit([]result{{item: i, batches: []store.Batch{{Marks: map[string]bool{"here": true}}}}}); err != nil {
		t.Fatal(err)
	}
	if got := s.Status().Problem; got != "cannot publish trust: no space left on device" {
		t.Errorf("problem %q: a commit says nothing about trust", got)
	}
	s.state.setTrustProblem("")
	if got := s.Status().Problem; got != "" {
		t.Errorf("problem %q after everything succeeded", got)
	}
}

// A file that is refused shows in the log when it comes, though what is trusted
// stays the same, and once.
func TestARefusedFileIsLoggedOnce(t *testing.T) {
	w := newWorld(t)
	w.st.TrustKey("k.pub", signtest.NewKey(signtest.P256))
	w.scan()
	var log strings.Builder
	w.edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	s := w.scheduler()
	for _, name := range []string{"", "", "first.pub", "", "second.pub", ""} {
		if name != "" {
			if err := os.WriteFile(filepath.Join(w.st.Dir, "_cosign", name), []byte("no key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"first.pub", "second.pub"} {
		if n := strings.Count(log.String(), "path=_cosign/"+name); n != 1 {
			t.Errorf("%s is logged %d times:\n%s", name, n, log.String())
		}
	}
}

// A process whose loop hangs must not look alive: an upload's own look at the
// trust directories is not the loop's.
func TestLookedIsOfTheLoopAlone(t *testing.T) {
	w := newWorld(t)
	w.scan()
	w.edit = func(c *Config) { c.ConfirmInterval = 10 * time.Millisecond }
	s := w.scheduler()
	if err := reload(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if at := s.Status().Looked; !at.IsZero() {
		t.Errorf("looked at %v without the loop", at)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.trustLoop(ctx) }()
	var last time.Time
	for turns := 0; turns < 3; time.Sleep(time.Millisecond) {
		if at := s.Status().Looked; at.After(last) {
			last = at
			turns++
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A directory that cannot be listed is told of, also when nothing was ever known
// of it: a repository below it is not known, as opposed to not there.
func TestDirectoryThatCannotBeListedIsTold(t *testing.T) {
	w := newWorld(t)
	w.scan()
	var log strings.Builder
	w.edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	s := w.scheduler()
	l := &listing{unlisted: []unlisted{{"team", fs.ErrPermission}}}
	for range 2 {
		places, err := w.store.Places()
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]*store.Place{}
		for i := range places {
			known[places[i].Name] = &places[i]
		}
		if err := s.missing(places, known, l); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "repository=team"); n != 1 || s.Work().Errors != 2 {
		t.Errorf("%d errors, logged %d times:\n%s", s.Work().Errors, n, log.String())
	}
	if p, ok, err := w.store.Place("team"); err != nil || !ok || !p.Unlisted {
		t.Errorf("%+v, %v, %v", p, ok, err)
	}
	w.scan() // it can be listed, and there is nothing
	if p, ok, err := w.store.Place("team"); err != nil || ok {
		t.Errorf("%+v, %v", p, err)
	}
}

// What is not in the cache may be in storage until that was read to its end once,
// and while its root cannot be listed.
func TestStorageThatWasNotReadToItsEnd(t *testing.T) {
	w := newWorld(t)
	partial := func() bool {
		t.Helper()
		r, err := cache.OpenReader(w.state)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		return snap.Partial()
	}
	s := w.scheduler()
	if err := errors.Join(s.reloadTrust(t.Context()), s.followTrust(), w.store.Publish(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !partial() {
		t.Error("whole before anything was read")
	}
	w.scan()
	if partial() {
		t.Error("partial after a full pass")
	}
	listed, unlisted := &listing{}, &listing{unlisted: []unlisted{{"", fs.ErrPermission}}}
	s.passOnce.Do(func() { close(s.firstPass) })
	for _, step := range []struct {
		l    *listing
		want bool
	}{{listed, false}, {unlisted, true}, {unlisted, true}, {listed, false}} {
		if err := s.setWhole(step.l); err != nil || partial() != step.want {
			t.Errorf("%d unlisted: partial %v, %v", len(step.l.unlisted), partial(), err)
		}
	}
}
