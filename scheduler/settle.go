package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/layout"
	"trust-worker/trust"
)

// rowsAtOnce is how many rows a settling turn reads from the store at a time.
const rowsAtOnce = 256

// settleTurn goes through a repository's rows from w.after on and verifies up
// to turnSize references that need it. When it reaches the end the repository
// is settled.
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
	if w.after == (trust.Digest{}) {
		if other.asOf, err = s.cfg.Store.Sequence(); err != nil {
			return result{}, errors.Join(err, p.Close())
		}
	}
	in := s.trust.Load()
	batch := cache.Batch{Place: name}
	after, left := w.after, turnSize
	for left > 0 {
		rows, err := s.cfg.Store.Rows(name, after, rowsAtOnce)
		if err != nil {
			return result{}, errors.Join(err, p.Close())
		}
		for k := range rows {
			if left <= 0 {
				break
			}
			n, more, err := s.settleRow(ctx, in, p, name, &rows[k], left, &batch)
			if err != nil {
				return result{}, errors.Join(err, p.Close())
			}
			if left -= n; !more {
				after = rows[k].Digest
			}
		}
		if len(rows) < rowsAtOnce && left > 0 {
			no := false
			batch.Update = &cache.PlaceUpdate{Unsettled: &no, AsOf: other.asOf}
			break
		}
	}
	done := batch.Update != nil
	other.settle = !done
	other.after = after
	r := result{again: w, batches: []cache.Batch{batch}, then: func(outdated bool) {
		poke(s.wakeup)
		if outdated {
			other.settle, other.after = true, trust.Digest{}
		}
		if other.settle || other.rehash || len(other.due) > 0 {
			s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
		}
	}}
	return r, p.Close()
}

// settleRow verifies up to left references of a row that need it; more is set
// when some are still to be done.
func (s *Scheduler) settleRow(ctx context.Context, in *trustInUse, p *layout.Repository, name string, row *cache.Row, left int, batch *cache.Batch) (n int, more bool, err error) {
	changed := false
	for k := range row.References {
		ref := &row.References[k]
		needs, until, err := s.needs(in, name, row, ref)
		if err != nil {
			return n, false, err
		}
		if !needs {
			if until != 0 && ref.NextTry == 0 { // decided by a turn that writes no rows
				ref.NextTry, changed = s.again(until), true
			}
			continue
		}
		if n == left {
			more = true
			break
		}
		n++
		prior, err := s.prior(in, row.Digest, row.References)
		if err != nil {
			return n, false, err
		}
		l, err := s.look(ctx, in, p, name, row, ref, prior)
		if err != nil {
			return n, false, err
		}
		if l.fact != nil {
			if l.fact.Context.Tool == trust.Notation && len(l.problems) == 0 {
				if err := s.keepDead(l.fact); err != nil {
					return n, false, err
				}
			}
			batch.Facts = append(batch.Facts, *l.fact)
		}
		if len(l.problems) > 0 || l.retry || l.until != 0 || len(ref.Problems) > 0 || ref.NextTry != 0 {
			s.apply(ref, l)
			changed = true
		}
	}
	if changed {
		batch.Rows = append(batch.Rows, *row)
	}
	return n, more, nil
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
	batch := cache.Batch{Place: name}
	left := turnSize
	var rest []trust.Digest
	for _, subject := range w.due {
		if left <= 0 {
			rest = append(rest, subject)
			continue
		}
		n, err := s.retryRow(ctx, in, p, name, subject, &batch)
		if err != nil {
			return result{}, errors.Join(err, p.Close())
		}
		left -= n
	}
	other := *w
	other.due = rest
	return result{again: w, batches: []cache.Batch{batch}, then: func(outdated bool) {
		poke(s.wakeup)
		if outdated {
			other.settle, other.after = true, trust.Digest{}
		}
		if other.settle || other.rehash || len(other.due) > 0 {
			s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
		}
	}}, p.Close()
}

func (s *Scheduler) retryRow(ctx context.Context, in *trustInUse, p *layout.Repository, name string, subject trust.Digest, batch *cache.Batch) (n int, err error) {
	row, ok, err := s.cfg.Store.Row(name, subject)
	if err != nil || !ok {
		return 0, err
	}
	now := s.now().Unix()
	changed := false
	for k := range row.References {
		ref := &row.References[k]
		if !s.isDue(ref, now) {
			continue
		}
		n++
		changed = true
		if !row.Present {
			ref.NextTry = 0 // looked at when the image comes
			continue
		}
		// The image itself first: it may be what was missing.
		if reason := s.imageReason(ctx, p, &row); ctx.Err() != nil {
			return n, ctx.Err()
		} else if reason != "" {
			s.apply(ref, whole(reason))
			continue
		}
		prior, err := s.prior(in, subject, row.References)
		if err != nil {
			return n, err
		}
		l, err := s.look(ctx, in, p, name, &row, ref, prior)
		if err != nil {
			return n, err
		}
		s.apply(ref, l)
		if l.fact != nil {
			batch.Facts = append(batch.Facts, *l.fact)
		}
	}
	if changed {
		batch.Rows = append(batch.Rows, row)
	}
	return n, nil
}

