package format

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

// File is an open published database. It is immutable, so its read
// transactions are kept and reused: beginning one costs more than a look-up.
type File struct {
	Name string
	Info fs.FileInfo // tells it from another that has its name: a backup's
	DB   *bbolt.DB
	Refs int // guarded by Reader.mu

	mu   sync.Mutex
	Idle []*View
}

// View is one read transaction over a file; it serves one goroutine at a time.
type View struct {
	tx      *bbolt.Tx
	Buckets [7]*bbolt.Bucket // in the order of PublishedBuckets
	// unlisted is set when that bucket holds anything: nearly always it does
	// not, and need not be asked.
	unlisted bool
}

// Positions in View.Buckets.
const (
	InImages = iota
	InTags
	InDigests
	InRepositories
	InAuthors
	InUnlisted
	InListings
)

// OpenFile opens a database for reading whose pages lead somewhere.
func OpenFile(path string) (_ *File, err error) {
	defer RecoverDamage(&err)
	info, err := os.Stat(path) // bbolt would make a missing file
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 { // bbolt would make a database of it
		return nil, fmt.Errorf("%w: %s is empty", ErrDamaged, path)
	}
	var file *os.File // bbolt's, which closes it
	open := func(path string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(path, flag, mode)
		return file, err
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second, OpenFile: open})
	if err != nil {
		return nil, OpenError(path, err)
	}
	if err := checkTree(file, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &File{Name: path, Info: info, DB: db}, nil
}

// OpenError tells what the operating system refuses, and a lock that another
// holds, from damage: those may pass, and nothing is set aside for them.
func OpenError(path string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) || errors.Is(err, fs.ErrPermission) || errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return fmt.Errorf("%w: open %s: %w", ErrDamaged, path, err)
}

// Take returns a view. What is taken when damage is met is given back, also when
// bbolt panics at it.
func (f *File) Take() (v *View, err error) {
	f.mu.Lock()
	if n := len(f.Idle); n > 0 {
		v := f.Idle[n-1]
		f.Idle = f.Idle[:n-1]
		f.mu.Unlock()
		return v, nil
	}
	f.mu.Unlock()
	tx, err := f.DB.Begin(false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if v == nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	taken := &View{tx: tx}
	for i, name := range PublishedBuckets {
		if taken.Buckets[i] = tx.Bucket(name); taken.Buckets[i] == nil {
			return nil, fmt.Errorf("%w: %s has no bucket %s", ErrDamaged, f.Name, name)
		}
	}
	first, _ := taken.Buckets[InUnlisted].Cursor().First()
	taken.unlisted = first != nil
	return taken, nil
}

// Give returns a view. The number kept is what was in use at once.
func (f *File) Give(v *View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Idle = append(f.Idle, v)
}

// Close unmaps the file. Nobody holds a view. Closing the last handle on a
// large unlinked file takes long: it is done away from any look-up.
func (f *File) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.Idle {
		v.tx.Rollback() // a read transaction: nothing to lose
	}
	f.Idle = nil
	f.DB.Close() // read-only: nothing to lose
}
