package page

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"trust-worker/internal/phrase"
	"trust-worker/trust"
)

// Text is a string that somebody else chose. Shown, its control characters, line
// ends, bidirectional marks and other characters that are not printed are
// escaped as Go would: \r, \u202e.
type Text string

func (t Text) String() string {
	s := strings.ToValidUTF8(string(t), "\ufffd")
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// hidden: not printed, or a space that is not the usual one.
func hidden(r rune) bool { return !unicode.IsPrint(r) }

// short is the beginning of a digest, enough to tell it from others at a glance.
func short(d trust.Digest) string { return "sha256:" + d.Hex()[:12] }

// shortText is that of a digest's text, of whatever algorithm.
func shortText(digest string) Text {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return Text(algorithm + ":" + hex[:min(len(hex), 12)])
}

// Moment is a time with its distance from now in words.
type Moment struct {
	at    time.Time
	words string
}

// moment puts words to a time: "3 hours ago", "in 12 days".
func moment(t, now time.Time) Moment {
	if t.IsZero() {
		return Moment{words: "never"}
	}
	return Moment{at: t.UTC(), words: phrase.Distance(t, now)}
}

// Known reports whether there is a time at all.
func (m Moment) Known() bool { return !m.at.IsZero() }

// Words are the distance.
func (m Moment) Words() string { return m.words }

// Machine is the time for machines, RFC 3339.
func (m Moment) Machine() string { return m.at.Format(time.RFC3339) }

// Exact is the time for people, in UTC.
func (m Moment) Exact() string { return m.at.Format("2 Jan 2006, 15:04:05 UTC") }
