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
// only lead to some, the shallow ones before the deep, then what is inside of repositories,
// in the same order. Watches are few
// (fs.inotify.max_user_watches), and whoever may push under one name can make as
// many directories there as they like: they use up their own share and what the
// others leave.
func shares(want map[string]Dir) []string {
	var roots, others []string
	found := tops{want: want, known: make(map[string]string, len(want))}
	for dir, is := range want {
		if is.Inside || reached(want, dir) && !is.Above {
			others = append(others, dir)
		} else {
			roots = append(roots, dir)
		}
	}
	slices.Sort(roots)
	slices.SortFunc(others, func(a, b string) int {
		rankA, rankB := rank(want[a]), rank(want[b])
		if rankA == 0 && rankB == 0 {
			return strings.Compare(a, b)
		}
		return cmp.Or(cmp.Compare(rankA, rankB), cmp.Compare(depth(a), depth(b)), strings.Compare(a, b))
	})
	return append(roots, fair.Order(others, found.of)...)
}

// rank is which directories of one name come first.
func rank(d Dir) int {
	switch {
	case d.Inside:
		return 2
	case d.Repository == "":
		return 1
	}
	return 0
}

// tops finds for a directory the highest one above it that is wanted, but for
// a root and what is above all of its repositories: that of its top-level name.
type tops struct {
	want  map[string]Dir
	known map[string]string
}

func (t *tops) of(dir string) string {
	top, ok := t.known[dir]
	if !ok {
		top = dir
		parent := filepath.Dir(dir)
		switch {
		case t.want[dir].Inside: // not all that is between is wanted
			for t.want[parent].Inside || !wanted(t.want, parent) && parent != filepath.Dir(parent) {
				parent = filepath.Dir(parent)
			}
			top = t.of(parent)
		case reached(t.want, dir) && reached(t.want, parent) && !t.want[parent].Above:
			top = t.of(parent)
		}
		t.known[dir] = top
	}
	return top
}

// reached says whether dir was found by way of its parent; a root was not.
func reached(want map[string]Dir, dir string) bool {
	parent := filepath.Dir(dir)
	return wanted(want, parent) && parent != dir
}

func wanted(want map[string]Dir, dir string) bool {
	_, ok := want[dir]
	return ok
}

func depth(dir string) int { return strings.Count(dir, "/") }
