package scheduler

import (
	"context"
	"errors"
	"slices"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
)

// result is what one turn found, to be committed.
type result struct {
	item  item
	began time.Time // when the turn did
	// batches are committed together.
	batches []store.Batch
	// then is called after the commit, before the item's turn ends. outdated
	// says that some facts were left out: a signer came meanwhile.
	then func(outdated bool)
	// again is what to owe when the commit fails.
	again *work
	// waited: somebody waits for this.
	waited bool
	// over, if not nil, is closed when the turn is.
	over chan struct{}
	// weight is what it takes of the room for results that wait for the committer.
	weight int64
}

// over ends the turn of a result.
func (s *Scheduler) over(r *result) {
	s.agenda.done(r.item)
	if r.over != nil {
		close(r.over)
	}
}

// maxBatch is how many rows and facts one transaction takes on: keys are spread over
// the whole store, and the more come at once the more of them share a page. A
// repository that has more is written in parts, see [store.Store.CommitSome].
const maxBatch = 4000

// maxResults is how many rows and facts wait for the committer before workers do.
const maxResults = 4 * maxBatch

// hand gives a result to the committer, which reads until the channel is closed.
func (s *Scheduler) hand(r result) {
	if r.over == nil { // long scans wait for each other
		r.weight = int64(min(r.size(), maxResults))
		_ = s.room.Acquire(context.Background(), r.weight) // fails with its context alone
	}
	s.results <- r
}

func (r *result) size() int {
	n := 1
	for i := range r.batches {
		b := &r.batches[i]
		n += len(b.Rows) + len(b.Facts) + len(b.Kinds) + len(b.Tags) + len(b.Remembered)/8
		for k := range b.Rows {
			n += len(b.Rows[k].References)
		}
	}
	return n
}

// written reports whether all of it is in the store.
func (r *result) written() bool {
	return !slices.ContainsFunc(r.batches, func(b store.Batch) bool { return !b.Written() })
}

// commitLoop writes results in batches until the channel is closed. A single
// change is written at once; during a bulk scan, a commit waits for others as
// long as the disk rests from the last one. What is too large for one transaction
// goes on in the next, beside what has come meanwhile and in turn with others of its
// kind.
func (s *Scheduler) commitLoop() error {
	var fatal error
	var rested time.Time
	var unfinished []result
	for {
		batch, open := s.gather(unfinished, rested)
		if !open && len(batch) == len(unfinished) {
			s.drop(unfinished) // the daemon stops: they are scanned again
			return fatal
		}
		if fatal != nil {
			s.drop(batch)
			unfinished = nil
			continue
		}
		began := time.Now()
		var err error
		if unfinished, err = s.commit(batch); errors.Is(err, cache.ErrDamaged) {
			fatal = s.fail(err)
			s.agenda.end()
		}
		ended := time.Now()
		rested = ended.Add(restAfter(ended.Sub(began)))
	}
}

// restAfter keeps commits to a fifth of the time, if they are not so long that
// somebody would notice the rest.
func restAfter(took time.Duration) time.Duration { return min(4*took, 250*time.Millisecond) }

// gather returns the first result that comes with what has come meanwhile, and until
// rested what comes, unless somebody waits for one of them or nothing else is in work.
// It stops at maxBatch. Results that are unfinished are last, and wait for nothing.
// open is unset when there will be no more.
func (s *Scheduler) gather(unfinished []result, rested time.Time) (batch []result, open bool) {
	size, waited := 0, false
	add := func(r result) {
		if r.weight > 0 {
			s.room.Release(r.weight)
		}
		batch = append(batch, r)
		size += r.size()
		waited = waited || r.waited
	}
	if len(unfinished) == 0 {
		first, ok := <-s.results
		if !ok {
			return nil, false
		}
		add(first)
	}
	timer := time.NewTimer(time.Until(rested))
	defer timer.Stop()
	open = true
	for open && size < maxBatch {
		var more result
		select {
		case more, open = <-s.results:
		default:
			if waited || len(unfinished) > 0 || s.agenda.size() <= len(batch) {
				return append(batch, unfinished...), true
			}
			select {
			case more, open = <-s.results:
			case <-timer.C:
				return batch, true
			}
		}
		if open {
			add(more)
		}
	}
	return append(batch, unfinished...), open
}

func (s *Scheduler) drop(results []result) {
	for i := range results {
		s.over(&results[i])
	}
}

// commit writes the results, as far as one transaction does, and returns those of
// which something is left. One that cannot be written is owed again.
func (s *Scheduler) commit(results []result) (unfinished []result, err error) {
	var batches []*store.Batch
	owner := []int{}
	for i := range results {
		for k := range results[i].batches {
			batches, owner = append(batches, &results[i].batches[k]), append(owner, i)
		}
	}
	outdated := map[int]bool{}
	if len(batches) > 0 {
		began := time.Now()
		late, err := s.cfg.Store.CommitSome(batches)
		s.log.Debug("committed", "turns", len(results), "batches", len(batches), "took", time.Since(began), "error", err)
		if err != nil {
			if errors.Is(err, cache.ErrDamaged) {
				s.fail(err) // before anybody takes the work for done
			}
			s.commitFailed(results, err)
			return nil, err
		}
		for _, b := range late {
			outdated[owner[b]] = true
		}
		s.state.setCommitProblem("")
		s.counters.commits.Add(1)
	}
	var done []result
	for i, r := range results {
		if !r.written() {
			unfinished = append(unfinished, r)
			continue
		}
		done = append(done, r)
		s.agenda.succeeded(r.item)
		if r.then != nil {
			r.then(outdated[i])
		}
		s.over(&r)
	}
	s.measures.committed(done)
	if slices.ContainsFunc(results, func(r result) bool { return r.waited && len(r.batches) > 0 }) {
		s.cfg.Store.PublishSoon()
	}
	if len(unfinished) > 1 { // each has its turn to be the one with most of the time
		unfinished = append(unfinished[1:], unfinished[0])
	}
	return unfinished, nil
}

// commitFailed owes everything again, after a pause: the disk may be full.
func (s *Scheduler) commitFailed(results []result, err error) {
	s.counters.errors.Add(1)
	s.state.setCommitProblem("cannot write the cache: " + err.Error())
	for _, r := range results {
		if r.again != nil && !errors.Is(err, cache.ErrDamaged) {
			again := *r.again
			i := r.item
			d := s.agenda.failed(i)
			s.log.Error("cannot commit; will retry", "repository", i.repository, "error", err, "in", d)
			s.later(d, func() { s.agenda.add(i, again.level, func(w *work) { w.merge(&again) }) })
		}
		s.over(&r)
	}
}
