package watcher

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// maxDepth of directories below a trust directory. The deepest that is in use
	// is truststore/x509/<type>/<name>, four levels. Many more are a mistake or a
	// mount loop, which must not be followed down to the path limit.
	maxDepth = 16
	// maxLinks on the way to a trust directory: as in Linux's path resolution.
	maxLinks = 40
)

// place is a directory to watch. If whole, everything in it concerns us;
// otherwise it lies on the way to a trust directory and only names do.
type place struct {
	path string // absolute, without symbolic links when it was looked at
	identity
	whole bool
	names map[string]bool
}

// survey is which directories there are to watch, as found by one pass over
// the disk. It is immutable once built and never describes a single moment:
// watches on its places, and then another pass, make up for that.
type survey struct {
	places []*place // those found first come first: ways, then trees, breadth first
	byPath map[string]*place
	// reason says why events from these places would not suffice; the first
	// one found, "" if none.
	reason string
	// opaque: some events come under names that are not in this survey.
	opaque bool

	stop string
	max  int
	full bool // max is reached
}

// surveyTrees finds the directories below each of dirs, and those on the way
// there from stop (from "/" if empty), so that the appearance, removal or
// exchange of any link of that chain is an event too.
func surveyTrees(dirs []string, stop string, maxDirs int) *survey {
	s := &survey{byPath: map[string]*place{}, max: maxDirs}
	if stop != "" {
		// Unresolvable means that it is absent: then watch further up.
		s.stop, _ = filepath.EvalSymlinks(stop)
	}
	var roots []string
	for _, dir := range dirs {
		if root, ok := s.approach(dir); ok {
			roots = append(roots, root)
		}
	}
	for _, root := range roots {
		s.descend(root)
	}
	return s
}

// approach walks from "/" to dir as the kernel would, and notes every
// directory in which a name of that walk is looked up. It returns the
// directory that is reached, or false if something on the way is missing.
func (s *survey) approach(dir string) (string, bool) {
	at, links := "/", 0
	rest := strings.Split(dir, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = filepath.Dir(at) // at holds no links: this is its real parent
			continue
		}
		s.onTheWay(at, name)
		next := filepath.Join(at, name)
		fi, err := os.Lstat(next)
		switch {
		case err != nil:
			// Missing is fine, as long as at tells when that changes.
			s.needEvents(at)
			if !errors.Is(err, fs.ErrNotExist) {
				s.fail("cannot look up %s: %v", next, bare(err))
			}
			return "", false
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return "", false
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case fi.IsDir():
			at = next
		default:
			return "", false // a file in its place; at reports when that changes
		}
	}
	return at, true
}

// descend adds root and all directories below it, breadth first, so that a
// limit leaves out the deepest. Symbolic links are not followed: one that
// leads elsewhere inside the tree (Kubernetes' ..data) leads to a directory
// that is found by itself, and one that leads out is refused by the loader.
func (s *survey) descend(root string) {
	type item struct {
		path  string
		depth int
	}
	for queue := []item{{root, 0}}; len(queue) > 0 && !s.full; queue = queue[1:] {
		it := queue[0]
		p, ok := s.add(it.path)
		if !ok || p.whole {
			continue
		}
		p.whole = true
		s.needEvents(it.path)
		names, err := subdirectories(it.path, s.max+1)
		if err != nil && !gone(err) {
			s.fail("cannot list %s: %v", it.path, bare(err))
		}
		if it.depth == maxDepth && len(names) > 0 {
			s.fail("directories below %s are deeper than %d levels", root, maxDepth)
			continue
		}
		for _, name := range names {
			queue = append(queue, item{filepath.Join(it.path, name), it.depth + 1})
		}
	}
}

func (s *survey) onTheWay(dir, name string) {
	if s.stop != "" && dir != s.stop && within(s.stop, dir) {
		return // above it
	}
	if p, ok := s.add(dir); ok {
		p.names[name] = true
	}
}

// add notes dir and returns its place, unless it is no directory any more or
// the limit is reached.
func (s *survey) add(dir string) (*place, bool) {
	if p, ok := s.byPath[dir]; ok {
		return p, true
	}
	id, err := identify(dir, os.Lstat)
	if err != nil {
		return nil, false // replaced since it was listed: its parent's watch tells
	}
	if len(s.places) >= s.max {
		s.full = true
		s.fail("more than %d directories", s.max)
		return nil, false
	}
	p := &place{path: dir, identity: id, names: map[string]bool{}}
	s.places = append(s.places, p)
	s.byPath[dir] = p
	return p, true
}

func (s *survey) needEvents(dir string) {
	if kind := eventless(dir); kind != "" {
		s.fail("%s is on %s, which does not report all changes", dir, kind)
	}
}

func (s *survey) fail(format string, args ...any) {
	if s.reason == "" {
		s.reason = fmt.Sprintf(format, args...)
	}
}

// concerns says whether an event for path can mean a change to what is
// watched. In doubt it does. Without it, a busy directory above a trust
// directory (a registry's root, /tmp) would cause a notice with every file.
func (s *survey) concerns(path string) bool {
	if s.opaque {
		return true
	}
	path = filepath.Clean(path) // fsnotify reports "//tmp" for tmp in /
	if _, ok := s.byPath[path]; ok {
		return true
	}
	p, ok := s.byPath[filepath.Dir(path)]
	return !ok || p.whole || p.names[filepath.Base(path)]
}

// widens says whether events concern s that did not concern before, in places
// that both have.
func (s *survey) widens(before *survey) bool {
	if before == nil || before.opaque {
		return false // all did
	}
	if s.opaque {
		return true
	}
	for path, p := range s.byPath {
		was, ok := before.byPath[path]
		if !ok || was.whole {
			continue
		}
		if p.whole {
			return true
		}
		for name := range p.names {
			if !was.names[name] {
				return true
			}
		}
	}
	return false
}

// subdirectories lists the directories in dir, in order; about most of them
// if there are more. It opens a directory or nothing: a FIFO put in its place must
// not make it wait.
func subdirectories(dir string, most int) ([]string, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|directoryOnly, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for len(names) < most {
		entries, err := f.ReadDir(1024) // in pieces: a directory of a million keys is not held in memory
		for _, e := range entries {
			// lost+found belongs to fsck and is readable by root only: it
			// would make every trust directory that is a mount point poll.
			if e.IsDir() && e.Name() != "lost+found" {
				names = append(names, e.Name())
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return names, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// gone reports errors that mean that a directory was removed or replaced while
// it was looked at, of which an event tells.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// bare strips operation and path, which the caller's sentence has already.
func bare(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
