package store

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache/internal/format"
)

// When what is committed is published, and when layers are folded.

// Run publishes after commits until ctx ends, and folds layers that have grown, beside
// it; both are paced. What could not be published is retried.
// It returns only damage.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	fold := make(chan struct{}, 1)
	paces := pace{rest: 9, longest: time.Minute}
	g.Go(func() error { return s.runPublish(ctx, fold) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-fold:
				start, again := time.Now(), false
				if err := s.Fold(ctx); errors.Is(err, format.ErrDamaged) {
					return err
				} else if err != nil && ctx.Err() == nil {
					s.opts.Log.Error("cannot fold what is published; will retry", "error", err)
					again = true
				}
				pause := paces.after(start, time.Now())
				if now := s.layers(); len(now.Layers()) > format.MaxDeltas/2 { // publications would have to do it
					pause = 0
				}
				if again {
					pause = 5 * time.Second
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
				if again {
					s.pub.wake()
				}
			}
		}
	})
	return g.Wait()
}

func (s *Store) runPublish(ctx context.Context, fold chan<- struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	backoff := time.Duration(0)
	paces := pace{rest: 4, longest: 10 * time.Second}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.pub.notify:
		}
		start := time.Now()
		more, err := s.publishPart(ctx)
		if errors.Is(err, format.ErrDamaged) {
			return err
		} else if err != nil && ctx.Err() == nil {
			backoff = min(max(2*backoff, 100*time.Millisecond), 30*time.Second)
			s.opts.Log.Error("cannot publish; will retry", "error", err, "in", backoff)
			s.pub.wake()
		} else {
			backoff = 0
		}
		if s.foldDue() {
			select {
			case fold <- struct{}{}:
			default:
			}
		}
		if more {
			s.pub.wake()
			continue // what is left waits already
		}
		ended := time.Now()
		timer.Reset(max(paces.after(start, ended), backoff))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.pub.hurry:
			// Not at once: publishing takes half of the time at most.
			timer.Reset(max(ended.Sub(start)-time.Since(ended), backoff, 0))
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		}
	}
}

// PublishSoon has what is committed published before the pause after the last
// publication is over: somebody waits for it.
func (s *Store) PublishSoon() {
	select {
	case s.pub.hurry <- struct{}{}:
	default:
	}
}

// pace keeps what is done again and again to a part of the time in the long run,
// so that a bulk scan does not publish for its own sake; what is done now and then
// does not wait for the next. What is published waits to be read: a fifth of the time is
// for that. Nobody waits for layers to be folded: they get a tenth.
type pace struct {
	rest    time.Duration // for as long as it was done, how long it is not
	longest time.Duration // pause
	owed    time.Duration // rest that is owed
	ended   time.Time     // of the last time
}

// after returns how long to pause after it was done from began to ended.
func (p *pace) after(began, ended time.Time) time.Duration {
	const credit = 500 * time.Millisecond
	if !p.ended.IsZero() {
		p.owed = max(0, p.owed-began.Sub(p.ended))
	}
	p.owed, p.ended = p.owed+p.rest*ended.Sub(began), ended
	return min(max(0, p.owed-credit), p.longest)
}
