package watcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever makes many directories below one name uses up the share of that name
// alone; of one name repositories come first.
func TestShares(t *testing.T) {
	want := map[string]Dir{
		"/r": {}, "/s": {},
		"/r/team": {}, "/r/team/app": {Repository: "team/app"}, "/r/team/db": {Repository: "team/db"},
		"/r/lone": {Repository: "lone"},
		"/s/sub":  {Repository: "sub"},
	}
	deep := "/r/evil"
	for i := range 30 {
		want[deep] = Dir{}
		want[fmt.Sprintf("%s/x%02d", deep, i)] = Dir{Repository: fmt.Sprint("evil", i)}
		deep += "/d"
	}
	order := shares(want)
	if len(order) != len(want) {
		t.Fatalf("%d of %d directories: %q", len(order), len(want), order)
	}
	first := []string{
		"/r", "/s",
		"/r/evil/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/x29", "/r/lone", "/r/team/app", "/s/sub",
		"/r/evil/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/x28", "/r/team/db",
		"/r/evil/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/x27", "/r/team",
	}
	if got := order[:len(first)]; !slices.Equal(got, first) {
		t.Errorf("the order begins %q, want %q", got, first)
	}
	if last := order[len(order)-30:]; !slices.IsSortedFunc(last, func(a, b string) int { return len(a) - len(b) }) || strings.Contains(strings.Join(last, " "), "x") {
		t.Errorf("directories that only lead to repositories do not come last, the shallow ones first: %q", last)
	}
}

// What is inside of repositories comes after all that is outside, and uses up the share of
// its top-level name.
func TestSharesInside(t *testing.T) {
	inside := func(name string) Dir { return Dir{Repository: name, Inside: true} }
	want := map[string]Dir{"/": {Above: true}, "/r": {Above: true}, "/r/evil": {Repository: "evil"}, "/r/team": {}, "/r/team/app": {Repository: "team/app"},
		"/r/team/app/_m/tags": inside("team/app"), "/r/team/app/_m/revisions/sha256": inside("team/app"), "/r/team/app/_m/tags/1/current": inside("team/app")}
	for i := range 20 {
		want[fmt.Sprintf("/r/evil/_m/tags/%02d/current", i)] = inside("evil")
	}
	first := []string{"/", "/r", "/r/evil", "/r/team/app", "/r/evil/_m/tags/00/current", "/r/team", "/r/evil/_m/tags/01/current", "/r/team/app/_m/tags",
		"/r/evil/_m/tags/02/current", "/r/team/app/_m/revisions/sha256", "/r/evil/_m/tags/03/current", "/r/team/app/_m/tags/1/current", "/r/evil/_m/tags/04/current"}
	order := shares(want)
	if len(order) != len(want) || !slices.Equal(order[:len(first)], first) {
		t.Errorf("of %d directories the order begins %q, want %q", len(order), order[:len(first)], first)
	}
}

// At the limit of watches a repository that comes late gets its share, from
// whoever has more; what is left without a watch is looked at in turn.
func TestRepositoriesShareWatches(t *testing.T) {
	s := newStorage(t, Options{}, "evil/a", "evil/b", "evil/c", "evil/d")
	s.p.limit = 4
	s.bubble(func() {
		s.expect(10*ms, Hint{Watched: []string{"evil/d"}})
		s.create("team/app")
		s.repos.Set(s.walk())
		s.expect(20*ms, Hint{Watched: []string{"team/app"}})
		if got, want := s.watched(), []string{s.root, s.root + "/evil/a", s.root + "/evil/b", s.root + "/team/app"}; !slices.Equal(got, want) {
			t.Errorf("watched %q, want %q", got, want)
		}
		s.expect(2*time.Second+10*ms, Hint{Watched: []string{"evil/c"}}) // looked at for the first time
		s.push("evil/d", `{"schemaVersion":2}`)
		s.expect(4*time.Second+10*ms, Hint{Names: []string{"evil/d"}})
		s.create("evil/e")
		s.expect(6*time.Second+10*ms, Hint{Walk: true})
		s.create("evil/d/inside") // a repository in one
		s.expect(8*time.Second+10*ms, Hint{Walk: true})
		s.silent(50 * time.Second)
	})
}
