package mirror

import (
	"math"
	"testing"
	"time"
)

// A confirmation is never taken for younger than it is, whatever is done to either
// machine's clock: only the age that the source states is the source's, and only this
// machine's own clocks count the time since.
func TestHeard(t *testing.T) {
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const h = time.Hour
	for _, c := range []struct {
		what string
		// The request was sent at noon by the wall clock and 0 by the other; it is now
		// so much later by each.
		wall, mono time.Duration
		age        time.Duration // as the source stated it
		want       time.Duration
	}{
		{"at once", 0, 0, 0, 0},
		{"an answer that was long on its way", 20 * time.Second, 20 * time.Second, 3 * time.Second, 23 * time.Second},
		{"this clock was set an hour ahead since", h + time.Second, time.Second, 0, h + time.Second},
		{"this clock was set back by an hour since", -h + time.Second, time.Second, 0, time.Second},
		{"set back, and a long time has passed", -h + 10*time.Minute, 10 * time.Minute, 0, 10 * time.Minute},
		{"this machine slept, and one clock stood still", 2 * h, time.Second, 0, 2 * h},
		{"both went back", -h, -h, time.Second, time.Second},
		{"a source that has not confirmed for long", time.Second, time.Second, h, h + time.Second},
		{"an age that no clock can say", 1 << 62, 1 << 62, 1 << 62, math.MaxInt64},
	} {
		heard := Heard{Sent: Instant{Wall: noon}, Age: c.age}
		now := Instant{Wall: noon.Add(c.wall), Mono: c.mono}
		if got := heard.age(now); got != c.want {
			t.Errorf("%s: %v old, want %v", c.what, got, c.want)
		}
		if got := (Heard{Age: c.age}).age(Instant{Wall: now.Wall}); got != math.MaxInt64 && c.age > 0 {
			t.Errorf("%s: heard nobody knows when, %v old", c.what, got)
		}
		at, want := heard.at(now), now.Wall.Add(-c.want)
		if want.Before(time.Unix(0, 0)) {
			want = time.Unix(0, 0)
		}
		if !at.Equal(want) || at.After(now.Wall) {
			t.Errorf("%s: confirmed at %v, it is %v", c.what, at, now.Wall)
		}
	}
}
