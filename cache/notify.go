package cache

import (
	"os"
	"path/filepath"
	"time"
)

// OnPublish has fn called after each Publish with a time: whatever was committed
// before it can be read. Set it before Run; fn must not wait for the store.
func (s *Store) OnPublish(fn func(asOf time.Time)) { s.pub.onPublish = fn }

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
	return sum(privateDir), sum(publishedDir)
}
