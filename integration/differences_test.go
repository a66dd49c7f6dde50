package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every rule has one row in docs/differences.md, in the table of its direction,
// and every row there has a rule, or names a test that exists.
func TestDifferencesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	ours, rest, ok1 := strings.Cut(text, "Refused here, accepted there:")
	theirs, others, ok2 := strings.Cut(rest, "\n## ")
	if !ok1 || !ok2 {
		t.Fatal("docs/differences.md has not the two tables of rules")
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\|")
	names := func(table string) (found []string) {
		for _, m := range row.FindAllStringSubmatch(table, -1) {
			found = append(found, m[1])
		}
		return found
	}
	var trusting, refusing []string
	byKeyless := slices.Concat(keylessRules, lenient)
	for _, r := range rules {
		switch r.class {
		case curveHash, prehash, masked:
			trusting = append(trusting, r.name)
		case stricter:
			refusing = append(refusing, r.name)
		default:
			t.Errorf("rule %s has class %q, which is not allowed", r.name, r.class)
		}
	}
	for _, r := range byKeyless {
		refusing = append(refusing, r.name)
	}
	if got := names(ours); !slices.Equal(got, trusting) {
		t.Errorf("trusted here, refused there: rows %v, rules %v", got, trusting)
	}
	if got := names(theirs); !slices.Equal(got, refusing) {
		t.Errorf("refused here, accepted there: rows %v, rules %v", got, refusing)
	}
	tests := testNames(t)
	cell := regexp.MustCompile("`(Test[A-Za-z0-9]+)` \\|$")
	rows := 0
	for _, line := range strings.Split(others, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasSuffix(line, "| test |") {
			continue
		}
		rows++
		if m := cell.FindStringSubmatch(line); m == nil || !tests[m[1]] {
			t.Errorf("a row without a test that exists: %s", line)
		}
	}
	if rows < 5 {
		t.Errorf("only %d rows beside the rules", rows)
	}
}

func testNames(t *testing.T) map[string]bool {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*_test.go", "../*/*_test.go", "../*/*/*_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	names := map[string]bool{}
	fn := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fn.FindAllStringSubmatch(string(b), -1) {
			names[m[1]] = true
		}
	}
	return names
}
