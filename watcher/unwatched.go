package watcher

import (
	"maps"
	"os"
	"path/filepath"
	"time"
)

const (
	// A look at what has no watch ends after so many directories or so much time.
	// Then whatever is left waits for the next look.
	looksAtOnce = 2048
	lookTime    = 50 * time.Millisecond
)

// unwatched is the directories that have no watch. They are looked at in turn,
// in the order in which they would get one.
type unwatched struct {
	order []string
	at    int // in order: where the next look begins
	seen  map[string]stamp
}

// stamp is what a look compares: the directory itself and, of a repository, its
// index.json, or a link that is in it.
type stamp struct {
	dir             int64 // when it was modified; 0: it is missing
	modified, bytes int64 // index.json, or the link
}

func stampOf(dir string, is Dir) (s stamp) {
	if info, err := os.Stat(dir); err == nil {
		s.dir = info.ModTime().UnixNano()
	}
	file := "index.json"
	switch {
	case is.Repository == "":
		return s
	case is.Inside:
		file = "link"
	}
	if info, err := os.Stat(filepath.Join(dir, file)); err == nil {
		s.modified, s.bytes = info.ModTime().UnixNano(), info.Size()
	}
	return s
}

// set replaces the directories. What has been seen of those that stay is kept.
func (u *unwatched) set(order []string) {
	keep := make(map[string]bool, len(order))
	for _, dir := range order {
		keep[dir] = true
	}
	maps.DeleteFunc(u.seen, func(dir string, _ stamp) bool { return !keep[dir] })
	if u.seen == nil {
		u.seen = map[string]stamp{}
	}
	u.order = order
	if u.at >= len(order) {
		u.at = 0
	}
}

// look has a turn over what is unwatched. It calls changed for each repository whose
// index.json is another one than at the last look, or is looked at for the first time:
// what happened there since the walk that found it gave no event. It calls it with no
// name where something else has come or gone: the next walk finds out what.
func (u *unwatched) look(want map[string]Dir, changed func(name string, first bool)) {
	end := time.Now().Add(lookTime)
	for range min(looksAtOnce, len(u.order)) {
		dir := u.order[u.at]
		u.at = (u.at + 1) % len(u.order)
		of := want[dir]
		is := stampOf(dir, of)
		was, known := u.seen[dir]
		u.seen[dir] = is
		switch {
		case of.Repository != "" && (!known || was.modified != is.modified || was.bytes != is.bytes) || of.Inside && was.dir != is.dir:
			changed(of.Repository, !known)
		case known && was.dir != is.dir:
			changed("", false)
		}
		if time.Now().After(end) {
			return
		}
	}
}
