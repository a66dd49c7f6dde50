package watcher

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"trust-worker/internal/fair"
)

// shares puts the directories that [Repositories.Set] was given in the order in
// which they get watches: the roots, and then one directory of each top-level
// name in turn. Of one name repositories come first, then the directories that
// only lead to some, the shallow ones before the deep. Watches are few
// (fs.inotify.max_user_watches), and whoever may push under one name can make as
// many directories there as they like: they use up their own share and what the
// others leave.
func shares(want map[string]string) []string {
	var roots, others []string
	found := tops{want: want, known: make(map[string]string, len(want))}
	for dir := range want {
		if reached(want, dir) {
			others = append(others, dir)
		} else {
			roots = append(roots, dir)
		}
	}
	slices.Sort(roots)
	slices.SortFunc(others, func(a, b string) int {
		leadsA, leadsB := want[a] == "", want[b] == ""
		switch {
		case leadsA != leadsB && leadsB:
			return -1
		case leadsA != leadsB:
			return 1
		case leadsA:
			return cmp.Or(cmp.Compare(depth(a), depth(b)), strings.Compare(a, b))
		}
		return strings.Compare(a, b)
	})
	return append(roots, fair.Order(others, found.of)...)
}

// tops finds for a directory the highest one above it that is wanted, but for
// the root: that of its top-level name.
type tops struct {
	want  map[string]string
	known map[string]string
}

func (t *tops) of(dir string) string {
	top, ok := t.known[dir]
	if !ok {
		top = dir
		if parent := filepath.Dir(dir); reached(t.want, dir) && reached(t.want, parent) {
			top = t.of(parent)
		}
		t.known[dir] = top
	}
	return top
}

// reached says whether dir was found by way of its parent; a root was not.
func reached(want map[string]string, dir string) bool {
	parent := filepath.Dir(dir)
	_, ok := want[parent]
	return ok && parent != dir
}

func depth(dir string) int { return strings.Count(dir, "/") }
