package scheduler

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/verifier"
	"trust-worker/watcher"
)

// gate holds write transactions while it is shut.
type gate struct {
	inside chan bool // a transaction is held
	shut   chan chan bool
}

func newGate() *gate { return &gate{inside: make(chan bool), shut: make(chan chan bool, 1)} }

// pass is what Options.InTransaction calls.
func (g *gate) pass() {
	select {
	case open := <-g.shut:
		g.inside <- true
		<-open
	default:
	}
}

// What ends trust waits for nothing: while a transaction goes on for as long as it
// likes, ten keys are removed one after the other, and the lease is renewed.
func TestRemovalsWhileATransactionGoesOn(t *testing.T) {
	w := newWorld(t)
	g := newGate()
	w.opts.InTransaction = g.pass
	w.edit = func(c *Config) {
		c.Trust = watcher.NewTrust([]string{w.st.Dir + "/_cosign", w.st.Dir + "/_notation"}, watcher.Options{})
		c.ConfirmInterval = 50 * time.Millisecond
	}
	const n = 11
	for i := range n {
		k := signtest.NewKey(signtest.P256)
		w.st.TrustKey(fmt.Sprintf("k%02d.pub", i), k)
		w.st.SignSimple(w.st.Content("r", fmt.Sprint(i), fmt.Sprint(i)), k, simple)
	}
	stop := w.run()
	defer stop()
	s := w.last
	r, err := cache.OpenReader(w.state)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	trusted := func() (all int) {
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		for i := range n {
			if img, err := snap.Tag("r", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			} else if img.State() == "trusted" {
				all++
			}
		}
		return all
	}
	if got := trusted(); got != n {
		t.Fatalf("%d images trusted", got)
	}
	open := make(chan bool)
	g.shut <- open
	w.st.Content("r", "more", "more") // something to commit
	s.Rescan()
	<-g.inside
	for i := range 10 {
		w.st.Untrust(fmt.Sprintf("_cosign/k%02d.pub", i))
		eventually(t, "the key is out", func() bool { return trusted() == n-i-1 })
	}
	before := s.Status().Confirmed
	eventually(t, "the lease is renewed", func() bool { return s.Status().Confirmed.After(before) })
	// Nothing that is new can be recorded, and it is published all the same.
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("new.pub", k)
	if err := s.ReloadNow(t.Context()); err != nil {
		t.Error(err)
	}
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if !snap.InForce().Has(k.Signer().ID()) {
		t.Error("the new key is not published")
	}
	snap.Close()
	close(open)
	if got := trusted(); got != 1 {
		t.Errorf("%d images trusted at the end", got)
	}
}

// The start watches and publishes before anything that may be long: a key removed
// while what an earlier run left is still being resumed is out.
func TestRemovalDuringAStart(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("r", "1", "1")
	w.st.SignSimple(img, k, simple)
	w.scan()
	w.want(img, "trusted")
	w.close()
	g := newGate()
	w.opts.InTransaction = g.pass
	w.edit = func(c *Config) {
		c.Trust = watcher.NewTrust([]string{w.st.Dir + "/_cosign", w.st.Dir + "/_notation"}, watcher.Options{})
	}
	s := w.scheduler()
	open := make(chan bool)
	g.shut <- open
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w.st.TrustKey("other.pub", signtest.NewKey(signtest.P256)) // something to record
	go func() { done <- s.Run(ctx) }()
	<-g.inside
	w.st.Untrust("_cosign/k.pub")
	eventually(t, "the key is out", func() bool { a, err := w.get(img); return err == nil && a.State() == "untrusted" })
	close(open)
	<-s.FirstPass()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Damage that a worker meets ends the run, whatever else is going on: nothing is
// taken for done, and nobody goes on without its workers.
func TestDamageThatAWorkerMeetsEndsTheRun(t *testing.T) {
	for name, run := range map[string]func(*Scheduler) error{
		"scan":  func(s *Scheduler) error { return s.Scan(context.Background(), false) },
		"serve": func(s *Scheduler) error { return s.Run(context.Background()) },
	} {
		w := newWorld(t)
		k := signtest.NewKey(signtest.P256)
		w.st.TrustKey("k.pub", k)
		w.st.SignSimple(w.st.Content("r", "1", "1"), k, simple)
		s := w.scheduler()
		s.verify = func(context.Context, *verifier.Verifier, verifier.Request) (verifier.Outcome, error) {
			return verifier.Outcome{}, fmt.Errorf("read a fact: %w", cache.ErrDamaged)
		}
		if err := run(s); !errors.Is(err, cache.ErrDamaged) {
			t.Errorf("%s ended with %v", name, err)
		}
	}
}
