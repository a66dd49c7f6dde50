package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"trust-worker/cache/internal/format"
)

// Whose a state directory is, and whether there is anything in it.

// LockedError is returned by Open when another process holds the state.
type LockedError struct {
	State string
	PID   int // 0 when unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("state directory %s is in use by another trust-worker", e.State)
	}
	return fmt.Sprintf("state directory %s is in use by trust-worker with pid %d; to make it look again use: kill -USR1 %d", e.State, e.PID, e.PID)
}

// Exists reports whether a state directory holds a cache, of this format or one
// that came after it, whatever its condition. Former formats do not count: they
// were made without a trust memory beside them.
func Exists(dir string) bool {
	target, err := os.Readlink(filepath.Join(dir, format.PublishedDir, format.CurrentName))
	if version, _, ok := strings.Cut(target, "."); err == nil && ok {
		n, err := strconv.Atoi(version)
		return err != nil || n >= 2
	}
	for _, name := range []string{"cache.db", "cache.db.damaged"} {
		if _, err := os.Lstat(filepath.Join(dir, format.PrivateDir, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return !errors.Is(err, fs.ErrNotExist)
}
