package scheduler

import (
	"errors"
	"slices"
	"time"

	"trust-worker/cache"
)

// result is what one turn found, to be committed.
type result struct {
	item  item
	began time.Time // when the turn did
	// batches are committed together.
	batches []cache.Batch
	// then is called after the commit, before the item's turn ends. outdated
	// says that some facts were left out: a signer came meanwhile.
	then func(outdated bool)
	// again is what to owe when the commit fails.
	again *work
	// waited: somebody waits for this.
	waited bool
}

// maxBatch is how many rows and facts one transaction takes, unless one
// repository has more: keys are spread over the whole store, and the more come at
// once the more of them share a page.
const maxBatch = 4000

func (r *result) size() int {
	n := 1
	for i := range r.batches {
		n += len(r.batches[i].Rows) + len(r.batches[i].Facts) + len(r.batches[i].Kinds) + len(r.batches[i].Tags)
	}
	return n
}

// commitLoop writes results in batches until the channel is closed. A single
// change is written at once; during a bulk scan, a commit waits for others as
// long as the disk rests from the last one.
func (s *Scheduler) commitLoop() error {
	var fatal error
	var rested time.Time
	for first := range s.results {
		batch := s.gather(first, rested)
		if fatal != nil {
			s.drop(batch)
			continue
		}
		began := time.Now()
		if err := s.commit(batch); errors.Is(err, cache.ErrDamaged) {
			fatal = s.fail(err)
			s.agenda.end()
		}
		ended := time.Now()
		rested = ended.Add(restAfter(ended.Sub(began)))
	}
	return fatal
}

// restAfter keeps commits to a fifth of the time, if they are not so long that
// somebody would notice the rest.
func restAfter(took time.Duration) time.Duration { return min(4*took, 250*time.Millisecond) }

// gather adds to the first result what has come meanwhile, and until rested what
// comes, unless somebody waits for one of them or nothing else is in work. It
// stops at maxBatch.
func (s *Scheduler) gather(first result, rested time.Time) []result {
	batch, size, waited := []result{first}, first.size(), first.waited
	timer := time.NewTimer(time.Until(rested))
	defer timer.Stop()
	for size < maxBatch {
		var more result
		var ok bool
		select {
		case more, ok = <-s.results:
		default:
			if waited || s.agenda.size() <= len(batch) {
				return batch
			}
			select {
			case more, ok = <-s.results:
			case <-timer.C:
				return batch
			}
		}
		if !ok {
			return batch
		}
		batch = append(batch, more)
		size += more.size()
		waited = waited || more.waited
	}
	return batch
}

func (s *Scheduler) drop(results []result) {
	for _, r := range results {
		s.agenda.done(r.item)
	}
}

// commit writes the results. One that cannot be written is owed again.
func (s *Scheduler) commit(results []result) error {
	var batches []cache.Batch
	owner := []int{}
	for i := range results {
		for range results[i].batches {
			owner = append(owner, i)
		}
		batches = append(batches, results[i].batches...)
	}
	outdated := map[int]bool{}
	if len(batches) > 0 {
		began := time.Now()
		late, err := s.cfg.Store.Commit(batches...)
		s.log.Debug("committed", "turns", len(results), "batches", len(batches), "took", time.Since(began), "error", err)
		if err != nil {
			if errors.Is(err, cache.ErrDamaged) {
				s.fail(err) // before anybody takes the work for done
			}
			s.commitFailed(results, err)
			return err
		}
		for _, b := range late {
			outdated[owner[b]] = true
		}
		s.state.setCommitProblem("")
		s.counters.commits.Add(1)
		s.measures.committed(results)
		if slices.ContainsFunc(results, func(r result) bool { return r.waited }) {
			s.cfg.Store.PublishSoon()
		}
	}
	for i, r := range results {
		s.agenda.succeeded(r.item)
		if r.then != nil {
			r.then(outdated[i])
		}
		s.agenda.done(r.item)
	}
	return nil
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
		s.agenda.done(r.item)
	}
}
