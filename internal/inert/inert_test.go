package inert

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode"
)

func FuzzJSON(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b[31m", "\u202e\u0085\u2028\u009b", "\U000e0001", "é😀", "\x7f", "a\xffb", "\u00a0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b bytes.Buffer
		e := json.NewEncoder(Writer{&b})
		e.SetEscapeHTML(false)
		if err := e.Encode(map[string]string{s: s}); err != nil {
			t.Fatal(err)
		}
		for _, r := range strings.TrimSuffix(b.String(), "\n") {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q has %U", b.String(), r)
			}
		}
		plain, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]string
		if err := errors.Join(json.Unmarshal(b.Bytes(), &got), json.Unmarshal(plain, &want)); err != nil || !maps.Equal(got, want) {
			t.Fatalf("%q reads %q: %v", s, got, err)
		}
	})
}

func TestMessage(t *testing.T) {
	if got := Message("a\x1b[2Jb\nc\u202ed", 100); got != "a·[2Jb\nc·d" {
		t.Errorf("%q", got)
	}
	if got := Message(strings.Repeat("x", 1000), 10); got != "xxxxxxxxxx…" {
		t.Errorf("%q", got)
	}
}
