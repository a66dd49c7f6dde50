package scheduler

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
)

// A visit is what a turn does to the signatures of one repository: a scan verifies what
// is new (plan.go), later turns what is due again, what is not decided, and what the slow
// pass reads again. All go through the references of rows, in order, as far as the turn's
// allowance goes, and the next turn goes on from there.

// visit holds what a turn reads from, what it verifies under, and what it has found.
type visit struct {
	*examiner
	opened
	left  *allowance
	ahead []store.Row // the row that is visited, and those after it that were read with it
	at    place       // how far it has come
	rows  []store.Row // that have changed
	facts []store.Fact

	// Of other workers: when this visit began; since when what is done here is owed, and
	// whether somebody waits for it; for how long to wait for them, once that is looked up;
	// and what was left to them, if anything was.
	began, since  time.Time
	hurry, looked bool
	wait          time.Duration
	deferred      *deferred
}

func (s *Scheduler) newVisit(in *trustInUse, p *layout.Repository, name string, w *work) *visit {
	since := w.owed
	if since.IsZero() {
		since = s.waits.since(name)
	}
	return &visit{examiner: &s.examiner, opened: opened{Repository: p, name: name, in: in}, left: newAllowance(), began: time.Now(), since: since, hurry: w.level <= fresh}
}

// errSpent ends a visit at a reference: the turn may do no more.
var errSpent = errors.New("the turn's allowance is spent")

// visitTurn does a turn of what is owed to the rows of a repository: first what is due
// again, then what is not decided, then the slow pass.
func (s *Scheduler) visitTurn(ctx context.Context, name string, w *work) (result, error) {
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.oweScan(name, false) // finds it gone
		return result{}, nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	left := *w
	batch := store.Batch{Place: name}
	var theirs *deferred
	switch {
	case len(w.due) > 0:
		err = s.retry(ctx, p, &left, &batch)
	case w.settle:
		theirs, err = s.settle(ctx, p, &left, &batch)
	default:
		err = s.rehash(ctx, p, &left, &batch)
	}
	if err = errors.Join(err, p.Close()); err != nil {
		return result{}, err
	}
	r := result{again: w, then: func(outdated bool) {
		poke(s.wakeup)
		if outdated {
			left.settle, left.at = true, place{}
		}
		if theirs != nil {
			s.await(theirs, w.level)
		}
		if left.visits() {
			s.agenda.add(item{repository: name}, left.class(), func(w *work) { w.merge(&left) })
		}
	}}
	if len(batch.Rows)+len(batch.Facts) > 0 || batch.Update != nil { // or a transaction for nothing
		r.batches = []store.Batch{batch}
	}
	return r, nil
}

// settle goes through the rows for what has to be verified. At their end nothing is left
// to verify in the repository: it is settled, unless something is left to other workers,
// which is returned.
func (s *Scheduler) settle(ctx context.Context, p *layout.Repository, w *work, batch *store.Batch) (theirs *deferred, err error) {
	if w.at == (place{}) {
		w.deferred = nil
		if w.asOf, err = s.cfg.Store.Sequence(); err != nil {
			return nil, err
		}
	}
	v := s.newVisit(s.trust.Load(), p, batch.Place, w)
	done, err := s.eachRow(v, &w.at, func(row *store.Row) (bool, error) {
		prior := priorVerdicts{of: row.References}
		return v.references(row, func(ref *store.Reference) (bool, error) { return v.settle(ctx, row, ref, &prior) })
	})
	if err != nil {
		return nil, err
	}
	w.deferred = w.deferred.and(v.deferred)
	if w.settle = !done; done {
		waiting := w.deferred != nil
		batch.Update = &store.PlaceUpdate{Unsettled: &waiting, AsOf: w.asOf}
		w.owed = time.Time{}
		theirs, w.deferred = w.deferred, nil
	}
	batch.Rows, batch.Facts = v.rows, v.facts
	return theirs, nil
}

