package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trust-worker/internal/inert"
)

var listColumns = []column{{"IMAGE", middle}, {"STATE", keep}, {"SIGNATURES", spare}, {"WHY", end}}

func laidOut(t testing.TB, s screen, columns []column, rows ...[]string) string {
	t.Helper()
	tab := &table{screen: s}
	if columns != nil {
		tab.columns(columns...)
	}
	for _, r := range rows {
		tab.row(append([]string(nil), r...)...)
	}
	var b bytes.Buffer
	if err := tab.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A table takes the room there is: columns are spared, then cut, the widest
// first, and at last all of them.
func TestTableFits(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	rows := [][]string{
		{"team/platform/observability/collector:1.0", "trusted", "1 cosign", "key " + a},
		{"app@" + b, "untrusted", "-", "no-trusted-key"},
	}
	for width, want := range map[int]string{
		0: `
IMAGE                                      STATE      SIGNATURES  WHY
team/platform/observability/collector:1.0  trusted    1 cosign    key sha256:aaaaaaaaaaaa
app@sha256:bbbbbbbbbbbb                    untrusted  -           no-trusted-key
`,
		80: `
IMAGE                             STATE      SIGNATURES  WHY
team/platform/o…ty/collector:1.0  trusted    1 cosign    key sha256:aaaaaaaaaaaa
app@sha256:bbbbbbbbbbbb           untrusted  -           no-trusted-key
`,
		60: `
IMAGE                     STATE      WHY
team/platfo…ollector:1.0  trusted    key sha256:aaaaaaaaaaaa
app@sha256:bbbbbbbbbbbb   untrusted  no-trusted-key
`,
		40: `
IMAGE          STATE      WHY
team/p…or:1.0  trusted    key sha256:aa…
app@sh…bbbbbb  untrusted  no-trusted-key
`,
		20: `
IMAGE  STATE  WHY
te….0  trus…  key s…
ap…bb  untr…  no-tr…
`,
	} {
		if got := "\n" + laidOut(t, screen{width: width}, listColumns, rows...); got != want {
			t.Errorf("%d columns:%swant:%s", width, got, want)
		}
	}
	whole := laidOut(t, screen{whole: true}, listColumns, rows...)
	if !strings.Contains(whole, "key "+a+"\n") || !strings.Contains(whole, "app@"+b+" ") || strings.Contains(whole, ellipsis) {
		t.Errorf("cut: %s", whole)
	}
}

// A record says everything, in as many lines as it takes.
func TestRecordWraps(t *testing.T) {
	got := laidOut(t, screen{width: 30}, nil, []string{"state", "untrusted"},
		[]string{"refused", "_cosign/a.pub: is not a PEM public key"}, []string{"", "averyveryverylongwordthatcannotbebroken"})
	want := `state    untrusted
refused  _cosign/a.pub: is not
         a PEM public key
         averyveryverylongword
         thatcannotbebroken
`
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// Digests are as long as it takes to tell those of a table apart.
func TestDigestsStayDifferent(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	alike := "sha256:" + zeros[:20] + "1" + zeros[21:]
	for other, want := range map[string]string{
		"sha256:" + zeros:            "sha256:" + zeros[:20] + "1",
		"sha256:" + zeros[:63] + "1": "sha256:" + zeros[:20] + "1",
		"sha256:" + "f" + zeros[1:]:  "sha256:" + zeros[:12],
		alike:                        "sha256:" + zeros[:12],
		"sha256:" + zeros[:20]:       "sha256:" + zeros[:12], // no digest
	} {
		got := laidOut(t, screen{}, listColumns, []string{"app@" + alike}, []string{"app", "trusted", "-", "x " + other + ", y"})
		if !strings.Contains(got, "app@"+want+"\n") {
			t.Errorf("beside %s:\n%s", other, got)
		}
	}
}

// Whatever the cells hold, no line is wider than the terminal, there is nothing
// in it that acts, and each row is a line unless it wraps.
func TestTableProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hostile := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("aé日👩\u0301\u200d\x1b[]2J\r\n\t\u202e\u00a0\u2028 :/")), 0, 60, -1))
		width := rapid.IntRange(1, 130).Draw(t, "width")
		columns := listColumns
		if rapid.Bool().Draw(t, "record") {
			columns = record
		}
		rows := rapid.SliceOfN(rapid.SliceOfN(hostile, 1, len(columns)), 1, 6).Draw(t, "rows")
		tab := &table{screen: screen{width: width}}
		tab.columns(columns...)
		for _, r := range rows {
			tab.row(r...)
		}
		var b bytes.Buffer
		if err := tab.write(&b); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, l := range lines {
			l = strings.TrimSuffix(l, "\n")
			if widthOf(l) > width || l != inert.Text(l) {
				t.Fatalf("%d columns: %q", widthOf(l), l)
			}
		}
		if columns[0].head != "" && len(lines) != len(rows)+1 || len(lines) < len(rows) {
			t.Fatalf("%d rows in %d lines", len(rows), len(lines))
		}
	})
}

// Characters of no and of double width are counted as terminals do, and never
// torn apart.
func TestCutByWidth(t *testing.T) {
	const eAcute = "e\u0301"
	for _, c := range []struct {
		in          string
		width       int
		end, middle string
	}{
		{"short", 5, "short", "short"},
		{"longer", 5, "long…", "lo…er"},
		{"日本語です", 10, "日本語です", "日本語です"},
		{"日本語です", 9, "日本語で…", "日本…です"},
		{"日本語です", 8, "日本語…", "日…です"},
		{"日本語です", 2, "…", "…"},
		{strings.Repeat(eAcute, 6), 6, strings.Repeat(eAcute, 6), strings.Repeat(eAcute, 6)},
		{strings.Repeat(eAcute, 6), 3, eAcute + eAcute + "…", eAcute + "…" + eAcute},
		{"longer", 1, "…", "…"},
		{"longer", 0, "", ""},
	} {
		if got := cutEnd(c.in, c.width); got != c.end {
			t.Errorf("end of %q at %d: %q, want %q", c.in, c.width, got, c.end)
		}
		if got := cutMiddle(c.in, c.width); got != c.middle {
			t.Errorf("middle of %q at %d: %q, want %q", c.in, c.width, got, c.middle)
		}
	}
}

// Wrapped text has all its words, in order.
func TestWrapKeepsWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.RuneFrom([]rune("ab日 ")), 0, 80, -1).Draw(t, "text")
		first, rest := rapid.IntRange(2, 30).Draw(t, "first"), rapid.IntRange(2, 30).Draw(t, "rest")
		lines := wrapText(s, first, rest)
		squeeze := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if squeeze(strings.Join(lines, "")) != squeeze(s) {
			t.Fatalf("%q became %q", s, lines)
		}
		for i, l := range lines {
			if limit := map[bool]int{true: first, false: rest}[i == 0]; widthOf(l) > limit {
				t.Fatalf("line %d of at most %d: %q", i, limit, l)
			}
		}
	})
}

// On a terminal times are in words; whole, they are exact and in UTC.
func TestWhen(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	at := now.Add(-72 * time.Hour).In(time.FixedZone("", 3600))
	if got := (screen{now: now}).when(at); got != "3 days ago" {
		t.Error(got)
	}
	if got := (screen{now: now, whole: true}).when(at); got != "2026-06-28T12:00:00Z" {
		t.Error(got)
	}
}
