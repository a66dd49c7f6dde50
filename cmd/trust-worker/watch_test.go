package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"trust-worker/changes"
	"trust-worker/trust"
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

// On a terminal a change goes on in indented lines, with nothing lost but the
// ends of digests; elsewhere it is one line.
func TestChangeLineFits(t *testing.T) {
	c := changes.Change{
		Time: time.Date(2026, 7, 1, 12, 0, 0, 0, time.Local), Kind: changes.SignatureLost, Repository: "team/app", Tag: "1.0",
		Digest: trust.Digest{0xab}, Tool: trust.Cosign, Signer: trust.Digest{0xcd}, Was: "trusted", State: "untrusted", Reason: trust.SignerRemoved,
	}
	want := `Jul  1 12:00:00  signature-lost     team/app:1.0@sha256:ab0000000000
    cosign key sha256:cd0000000000  was trusted, is untrusted
    (signer-removed)`
	for _, width := range []int{70, 78} /* "cosign" would fit; a phrase is not torn */ {
		if got := changeLine(screen{width: width}, &c); got != want {
			t.Errorf("%d columns:\n%s\nwant:\n%s", width, got, want)
		}
	}
	whole := changeLine(screen{whole: true}, &c)
	if strings.Contains(whole, "\n") || !strings.Contains(whole, c.Signer.String()) || !strings.HasPrefix(whole, c.Time.UTC().Format(time.RFC3339)+"  ") {
		t.Error(whole)
	}
}
