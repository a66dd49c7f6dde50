package powercut

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// State is what may be found after a power cut.
type State struct {
	After string // the operation before the cut, and how many there were
	How   string // what of the unsynced is there
	Names Names
	Said  string // what the process had said

	root map[string]found // by path, directories before what they hold
}

// found is one name.
type found struct {
	dir     bool
	target  string
	content content
}

func (s *State) String() string {
	return fmt.Sprintf("power cut after %s; names %s; there is %s", s.After, s.Names, s.How)
}

// sector is what a disk writes wholly.
const sector = 512

// keeping decides what of the unsynced is there.
type keeping struct {
	how   string
	names func(n int) func(i int) bool // of n changes, whether the ith is there
	file  func(c *content, pending []Op)
}

func noNames(int) func(int) bool  { return func(int) bool { return false } }
func allNames(int) func(int) bool { return func(int) bool { return true } }
func noData(*content, []Op)       {}
func allData(c *content, pending []Op) {
	for _, o := range pending {
		c.apply(o)
	}
}

// lengths applies the lengths alone: zeros stand where nothing was before.
func lengths(c *content, pending []Op) {
	for _, o := range pending {
		switch o.Kind {
		case Write:
			if end := o.Offset + int64(len(o.Data)); end > c.size {
				c.truncate(end)
			}
		case Truncate:
			c.apply(o)
		}
	}
}

// The extremes: each has been the disk's true behaviour somewhere.
var (
	nothing    = keeping{"nothing that was not synced", noNames, noData}
	everything = keeping{"everything", allNames, allData}
	emptied    = keeping{"every name and no data", allNames, noData}
	zeroed     = keeping{"every name and lengths with zeros", allNames, lengths}
	nameless   = keeping{"all data and no name", noNames, allData}
)

// some keeps what a seeded source says.
func some(names Names, seed uint64) keeping {
	rnd := rand.New(rand.NewPCG(seed, 512))
	k := keeping{how: fmt.Sprintf("some, by seed %d", seed)}
	k.names = func(n int) func(int) bool {
		if names == Ordered {
			upTo := rnd.IntN(n + 1)
			return func(i int) bool { return i < upTo }
		}
		often := rnd.IntN(3) + 1
		return func(int) bool { return rnd.IntN(4) < often }
	}
	k.file = func(c *content, pending []Op) {
		often := rnd.IntN(5) // of 4: none, some, all
		for _, o := range pending {
			if o.Kind != Write {
				if rnd.IntN(4) < often {
					c.apply(o)
				}
				continue
			}
			if rnd.IntN(4) < often { // a length without its data
				if end := o.Offset + int64(len(o.Data)); end > c.size {
					c.truncate(end)
				}
			}
			for at, b := o.Offset, o.Data; len(b) > 0; {
				n := min(int64(len(b)), sector-at%sector)
				if rnd.IntN(4) < often {
					c.apply(Op{Kind: Write, Offset: at, Data: b[:n]})
				}
				at, b = at+n, b[n:]
			}
		}
	}
	return k
}

// cut derives a state. The disk stays as it is.
func (d *disk) cut(k keeping) *State {
	names := map[*inode]map[string]*inode{}
	namesOf := func(dir *inode) map[string]*inode {
		if names[dir] == nil {
			names[dir] = maps.Clone(dir.kept)
		}
		return names[dir]
	}
	keep := k.names(len(d.pending))
	for i, c := range d.pending {
		if keep(i) {
			c.apply(namesOf(c.dir))
		}
	}
	s := &State{How: k.how, Names: d.names, root: map[string]found{}}
	var walk func(path string, dir *inode)
	walk = func(path string, dir *inode) {
		entries := namesOf(dir)
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			n, at := entries[name], filepath.Join(path, name)
			f := found{dir: n.isDir(), target: n.target}
			if !f.dir && !n.isLink() {
				f.content = n.disk
				if len(n.pending) > 0 {
					f.content = n.disk.clone()
					k.file(&f.content, n.pending)
				}
			}
			s.root[at] = f
			if f.dir {
				walk(at, n)
			}
		}
	}
	walk("", d.root)
	return s
}

// sum tells states apart.
func (s *State) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(s.root)) {
		f := s.root[path]
		fmt.Fprintf(h, "%q %t %q %d %d\n", path, f.dir, f.target, f.content.size, f.content.mtime.UnixNano())
		for _, i := range slices.Sorted(maps.Keys(f.content.pages)) {
			fmt.Fprintln(h, i)
			h.Write(f.content.pages[i][:])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Write makes dir, which must not exist, hold the state. A file whose
// modification time was not kept has the present one.
func (s *State) Write(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(s.root)) { // a directory before what it holds
		f, at := s.root[path], filepath.Join(dir, path)
		var err error
		switch {
		case f.dir:
			err = os.Mkdir(at, 0o755)
		case f.target != "":
			err = os.Symlink(f.target, at)
		default:
			err = f.content.writeTo(at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *content) writeTo(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(c.size)
	for i, page := range c.pages {
		if err != nil {
			break
		}
		if b := page[:min(pageSize, c.size-i*pageSize)]; len(bytes.Trim(b, "\x00")) > 0 {
			_, err = f.WriteAt(b, i*pageSize)
		}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && !c.mtime.IsZero() {
		err = os.Chtimes(path, c.mtime, c.mtime)
	}
	return err
}