// retryLoop owes the references whose next try has come, and counts the images
// whose state has changed with time.
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
		if err := s.cfg.Store.Recount(ctx); errors.Is(err, cache.ErrDamaged) {
			return err
		} else if err != nil && ctx.Err() == nil {
			s.counters.errors.Add(1)
			s.log.Error("cannot count the images by state; will retry", "error", err)
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
func (s *Scheduler) isDue(ref *cache.Reference, now int64) bool {
	switch {
	case ref.NextTry == 0:
		return false
	case ref.NextTry <= now, ref.NextTry-now > int64(longestWait/time.Second):
		return true
	}
	return s.impatient && slices.ContainsFunc(ref.Problems, func(p cache.Problem) bool { return p.Reason != trust.RevocationUnknown })
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
func (s *Scheduler) imageReason(ctx context.Context, p *layout.Repository, row *cache.Row) trust.Reason {
	if _, err := p.Manifest(ctx, row.Digest); err != nil {
		return reasonOf(err)
	}
	return ""
}

// oweRehash owes the slow pass: the bytes of signatures and of the images that they
// are about are read again and hashed, so that rot is found within its interval.
func (s *Scheduler) oweRehash() error {
	places, err := s.cfg.Store.Places()
	if err != nil {
		return fmt.Errorf("list repositories: %w", err)
	}
	for _, p := range places {
		s.agenda.add(item{repository: p.Name}, slow, func(w *work) { w.rehash = true })
	}
	return nil
}

// rehashTurn re-reads the signatures of some rows, and their images. One that cannot
// be read any more gets a problem, which is retried like any other.
func (s *Scheduler) rehashTurn(ctx context.Context, name string, w *work) (result, error) {
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.oweScan(name, false)
		return result{}, nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	rows, err := s.cfg.Store.Rows(name, w.reread, turnSize)
	batch := cache.Batch{Place: name}
	for k := range rows {
		row := &rows[k]
		if !row.Present || len(row.References) == 0 {
			continue
		}
		changed := false
		image := s.imageReason(ctx, p, row)
		if image != "" && ctx.Err() == nil {
			s.log.Warn("stored image manifest has changed", "repository", name, "digest", row.Digest.String(), "reason", string(image))
		}
		for n := range row.References {
			ref := &row.References[n]
			if len(ref.Problems) > 0 {
				continue
			}
			if image != "" && ctx.Err() == nil {
				s.apply(ref, whole(image))
				changed = true
				continue
			}
			if reason := s.reread(ctx, p, ref); reason != "" && ctx.Err() == nil {
				s.log.Warn("stored signature has changed", "repository", name, "subject", row.Digest.String(), "signature", ref.Digest.String(), "reason", string(reason))
				s.apply(ref, whole(reason))
				changed = true
			}
		}
		if changed {
			batch.Rows = append(batch.Rows, *row)
		}
	}
	if err = errors.Join(err, ctx.Err(), p.Close()); err != nil {
		return result{}, err
	}
	other := *w
	other.rehash = len(rows) == turnSize
	if other.rehash {
		other.reread = rows[len(rows)-1].Digest
	}
	var batches []cache.Batch
	if len(batch.Rows) > 0 { // or a transaction for nothing
		batches = append(batches, batch)
	}
	return result{again: w, batches: batches, then: func(bool) {
		poke(s.wakeup)
		if other.rehash {
			s.agenda.add(item{repository: name}, slow, func(w *work) { w.merge(&other) })
		}
	}}, nil
}

// reread reads a signature manifest and its layers, and says what is wrong.
func (s *Scheduler) reread(ctx context.Context, p *layout.Repository, ref *cache.Reference) trust.Reason {
	s.counters.reread.Add(1)
	m, err := p.Manifest(ctx, ref.Digest)
	if err != nil {
		return reasonOf(err)
	}
	for i, l := range m.Layers {
		if i == 1000 {
			break
		}
		d, err := trust.ParseDigest(l.Digest.String())
		if err != nil {
			continue // read as malformed already
		}
		if _, err := p.Blob(ctx, d, l.Size, 1<<20); err != nil {
			return reasonOf(err)
		}
	}
	return ""
}
