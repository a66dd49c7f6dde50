package mirror

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"trust-worker/cache/internal/format"
)

// Source tells what a state directory publishes. Each file is read once, to hash it,
// however many copy it. Its methods are safe for concurrent use.
type Source struct {
	dir string // of what is published

	mu      sync.Mutex
	sums    map[string]summed // of files that are named, or were lately
	summing bool              // a large one is being hashed
}

// summed is a file whose content is known, and which file that is.
type summed struct {
	File
	info fs.FileInfo
}

// NewSource tells of what is published in a state directory.
func NewSource(state string) *Source {
	return &Source{dir: filepath.Join(state, format.PublishedDir), sums: map[string]summed{}}
}

// Current is what CURRENT says now, "" if nothing is published: one system call.
func (s *Source) Current() string {
	target, err := os.Readlink(filepath.Join(s.dir, format.CurrentName))
	if err != nil {
		return ""
	}
	return target
}

// small is hashed at once; what is larger is hashed beside, and told when it is.
const small = 16 << 20

// Publication tells of the files that CURRENT names. If a large one is not hashed yet,
// it tells of the trust alone: ask again soon.
func (s *Source) Publication(current string) (*Publication, error) {
	c, err := format.ParseCurrent(current)
	if err != nil {
		return nil, err
	}
	s.forget(c)
	p := &Publication{Current: current}
	if p.Trust, _, err = s.sum(format.FileName("trust", c.Trusts), MaxTrust); err != nil {
		return nil, err
	}
	for _, name := range c.Names() {
		f, ok, err := s.sum(name, small)
		if err != nil {
			return nil, err
		}
		if !ok {
			s.sumLater(name)
			p.Layers = nil
			return p, nil
		}
		p.Layers = append(p.Layers, f)
	}
	return p, nil
}

// forget drops files that are neither named nor there.
func (s *Source) forget(c format.Current) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.sums {
		if slices.Contains(c.Files(), name) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(s.dir, name)); errors.Is(err, fs.ErrNotExist) {
			delete(s.sums, name)
		}
	}
}

// sum returns a file's size and hash. ok is false if it has more than most bytes and is
// not known.
func (s *Source) sum(name string, most int64) (f File, ok bool, err error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return File{}, false, err
	}
	s.mu.Lock()
	known, ok := s.sums[name]
	s.mu.Unlock()
	// A number of a file that was removed may be used again; a trust file's time moves
	// with each confirmation, and it is small.
	if ok && most == small && os.SameFile(known.info, info) && known.info.ModTime().Equal(info.ModTime()) {
		return known.File, true, nil
	}
	if info.Size() > most {
		return File{}, false, nil
	}
	f, info, err = sumFile(path)
	if err != nil {
		return File{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[name] = summed{f, info}
	return f, true, nil
}

// sumLater hashes a large file beside, one at a time.
func (s *Source) sumLater(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.summing {
		return
	}
	s.summing = true
	go func() {
		f, info, err := sumFile(filepath.Join(s.dir, name))
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.summing = false; err == nil { // else whoever asks next finds out why
			s.sums[name] = summed{f, info}
		}
	}()
}

// Open opens a file that a Publication has told of. What is not there any more is an
// error that wraps fs.ErrNotExist.
func (s *Source) Open(name string) (*os.File, File, error) {
	s.mu.Lock()
	known, ok := s.sums[name]
	s.mu.Unlock()
	if !ok {
		return nil, File{}, fmt.Errorf("%.100q: %w", name, fs.ErrNotExist)
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, File{}, err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, known.info) {
		return nil, File{}, errors.Join(fmt.Errorf("%s has been replaced: %w", name, fs.ErrNotExist), f.Close())
	}
	return f, known.File, nil
}

// sumFile hashes a file, and says which one it was.
func sumFile(path string) (f File, info fs.FileInfo, err error) {
	r, err := os.Open(path)
	if err != nil {
		return File{}, nil, err
	}
	defer r.Close()
	if info, err = r.Stat(); err != nil {
		return File{}, nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return File{}, nil, err
	}
	f = File{Name: filepath.Base(path), Size: n}
	h.Sum(f.SHA256[:0])
	return f, info, nil
}
