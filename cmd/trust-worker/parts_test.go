package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What stops in time ends the daemon without an error, however long it takes.
func TestPartsThatStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newParts(ctx)
		saved := false
		p.start("workers", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(stopTimeout - time.Second)
			saved = true
			return nil
		})
		p.start("short", func(context.Context) error { return nil })
		time.AfterFunc(time.Hour, cancel)
		if err := p.wait(stopTimeout); err != nil || !saved {
			t.Errorf("%v, saved: %v", err, saved)
		}
	})
}

// The first part that fails stops the others.
func TestPartThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := errors.New("EIO")
		p := newParts(t.Context())
		stopped := false
		p.start("workers", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
		p.start("HTTP", func(context.Context) error { time.Sleep(time.Minute); return failed })
		if err := p.wait(stopTimeout); !errors.Is(err, failed) || !stopped {
			t.Errorf("%v, stopped: %v", err, stopped)
		}
	})
}

// Parts that hang are named after the time that a stop may take, those alone.
func TestPartsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newParts(ctx)
		hang := make(chan struct{})
		for _, name := range []string{"workers", "HTTP"} {
			p.start(name, func(context.Context) error { <-hang; return nil })
		}
		p.start("signals", func(ctx context.Context) error { <-ctx.Done(); return nil })
		began := time.Now()
		cancel()
		err := p.wait(stopTimeout)
		if !errors.Is(err, errStuck) || !strings.HasPrefix(err.Error(), "HTTP, workers did not") {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d != stopTimeout {
			t.Errorf("after %v", d)
		}
		close(hang) // the bubble ends with its goroutines
	})
}
