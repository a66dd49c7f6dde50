package scheduler

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
)

// rowsAtOnce is how many rows a settling turn reads from the store at a time.
const rowsAtOnce = 256

// settleTurn goes through a repository's rows from w.at on and verifies the references
// that need it, as far as the turn's allowance goes. At the end of the rows nothing is
// left to verify in the repository: it is settled.
func (s *Scheduler) settleTurn(ctx context.Context, name string, w *work) (result, error) {
	i := item{repository: name}
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.oweScan(name, false) // finds it gone
		return result{}, nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	other := *w
	if w.at == (place{}) {
		if other.asOf, err = s.cfg.Store.Sequence(); err != nil {
			return result{}, errors.Join(err, p.Close())
		}
	}
	in := s.trust.Load()
	batch := store.Batch{Place: name}
	at, left := w.at, newAllowance()
	for !left.spent() {
		rows, err := s.cfg.Store.Rows(name, at.after, rowsAtOnce)
		if err != nil {
			return result{}, errors.Join(err, p.Close())
		}
		for k := range rows {
			if left.spent() {
				break
			}
			more, err := s.settleRow(ctx, in, p, name, &rows[k], &at, left, &batch)
			if err != nil {
				return result{}, errors.Join(err, p.Close())
			}
			if !more {
				at = place{after: rows[k].Digest}
			}
		}
		if len(rows) < rowsAtOnce && !left.spent() {
			no := false
			batch.Update = &store.PlaceUpdate{Unsettled: &no, AsOf: other.asOf}
			break
		}
	}
	done := batch.Update != nil
	other.settle = !done
	other.at = at
	r := result{again: w, batches: []store.Batch{batch}, then: func(outdated bool) {
		poke(s.wakeup)
		if outdated {
			other.settle, other.at = true, place{}
		}
		if other.settle || other.rehash || len(other.due) > 0 {
			s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
		}
	}}
	return r, p.Close()
}

// settleRow verifies the references of a row that need it, from at on, as far as left
// allows; more is set when some are still to be done, from at on.
func (s *Scheduler) settleRow(ctx context.Context, in *trustInUse, p *layout.Repository, name string, row *store.Row, at *place, left *allowance, batch *store.Batch) (more bool, err error) {
	changed := false
	var prior priorVerdicts
	for k := range row.References {
		ref := &row.References[k]
		if at.passes(row, ref) {
			continue
		}
		if isUnread(ref) && row.Present {
			if !left.take() {
				more = true
				break
			}
			ref.Problems, changed = nil, true
			if reason := s.reread(ctx, p, ref); ctx.Err() != nil {
				return false, ctx.Err()
			} else if reason != "" {
				s.apply(ref, whole(reason))
			}
		}
		needs, until, err := s.needs(in, name, row, ref)
		if err != nil {
			return false, err
		}
		if !needs {
			if until != 0 && ref.NextTry == 0 { // decided by a turn that writes no rows
				ref.NextTry, changed = s.again(until), true
			}
			at.row, at.ref = row.Digest, ref.Digest
			continue
		}
		if !left.take() {
			more = true
			break
		}
		verdicts, err := prior.of(s, in, row.Digest, row.References)
		if err != nil {
			return false, err
		}
		l, err := s.look(ctx, in, p, name, row, ref, verdicts)
		if err != nil {
			return false, err
		}
		if l.fact != nil {
			if l.fact.Context.Tool == trust.Notation && len(l.problems) == 0 {
				if err := s.keepDead(l.fact); err != nil {
					return false, err
				}
			}
			batch.Facts = append(batch.Facts, *l.fact)
		}
		if len(l.problems) > 0 || l.retry || l.until != 0 || len(ref.Problems) > 0 || ref.NextTry != 0 {
			s.apply(ref, l)
			changed = true
		}
		at.row, at.ref = row.Digest, ref.Digest
	}
	if changed {
		batch.Rows = append(batch.Rows, *row)
	}
	return more, nil
}

// priorVerdicts are those of a row, read once for a turn.
type priorVerdicts struct {
	read     bool
	verdicts map[trust.LayerID]trust.Verdict
}

func (v *priorVerdicts) of(s *Scheduler, in *trustInUse, subject trust.Digest, old []store.Reference) (map[trust.LayerID]trust.Verdict, error) {
	if v.read {
		return v.verdicts, nil
	}
	var err error
	v.verdicts, err = s.prior(in, subject, old)
	v.read = err == nil
	return v.verdicts, err
}

