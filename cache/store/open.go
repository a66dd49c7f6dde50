package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
)

// The private database: opening, making, compacting and setting it aside.

// closeDB closes the database, unless that could wait for ever: then the file
// stays mapped until the process ends, which is soon or costs one file.
func (s *Store) closeDB() error {
	db := s.db
	s.db = nil
	if db == nil || s.abandoned.Swap(false) {
		return nil
	}
	return db.Close()
}

// What the opening mark says.
const (
	markDamaged = "damaged" // met while running; what it was, on the next line
	markAgain   = "again"   // opened once more after an attempt that did not come back
)

// asked is why a cache was made anew that had nothing wrong with it.
const asked = "a rebuild was asked for"

// otherFormat is the format of a private database that another version made: it is
// set aside like a damaged one, and nothing is wrong with it.
type otherFormat uint64

func (f otherFormat) Error() string {
	return fmt.Sprintf("its format is %d, of another version; this program's is %d", uint64(f), privateFormat)
}

func (otherFormat) Is(err error) bool { return err == format.ErrDamaged }

// openPrivate opens the database, or sets it aside and makes another. bbolt
// can panic in a goroutine of its own while it opens a damaged file, which no
// recover catches; so the attempt is marked first. A mark that is found means
// that the last attempt did not come back: the process was killed, or the file
// kills whoever opens it.
func (s *Store) openPrivate() error {
	path := s.privatePath()
	_, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	mark := ""
	if !missing {
		why := asked
		if !s.opts.Anew {
			mark, why, err = s.lastAttempt()
		}
		if s.opts.Anew = false; err != nil { // once
			return fmt.Errorf("open private cache: %w", err)
		}
		if why != "" {
			level := slog.LevelError
			if why == asked {
				level = slog.LevelInfo
			}
			if err := s.setAside(level, why); err != nil {
				return err
			}
			missing = true
		}
	}
	if missing {
		if err := s.create(); err != nil {
			return err
		}
	}
	// Without its mark an attempt is only less protected: a full disk must
	// not keep the daemon from starting.
	if err := os.WriteFile(s.markerPath(), []byte(mark), 0o600); err != nil {
		s.opts.Log.Warn("cannot mark the opening of the cache", "error", err)
	}
	if err = s.tryOpen(); err == nil && mark != markAgain { // a compaction may be what was too long for somebody
		err = s.compact()
	}
	if errors.Is(err, format.ErrDamaged) {
		level := slog.LevelError
		if other := otherFormat(0); errors.As(err, &other) {
			level = slog.LevelWarn
		}
		if err := s.setAside(level, err.Error()); err != nil {
			return err
		}
		if err = s.create(); err == nil {
			err = s.tryOpen()
		}
	}
	if err != nil {
		err = errors.Join(err, s.closeDB()) // or the next attempt would wait for its lock
	}
	if rmErr := s.removeMark(); rmErr != nil {
		s.opts.Log.Warn("cannot remove the opening mark", "error", rmErr)
	}
	return err
}

// removeMark removes the mark, durably: one that a power cut brought back would
// blame a database that has been in use since.
func (s *Store) removeMark() error {
	if err := os.Remove(s.markerPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return format.SyncDir(filepath.Dir(s.markerPath()))
}

// lastAttempt reads the mark of an attempt that did not come back: why the
// file is to be set aside, or what to mark the next attempt with. One attempt
// may have been killed, so the file is read before it is given up; it is read
// without bbolt's writer, whose goroutines cannot be guarded.
func (s *Store) lastAttempt() (mark, why string, err error) {
	b, err := os.ReadFile(s.markerPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", "", nil
	case err != nil:
		return "", "", err
	case bytes.HasPrefix(b, []byte(markDamaged)):
		return "", cmp.Or(string(bytes.TrimPrefix(b, []byte(markDamaged+"\n"))), "damage was met while it was in use"), nil
	case string(b) == markAgain:
		return "", "two attempts to open it did not finish", nil
	}
	var c CheckReport
	f, err := format.OpenFile(s.privatePath())
	if errors.Is(err, format.ErrDamaged) {
		return "", err.Error(), nil
	}
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	if c.checkOpen(context.Background(), f, privateBuckets, &c.Private); !c.OK() {
		return "", "the last attempt to open it did not finish: " + c.Problems[0], nil
	}
	return markAgain, "", nil
}

// tryOpen opens and reads what every later operation relies on. Any failure
// that is not the operating system's is ErrDamaged.
func (s *Store) tryOpen() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic while opening: %v", format.ErrDamaged, p)
		}
		if err != nil && s.db != nil {
			_ = s.closeDB() // the file is about to be set aside
		}
	}()
	sound, err := format.OpenFile(s.privatePath()) // what bbolt's writer would die of is found first
	if err != nil {
		return err
	}
	sound.Close()
	db, err := bbolt.Open(s.privatePath(), 0o600, &bbolt.Options{
		Timeout:         2 * time.Second,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 256 << 20, // reserves addresses, not space: fewer remaps, which wait for readers
	})
	if err != nil {
		return format.OpenError(s.privatePath(), err)
	}
	db.AllocSize = int(s.opts.compactAbove) // it grows by what is not worth to be given back
	s.db = db
	return db.View(func(tx *bbolt.Tx) error {
		for _, name := range privateBuckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: bucket %s is missing", format.ErrDamaged, name)
			}
		}
		if f := getMeta(tx, metaFormat); f != privateFormat {
			return otherFormat(f)
		}
		return s.readTrustState(tx)
	})
}

