package server

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"trust-worker/changes"
	"trust-worker/layout"
	"trust-worker/verifier/truststore"
)

// Every route is in docs/http.md, every one under /api/v1 in openapi.json, and
// the kinds of change are those of the package in both.
func TestDocumented(t *testing.T) {
	w := start(t, func(c *Config) {
		c.LookAt = func(string) {}
		c.Previewed.Loader = func(string, string) (*truststore.Loader, error) { return nil, nil }
		c.Gate = Gate{Mode: GateEnforce, Open: func(string) (*layout.Repository, error) { return nil, fs.ErrNotExist }}
	})
	page := string(must[[]byte](t)(os.ReadFile(filepath.Join("..", "docs", "http.md"))))
	var d document
	check(t, json.Unmarshal(openapi, &d))
	var methods struct{ Paths map[string]map[string]any }
	check(t, json.Unmarshal(openapi, &methods))
	wildcard := regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)
	for _, pattern := range w.srv.patterns {
		method, path, _ := strings.Cut(pattern, " ")
		shown := strings.TrimPrefix(wildcard.ReplaceAllString(strings.TrimSuffix(path, "{$}"), ""), pathAPI)
		if !strings.Contains(page, strings.TrimSuffix(shown, "/")) {
			t.Errorf("docs/http.md does not have %s", pattern)
		}
		if rest, ok := strings.CutPrefix(path, pathAPI); ok && rest != "/openapi.json" {
			if _, ok := methods.Paths[wildcard.ReplaceAllString(path, "{$1}")][strings.ToLower(method)]; !ok {
				t.Errorf("openapi.json does not have %s", pattern)
			}
		}
	}
	if n := len(w.srv.patterns); n < 20 {
		t.Errorf("%d routes", n)
	}
	kinds := d.Components.Schemas["Change"].Properties["Kind"].Enum
	for _, k := range changes.Kinds() {
		if inJournal := k != changes.Stale; slices.Contains(kinds, string(k)) != inJournal || inJournal && !strings.Contains(page, "`"+string(k)+"`") {
			t.Errorf("the kind %s is not documented as it is", k)
		}
	}
	line := strings.NewReplacer(w.state, "/var/lib/registry/_trust", w.srv.Addresses()[0].String(), "127.0.0.1:8428").Replace(w.srv.Curl())
	if !strings.Contains(page, line) {
		t.Errorf("http.md does not have the line that is printed at the start: %s", line)
	}
}
