package trust

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every reason is explained, in docs/statuses.md by the same sentences as here.
func TestExplanationsInTheDocumentation(t *testing.T) {
	b, err := os.ReadFile("../docs/statuses.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(b), "| reason | what happened | what to do |")
	if !ok {
		t.Fatal("the table is not there")
	}
	link := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	documented := map[Reason]Explanation{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.ReplaceAll(link.ReplaceAllString(line, "$1"), "`", ""), " | ")
		if len(cells) == 3 {
			documented[Reason(strings.TrimPrefix(cells[0], "| "))] = Explanation{cells[1], strings.TrimSuffix(strings.TrimSpace(cells[2]), " |")}
		}
	}
	for _, r := range Reasons() {
		if e := r.Explain(); e.What == "" || e.Do == "" || documented[r] != e {
			t.Errorf("%s is explained as %q, documented as %q", r, e, documented[r])
		}
		delete(documented, r)
	}
	for r := range documented {
		t.Errorf("documented reason %s does not exist", r)
	}
	_, list, _ := strings.Cut(string(b), "notes may say ")
	list, _, _ = strings.Cut(list, "|")
	notes := regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(list, -1)
	if len(notes) < 3 {
		t.Errorf("documented notes are %q", notes)
	}
	for _, n := range notes {
		if Note(n[1]).Explain() == "" {
			t.Errorf("the note %s is not explained", n[1])
		}
	}
}
