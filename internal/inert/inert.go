// Package inert makes text that came from storage, from trust files or from a command
// line harmless where a person reads it: nothing in it acts on a terminal, and nothing
// turns the letters around it.
package inert

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text replaces what a terminal would act on, and what has no width that is sure:
// all that is not printed, control and format characters and bidirectional overrides
// among them, and blanks that are not the usual one.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '·'
		}
		return r
	}, s)
}

// Message is Text for a message of several lines, of at most most bytes.
func Message(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = strings.ToValidUTF8(s[:most], "")
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = Text(l)
	}
	s = strings.Join(lines, "\n")
	if cut {
		s += "…"
	}
	return s
}

// JSON escapes, in a JSON text, all that is not printed: there it can only stand in
// strings, which read the same (RFC 8259, section 7).
func JSON(b []byte) []byte {
	i := 0
	for i < len(b) && (' ' <= b[i] && b[i] < 0x7f || b[i] == '\n') {
		i++
	}
	if i == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+64), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, b[i:i+n]...)
		case r > 0xffff:
			r -= 0x10000
			out = appendEscape(appendEscape(out, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			out = appendEscape(out, r)
		}
		i += n
	}
	return out
}

func appendEscape(b []byte, r rune) []byte {
	hex := strconv.FormatInt(int64(r), 16)
	return append(append(append(b, '\\', 'u'), "0000"[len(hex):]...), hex...)
}

// Writer applies JSON to what is written to w: whole texts at once, as encoders and
// log handlers write them.
type Writer struct{ W io.Writer }

func (w Writer) Write(b []byte) (int, error) {
	if _, err := w.W.Write(JSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}
