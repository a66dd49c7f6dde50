package main

import (
	"bytes"
	"strings"
	"testing"

	"trust-worker/changes"
)

// Every kind has a line, losses are red, and nothing in a change acts on the
// terminal.
func TestChangeLines(t *testing.T) {
	for _, k := range changes.Kinds() {
		var plain, coloured bytes.Buffer
		c := changes.Change{Kind: k, Detail: "\x1b]0;title\a\u202e"}
		for _, w := range []*changeWriter{{w: &plain}, {w: &coloured, colour: true}} {
			if err := w.write(c); err != nil {
				t.Fatal(err)
			}
		}
		if got := plain.String(); !strings.Contains(got, string(k)) || strings.ContainsAny(got, "\x1b\a\u202e") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", k, got)
		}
		if red := strings.Contains(coloured.String(), "\x1b[31m"); red != k.Lost() || strings.Count(coloured.String(), "\x1b") != 2 {
			t.Errorf("%s: %q", k, coloured.String())
		}
	}
}
