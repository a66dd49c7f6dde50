package powercut

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names says what the model takes for granted of changes of names.
type Names int

const (
	Ordered   Names = iota // they reach the disk in the order of the calls (G5)
	Unordered              // any subset of those not synced may be there
)

func (n Names) String() string { return []string{"ordered", "unordered"}[n] }

// inode is a file, a directory or a link.
type inode struct {
	target string // of a link

	// Of a directory: what a process sees, and what is surely on disk.
	now, kept map[string]*inode

	// Of a file: what is surely on disk, what was done since, and the length
	// that a process sees.
	disk    content
	pending []Op
	size    int64
}

func (n *inode) isDir() bool  { return n.now != nil }
func (n *inode) isLink() bool { return n.target != "" }

func newDir() *inode { return &inode{now: map[string]*inode{}, kept: map[string]*inode{}} }

// change is one change of the names in a directory: name leads to node, or to
// nothing, and gone, which led to node, is no more.
type change struct {
	dir        *inode
	name, gone string
	node       *inode
}

func (c change) apply(names map[string]*inode) {
	if c.gone != "" && names[c.gone] == c.node {
		delete(names, c.gone)
	}
	if c.node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.node
	}
}

// disk is a file system: what processes see, what is surely kept, and what may be.
type disk struct {
	names   Names
	root    *inode
	pending []change // of names, in the order of the calls
}

// load reads a directory, all of which is on disk.
func load(dir string, names Names) (*disk, error) {
	root, err := loadNode(dir)
	return &disk{names: names, root: root}, err
}

func loadNode(path string) (*inode, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case fi.Mode().IsRegular():
		b, err := os.ReadFile(path)
		n := &inode{size: int64(len(b))}
		n.disk.write(0, b)
		mtime := fi.ModTime()
		n.disk.mtime = mtime
		return n, err
	case fi.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return &inode{target: target}, err
	case !fi.IsDir():
		return nil, fmt.Errorf("%s is not modelled", path)
	}
	n := newDir()
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		child, err := loadNode(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		n.now[e.Name()] = child
	}
	n.kept = maps.Clone(n.now)
	return n, nil
}

// find returns the directory that holds a path, the last element, and what it
// leads to. Links are not followed.
func (d *disk) find(path string) (dir *inode, name string, n *inode, err error) {
	if path == "." {
		return nil, "", d.root, nil
	}
	dir = d.root
	elements := strings.Split(path, "/")
	for _, e := range elements[:len(elements)-1] {
		if dir = dir.now[e]; dir == nil || !dir.isDir() {
			return nil, "", nil, fmt.Errorf("no directory above %s", path)
		}
	}
	name = elements[len(elements)-1]
	return dir, name, dir.now[name], nil
}

// apply does what a process did.
func (d *disk) apply(o Op) error {
	if o.Kind == Said {
		return nil
	}
	dir, name, n, err := d.find(o.Path)
	if err != nil {
		return err
	}
	switch o.Kind {
	case Create:
		if n == nil {
			d.change(change{dir: dir, name: name, node: &inode{}})
		}
		return nil
	case Mkdir:
		d.change(change{dir: dir, name: name, node: newDir()})
		return nil
	case Symlink:
		d.change(change{dir: dir, name: name, node: &inode{target: o.To}})
		return nil
	}
	if n == nil {
		return fmt.Errorf("%s: there is no such file", o)
	}
	switch o.Kind {
	case Unlink:
		d.change(change{dir: dir, name: name})
	case Rename:
		d.change(change{dir: dir, name: filepath.Base(o.To), gone: name, node: n})
	case Sync:
		if n.isDir() {
			d.syncDir(n)
		} else {
			n.sync(true)
		}
	case SyncData:
		n.sync(false)
	case Truncate:
		n.pending, n.size = append(n.pending, o), o.Size
	case Write:
		n.pending, n.size = append(n.pending, o), max(n.size, o.Offset+int64(len(o.Data)))
	case Times:
		if !n.isDir() {
			n.pending = append(n.pending, o)
		}
	}
	return nil
}

func (d *disk) change(c change) {
	c.apply(c.dir.now)
	d.pending = append(d.pending, c)
}

// syncDir keeps the changes of the names in a directory and, where names are
// ordered, those before them.
func (d *disk) syncDir(dir *inode) {
	last := -1
	for i, c := range d.pending {
		if c.dir == dir {
			last = i
		}
	}
	var left []change
	for i, c := range d.pending {
		if c.dir == dir || d.names == Ordered && i < last {
			c.apply(c.dir.kept)
		} else {
			left = append(left, c)
		}
	}
	d.pending = left
}

// sync keeps what was done to a file; without all, not its times.
func (n *inode) sync(all bool) {
	var left []Op
	n.disk = n.disk.clone()
	for _, o := range n.pending {
		if o.Kind == Times && !all {
			left = append(left, o)
			continue
		}
		n.disk.apply(o)
	}
	n.pending = left
}

// pageSize is the unit in which contents are kept; a multiple of a sector.
const pageSize = 4096

// content is a file's: sparse, and its pages are never changed in place, so that
// a copy costs its index alone.
type content struct {
	size  int64
	pages map[int64]*[pageSize]byte
	mtime time.Time // zero: some time after the file was last written
}

func (c content) clone() content {
	c.pages = maps.Clone(c.pages)
	return c
}

// apply does one change wholly.
func (c *content) apply(o Op) {
	switch o.Kind {
	case Write:
		c.write(o.Offset, o.Data)
		c.mtime = time.Time{}
	case Truncate:
		c.truncate(o.Size)
		c.mtime = time.Time{}
	case Times:
		c.mtime = o.Time
	}
}

func (c *content) write(at int64, b []byte) {
	c.size = max(c.size, at+int64(len(b)))
	for len(b) > 0 {
		page := new([pageSize]byte)
		if old := c.pages[at/pageSize]; old != nil {
			*page = *old
		}
		n := copy(page[at%pageSize:], b)
		if c.pages == nil {
			c.pages = map[int64]*[pageSize]byte{}
		}
		c.pages[at/pageSize] = page
		at, b = at+int64(n), b[n:]
	}
}

func (c *content) truncate(size int64) {
	for i, page := range c.pages {
		if rest := size - i*pageSize; rest <= 0 {
			delete(c.pages, i)
		} else if rest < pageSize {
			cut := *page
			clear(cut[rest:])
			c.pages[i] = &cut
		}
	}
	c.size = size
}
