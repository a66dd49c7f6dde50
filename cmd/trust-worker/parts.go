package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// errStuck: parts of the daemon did not stop in time. What they hold must not be closed
// under them: the process ends as it is, and what was not saved is done again.
var errStuck = errors.New("did not stop in time")

// parts are what a daemon consists of, each with a name. The first that fails stops the
// others.
type parts struct {
	g       *errgroup.Group
	ctx     context.Context // ends when the parts are to stop
	mu      sync.Mutex
	running map[string]bool
}

func newParts(ctx context.Context) *parts {
	g, ctx := errgroup.WithContext(ctx)
	return &parts{g: g, ctx: ctx, running: map[string]bool{}}
}

// start runs a part until it ends by itself or its context does.
func (p *parts) start(name string, run func(context.Context) error) {
	p.mark(name, true)
	p.g.Go(func() error {
		defer p.mark(name, false)
		return run(p.ctx)
	})
}

func (p *parts) mark(name string, running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if running {
		p.running[name] = true
	} else {
		delete(p.running, name)
	}
}

// wait returns when all parts have ended, with the first error. If some have not ended a
// time after they were told to stop, it names them in an error that wraps errStuck.
func (p *parts) wait(timeout time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- p.g.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-p.ctx.Done():
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	var why error // that they were to stop, if it was not a signal
	if cause := context.Cause(p.ctx); !errors.Is(cause, context.Canceled) {
		why = cause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	stuck := fmt.Errorf("%s %w (%v)", strings.Join(slices.Sorted(maps.Keys(p.running)), ", "), errStuck, timeout)
	return errors.Join(why, stuck)
}
