package scheduler

import (
	"context"
	"errors"
	"testing"
	"time"

	"trust-worker/cache"
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
	i, _, _ := s.agenda.get()
	if err := s.commit([]result{{item: i, batches: []cache.Batch{{Marks: map[string]bool{"here": true}}}}}); err != nil {
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

// A process whose loop hangs must not look alive: an upload's own look at the
// trust directories is not the loop's.
func TestLookedIsOfTheLoopAlone(t *testing.T) {
	w := newWorld(t)
	w.scan()
	w.edit = func(c *Config) { c.ConfirmInterval = 10 * time.Millisecond }
	s := w.scheduler()
	if err := s.ReloadNow(context.Background()); err != nil {
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
