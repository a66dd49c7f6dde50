package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"trust-worker/cache/internal/format"
)

// CheckReport is what Check found.
type CheckReport struct {
	State      string
	Generation string   `json:",omitempty"`
	Published  int      // values read in published files
	Private    int      // values read in the private store; 0 when skipped
	Skipped    string   `json:",omitempty"` // why the private store was not read
	Problems   []string // empty: everything is sound
}

// OK reports whether nothing is damaged.
func (c *CheckReport) OK() bool { return len(c.Problems) == 0 }

func (c *CheckReport) problem(format string, args ...any) {
	const enough = 100 // of one page's values
	if len(c.Problems) < enough {
		c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
	}
}

// Check reads every value of what is published in a state directory and, when
// no daemon holds it, of the private store. It changes nothing. The error is
// for a state directory that cannot be read at all.
func Check(ctx context.Context, state string) (*CheckReport, error) {
	c := &CheckReport{State: state, Problems: []string{}}
	if _, err := os.Stat(state); err != nil {
		return nil, fmt.Errorf("check cache: %w", err)
	}
	dir := filepath.Join(state, format.PublishedDir)
	switch _, cur, err := format.ReadCurrent(dir); {
	case errors.Is(err, format.ErrNoCache):
		c.problem("nothing is published: answers read unknown/no-cache")
	case err != nil:
		c.problem("%v", err)
	default:
		c.Generation = fmt.Sprintf("%016x-%d", cur.ID, cur.Generation)
		if _, f, err := format.OpenTrust(cur.TrustPath(dir)); err != nil {
			c.problem("%v", err)
		} else {
			_ = f.Close() // it was read only
		}
		for _, name := range cur.Names() {
			c.checkFile(ctx, filepath.Join(dir, name), format.PublishedBuckets, &c.Published)
		}
	}
	if err := c.checkPrivate(ctx, state); err != nil {
		return nil, err
	}
	return c, ctx.Err()
}

// checkPrivate reads the private store under the state's lock.
func (c *CheckReport) checkPrivate(ctx context.Context, state string) error {
	if _, err := os.Lstat(filepath.Join(state, format.ReplicaName)); err == nil {
		c.Skipped = "a replica has no private store"
		return nil
	}
	lock, err := os.Open(filepath.Join(state, format.LockName))
	if errors.Is(err, fs.ErrNotExist) {
		c.Skipped = "there is no private store"
		return nil
	}
	if err != nil {
		return fmt.Errorf("check cache: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		c.Skipped = fmt.Sprintf("the daemon with pid %d has the private store open; only the published files were checked", format.Holder(state))
		return nil
	}
	c.checkFile(ctx, filepath.Join(state, format.PrivateDir, "cache.db"), privateBuckets, &c.Private)
	return nil
}

// checkFile reads every value by its frame.
func (c *CheckReport) checkFile(ctx context.Context, path string, buckets [][]byte, count *int) {
	f, err := format.OpenFile(path)
	if err != nil {
		c.problem("%s: %v", path, err)
		return
	}
	defer f.Close()
	c.checkOpen(ctx, f, buckets, count)
}

func (c *CheckReport) checkOpen(ctx context.Context, f *format.File, buckets [][]byte, count *int) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	path := f.Name
	var err error
	func() {
		defer format.RecoverDamage(&err)
		err = f.DB.View(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				b := tx.Bucket(name)
				if b == nil {
					c.problem("%s: bucket %s is missing", path, name)
					continue
				}
				if err := b.ForEach(func(k, v []byte) error {
					*count++
					if string(name) == string(privChanged) {
						return ctx.Err()
					}
					if _, _, err := format.Unseal(k, v); err != nil {
						c.problem("%s: bucket %s: %v", path, name, err)
					}
					return ctx.Err()
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	if err != nil && ctx.Err() == nil {
		c.problem("%s: %v", path, err)
	}
}