// retry goes through the references of the rows that are due, for those whose time has
// come.
func (s *Scheduler) retry(ctx context.Context, p *layout.Repository, w *work, batch *store.Batch) error {
	v := s.newVisit(s.trust.Load(), p, batch.Place, w)
	v.at, v.alone = w.dueAt, true // what is tried again is what does not travel
	for len(w.due) > 0 && !v.left.spent() {
		row, _, err := s.cfg.Store.Row(v.name, w.due[0])
		if err != nil {
			return err
		}
		prior, now := priorVerdicts{of: row.References}, s.now().Unix()
		var image *trust.Reason // the image itself first: it may be what was missing
		more, err := v.references(&row, func(ref *store.Reference) (bool, error) {
			if !s.isDue(ref, now) {
				return false, nil
			}
			return v.retry(ctx, &row, ref, &prior, &image)
		})
		if err != nil {
			return err
		}
		if more {
			break
		}
		if w.due, v.at = w.due[1:], (place{}); v.left.late() { // also if nothing was due
			break
		}
	}
	w.dueAt = v.at
	batch.Rows, batch.Facts = v.rows, v.facts
	return nil
}

// rehash reads the signatures of the rows again, and their images. One that cannot be read
// any more gets a problem, which is retried like any other.
func (s *Scheduler) rehash(ctx context.Context, p *layout.Repository, w *work, batch *store.Batch) error {
	v := s.newVisit(s.trust.Load(), p, batch.Place, w)
	done, err := s.eachRow(v, &w.reread, func(row *store.Row) (bool, error) {
		if !row.Present || len(row.References) == 0 {
			return false, nil
		}
		image, err := v.imageReason(ctx, &v.opened, row)
		if err != nil {
			return false, err
		}
		if image != "" {
			s.tampered.warn(v.name, "stored image manifest has changed", "digest", row.Digest.String(), "reason", string(image))
		}
		return v.references(row, func(ref *store.Reference) (bool, error) {
			if len(ref.Problems) > 0 {
				return false, nil
			}
			if !v.left.take() {
				return false, errSpent
			}
			reason := image
			if reason == "" {
				if reason, err = v.reread(ctx, &v.opened, ref); err != nil {
					return false, err
				}
				if reason != "" {
					s.tampered.warn(v.name, "stored signature has changed", "subject", row.Digest.String(), "signature", ref.Digest.String(), "reason", string(reason))
				}
			}
			if reason != "" {
				v.apply(ref, whole(reason))
			}
			return reason != "", nil
		})
	})
	w.rehash = !done
	batch.Rows = v.rows
	return err
}

// rowsAtOnce is how many rows a turn reads from the store at a time.
const rowsAtOnce = 256

// eachRow calls visit for the rows of a repository from at on, until the turn is spent or
// visit says that it has left something of a row. done is set at the end of the rows; at
// is where to go on if there is more.
func (s *Scheduler) eachRow(v *visit, at *place, visit func(*store.Row) (more bool, err error)) (done bool, err error) {
	v.at = *at
	defer func() { *at = v.at }() // until then at is where the turn began
	for !v.left.spent() {
		rows, err := s.cfg.Store.Rows(v.name, v.at.after, rowsAtOnce)
		if err != nil {
			return false, err
		}
		for k := range rows {
			if v.left.spent() || v.at != *at && v.left.late() { // also if there was nothing to do
				return false, nil
			}
			v.ahead = rows[k:]
			if more, err := visit(&rows[k]); err != nil || more {
				return false, err
			}
			v.at = place{after: rows[k].Digest}
		}
		if len(rows) < rowsAtOnce {
			return true, nil
		}
	}
	return false, nil
}

// looksAtOnce is how many references, of which nothing is due, a turn passes over before it
// asks for the time.
const looksAtOnce = 256

