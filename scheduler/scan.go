package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/inert"
	"trust-worker/layout"
	"trust-worker/trust"
)

// scanLoop walks storage at each interval, and looks at what the watcher hints
// at in between.
func (s *Scheduler) scanLoop(ctx context.Context) error {
	var hints <-chan struct{}
	if s.cfg.Repositories != nil {
		hints = s.cfg.Repositories.C()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	slowly, err := s.newSlowPass()
	if err != nil {
		return err
	}
	defer slowly.timer.Stop()
	for {
		how, walk := changedOnes, true
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.rescan:
			how = everyOne
		case <-slowly.timer.C:
			if err := slowly.next(ctx); errors.Is(err, cache.ErrDamaged) {
				return err
			} else if err != nil && ctx.Err() == nil {
				s.counters.errors.Add(1)
				s.log.Error("slow pass failed; it is made again later", "error", err)
			}
			continue
		case <-hints:
			how, walk = s.takeHints()
		}
		if !walk {
			continue
		}
		again, err := s.walkAs(ctx, how)
		if errors.Is(err, cache.ErrDamaged) {
			return err
		} else if err != nil && ctx.Err() == nil {
			s.counters.errors.Add(1)
			s.log.Error("pass over storage failed", "error", err)
		}
		s.stored.flush()
		s.tampered.flush()
		if how == everyOne {
			// Nothing that is remembered of storage is believed, stored bytes
			// included.
			if err := s.oweRehash(); errors.Is(err, cache.ErrDamaged) {
				return err
			} else if err != nil {
				s.counters.errors.Add(1)
				s.log.Error("cannot look at stored bytes again", "error", err)
			}
		}
		switch {
		case again:
			timer.Reset(0)
		case how != listRepositories: // or a storm of hints would put the passes off
			timer.Reset(s.cfg.ScanInterval)
		}
	}
}

// slowPass says when stored bytes are read again. When it was last done outlives the
// process: one that is restarted often makes its slow passes all the same.
type slowPass struct {
	s     *Scheduler
	timer *time.Timer
	began time.Time // of the one in progress, zero if there is none
	last  time.Time // the last one that ended
}

func (s *Scheduler) newSlowPass() (*slowPass, error) {
	p := &slowPass{s: s, timer: time.NewTimer(time.Hour)}
	var err error
	if p.last, err = s.cfg.Store.SlowPass(); err != nil {
		return nil, err
	}
	if now := s.now(); p.last.IsZero() || p.last.After(now) { // what is new is read as it comes
		p.last = now
		if err := s.cfg.Store.NoteSlowPass(now); errors.Is(err, cache.ErrDamaged) {
			return nil, err
		} else if err != nil {
			s.log.Warn("cannot note when stored bytes have been read", "error", err)
		}
	}
	p.wait()
	return p, nil
}

// slowLooks is how often it is asked whether a slow pass has come to its end.
const slowLooks = 5 * time.Second

func (p *slowPass) wait() {
	switch due := p.last.Add(p.s.cfg.SlowInterval).Sub(p.s.now()); {
	case p.s.cfg.SlowInterval <= 0:
		p.timer.Stop()
	case !p.began.IsZero():
		p.timer.Reset(min(slowLooks, max(p.s.cfg.SlowInterval/4, 50*time.Millisecond)))
	default:
		p.timer.Reset(max(due, 50*time.Millisecond))
	}
}

// next begins a slow pass that is due, or notes that the one in progress is over.
func (p *slowPass) next(ctx context.Context) error {
	defer p.wait()
	s := p.s
	switch now := s.now(); {
	case p.began.IsZero() && now.Sub(p.last) >= s.cfg.SlowInterval:
		if err := s.oweRehash(); err != nil {
			return err
		}
		p.began = now
		s.cfg.Store.RenderAnew()
		return s.prune(ctx)
	case !p.began.IsZero() && s.agenda.size() == 0:
		p.last, p.began = p.began, time.Time{}
		return s.cfg.Store.NoteSlowPass(p.last)
	}
	return nil
}

// prune deletes what has been nowhere for days.
func (s *Scheduler) prune(ctx context.Context) error {
	p, err := s.cfg.Store.Prune(ctx)
	if err != nil {
		s.counters.errors.Add(1)
		s.log.Error("cannot prune the cache", "error", err)
		return err
	}
	s.log.Info("cache pruned", "kept", p.Orphans, "facts", p.Facts, "texts", p.Texts)
	return nil
}

