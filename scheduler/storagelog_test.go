package scheduler

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Whoever fills storage with what cannot be read has their lines; the others keep
// theirs, and how many were left out is said.
func TestStorageLogHasShares(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1e9, 0)
	l := newStorageLog(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	for i := range 1000 {
		l.warn(fmt.Sprint("evil/", i), "cannot be read")
	}
	l.warn("team/app", "cannot be read")
	l.flush()
	l.flush() // once
	if n := strings.Count(out.String(), "left out"); n != 1 {
		t.Errorf("what was left out is said %d times", n)
	}
	if n := strings.Count(out.String(), "repository=evil/"); n != storageLinesBurst {
		t.Errorf("%d lines of one name, want %d", n, storageLinesBurst)
	}
	if !strings.Contains(out.String(), "left out") || !strings.Contains(out.String(), fmt.Sprint("lines=", 1000-storageLinesBurst)) ||
		!strings.Contains(out.String(), "repository=team/app") {
		t.Errorf("another's line is lost, or what was left out:\n%s", out.String())
	}
	now = now.Add(time.Minute)
	out.Reset()
	for i := range 1000 {
		l.warn(fmt.Sprint("evil/", i), "cannot be read")
	}
	if n := strings.Count(out.String(), "repository=evil/"); n != 10 {
		t.Errorf("%d lines of one name a minute later, want 10", n)
	}
	out.Reset()
	for i := range 5000 { // a top-level name each
		l.warn(fmt.Sprint("evil", i), "cannot be read")
	}
	if n := strings.Count(out.String(), "repository=evil"); n > storageBurstAll {
		t.Errorf("%d lines of all names, want %d", n, storageBurstAll)
	}
}

// What stays wrong is said once, and again when it is wrong in another way or has been
// right; a line that was left out is not lost.
func TestStorageLogSaysWhatStandsOnce(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1e9, 0)
	l := newStorageLog(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	count := func(want int) {
		t.Helper()
		if n := strings.Count(out.String(), "repository=team/app "); n != want {
			t.Errorf("it is said %d times, want %d", n, want)
		}
	}
	for range 3 {
		l.standing("team/app", "a", notRead, "error", "a")
	}
	count(1)
	l.standing("team/app", "b", notRead, "error", "b")
	count(2)
	l.over("team/app", notRead)
	l.standing("team/app", "b", notRead, "error", "b")
	count(3)
	for i := range 100 {
		l.warn(fmt.Sprint("team/", i), "noise")
	}
	l.standing("team/app", "c", notRead, "error", "c") // left out
	count(3)
	now = now.Add(time.Minute)
	l.standing("team/app", "c", notRead, "error", "c")
	count(4)
}
