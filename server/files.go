package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lookEvery is how often configured files are looked at for a change.
const lookEvery = time.Second

// watchedFile notices that a file was replaced or rewritten.
type watchedFile struct {
	path string
	was  fs.FileInfo
	seen bool
}

func (f *watchedFile) changed() bool {
	if f.path == "" {
		return false
	}
	fi, err := os.Stat(f.path)
	if err != nil {
		changed := !f.seen || f.was != nil
		f.was, f.seen = nil, true
		return changed
	}
	changed := !f.seen || f.was == nil || !os.SameFile(f.was, fi) || !f.was.ModTime().Equal(fi.ModTime()) || f.was.Size() != fi.Size()
	f.was, f.seen = fi, true
	return changed
}

// watchedFiles are files that are read again when one of them changes. They are looked
// at no more often than every second.
type watchedFiles struct {
	files  []watchedFile
	looked time.Time
}

// watchFiles begins to watch files, which the caller then reads. An empty path is none.
func watchFiles(paths ...string) watchedFiles {
	w := watchedFiles{files: make([]watchedFile, len(paths))}
	for i, path := range paths {
		w.files[i].path = path
	}
	w.changed()
	return w
}

// changed reports whether the files are to be read again.
func (w *watchedFiles) changed() (changed bool) {
	if time.Since(w.looked) < lookEvery {
		return false
	}
	w.looked = time.Now()
	for i := range w.files {
		changed = w.files[i].changed() || changed
	}
	return changed
}

// forget makes the next look find a change.
func (w *watchedFiles) forget() {
	for i := range w.files {
		w.files[i].seen = false
	}
}

// temporary begins the names of files that are being written. The trust loader
// never loads names that begin with a dot.
const temporary = ".upload-"

// directory is one trust directory, for changing it. Everything goes through an
// os.Root, so no name and no link leads out of it (H2).
type directory struct {
	path string

	mu    sync.Mutex
	swept map[string]bool // directories whose leftovers have been removed
}

// put stores b as dir/name below the directory. The calls are, in this order:
// mkdir of what is missing on the way, and fsync of every name on it; open(O_EXCL), write, fsync and
// close of a temporary file in the same directory; rename over the name; fsync
// of the directory. A crash between any two leaves the old state or the new
// one, and perhaps a temporary file, which nobody loads (H3).
func (d *directory) put(dir, name string, b []byte) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := makeDurably(d.path); err != nil {
		return err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	at := "."
	for _, element := range strings.Split(dir, "/") {
		if element == "." || element == "" {
			continue
		}
		at = path.Join(at, element)
		if err := root.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Also when it was there: whoever made it may not have synced it.
		if err := syncIn(root, path.Dir(at)); err != nil {
			return err
		}
	}
	d.sweep(root, dir)
	temp := path.Join(dir, temporary+randomHex(8))
	if err := writeSynced(root, temp, b); err != nil {
		_ = root.Remove(temp) // best effort: it is never loaded
		return err
	}
	if err := root.Rename(temp, path.Join(dir, name)); err != nil {
		_ = root.Remove(temp)
		return err
	}
	return syncIn(root, dir)
}

func writeSynced(root *os.Root, name string, b []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// sweep removes what a crash has left, once for each directory: this process is
// the only one that makes such names.
func (d *directory) sweep(root *os.Root, dir string) {
	if d.swept[dir] {
		return
	}
	if d.swept == nil {
		d.swept = map[string]bool{}
	}
	d.swept[dir] = true
	f, err := root.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, temporary) {
			_ = root.Remove(path.Join(dir, name))
		}
	}
}

// read returns a regular file of at most limit bytes.
func (d *directory) read(name string, limit int64) (b []byte, err error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	b, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, err
}

// remove unlinks a file, durably. One that is not there is removed already, but
// perhaps not yet durably.
func (d *directory) remove(name string) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncIn(root, path.Dir(name))
}

func syncIn(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDurably makes a directory and what is missing above it. Also when it was
// there, the name is synced: whoever made it may not have done that.
func makeDurably(dir string) error {
	parent := filepath.Dir(dir)
	fi, err := os.Stat(dir)
	there := err == nil && fi.IsDir()
	if !there {
		if parent != dir {
			if err := makeDurably(parent); err != nil {
				return err
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	f, err := os.Open(parent)
	if there && errors.Is(err, fs.ErrPermission) {
		return nil // it is another's, who may only be passed through
	} else if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
