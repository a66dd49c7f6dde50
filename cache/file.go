package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// file is an open published database. It is immutable, so its read
// transactions are kept and reused: beginning one costs more than a look-up.
type file struct {
	name string
	info fs.FileInfo // tells it from another that has its name: a backup's
	db   *bbolt.DB
	refs int // guarded by Reader.mu

	mu   sync.Mutex
	idle []*view
}

// view is one read transaction over a file; it serves one goroutine at a time.
type view struct {
	tx      *bbolt.Tx
	buckets [6]*bbolt.Bucket // in the order of publishedBuckets
	// unlisted is set when that bucket holds anything: nearly always it does
	// not, and need not be asked.
	unlisted bool
}

// Positions in view.buckets.
const (
	inImages = iota
	inTags
	inDigests
	inRepositories
	inAuthors
	inUnlisted
)

func openFile(path string) (_ *file, err error) {
	defer recoverDamage(&err)
	info, err := os.Stat(path) // bbolt would make a missing file
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, openError(path, err)
	}
	return &file{name: path, info: info, db: db}, nil
}

// openError tells what the operating system refuses, and a lock that another
// holds, from damage: those may pass, and nothing is set aside for them.
func openError(path string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) || errors.Is(err, fs.ErrPermission) || errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return fmt.Errorf("%w: open %s: %w", ErrDamaged, path, err)
}

// take returns a view. What is taken when damage is met is given back, also when
// bbolt panics at it.
func (f *file) take() (v *view, err error) {
	f.mu.Lock()
	if n := len(f.idle); n > 0 {
		v := f.idle[n-1]
		f.idle = f.idle[:n-1]
		f.mu.Unlock()
		return v, nil
	}
	f.mu.Unlock()
	tx, err := f.db.Begin(false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if v == nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	taken := &view{tx: tx}
	for i, name := range publishedBuckets {
		if taken.buckets[i] = tx.Bucket(name); taken.buckets[i] == nil {
			return nil, fmt.Errorf("%w: %s has no bucket %s", ErrDamaged, f.name, name)
		}
	}
	first, _ := taken.buckets[inUnlisted].Cursor().First()
	taken.unlisted = first != nil
	return taken, nil
}

// give returns a view. The number kept is what was in use at once.
func (f *file) give(v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, v)
}

// close unmaps the file. Nobody holds a view. Closing the last handle on a
// large unlinked file takes long: it is done away from any look-up.
func (f *file) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.idle {
		v.tx.Rollback() // a read transaction: nothing to lose
	}
	f.idle = nil
	f.db.Close() // read-only: nothing to lose
}
