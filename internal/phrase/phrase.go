// Package phrase says times and counts as a person would, for the pages and the
// terminal alike. What it gives is for reading only: it is rounded, in English,
// and may change.
package phrase

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Distance says how far t is from now: "3 hours ago", "in 12 days", "just now".
func Distance(t, now time.Time) string {
	d := t.Sub(now).Abs()
	switch {
	case d < 20*time.Second: // so that a page that nothing has happened to stays the same
		return "just now"
	case d < time.Minute:
		d = time.Minute
	}
	text := strings.TrimSpace(humanize.RelTime(now.Add(-d), now, "", ""))
	const day = 24 * time.Hour
	switch days := int(d / day); {
	case days >= 2 && days < 60: // weeks are too coarse for what ends soon
		text = Count(days, "day", "days")
	case days > 3653: // beyond some decades it would only say "a long while"
		text = Count(int(d/(8766*time.Hour)), "year", "years")
	}
	if t.After(now) {
		return "in " + text
	}
	return text + " ago"
}

// Number is a count with separators.
func Number[T int | int64](n T) string { return humanize.Comma(int64(n)) }

// Count is a number with its noun.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + many
}
