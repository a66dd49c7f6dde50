package watcher

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDebounceIdle(t *testing.T) {
	d := debounce{quiet: time.Second, limit: time.Minute}
	if at, ok := d.due(); ok {
		t.Errorf("due at %v without an event", at)
	}
}

// Whatever the events: a burst is due quiet after its last event or limit after
// its first, whichever is earlier; never before it began.
func TestDebounceProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := debounce{
			quiet: time.Duration(rapid.IntRange(0, 100).Draw(t, "quiet")),
			limit: time.Duration(rapid.IntRange(0, 500).Draw(t, "limit")),
		}
		start := time.Unix(1, 0)
		now := start
		for _, gap := range rapid.SliceOfN(rapid.IntRange(0, 120), 1, 20).Draw(t, "gaps") {
			d.touch(now)
			at, ok := d.due()
			want := now.Add(d.quiet)
			if end := start.Add(d.limit); end.Before(want) {
				want = end
			}
			if !ok || !at.Equal(want) {
				t.Fatalf("due %v %v, want %v", at, ok, want)
			}
			now = now.Add(time.Duration(gap))
		}
	})
}

// The moments at which a burst of events each step ends, for the default times.
func TestDebounceDefaults(t *testing.T) {
	for _, c := range []struct {
		step  time.Duration
		count int
		want  time.Duration // after the first event
	}{
		{0, 1, 50 * time.Millisecond},
		{10 * time.Millisecond, 5, 90 * time.Millisecond},
		{10 * time.Millisecond, 46, 500 * time.Millisecond},
		{10 * time.Millisecond, 1000, 500 * time.Millisecond},
	} {
		o := Options{}.forTrust()
		d := debounce{quiet: o.Debounce, limit: o.MaxDelay}
		start := time.Unix(1, 0)
		for i := range c.count {
			d.touch(start.Add(time.Duration(i) * c.step))
		}
		if at, _ := d.due(); at.Sub(start) != c.want {
			t.Errorf("%d events each %v: due after %v, want %v", c.count, c.step, at.Sub(start), c.want)
		}
	}
}