// compactAbove is the size below which compaction is not worth it.
const compactAbove = 16 << 20

// compact rewrites the database when more than half of it is free: copy,
// fsync, rename. It is done at start, when nobody waits for a transaction.
func (s *Store) compact() error {
	path := s.privatePath()
	fi, err := os.Stat(path)
	if err != nil || fi.Size() < s.opts.compactAbove {
		return err
	}
	if free := int64(s.db.Stats().FreePageN) * int64(s.db.Info().PageSize); free < fi.Size()/2 {
		return nil
	}
	start := time.Now()
	tmp := path + ".new"
	if err := s.compactTo(tmp); err != nil {
		// A full disk must not keep the daemon from starting.
		s.opts.Log.Warn("cannot compact the private cache", "error", err)
		return nil
	}
	if err := s.closeDB(); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(tmp, path), format.SyncDir(filepath.Dir(path))); err != nil {
		s.opts.Log.Warn("cannot put the compacted private cache in its place", "error", err) // either is whole
	} else if after, err := os.Stat(path); err == nil {
		s.opts.Log.Info("private cache compacted", "from", fi.Size(), "to", after.Size(), "took", time.Since(start))
	}
	return s.tryOpen()
}

// compactTo writes a compacted copy, durably, or leaves nothing.
func (s *Store) compactTo(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dst, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, Timeout: time.Second})
	if err == nil {
		err = bbolt.Compact(dst, s.db, 16<<20)
		err = errors.Join(err, dst.Sync(), dst.Close())
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// create makes the database under another name first: a power failure during
// bbolt's first initialisation would leave a file that never opens again.
func (s *Store) create() error {
	path := s.privatePath()
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create private cache: %w", err)
	}
	db, err := bbolt.Open(tmp, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("create private cache: %w", err)
	}
	id, err := newID()
	if err != nil {
		return errors.Join(fmt.Errorf("create private cache: %w", err), db.Close())
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range privateBuckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			putMeta(tx, metaFormat, privateFormat),
			putMeta(tx, metaID, id),
			putMeta(tx, metaSequence, 1),
			putMeta(tx, metaFull, 1),
		)
	})
	err = errors.Join(err, db.Sync(), db.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = format.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("create private cache: %w", err)
	}
	return nil
}

func newID() (uint64, error) {
	var id [8]byte
	_, err := rand.Read(id[:])
	return binary.BigEndian.Uint64(id[:]), err
}

// setAside moves the database away, keeping one damaged copy for a look.
func (s *Store) setAside(level slog.Level, why string) error {
	s.rebuilt = why
	path := s.privatePath()
	if err := os.Rename(path, path+".damaged"); err != nil {
		return fmt.Errorf("set damaged cache aside: %w", err)
	}
	s.opts.Log.Log(context.Background(), level, "private cache set aside; it is rebuilt", "reason", why, "kept", path+".damaged")
	return nil
}

// MarkDamaged makes the next Open set the private store aside. It is for
// damage that is met while running: close, then open again. why is what was met.
func (s *Store) MarkDamaged(why error) error {
	return os.WriteFile(s.markerPath(), fmt.Appendf(nil, "%s\n%.500s", markDamaged, why.Error()), 0o600)
}

// view runs fn in a read transaction with damage turned into ErrDamaged.
func (s *Store) view(fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.abandon(&err)
	return s.db.View(fn)
}

// update runs fn in a write transaction. One whose last fsync failed may be in
// the file and visible all the same: how much is tracked is read anew, and so is the
// trust generation. s.write is held, or nobody else has the store yet.
func (s *Store) update(fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.abandon(&err)
	do := fn
	if s.failUpdate != nil {
		do = func(tx *bbolt.Tx) error { return cmp.Or(fn(tx), s.failUpdate()) }
	}
	if s.opts.InTransaction != nil {
		inner := do
		do = func(tx *bbolt.Tx) error { s.opts.InTransaction(); return inner(tx) }
	}
	if err = s.db.Update(do); err != nil {
		err = errors.Join(err, s.db.View(func(tx *bbolt.Tx) error {
			n, err := countTracked(tx)
			s.pub.tracked.Store(n)
			s.trustGeneration.Store(getMeta(tx, metaTrust))
			return err
		}))
	}
	return err
}

// abandon is format.Guard for the private database.
func (s *Store) abandon(err *error) {
	if p := recover(); p != nil {
		s.abandoned.Store(true)
		*err = format.Damage(p)
	}
}
