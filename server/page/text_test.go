package page

import (
	"testing"
	"time"
)

// Text leaves ordinary names alone, in any script.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"team/app:1.0": "team/app:1.0", "日本語 ünïcode": "日本語 ünïcode", "a\tb": `a\tb`, "\u00a0": `\u00a0`, "\U000e0041": `\U000e0041`, "\xff": "\ufffd",
	} {
		if got := Text(in).String(); got != want {
			t.Errorf("%q shows as %q, want %q", in, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "just now", -10 * time.Second: "just now", -40 * time.Second: "1 minute ago", 40 * time.Second: "in 1 minute", -3 * time.Hour: "3 hours ago",
		12*24*time.Hour + time.Hour: "in 12 days", 70 * 24 * time.Hour: "in 2 months", 26 * time.Hour: "in 1 day", -400 * 24 * time.Hour: "1 year ago", 90 * 366 * 24 * time.Hour: "in 90 years",
	} {
		if got := distance(now.Add(d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Second: "1m30s", 1500 * time.Microsecond: "2ms", 10 * time.Microsecond: "under 1ms"} {
		if got := roughly(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}