// oweScan owes a look at a repository that somebody waits for; a walk over all of
// storage owes them with the class bulk.
func (s *Scheduler) oweScan(name string, force bool) { s.oweScanAs(fresh, name, force) }

func (s *Scheduler) oweScanAs(level priority, name string, force bool) {
	s.agenda.add(item{repository: name}, level, func(w *work) { w.scan, w.force = true, w.force || force })
}

// stamp returns the state of what a repository lists as text, "" when it cannot be told.
// The error is layout.ErrLate.
func (s *Scheduler) stamp(name string, until time.Time) (string, error) {
	root := s.serving(name)
	if root == nil {
		return "", nil
	}
	stamp, err := root.Stamp(name, until)
	if errors.Is(err, layout.ErrLate) {
		return "", err
	}
	if err != nil {
		return "", nil
	}
	return stamp.String(), nil
}

// scanTurn compares a repository with what is remembered of it.
func (s *Scheduler) scanTurn(ctx context.Context, name string, w *work) (result, error) {
	s.counters.scanned.Add(1)
	place, known, err := s.cfg.Store.Place(name)
	if err != nil {
		return result{}, err
	}
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.removed(name, known, w), nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	defer p.Close() // read-only
	if s.gone(name) {
		return s.removed(name, known, w), nil
	}
	return s.scan(ctx, p, name, place, known, w)
}

// removed is the result for a repository that is not there any more.
func (s *Scheduler) removed(name string, known bool, w *work) result {
	if !known {
		return result{}
	}
	return result{again: w, batches: []store.Batch{{Place: name, Remove: true}}}
}

// gone reports whether there is nothing to be read of a repository, as opposed to something
// that cannot.
func (s *Scheduler) gone(name string) bool {
	root := s.serving(name)
	return root == nil || root.Gone(name)
}

// unlisted is the result for a repository whose index cannot be read: its rows
// stay, its answers read unknown, and it is tried again at the next pass.
func (s *Scheduler) unlisted(name string, w *work, cause error) result {
	yes, none, said := true, "", why(name, cause)
	s.counters.errors.Add(1)
	s.stored.standing(name, said, notRead, "error", cause)
	return result{again: w, batches: []store.Batch{{Place: name, Update: &store.PlaceUpdate{Unlisted: &yes, Why: said, Stamp: &none}}}}
}

// why is what is said to people of a directory that cannot be read.
func why(name string, cause error) string {
	text := cause.Error()
	if re := (*trust.ReasonError)(nil); errors.As(cause, &re) {
		text = re.Err.Error()
	}
	return inert.Text(strings.TrimPrefix(text, "read index of "+name+": "))
}

func (s *Scheduler) scan(ctx context.Context, p *layout.Repository, name string, place store.Place, known bool, w *work) (result, error) {
	began := time.Now()
	var until time.Time
	if !w.long {
		until = began.Add(s.scanTime)
	}
	if known && !w.force && !place.Unlisted && place.Stamp != "" {
		stamp, err := s.stamp(name, until)
		if err != nil {
			return result{}, errLong
		}
		if place.Stamp == stamp {
			s.state.unstable(name, false)
			return s.rest(item{repository: name}, w, result{}), nil
		}
	}
	if !w.long && s.serving(name).Whole(name) > longIndex {
		return result{}, errLong
	}
	var kindErr error
	reading := ctx
	if !w.long {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeoutCause(ctx, s.scanTime, errLong)
		defer cancel()
	}
	contents, err := p.Contents(reading, func(d trust.Digest) (layout.Kind, bool) {
		if !known {
			return layout.Kind{}, false
		}
		k, ok, err := s.cfg.Store.Kind(name, d)
		kindErr = errors.Join(kindErr, err)
		return layoutKind(k), ok && err == nil
	})
	switch {
	case ctx.Err() != nil:
		return result{}, ctx.Err()
	case kindErr != nil:
		return result{}, kindErr
	case err != nil && errors.Is(context.Cause(reading), errLong):
		return result{}, errLong
	case err != nil:
		return s.rest(item{repository: name}, w, s.unlisted(name, w, err)), nil
	}
	s.counters.opened.Add(int64(contents.Opened))
	for _, problem := range contents.Problems {
		s.log.Debug("passed over in storage", "repository", name, "digest", problem.Digest.String(), "reason", string(problem.Reason), "detail", problem.Detail)
	}
	s.stored.over(name, notRead)
	if n := contents.Foreign(); n > 0 {
		s.stored.standing(name, "so", notSHA256, "manifests", n)
	} else {
		s.stored.over(name, notSHA256)
	}
	if n, example := contents.Unread(); n > 0 {
		attrs := []any{"number", n}
		if example.Digest != (trust.Digest{}) { // else it is a tag, which the error names
			attrs = append(attrs, "digest", example.Digest.String())
		}
		s.stored.standing(name, fmt.Sprint(n, example), partsUnread, append(attrs, "reason", string(example.Reason), "error", inert.Text(example.Detail))...)
	} else {
		s.stored.over(name, partsUnread)
	}
	if len(contents.Images) == 0 && len(contents.Signatures) > 0 {
		s.stored.standing(name, "so", noImage, "signed", len(contents.Signatures))
	} else {
		s.stored.over(name, noImage)
	}
	plan, err := s.plan(ctx, p, name, contents, until, w)
	if err != nil {
		return result{}, err
	}
	if w.long {
		s.agenda.took(item{repository: name}, time.Since(began) > s.scanTime)
	}
	return s.rest(item{repository: name}, w, s.scanned(name, contents, plan, w)), nil
}

