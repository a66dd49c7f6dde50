package scheduler

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// What is verified is counted by what came of it, and every answer is measured
// from the turn that saw it to the publication that has it.
func TestMeasures(t *testing.T) {
	w := newWorld(t)
	key, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", key)
	for _, repo := range []string{"a", "b", "c"} {
		w.st.SignSimple(w.st.Image(repo, "1"), key, signtest.CosignOptions{})
	}
	w.st.SignSimple(w.st.Image("d", "1"), other, signtest.CosignOptions{})
	s := w.scheduler()
	finished := errors.New("finished")
	err := s.run(context.Background(), func(context.Context, *errgroup.Group) {}, func(ctx context.Context, g *errgroup.Group) {
		g.Go(func() error {
			if err := s.walk(ctx, true); err != nil {
				return err
			}
			<-s.agenda.quiet()
			if err := s.cfg.Store.Publish(ctx); err != nil {
				return err
			}
			return finished
		})
	})
	if !errors.Is(err, finished) {
		t.Fatal(err)
	}
	m := s.Measures()
	for _, c := range []struct {
		tool    trust.Tool
		outcome string
		n       uint64
	}{{trust.Cosign, "matched", 3}, {trust.Cosign, "unmatched", 1}, {trust.Cosign, "undecided", 0}, {trust.Notation, "matched", 0}} {
		if got, ok := m.Verifications[Verification{c.tool, c.outcome}]; !ok || got != c.n {
			t.Errorf("%s %s: %d, want %d", c.tool, c.outcome, got, c.n)
		}
	}
	total := func(h Histogram) (n uint64) {
		for _, c := range h.Counts {
			n += c
		}
		return n
	}
	if n := total(m.Verifying[trust.Cosign]); n != 4 {
		t.Errorf("%d verifications were timed", n)
	}
	if n := total(m.Lag); n != 4 || m.Lag.Sum <= 0 {
		t.Errorf("%d answers were followed, %f s", n, m.Lag.Sum)
	}
	if len(s.measures.waiting) != 0 {
		t.Errorf("%d are still waited for", len(s.measures.waiting))
	}
}

// A commit that a publication is too early for waits for the next.
func TestLag(t *testing.T) {
	m := newMeasures()
	now := time.Now()
	m.waiting = []waitingCommit{{now.Add(-3 * time.Second), now.Add(-2 * time.Second)}, {now.Add(-time.Second), now}}
	m.published(now.Add(-time.Second))
	if n := len(m.waiting); n != 1 || m.lag.Counts[9] != 1 { // between 2.5 and 5 s
		t.Errorf("%d wait, %v", n, m.lag.Counts)
	}
	m.published(now)
	if n := len(m.waiting); n != 0 {
		t.Errorf("%d wait", n)
	}
}

func TestQueueAge(t *testing.T) {
	a := newAgenda()
	if age := a.oldest(time.Now(), priorities); age != 0 {
		t.Errorf("of nothing: %s", age)
	}
	a.add(item{repository: "a"}, fresh, func(*work) {})
	a.add(item{repository: "a"}, fresh, func(*work) {})
	first := a.owed[item{repository: "a"}].since
	if age := a.oldest(first.Add(time.Minute), priorities); age != time.Minute {
		t.Errorf("after a minute: %s", age)
	}
}
