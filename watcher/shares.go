package watcher

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// shares puts the directories that [Repositories.Set] was given in the order in
// which they get watches: the roots, and then one directory of each top-level
// name in turn. Of one name repositories come first, then the directories that
// only lead to some, the shallow ones before the deep. Watches are few
// (fs.inotify.max_user_watches), and whoever may push under one name can make as
// many directories there as they like: they use up their own share and what the
// others leave.
func shares(want map[string]string) []string {
	var order []string
	queues := map[string][]string{}
	found := tops{want: want, known: make(map[string]string, len(want))}
	for dir := range want {
		if !reached(want, dir) {
			order = append(order, dir)
			continue
		}
		top := found.of(dir)
		queues[top] = append(queues[top], dir)
	}
	slices.Sort(order)
	turn := slices.Sorted(maps.Keys(queues))
	for _, top := range turn {
		slices.SortFunc(queues[top], func(a, b string) int {
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
	}
	for len(turn) > 0 {
		left := turn[:0]
		for _, top := range turn {
			q := queues[top]
			order = append(order, q[0])
			if queues[top] = q[1:]; len(q) > 1 {
				left = append(left, top)
			}
		}
		turn = left
	}
	return order
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
