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

// indexFile and layoutFile are what makes a directory a repository.
const (
	indexFile  = "index.json"
	layoutFile = "oci-layout"
)

// Visit is one directory below the root: a repository, a namespace of
// repositories, both, or one that was not entered.
type Visit struct {
	// Dir is the path relative to the root, "." for the root itself.
	Dir string
	// Name is the repository name, whether or not there is a repository; empty
	// for the root and where Refused is set.
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
// children ("a", "a/b", "a-b"). It enters neither "blobs" nor names that begin
// with '_' or '.', and no symlink at all: zot's own walk does not follow them,
// one that leads out would escape the root, and one that stays in would show
// each image twice, or for ever.
//
// It returns visit's first error, ctx's, or the error of the root itself, which
// visit has seen as well. A directory that disappears meanwhile is gone, not an
// error; the root is the exception.
func (r *Root) Walk(ctx context.Context, visit func(Visit) error) error {
	err := r.current()
	var list []fs.DirEntry
	if err == nil {
		list, err = r.list(".")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("list storage root: %w", err), visit(Visit{Dir: ".", Err: err}))
	}
	if err := visit(Visit{Dir: "."}); err != nil {
		return err
	}
	return r.walk(ctx, "", list, visit)
}

// walk visits the directories in list, the entries of dir.
func (r *Root) walk(ctx context.Context, dir string, list []fs.DirEntry, visit func(Visit) error) error {
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := Visit{Dir: dir + e.Name()}
		if e.Name() == reservedElement && e.IsDir() && !isLayout(list) && r.leadsToPrefix(v.Dir) && r.holdsMore(v.Dir) {
			v.Refused = RefusedReserved // somebody may have meant repositories
			if err := visit(v); err != nil {
				return err
			}
			continue
		}
		switch symlink := e.Type()&fs.ModeSymlink != 0; {
		case hidden(e.Name()) || !symlink && !e.IsDir() || !r.leadsToPrefix(v.Dir):
			continue
		case symlink:
			if !r.toDirectory(v.Dir) {
				continue
			}
			v.Refused = RefusedSymlink
		case !ValidName(v.Dir):
			v.Refused = RefusedName
		}
		if err := r.enter(ctx, v, visit); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) enter(ctx context.Context, v Visit, visit func(Visit) error) error {
	if v.Refused != "" {
		return visit(v)
	}
	v.Name = v.Dir
	list, err := r.list(v.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	v.Err = err
	v.IsRepository = err == nil && r.serves(v.Name) && has(list, indexFile) && has(list, layoutFile)
	if err := visit(v); err != nil {
		return err
	}
	return r.walk(ctx, v.Dir+"/", list, visit)
}

// list returns the entries of a directory, by name. A part of them would look
// like the rest being gone, so that an error returns none.
func (r *Root) list(dir string) ([]fs.DirEntry, error) {
	opened, err := openDir(r.root, dir)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	f, err := outOfRoot(opened)
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

// outOfRoot is the same open directory without package os's knowledge that it comes
// from a Root: ReadDir would stat each entry, whose types are all that is looked at
// here, for most of what a walk costs.
func outOfRoot(dir *os.File) (*os.File, error) {
	conn, err := dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := conn.Control(func(at uintptr) { fd, err = unix.FcntlInt(at, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(cerr, err); err != nil {
		return nil, &fs.PathError{Op: "dup", Path: dir.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

// isLayout reports whether a directory with these entries is an image layout.
func isLayout(list []fs.DirEntry) bool { return has(list, "index.json") && has(list, "oci-layout") }

// holdsMore reports whether a directory "blobs" has something else in it than the
// directories of digest algorithms.
func (r *Root) holdsMore(dir string) bool {
	list, err := r.list(dir)
	return err == nil && slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		return e.IsDir() && !slices.Contains([]string{"sha256", "sha512", "blake3"}, e.Name()) || e.Name() == "index.json"
	})
}

func hidden(name string) bool {
	return name == reservedElement || name[0] == '_' || name[0] == '.'
}

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
