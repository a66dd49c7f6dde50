package phrase

import (
	"testing"
	"time"
)

func TestDistance(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "just now", -10 * time.Second: "just now", -40 * time.Second: "1 minute ago", 40 * time.Second: "in 1 minute", -3 * time.Hour: "3 hours ago",
		12*24*time.Hour + time.Hour: "in 12 days", 70 * 24 * time.Hour: "in 2 months", 26 * time.Hour: "in 1 day", -400 * 24 * time.Hour: "1 year ago", 90 * 366 * 24 * time.Hour: "in 90 years",
	} {
		if got := Distance(now.Add(d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 2: "2 files", 12345: "12,345 files"} {
		if got := Count(n, "file", "files"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
