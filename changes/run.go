package changes

import (
	"context"
	"time"
)

// When an Observer looks.

// lookEvery is how often an Observer asks at most whether something was published, and
// lookSeldom how often if nobody wakes it: for what dates and a withdrawal do.
const lookEvery, lookSeldom = 100 * time.Millisecond, time.Second

// restAfter times as long as a look took an Observer rests: a bulk scan, which
// publishes large files one after the other, needs the processor more.
const restAfter = 4

// restAfterError is how long an Observer rests when something could not be read.
const restAfterError = 5 * time.Second

// Published says that something was published: Run looks soon. It waits for nothing.
func (o *Observer) Published() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends. Call Close afterwards.
func (o *Observer) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		began := time.Now()
		err := o.Look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			o.log.Error("cannot tell what has changed; will retry", "error", err)
		}
		rest := max(lookEvery, restAfter*time.Since(began))
		if failing = err != nil; failing {
			rest = max(rest, restAfterError)
		}
		timer.Reset(rest)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if failing {
			continue
		}
		timer.Reset(lookSeldom)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-o.wake:
		}
	}
}
