package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"trust-worker/trust"
)

const (
	securityPage = "../docs/security.md"
	tableBegins  = "<!-- corpus: made by make generate -->\n"
	tableEnds    = "<!-- corpus: end -->\n"
)

// corpusIDs are all that there have to be.
func corpusIDs() (ids []string) {
	for _, group := range []struct {
		letter string
		n      int
	}{{"S", 21}, {"N", 12}, {"Z", 15}, {"J", 5}, {"X", 1}, {"C", 7}} {
		for i := range group.n {
			ids = append(ids, fmt.Sprint(group.letter, i+1))
		}
	}
	return ids
}

// The table in docs/security.md is what the cases say, all of them; with -update
// it is written.
func TestCorpusInTheDocumentation(t *testing.T) {
	byID := map[string]*corpusCase{}
	for _, c := range corpusCases(t) {
		if byID[c.id] != nil {
			t.Errorf("%s and %s have one id", c.file, byID[c.id].file)
		}
		byID[c.id] = c
	}
	var table strings.Builder
	table.WriteString("| id | what happened, elsewhere | source | outcome here |\n|---|---|---|---|\n")
	for _, id := range corpusIDs() {
		c := byID[id]
		if c == nil {
			t.Errorf("there is no case %s", id)
			continue
		}
		delete(byID, id)
		fmt.Fprintf(&table, "| [%s](../integration/%s/%s) | %s | %s | %s |\n", id, corpusDir, c.file, c.mechanism, c.source, c.outcome())
	}
	for id := range byID {
		t.Errorf("nobody asked for %s", id)
	}
	page, err := os.ReadFile(securityPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	old, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", securityPage)
	}
	if old == table.String() || t.Failed() {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is not what the cases say; run make generate, and look at what changes", securityPage)
	}
	if err := os.WriteFile(securityPage, []byte(before+tableBegins+table.String()+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// outcome is what a case expects, in one line: states and reasons other than
// trusted, answers of HTTP, files refused, and what it says of itself.
func (c *corpusCase) outcome() string {
	if c.inapplicable != "" {
		return "does not apply: " + c.inapplicable
	}
	var states []string
	reasonsOf := map[string][]string{}
	state := func(s, reason string) {
		if !slices.Contains(states, s) {
			states = append(states, s)
		}
		if reason != "" && !slices.Contains(reasonsOf[s], reason) {
			reasonsOf[s] = append(reasonsOf[s], reason)
		}
	}
	var other []string
	add := func(text string) {
		if !slices.Contains(other, text) {
			other = append(other, text)
		}
	}
	for _, line := range c.script {
		switch f := strings.Fields(line); f[0] {
		case "expect":
			// A good signature beside the others does not become their outcome.
			for _, r := range f[3:] {
				state(string(trust.Reason(r).Status()), r)
			}
			if len(f) == 3 && f[2] != "trusted" {
				state(f[2], "")
			}
		case "http":
			if f[1] != "200" {
				add("HTTP " + f[1])
			}
		case "refused":
			add("file refused by name")
		case "nowhere":
			add("secret neither in the state directory nor in any output")
		}
	}
	var parts []string
	for _, s := range states {
		text := "`" + s + "`"
		if rs := reasonsOf[s]; len(rs) > 0 {
			text += " (`" + strings.Join(rs, "`, `") + "`)"
		}
		parts = append(parts, text)
	}
	parts = append(parts, other...)
	if c.note != "" {
		parts = append(parts, c.note)
	}
	return strings.Join(parts, "; ")
}
