package layout

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"trust-worker/trust"
)

// Where a repository of distribution's has its links, and by which stamp a change of them shows.

// stampSum hashes stamps with names in front of them. What it was given in the same order
// gives the same sum.
type stampSum struct {
	hash.Hash
	buffer []byte
}

func newStampSum() *stampSum { return &stampSum{Hash: sha256.New()} }

func (h *stampSum) add(kind byte, name string, s Stamp) {
	b := append(append(h.buffer[:0], kind), name...)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Mtime))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Ctime))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Size))
	b = binary.LittleEndian.AppendUint64(b, s.Inode)
	h.buffer = b
	h.Write(b) // never fails
}

func (h *stampSum) stamp() Stamp { return Stamp{Links: trust.Digest(h.Sum(nil))} }

// namesIn returns the names in an open directory, sorted. More than most is errTooLarge. late
// says whether there is no more time: then the error is ErrLate.
func namesIn(dir *os.File, most int, late func() bool) (names []string, err error) {
	const atOnce = 4096
	for {
		if late() {
			return nil, ErrLate
		}
		some, err := dir.Readdirnames(min(atOnce, most+1))
		if names = append(names, some...); len(names) > most {
			return nil, fmt.Errorf("more than %d files: %w", most, errTooLarge)
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func never() bool { return false }

// linkDir is a directory of links.
type linkDir struct {
	dir   *os.File
	kind  byte     // in stamps
	names []string // sorted: directories with a link in them
	link  string   // the link's path below each, with a slash in front
	// algorithm of revisions; empty of tags
	algorithm string
}

// linkDirs opens and lists what holds the links of a repository: revisions by algorithm, and
// tags. What is not there yet is left out.
func (r *Root) linkDirs(in *os.File, at string, late func() bool) (dirs []linkDir, err error) {
	defer func() {
		if err != nil {
			closeAll(dirs)
		}
	}()
	add := func(d linkDir, path string, most int) error {
		var err error
		if d.dir, err = openDirBelow(in, path); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		dirs = append(dirs, d)
		dirs[len(dirs)-1].names, err = namesIn(d.dir, most, late)
		return err
	}
	manifests, err := openDirBelow(in, at+manifestsDir)
	if err != nil {
		return nil, err
	}
	manifests.Close() // read-only
	var algorithms []string
	if all, err := openDirBelow(in, at+revisionsDir); err == nil {
		algorithms, err = namesIn(all, 100, late)
		all.Close() // read-only
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, a := range algorithms {
		// The directories of deleted manifests stay.
		if err := add(linkDir{kind: 'r', link: "/link", algorithm: a}, at+revisionsDir+"/"+a, 2*r.limits.Descriptors); err != nil {
			return dirs, err
		}
	}
	return dirs, add(linkDir{kind: 't', link: currentLink}, at+tagsDir, r.limits.Descriptors)
}

func closeAll(dirs []linkDir) {
	for i := range dirs {
		dirs[i].dir.Close() // read-only
	}
}

// stamp hashes the stamps of all links, in order.
func (r distribution) stamp(name string, until time.Time) (Stamp, error) {
	late := func() bool { return !until.IsZero() && time.Now().After(until) }
	dirs, err := r.linkDirs(r.file, r.path(name, "")+"/", late)
	if err != nil {
		return Stamp{}, err
	}
	defer closeAll(dirs)
	sum, n := newStampSum(), 0
	defer func() { r.looked.Add(int64(n)) }()
	for i := range dirs {
		d := &dirs[i]
		for _, name := range d.names {
			if n++; n%looksAtOnce == 0 && late() {
				return Stamp{}, ErrLate
			}
			s, err := statAt(d.dir, name+d.link)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return Stamp{}, fmt.Errorf("%s: %w", name, err)
			}
			sum.add(d.kind, name, s)
		}
	}
	return sum.stamp(), nil
}
