package main

import (
	"context"
	"runtime/debug"
	"testing"
)

// A heap grows to what it may be, and twice what is in use is always allowed.
func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 3100, 4 << 20: 3100, 32 << 20: 300, 64 << 20: 100, 100 << 20: 100, 1 << 40: 100} {
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
	done := make(chan struct{})
	close(done)
	collectLess(context.Background(), done)
	if is := debug.SetGCPercent(77); is != 77 {
		t.Errorf("it is %d", is)
	}
}
