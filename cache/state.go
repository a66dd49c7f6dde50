package cache

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"trust-worker/cache/internal/format"
)

// Alive reports whether a process holds the state directory's lock.
func Alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, format.LockName))
	if err != nil {
		return false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return true
	}
	return false
}

// Sizes are the bytes of a state directory's files: the private store, and what
// is published, superseded files that still wait for their readers included.
func Sizes(state string) (private, published int64) {
	sum := func(dir string) (n int64) {
		entries, err := os.ReadDir(filepath.Join(state, dir))
		if err != nil {
			return 0 // not yet there
		}
		for _, e := range entries {
			if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
				n += fi.Size()
			}
		}
		return n
	}
	return sum(format.PrivateDir), sum(format.PublishedDir)
}
