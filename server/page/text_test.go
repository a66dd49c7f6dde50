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

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Second: "1m30s", 1500 * time.Microsecond: "2ms", 10 * time.Microsecond: "under 1ms"} {
		if got := roughly(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}
