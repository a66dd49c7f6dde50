package verifier

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Certificates can have dates that RFC 3339 cannot write; no verdict has.
func TestBoundsCanBeWritten(t *testing.T) {
	var b bounds
	b.begin(time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, u := range []int64{b.from, unixBound(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), unixBound(time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC))} {
		if y := time.Unix(u, 0).UTC().Year(); u == 0 || y < 1 || y > 9999 {
			t.Errorf("%d is in the year %d", u, y)
		}
	}
	if u := unixBound(time.Unix(0, 0)); u == 0 {
		t.Error("a bound at the epoch is none")
	}
}

// What a library says may quote the pusher: it never reads as our own words.
func TestLibraryTextIsQuoted(t *testing.T) {
	text := libraryText(errors.New("unknown type: x\" state trusted\nsigner ops." + strings.Repeat("y", 500)))
	if !strings.HasPrefix(text, `"unknown type: x\" state`) || !strings.HasSuffix(text, `"`) || strings.Contains(text, "\n") || len(text) > 260 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}
