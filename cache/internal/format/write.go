package format

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// Writing published files: under another name, synced, then renamed. The system calls
// are shown above each function; internal/powercut replays them (TestKillPower).

// WriteFile writes a new file durably: temporary name, fsync, rename. The
// directory is synced with CURRENT. The file is as old as at from the moment on
// that it can be seen, and after a power cut: its time is set before the fsync.
//
//	openat(path.new, O_TRUNC) write utimensat(path.new, at) fsync close renameat(path.new, path)
func WriteFile(path string, b []byte, at time.Time) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = os.Chtimes(tmp, at, at)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// PutFunc takes a key and its value. The value is kept until the file is
// written, and must not alias a transaction's memory: the private database may be
// mapped elsewhere by then.
type PutFunc func(bucket, key, value []byte) error

// WriteDB makes an immutable bbolt file from keys that arrive in order within
// each bucket. The directory is synced with CURRENT.
//
//	unlinkat(path.new) openat(path.new, O_CREAT) ftruncate/pwrite… fdatasync close renameat(path.new, path)
func WriteDB(path string, fill func(PutFunc) error) (err error) {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(tmp, 0o640, &bbolt.Options{NoSync: true, NoFreelistSync: true, NoGrowSync: true, Timeout: time.Second,
		InitialMmapSize: 256 << 20}) // addresses, not space: a mapping that grows copies everything not yet written
	if err != nil {
		_ = os.Remove(tmp) // there may be none; the next start sweeps
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close(), os.Remove(tmp))
		}
	}()
	w := &dbWriter{db: db}
	if err := w.begin(); err != nil {
		return err
	}
	if err := fill(w.put); err != nil {
		return errors.Join(err, w.tx.Rollback())
	}
	if err := w.tx.Commit(); err != nil {
		return err
	}
	if err := db.Sync(); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// dbWriter splits a long fill into transactions, which bbolt keeps in memory.
type dbWriter struct {
	db *bbolt.DB
	tx *bbolt.Tx
	n  int
}

func (w *dbWriter) begin() (err error) {
	w.n = 0
	if w.tx, err = w.db.Begin(true); err != nil {
		return err
	}
	for _, name := range append([][]byte{BucketMeta}, PublishedBuckets...) {
		b, err := w.tx.CreateBucketIfNotExists(name)
		if err != nil {
			return errors.Join(err, w.tx.Rollback())
		}
		b.FillPercent = 0.95 // keys come in order and the file never changes
	}
	return nil
}

// PutSequence notes as of which commit a file is made.
func PutSequence(put PutFunc, seq uint64) error {
	return put(BucketMeta, KeySequence, Seal(KeySequence, Number(seq)))
}

func (w *dbWriter) put(bucket, key, value []byte) error {
	if w.n++; w.n > 20_000 {
		if err := w.tx.Commit(); err != nil {
			return err
		}
		if err := w.begin(); err != nil {
			return err
		}
	}
	return w.tx.Bucket(bucket).Put(key, value)
}

// SyncDir makes the names in a directory durable.
//
//	openat(dir) fsync close
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
