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

// stamp is what a look compares: of a repository its index.json, of a directory
// that only leads to some the directory itself.
type stamp struct {
	modified, size int64
	missing        bool
}

func stampOf(dir, name string) stamp {
	if name != "" {
		dir = filepath.Join(dir, "index.json")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return stamp{missing: true}
	}
	return stamp{modified: info.ModTime().UnixNano(), size: info.Size()}
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

// look has a turn over what is unwatched and calls changed for each directory
// whose stamp is another one than at the last look, or is known for the first
// time: what happened there since the walk that found it gave no event.
func (u *unwatched) look(want map[string]string, changed func(name string, first bool)) {
	end := time.Now().Add(lookTime)
	for range min(looksAtOnce, len(u.order)) {
		dir := u.order[u.at]
		u.at = (u.at + 1) % len(u.order)
		is := stampOf(dir, want[dir])
		if was, ok := u.seen[dir]; !ok || was != is {
			u.seen[dir] = is
			changed(want[dir], !ok)
		}
		if time.Now().After(end) {
			return
		}
	}
}
