package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"trust-worker/internal/phrase"
)

// screen is what text is written to.
type screen struct {
	whole bool      // nothing is cut or rounded: no terminal, or --no-trunc
	width int       // columns; 0 is no limit, or not known
	now   time.Time // what times are told from
}

// screenOf looks at what w is. The width is the terminal's own: COLUMNS, which
// shells do not export and which may be old, is not asked.
func screenOf(w io.Writer, noTrunc bool) screen {
	s := screen{whole: true, now: time.Now()}
	if f, ok := terminal(w); ok && !noTrunc {
		s.whole = false
		s.width, _, _ = term.GetSize(int(f.Fd())) // not known: 0
	}
	return s
}

// terminal is the terminal that w is.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// when says a time: in words, or exactly (RFC 3339, UTC) where text is whole.
func (s screen) when(t time.Time) string {
	if s.whole {
		return t.UTC().Format(time.RFC3339)
	}
	return phrase.Distance(t, s.now)
}

const ellipsis = "…"

// widthOf is how many columns s takes. Terminals differ about some characters.
func widthOf(s string) int { return runewidth.StringWidth(s) }

// cutEnd is s in at most width columns, its end left out.
func cutEnd(s string, width int) string {
	if widthOf(s) <= width {
		return s
	}
	if width < widthOf(ellipsis) {
		return ""
	}
	return runewidth.Truncate(s, width, ellipsis)
}

// cutMiddle is s in at most width columns, its middle left out.
func cutMiddle(s string, width int) string {
	all, room := widthOf(s), width-widthOf(ellipsis)
	if all <= width || room < 2 {
		return cutEnd(s, width)
	}
	// A wide character that the cut goes through is left out.
	tail := strings.TrimLeft(runewidth.TruncateLeft(s, all-(room+1)/2, ""), " ")
	return runewidth.Truncate(s, room/2, "") + ellipsis + tail
}

// wrapText is s in lines, the first of at most first columns and the others of at
// most rest, broken at blanks if there are any: between phrases, which two blanks
// keep apart, rather than within one. There is at least one line.
func wrapText(s string, first, rest int) (lines []string) {
	for width := first; ; width = rest {
		head := runewidth.Truncate(s, width, "")
		if len(head) == len(s) || head == "" {
			return append(lines, cutEnd(s, width))
		}
		phrase, word := strings.LastIndex(s[:len(head)+1], "  "), strings.LastIndexByte(head, ' ')
		switch {
		case strings.HasPrefix(s[len(head):], "  "):
		case phrase > len(head)/2:
			head = head[:phrase]
		case word > 0 && s[len(head)] != ' ':
			head = head[:word]
		}
		lines = append(lines, strings.TrimRight(head, " "))
		s = strings.TrimLeft(s[len(head):], " ")
	}
}

// digest is one as it is written everywhere.
var digest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// fewest hex digits of a digest are shown, as other tools do.
const fewest = 12

// digestLength is how many hex digits tell all digests in the texts apart, at
// least fewest.
func digestLength(texts []string) int {
	var all []string
	for _, s := range texts {
		if strings.Contains(s, "sha256:") {
			all = append(all, digest.FindAllString(s, -1)...)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	n := fewest
	for i := 1; i < len(all); i++ {
		a, b := all[i-1][len("sha256:"):], all[i][len("sha256:"):]
		for n < len(a) && a[:n] == b[:n] {
			n++
		}
	}
	return n
}

// shortDigests cuts each digest in s to n hex digits.
func shortDigests(s string, n int) string {
	if !strings.Contains(s, "sha256:") {
		return s
	}
	return digest.ReplaceAllStringFunc(s, func(d string) string { return d[:len("sha256:")+n] })
}