// scanned makes the batch of a whole repository.
func (s *Scheduler) scanned(name string, c *layout.Contents, plan *plan, w *work) result {
	no, stamp, newest := false, "", c.Newest
	if c.Stamp != (layout.Stamp{}) && !c.Incomplete {
		stamp = c.Stamp.String()
	}
	kinds := make(map[trust.Digest]store.Kind, len(c.Learned))
	for d, k := range c.Learned {
		kinds[d] = cacheKind(k)
	}
	more := plan.left > 0 || plan.returned
	unsettled, level := more || plan.deferred != nil, w.level
	return result{
		again: w,
		batches: []store.Batch{{
			Place: name, Kinds: kinds, Remembered: c.Remembered, Tags: c.Tags, SetTags: true, Rows: plan.rows, Complete: true, Facts: plan.facts,
			Update: &store.PlaceUpdate{Stamp: &stamp, Unlisted: &no, Unsettled: &unsettled, HasNotation: &plan.notation, Newest: &newest, AsOf: plan.asOf},
		}},
		then: func(outdated bool) {
			poke(s.wakeup)
			// A change of policies owes nothing to repositories that were not known
			// to have signatures that it is about.
			if more || outdated || s.trust.Load() != plan.under {
				s.oweSettle(name, level)
			} else if plan.deferred != nil {
				s.await(plan.deferred, level)
			} else {
				s.waits.over(name)
			}
			s.lookAgain(name, stamp == "" || c.Recent && !s.impatient) // after a single pass nobody is there
		},
	}
}

// lookAgain owes another scan soon to a repository that was changing, or had a
// manifest that could not be read. It has no stamp then, so that each pass
// looks again; the first few times it does not wait for the pass. One that was written to
// just now keeps its stamp: the look again is no more than a stat if nothing came after.
func (s *Scheduler) lookAgain(name string, unstable bool) {
	tries := s.state.unstable(name, unstable)
	if unstable && tries <= 5 {
		s.later(backoff(uint32(tries), 500*time.Millisecond, time.Minute), func() { s.oweScan(name, false) })
	}
}

// rest owes what else was owed to a repository besides its scan.
func (s *Scheduler) rest(i item, w *work, r result) result {
	other := *w
	other.scan, other.force = false, false
	if !other.settle && !other.rehash && len(other.due) == 0 {
		return r
	}
	then := r.then
	r.then = func(outdated bool) {
		if then != nil {
			then(outdated)
		}
		s.agenda.add(i, other.level, func(w *work) { w.merge(&other) })
	}
	return r
}

// layoutKind is what the cache remembers of a manifest, as package layout has it.
func layoutKind(k store.Kind) layout.Kind {
	out := layout.Kind{Class: layout.Class(k.Class), MediaType: k.MediaType, Size: k.Size, Subject: k.Subject, Skipped: k.Skipped, Ambiguous: k.Ambiguous}
	for _, c := range k.Children {
		out.Children = append(out.Children, layout.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: c.Platform, Attestation: c.Attestation, About: c.About, Foreign: c.Foreign})
	}
	return out
}

// cacheKind is the inverse.
func cacheKind(k layout.Kind) store.Kind {
	out := store.Kind{Class: uint8(k.Class), MediaType: k.MediaType, Size: k.Size, Subject: k.Subject, Skipped: k.Skipped, Ambiguous: k.Ambiguous}
	for _, c := range k.Children {
		out.Children = append(out.Children, store.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: c.Platform, Attestation: c.Attestation, About: c.About, Foreign: c.Foreign})
	}
	return out
}
