package truststore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Sizes and patience when reading trust material.
const (
	maxKeyFile    = 64 << 10
	maxCertFile   = 256 << 10
	maxPolicyFile = 1 << 20
	// readAttempts and readDelay bound the wait for a writer to finish with a
	// file; readBudget bounds it for a whole load, so that one busy file
	// cannot hold back the removal of another.
	readAttempts = 5
	readDelay    = 10 * time.Millisecond
	readBudget   = 100 * time.Millisecond
	// swapAttempts is how often a load is begun again because a Kubernetes
	// volume was swapped under it.
	swapAttempts = 5
)

// A fileError is why a file has no content now. final means that waiting does
// not help: what is there is not a key file at all. Others may be in the middle
// of a write, and keep their last good content for [Grace].
type fileError struct {
	reason string
	final  bool
}

func (e *fileError) Error() string { return e.reason }

func refusef(format string, args ...any) *fileError {
	return &fileError{reason: fmt.Sprintf(format, args...), final: true}
}

func unfinishedf(format string, args ...any) *fileError {
	return &fileError{reason: fmt.Sprintf(format, args...)}
}

// errSwapped ends a pass over a directory whose ..data link changed meanwhile.
var errSwapped = errors.New("volume was swapped while it was read")

// tree is one trust directory, opened as its own os.Root: no link leads out.
type tree struct {
	root  *os.Root
	label string            // how messages name it
	links map[string]string // directory → where its ..data pointed in this pass
}

// openTree opens dir, following it if it is a link.
func openTree(dir, label string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &tree{root: root, label: label, links: map[string]string{}}, nil
}

func (t *tree) close() { _ = t.root.Close() }

// item is a name in a directory and the path under which it is to be read.
type item struct{ name, path string }

// list returns the names in a directory that may be material, sorted, and how
// many names are never loaded.
//
// Kubernetes volumes show each file as a link through ..data, which is itself a
// link to a dated directory and is renamed to publish a new set. It is resolved
// once here; everything is read through the dated directory, and check reports
// whether it was still the one in force when all had been read. So a swap gives
// the old set or the new, never some of both (W10).
func (t *tree) list(dir string) (items []item, ignored int, err error) {
	entries, err := t.readDir(dir)
	if err != nil {
		return nil, 0, err
	}
	names := map[string]bool{}
	var data string
	var through []item // links into ..data
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		isLink := e.Type()&fs.ModeSymlink != 0
		if e.Name() == "..data" && isLink {
			target, err := t.root.Readlink(p)
			if err != nil || target != path.Base(target) || target == ".." || target == "." {
				return nil, 0, errSwapped
			}
			t.links[dir], data = target, path.Join(dir, target)
			continue
		}
		if strings.HasPrefix(e.Name(), "..") {
			continue // the dated directories
		}
		if neverLoaded(e.Name()) {
			ignored++
			continue
		}
		if isLink {
			// Listed below, as ..data has it; or gone since a moment ago, and
			// to be listed below if a swap has brought it back.
			target, err := t.root.Readlink(p)
			if err == nil && strings.HasPrefix(target, "..data/") {
				through = append(through, item{e.Name(), p})
				continue
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		names[e.Name()] = true
		items = append(items, item{e.Name(), p})
	}
	if data == "" {
		items = append(items, through...) // no volume: links like any others
	} else {
		entries, err := t.readDir(data)
		if err != nil {
			return nil, 0, errSwapped
		}
		for _, e := range entries {
			switch {
			case names[e.Name()]:
			case neverLoaded(e.Name()):
				ignored++
			default:
				items = append(items, item{e.Name(), path.Join(data, e.Name())})
			}
		}
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return items, ignored, nil
}

// check returns errSwapped when a ..data link no longer points to where it was
// resolved.
func (t *tree) check() error {
	for dir, target := range t.links {
		if now, err := t.root.Readlink(path.Join(dir, "..data")); err != nil || now != target {
			return errSwapped
		}
	}
	return nil
}

func (t *tree) readDir(dir string) ([]fs.DirEntry, error) {
	// Stat first and O_NONBLOCK: opening a FIFO must not wait for a writer.
	f, err := t.root.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// isDir reports whether p is a directory, reached through links or not.
func (t *tree) isDir(p string) bool {
	fi, err := t.root.Stat(p)
	return err == nil && fi.IsDir()
}

// read returns the content of a regular file that was the same before and after.
// The error is a *fileError, fs.ErrNotExist, or ctx's. budget is what is left of
// the load's patience.
func (t *tree) read(ctx context.Context, p string, limit int64, budget *time.Duration) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		b, err := t.readOnce(p, limit)
		if !errors.Is(err, errUnstable) {
			return b, err
		}
		if attempt == readAttempts || *budget < readDelay {
			return nil, unfinishedf("is being written to; it is loaded when the writer has finished")
		}
		*budget -= readDelay
		timer := time.NewTimer(readDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

var errUnstable = errors.New("changed while it was read")

func (t *tree) readOnce(p string, limit int64) ([]byte, error) {
	fi, err := t.root.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, lerr := t.root.Lstat(p); lerr == nil {
			return nil, refusef("is a symbolic link to nothing; remove it or restore its target")
		}
		return nil, fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EIO):
		return nil, unfinishedf("cannot be read (%v); correct its permissions", plain(err))
	case err != nil: // os.Root's refusal of links that lead out, loops
		return nil, refusef("cannot be reached (%v); links must stay inside the directory", plain(err))
	case fi.IsDir():
		return nil, refusef("is a directory; nested directories are not read")
	case !fi.Mode().IsRegular():
		return nil, refusef("is not a regular file (%s)", fi.Mode().Type())
	case fi.Size() > limit:
		return nil, refusef("is larger than %d bytes", limit)
	}
	f, err := t.root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errUnstable // it was there a moment ago; look again
	case err != nil:
		return nil, unfinishedf("cannot be read (%v); correct its permissions", plain(err))
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil || !before.Mode().IsRegular() {
		return nil, errUnstable
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, unfinishedf("cannot be read (%v)", plain(err))
	}
	// By name again: a file renamed over this one is the one to be read.
	after, err := t.root.Stat(p)
	if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() ||
		!before.ModTime().Equal(after.ModTime()) || ctime(before) != ctime(after) || int64(len(b)) != after.Size() {
		return nil, errUnstable
	}
	return b, nil
}

func ctime(fi fs.FileInfo) syscall.Timespec {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ctim
	}
	return syscall.Timespec{}
}

// plain is err without the path, which the message names already.
func plain(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// neverLoaded reports names that are leftovers of editors, package managers and
// unfinished copies: "rm key.pub" must not leave "key.pub~" in force.
func neverLoaded(name string) bool {
	if strings.HasPrefix(name, ".") || strings.Contains(name, ".dpkg-") {
		return true
	}
	for _, suffix := range []string{"~", ".swp", ".swo", ".tmp", ".bak", ".orig", ".rej"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
