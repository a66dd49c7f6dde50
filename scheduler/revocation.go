package scheduler

import (
	"context"
	"errors"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
)

// Revocation is asked about by goroutines of its own (package revocation): a look
// that finds nothing known yet ends as revocation-unknown, like any other look
// that decides nothing, and the retry a second later finds the answer. An answer
// ends; the reference's next try lies before that end, so that the next answer is
// usually there in time.

// again is when to look at a reference again because what revocation services
// said ends at until (Unix seconds, the rest cut off); 0 if nothing does. It is not
// before the checker would ask anew, or that look would ask nothing, and the next
// one might come too late for the answer to be there in time.
func (e *examiner) again(until int64) int64 {
	if until == 0 {
		return 0
	}
	now := e.now()
	return max(revocation.Refresh(now, time.Unix(until+1, 0)).Unix(), now.Unix()) + 1
}

// recheck is the earliest end of what revocation services said of a fact's
// layers, 0 if there is none.
func recheck(verdicts []trust.Verdict) int64 {
	var first int64
	for i := range verdicts {
		if at := verdicts[i].Recheck(); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// unasked reports whether all that is wrong with a look or a reference is that
// revocation services have not answered.
func unasked(problems []store.Problem) bool {
	for _, p := range problems {
		if p.Reason != trust.RevocationUnknown {
			return false
		}
	}
	return len(problems) > 0
}

// stands reports whether every signature of a stored fact is trusted now: asking
// ahead of the end of an answer has failed, and the answer holds until then.
func (e *examiner) stands(in *trustInUse, repository string, f *store.Fact) (until int64, stands bool, err error) {
	old, ok, err := e.facts.Fact(f.Subject, f.Signature, f.Context)
	if err != nil || !ok || len(old.Verdicts) == 0 || len(old.Verdicts) != len(f.Verdicts) {
		return 0, false, err
	}
	for i := range old.Verdicts {
		if in.inForce().Decide(repository, f.Context.Tool, &old.Verdicts[i], e.now()).Status != trust.Trusted {
			return 0, false, nil
		}
	}
	return recheck(old.Verdicts), true, nil
}

// awaitRevocation waits, in a one-shot pass, until revocation services have
// answered or had their time, and owes the looks that waited for it. It returns
// false when nothing more comes of it: no chain has been asked about since the
// call before, when asked was returned.
func (s *Scheduler) awaitRevocation(ctx context.Context, before int64) (asked int64, more bool, err error) {
	c := s.cfg.Revocation
	if c == nil {
		return 0, false, nil
	}
	c.Settle(ctx)
	st := c.Stats()
	if asked = st.Good + st.Revoked + st.Unknown; asked > before {
		// What waits is due a second or two after it was looked at.
		select {
		case <-ctx.Done():
			return asked, false, nil
		case <-time.After(firstRetry):
		}
	}
	owed, _, err := s.oweDue(0)
	if errors.Is(err, cache.ErrDamaged) {
		return asked, false, err
	}
	return asked, ctx.Err() == nil && (asked > before || owed == dueAtOnce), nil
}

// firstRetry is the longest time until the first retry of a reference.
const firstRetry = 2100 * time.Millisecond