// references calls visit for the references of a row from v.at on, and keeps the row if
// one of them has changed. more is set if visit, or the time, ended it before the last.
func (v *visit) references(row *store.Row, visit func(*store.Reference) (changed bool, err error)) (more bool, err error) {
	changed, seen := false, 0
	for k := range row.References {
		ref := &row.References[k]
		if v.at.passes(row, ref) {
			continue
		}
		if seen++; seen%looksAtOnce == 0 && v.left.late() {
			more = true
			break
		}
		did, err := visit(ref)
		changed = changed || did
		if errors.Is(err, errSpent) {
			more = true
			break
		}
		if err != nil {
			return false, err
		}
		v.at.row, v.at.ref = row.Digest, ref.Digest
	}
	if changed {
		v.rows = append(v.rows, *row)
	}
	return more, nil
}

// settle verifies a reference, if it needs that.
func (v *visit) settle(ctx context.Context, row *store.Row, ref *store.Reference, prior *priorVerdicts) (changed bool, err error) {
	if isUnread(ref) && row.Present {
		if !v.left.take() {
			return false, errSpent
		}
		reason, err := v.reread(ctx, &v.opened, ref)
		if err != nil {
			return false, err
		}
		ref.Problems, changed = nil, true
		if reason != "" {
			v.apply(ref, whole(reason))
		}
	}
	needs, until, err := v.needs(v.in, v.name, row, ref)
	if err != nil {
		return changed, err
	}
	if !needs {
		if until != 0 && ref.NextTry == 0 { // decided by a turn that writes no rows
			ref.NextTry, changed = v.again(until), true
		}
		return changed, nil
	}
	if v.in.peers != nil {
		if k, ok := v.key(row, ref); ok && !v.asked.has(k) {
			if err := v.askAhead(ctx, ref, v.ahead); err != nil {
				return changed, err
			}
		}
		if v.others(row, ref) {
			return changed, nil
		}
	}
	if !v.left.take() {
		return changed, errSpent
	}
	did, err := v.lookAndApply(ctx, row, ref, prior)
	return changed || did, err
}

// retry looks again at a reference that is due.
func (v *visit) retry(ctx context.Context, row *store.Row, ref *store.Reference, prior *priorVerdicts, image **trust.Reason) (changed bool, err error) {
	if !row.Present {
		ref.NextTry = 0 // looked at when the image comes
		return true, nil
	}
	if !v.left.take() {
		return false, errSpent
	}
	if *image == nil {
		reason, err := v.imageReason(ctx, &v.opened, row)
		if err != nil {
			return false, err
		}
		*image = &reason
	}
	if **image != "" {
		v.apply(ref, whole(**image))
		return true, nil
	}
	_, err = v.lookAndApply(ctx, row, ref, prior)
	return true, err
}

// lookAndApply looks at a reference, writes into it what that gave, and collects the fact.
func (v *visit) lookAndApply(ctx context.Context, row *store.Row, ref *store.Reference, prior *priorVerdicts) (changed bool, err error) {
	verdicts, err := prior.verdicts(v, row.Digest)
	if err != nil {
		return false, err
	}
	l, err := v.look(ctx, &v.opened, row, ref, verdicts)
	if err != nil {
		return false, err
	}
	if l.fact != nil {
		if l.fact.Context.Tool == trust.Notation && len(l.problems) == 0 {
			if err := v.keepDead(v.in, &l); err != nil {
				return false, err
			}
		}
		v.facts = append(v.facts, *l.fact)
	}
	changed = len(l.problems) > 0 || l.retry || l.until != 0 || len(ref.Problems) > 0 || ref.NextTry != 0
	v.apply(ref, l)
	return changed, nil
}

// priorVerdicts are those of the signatures that an image had, read once for a turn.
type priorVerdicts struct {
	of    []store.Reference
	known map[trust.LayerID]trust.Verdict
	read  bool
}

func (p *priorVerdicts) verdicts(v *visit, subject trust.Digest) (map[trust.LayerID]trust.Verdict, error) {
	if p.read {
		return p.known, nil
	}
	var err error
	p.known, err = v.prior(v.in, subject, p.of)
	p.read = err == nil
	return p.known, err
}
