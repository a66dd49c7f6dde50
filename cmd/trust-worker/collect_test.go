package main

import (
	"context"
	"runtime/debug"
	"testing"
)

// A heap grows to what it may be, and twice what is in use is always allowed.
func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 700, 4 << 20: 700, 32 << 20: 300, 64 << 20: 100, 100 << 20: 100, 1 << 40: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes: %d, want %d", live, got, want)
		}
	}
}

// What the runtime did before, it does afterwards.
func TestCollectLessEnds(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	was := debug.SetGCPercent(77)
	defer debug.SetGCPercent(was)
	looks := 0
	collectLess(context.Background(), func() bool {
		looks++
		is := debug.SetGCPercent(-1)
		if debug.SetGCPercent(is); looks > 1 && is <= 77 {
			t.Errorf("while it lasts, it is %d", is)
		}
		return looks > 2
	})
	if is := debug.SetGCPercent(77); is != 77 {
		t.Errorf("it is %d", is)
	}
}
