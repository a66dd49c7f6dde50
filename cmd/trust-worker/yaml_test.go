package main

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	goccy "github.com/goccy/go-yaml"
	"sigs.k8s.io/yaml"

	"trust-worker/internal/inert"
)

// What is written as YAML is read back as it was, by two readers that know two
// versions of YAML, and nothing in it acts on a terminal.
func TestYAML(t *testing.T) {
	texts := []string{"yes", "no", "on", "y", "~", "null", "Null", "1", "1.0", "0x1f", "1e3", "0o7", "1_000", "2020-01-01", "2020-01-01T00:00:00Z", "- a", "a: b", "#c", "a #c", "'q'", "\"q\"", "a\nb", "a\n", "\ta", "a\t", " a", "a ", "", "\x1b[31m", "\u202e", "\u0085", "\u2028", "\u009b", "\x00", "é", "😀", "{a}", "[a]", "!t", "&a", "*a", "%x", "@x", "`x", "|", "> x", "?", "-", ":", "a:", "true", "False", "=", "<<", ".inf", ".nan", "+1", "-1", "sha256:ab", "CN=x, O=\"y\"", "a\\b", "\x7f", "\ufeff", "-----BEGIN PUBLIC KEY-----\nMFk\n-----END-----\n", "a\r\nb", "---", "...", "- ", "a: b\nc"}
	for _, s := range append(texts, "\U000e0001", "signature: trusted\nimage: x") {
		in := map[string]any{"K": s, "L": []any{s}}
		var b bytes.Buffer
		if err := writeYAML(&b, in); err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		want := map[string]any{"K": string([]rune(s)), "L": []any{string([]rune(s))}}
		for name, read := range map[string]func([]byte, any) error{
			"1.2": func(b []byte, v any) error { return goccy.Unmarshal(b, v) },
			"1.1": func(b []byte, v any) error { return yaml.Unmarshal(b, v) },
		} {
			var got map[string]any
			if err := read(b.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q reads %q as YAML %s (%v):\n%s", s, got, name, err, b.String())
			}
		}
		if i := slices.IndexFunc([]rune(b.String()), func(r rune) bool { return r != '\n' && inert.Text(string(r)) != string(r) }); i >= 0 {
			t.Errorf("%q: character %d acts on a terminal: %q", s, i, b.String())
		}
	}
	type inner struct{ Z, A string }
	var b bytes.Buffer
	if err := writeYAML(&b, struct {
		Z    int
		A    []inner
		None *int
		E    []int
	}{Z: 1, A: []inner{{"z", "a"}, {"1", ""}}, E: []int{}}); err != nil || b.String() != "Z: 1\nA:\n- Z: z\n  A: a\n- Z: \"1\"\n  A: \"\"\nNone: null\nE: []\n" {
		t.Errorf("%v:\n%s", err, b.String())
	}
}