// retryTurn looks again at the references of the given subjects whose time has
// come.
func (s *Scheduler) retryTurn(ctx context.Context, name string, w *work) (result, error) {
	i := item{repository: name}
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.oweScan(name, false)
		return result{}, nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	in := s.trust.Load()
	batch := store.Batch{Place: name}
	at, left := w.dueAt, newAllowance()
	var rest []trust.Digest
	for _, subject := range w.due {
		more := true
		if !left.spent() {
			var err error
			if more, err = s.retryRow(ctx, in, p, name, subject, &at, left, &batch); err != nil {
				return result{}, errors.Join(err, p.Close())
			}
			if !more {
				at = place{}
			}
		}
		if more {
			rest = append(rest, subject)
		}
	}
	other := *w
	other.due, other.dueAt = rest, at
	return result{again: w, batches: []store.Batch{batch}, then: func(outdated bool) {
		poke(s.wakeup)
		if outdated {
			other.settle, other.at = true, place{}
		}
		if other.settle || other.rehash || len(other.due) > 0 {
			s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
		}
	}}, p.Close()
}

// retryRow looks at the references of a row whose time has come, from at on, as far as
// left allows; more is set when some are still to be done.
func (s *Scheduler) retryRow(ctx context.Context, in *trustInUse, p *layout.Repository, name string, subject trust.Digest, at *place, left *allowance, batch *store.Batch) (more bool, err error) {
	row, ok, err := s.cfg.Store.Row(name, subject)
	if err != nil || !ok {
		return false, err
	}
	now := s.now().Unix()
	changed := false
	var prior priorVerdicts
	var image *trust.Reason // the image itself first: it may be what was missing
	for k := range row.References {
		ref := &row.References[k]
		if !s.isDue(ref, now) || at.passes(&row, ref) {
			continue
		}
		if !row.Present {
			ref.NextTry, changed = 0, true // looked at when the image comes
			continue
		}
		if !left.take() {
			more = true
			break
		}
		changed = true
		at.row, at.ref = row.Digest, ref.Digest
		if image == nil {
			reason := s.imageReason(ctx, p, &row)
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			image = &reason
		}
		if *image != "" {
			s.apply(ref, whole(*image))
			continue
		}
		verdicts, err := prior.of(s, in, subject, row.References)
		if err != nil {
			return false, err
		}
		l, err := s.look(ctx, in, p, name, &row, ref, verdicts)
		if err != nil {
			return false, err
		}
		s.apply(ref, l)
		if l.fact != nil {
			batch.Facts = append(batch.Facts, *l.fact)
		}
	}
	if changed {
		batch.Rows = append(batch.Rows, row)
	}
	return more, nil
}

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
		if behind = behind || now.UnixNano() < last.UnixNano(); behind {
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
// owed as well.
func (s *Scheduler) oweDue(longest time.Duration) (owed int, next time.Time, err error) {
	due, next, err := s.cfg.Store.DueNow(s.now(), longest, dueAtOnce)
	for _, d := range due {
		if d.Repository == "" {
			continue
		}
		s.agenda.add(item{repository: d.Repository}, retry, func(w *work) {
			if !slices.Contains(w.due, d.Subject) {
				w.due = append(w.due, d.Subject)
			}
		})
	}
	return len(due), next, err
}

const dueAtOnce = 1024

// isDue reports whether a reference is to be looked at again: its time has come, or
// it is a single pass's only chance to see that storage has been mended.
// Revocation services keep their time, or each pass would wait for a dead one.
func (s *Scheduler) isDue(ref *store.Reference, now int64) bool {
	switch {
	case ref.NextTry == 0:
		return false
	case ref.NextTry <= now, ref.NextTry-now > int64(longestWait/time.Second):
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
	subjects := map[string][]trust.Digest{}
	for _, d := range due {
		if d.Repository != "" {
			subjects[d.Repository] = append(subjects[d.Repository], d.Subject)
		}
	}
	for name, all := range subjects {
		s.agenda.add(item{repository: name}, retry, func(w *work) { w.due = append(w.due, all...) })
	}
	return nil
}

// imageReason reads the image manifest of a row and says what is wrong with its
// bytes, "" if nothing is.
func (s *Scheduler) imageReason(ctx context.Context, p *layout.Repository, row *store.Row) trust.Reason {
	if _, err := p.Manifest(ctx, row.Digest); err != nil {
		return reasonOf(err)
	}
	return ""
}
