package scheduler

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"trust-worker/layout"
)

// Storage is one root with the directory that it was opened from.
type Storage struct {
	Root *layout.Root
	Dir  string
	// Prefix is the route of a zot subPath: repositories below it are here
	// and nowhere else. Empty for the main root.
	Prefix string
}

// serving returns the root that a repository is in: the longest route wins. It is nil if
// there is none.
func serving(storage []Storage, name string) *layout.Root {
	var best *Storage
	for i := range storage {
		st := &storage[i]
		prefix := strings.Trim(st.Prefix, "/")
		if prefix != "" && !strings.HasPrefix(name, prefix+"/") {
			continue
		}
		if best == nil || len(prefix) > len(strings.Trim(best.Prefix, "/")) {
			best = st
		}
	}
	if best == nil {
		return nil
	}
	return best.Root
}

func (s *Scheduler) serving(name string) *layout.Root { return serving(s.cfg.Storage, name) }

// OpenRepository opens a repository. The error wraps fs.ErrNotExist when there is none.
func OpenRepository(storage []Storage, name string) (*layout.Repository, error) {
	root := serving(storage, name)
	if root == nil || !layout.ValidName(name) {
		return nil, fmt.Errorf("repository %.300q: %w", name, fs.ErrNotExist)
	}
	p, err := root.Repository(name)
	if errors.Is(err, layout.ErrName) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return p, err
}

func (s *Scheduler) open(name string) (*layout.Repository, error) {
	return OpenRepository(s.cfg.Storage, name)
}
