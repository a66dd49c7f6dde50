package store

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceRestsInTheLongRunAndNotForOnce(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name        string
		takes, idle time.Duration // each time; between two, besides the pause
		turns       int
		first, last time.Duration // pauses
	}{
		{"now and then", 100 * ms, time.Second, 20, 0, 0},
		{"short ones in a row", ms, 4 * ms, 1000, 0, 0},
		{"a bulk scan", 50 * ms, 0, 100, 0, 200 * ms},
		{"large ones", 2 * time.Second, 0, 10, 7500 * ms, 8 * time.Second},
		{"very large ones", time.Minute, 0, 5, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, now := pace{rest: 4, longest: 10 * time.Second}, time.Unix(0, 0)
			var pause time.Duration
			for n := range tt.turns {
				began := now.Add(pause + tt.idle)
				now = began.Add(tt.takes)
				if pause = p.after(began, now); n == 0 && pause != tt.first {
					t.Errorf("first pause %v, want %v", pause, tt.first)
				}
			}
			if pause != tt.last {
				t.Errorf("last pause %v, want %v", pause, tt.last)
			}
		})
	}
}

// After a publication that took long, the next one pauses, unless somebody waits for
// it: then it takes half of the time.
func TestPublishSoonEndsThePause(t *testing.T) {
	for soon, want := range map[bool]time.Duration{false: 3500 * time.Millisecond, true: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			publish(t, s)
			began := make(chan time.Time, 10)
			s.OnPublish(func(time.Time) {
				began <- time.Now()
				time.Sleep(time.Second)
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			turn := func(n int) time.Time {
				mustCommit(t, s, Batch{Place: fmt.Sprint(n), Rows: []Row{{Digest: image, Present: true}}})
				if soon {
					s.PublishSoon()
				}
				return <-began
			}
			first := turn(0)
			if pause := turn(1).Sub(first) - time.Second; pause != want {
				t.Errorf("soon %v: paused for %v, want %v", soon, pause, want)
			}
			cancel()
			<-ended
		})
	}
}
