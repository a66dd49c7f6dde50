package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Visit is one directory below the root: a repository, a namespace of
// repositories, both, or one that was not entered.
type Visit struct {
	// Dir is the path relative to the root, "." for the root itself.
	Dir string
	// Name is the repository name, whether or not there is a repository; empty
	// for the root, for what is above all repositories, and where Refused is set.
	Name         string
	IsRepository bool
	// Refused says why the directory was not entered: it is a symlink, or its
	// name cannot be part of a repository name. Nothing below it exists as far
	// as answers go.
	Refused string
	// Err says why the directory could not be listed. What is below it is
	// unknown, not gone.
	Err error
}

// What Visit.Refused says.
const (
	RefusedSymlink = "symlink"
	RefusedName    = "not a repository name"
	// RefusedReserved is of a directory "blobs" outside an image layout, with
	// more in it than blobs.
	RefusedReserved = "reserved name"
)

// Walk calls visit for the root and for every directory below it that is or may
// come to hold a repository, in lexical order of path components, parents before
// children ("a", "a/b", "a-b"). It enters no names that begin with '_' or '.', in image
// layouts no "blobs", and no symlink at all: zot's own walk does not follow them,
// one that leads out would escape the root, and one that stays in would show
// each image twice, or for ever.
//
// It returns visit's first error, ctx's, or the error of the root itself, which
// visit has seen as well. A directory that disappears meanwhile is gone, not an
// error; the root is the exception.
func (r *Root) Walk(ctx context.Context, visit func(Visit) error) error {
	err := r.recognise(ctx)
	if err == nil {
		err = r.current()
	}
	if err != nil {
		return unlisted(err, visit)
	}
	return r.form().walk(ctx, visit)
}

// unlisted tells visit of the error of a root, and returns it.
func unlisted(err error, visit func(Visit) error) error {
	return errors.Join(fmt.Errorf("list storage root: %w", err), visit(Visit{Dir: ".", Err: err}))
}

// walker visits directories of repositories.
type walker struct {
	root  *Root
	base  string // before the names of repositories in paths: "" or a path with a slash at its end
	is    func([]fs.DirEntry) bool
	skip  func(dir string, list []fs.DirEntry, e fs.DirEntry) (refused string, skip bool)
	visit func(Visit) error
}

// below visits the directories in list, the entries of dir: "", or a name and a slash.
func (w *walker) below(ctx context.Context, dir string, list []fs.DirEntry) error {
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := dir + e.Name()
		symlink := e.Type()&fs.ModeSymlink != 0
		if hidden(e.Name()) || !symlink && !e.IsDir() || !w.root.leadsToPrefix(name) {
			continue
		}
		v := Visit{Dir: w.base + name}
		refused, skip := w.skip(w.base+dir, list, e)
		switch v.Refused = refused; {
		case skip:
			continue
		case refused != "":
		case symlink:
			if !w.root.toDirectory(v.Dir) {
				continue
			}
			v.Refused = RefusedSymlink
		case !ValidName(name):
			v.Refused = RefusedName
		}
		if err := w.enter(ctx, name, v); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) enter(ctx context.Context, name string, v Visit) error {
	if v.Refused != "" {
		return w.visit(v)
	}
	v.Name = name
	list, err := w.root.list(v.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	v.Err = err
	v.IsRepository = err == nil && w.root.serves(name) && w.is(list)
	if err := w.visit(v); err != nil {
		return err
	}
	return w.below(ctx, name+"/", list)
}

// list returns the entries of a directory, by name, and follows no symlink to it. A part of
// them would look like the rest being gone, so that an error returns none.
func (r *Root) list(dir string) ([]fs.DirEntry, error) {
	f, err := openDirBelow(r.file, dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// openDirBelow opens a directory below another one, through no symlink, and does not wait
// for the writer of a FIFO that is in its place. It is no os.Root's: of those, ReadDir would
// stat each entry, whose types are all that is looked at here, for most of what a walk costs.
func openDirBelow(dir *os.File, path string) (*os.File, error) {
	fd, err := openBelow(dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func hidden(name string) bool { return name[0] == '_' || name[0] == '.' }

func has(sorted []fs.DirEntry, name string) bool {
	_, ok := slices.BinarySearchFunc(sorted, name, func(e fs.DirEntry, name string) int {
		return strings.Compare(e.Name(), name)
	})
	return ok
}

// toDirectory reports whether a symlink leads, or may lead, to a directory:
// links to files are nobody's business, those that lead out are never followed
// to see.
func (r *Root) toDirectory(link string) bool {
	fi, err := r.root.Stat(link)
	return err == nil && fi.IsDir() || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// leadsToPrefix reports whether dir is the prefix, above it or below it.
func (r *Root) leadsToPrefix(dir string) bool {
	return r.prefix == "" || strings.HasPrefix(dir+"/", r.prefix+"/") || strings.HasPrefix(r.prefix+"/", dir+"/")
}
