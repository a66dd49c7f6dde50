package scheduler

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// References that could not be decided are looked at again when their time has come, and
// turns that failed are done again.

// retryLoop owes the references whose next try has come.
func (s *Scheduler) retryLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	// behind: the clock was ahead, of this process or of the last, and has
	// put off what is due.
	behind, last := true, s.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wakeup:
		}
		now, longest := s.now(), time.Duration(0)
		switch wentBack := now.UnixNano() < last.UnixNano(); {
		case wentBack:
			behind, longest = true, longestRetry
		case behind:
			longest = longestWait
		}
		last = now
		owed, next, err := s.oweDue(longest)
		if errors.Is(err, cache.ErrDamaged) {
			return err
		}
		behind = behind && (err != nil || owed == dueAtOnce)
		wait := time.Minute // a wall clock that jumped is noticed by then
		if !next.IsZero() {
			wait = min(wait, next.Sub(s.now()))
		}
		timer.Reset(max(wait, 200*time.Millisecond))
	}
}

// oweDue owes the references whose next try has come, up to dueAtOnce, and returns
// when that of the next one will. With longest, what waits for longer than that is
// owed as well. With longestRetry, for a clock that was seen going back, that is all
// which does: much of it may rightly wait for revocation services, and would fill the
// same dueAtOnce each time.
func (s *Scheduler) oweDue(longest time.Duration) (owed int, next time.Time, err error) {
	limit := dueAtOnce
	if longest == longestRetry {
		limit = math.MaxInt
	}
	due, next, err := s.cfg.Store.DueNow(s.now(), longest, limit)
	s.owe(due)
	return len(due), next, err
}

const dueAtOnce = 1024

// owe owes a look at what is due, once for each subject.
func (s *Scheduler) owe(due []store.Due) {
	subjects := map[string][]trust.Digest{}
	for _, d := range due {
		if d.Repository != "" {
			subjects[d.Repository] = append(subjects[d.Repository], d.Subject)
		}
	}
	for name, all := range subjects {
		s.agenda.add(item{repository: name}, retry, func(w *work) {
			w.due = append(w.due, all...)
			slices.SortFunc(w.due, func(a, b trust.Digest) int { return bytes.Compare(a[:], b[:]) })
			w.due = slices.Compact(w.due)
		})
	}
}

// isDue reports whether a reference is to be looked at again: its time has come, or
// it is a single pass's only chance to see that storage has been mended.
// Revocation services keep their time, or each pass would wait for a dead one.
func (s *Scheduler) isDue(ref *store.Reference, now int64) bool {
	longest := longestWait
	if ref.Attempts > 0 {
		longest = longestRetry
	}
	switch {
	case ref.NextTry == 0:
		return false
	case ref.NextTry <= now, ref.NextTry-now > int64(longest/time.Second): // put off by a clock that was ahead
		return true
	}
	return s.impatient && slices.ContainsFunc(ref.Problems, func(p store.Problem) bool { return p.Reason != trust.RevocationUnknown })
}

// oweUndecided owes one more look at everything that an earlier pass could not
// decide; [Scheduler.isDue] says which of it has to wait for its time.
func (s *Scheduler) oweUndecided() error {
	const ever = 1 << 40 // seconds
	due, _, err := s.cfg.Store.DueNow(time.Unix(ever, 0), 0, math.MaxInt)
	if err != nil {
		return err
	}
	s.owe(due)
	return nil
}

// later calls f after d, unless the process ends first: what is owed is marked
// in the store, or found again by the next pass.
func (s *Scheduler) later(d time.Duration, f func()) { time.AfterFunc(d, f) }

// postpone owes the same work again later.
func (s *Scheduler) postpone(ctx context.Context, i item, w *work, err error) {
	if ctx.Err() != nil {
		return
	}
	d := s.agenda.failed(i)
	s.counters.errors.Add(1)
	s.log.Error("turn failed; will retry", "item", i.String(), "error", err, "in", d)
	again := *w
	time.AfterFunc(d, func() {
		if ctx.Err() == nil {
			s.agenda.add(i, again.level, func(w *work) { w.merge(&again) })
		}
	})
}
