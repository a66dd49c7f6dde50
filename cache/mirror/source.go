package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
)

// Source tells what a state directory publishes. Each file is read once, to hash it,
// however many copy it. Its methods are safe for concurrent use.
type Source struct {
	dir string // of what is published
	log *slog.Logger

	mu      sync.Mutex
	sums    map[string]summed // of files that are named, or were lately
	summing bool              // a large one is being hashed
	failed  time.Time         // when that last ended with an error
}

// summed is a file whose content is known, and which file that is.
type summed struct {
	File
	info fs.FileInfo
}

// NewSource tells of what is published in a state directory.
func NewSource(state string, log *slog.Logger) *Source {
	return &Source{dir: filepath.Join(state, format.PublishedDir), log: log, sums: map[string]summed{}}
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
var small int64 = 16 << 20 // tests change it

// hashAgain is how long a file that could not be read is left alone.
const hashAgain = 10 * time.Second

// Publication tells of the files that a snapshot reads. If a large one is not hashed yet,
// it tells of the trust alone: ask again when it is Idle. An error that wraps
// fs.ErrNotExist says that the files are others by now.
func (s *Source) Publication(snap *cache.Snapshot) (*Publication, error) {
	c, err := format.ParseCurrent(snap.Current())
	if err != nil {
		return nil, err
	}
	infos, err := snap.Files()
	if err != nil {
		return nil, err
	}
	s.forget(c)
	p := &Publication{Current: snap.Current()}
	names := c.Files()
	last, whole := len(names)-1, true
	if p.Trust, err = s.sum(names[last], infos[last]); err != nil {
		return nil, err
	}
	for i, name := range names[:last] {
		f, ok := s.known(name, infos[i])
		if !ok && infos[i].Size() > small {
			s.sumLater(name, infos[i])
			whole = false
			continue
		}
		if !ok {
			if f, err = s.sum(name, infos[i]); err != nil {
				return nil, err
			}
		}
		p.Layers = append(p.Layers, f)
	}
	if !whole {
		p.Layers = nil
	}
	return p, nil
}

// Idle reports whether nothing is being hashed: who was told of the trust alone may ask
// again. After a file that could not be read it takes its time.
func (s *Source) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.summing && time.Since(s.failed) >= hashAgain
}

// Withdrawn reports whether nothing is published, and not only unreadable.
func (s *Source) Withdrawn() bool {
	_, err := os.Lstat(filepath.Join(s.dir, format.CurrentName))
	_, dirErr := os.Stat(s.dir)
	return errors.Is(err, fs.ErrNotExist) && dirErr == nil
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

// known returns what a layer holds, if that is known. The number of a file that was
// removed may be used again.
func (s *Source) known(name string, info fs.FileInfo) (File, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.sums[name]
	ok = ok && os.SameFile(known.info, info) && known.info.ModTime().Equal(info.ModTime()) && known.Size == info.Size()
	if !ok {
		delete(s.sums, name)
	}
	return known.File, ok
}

// sum hashes the file of a name, if it is still that one.
func (s *Source) sum(name string, info fs.FileInfo) (File, error) {
	f, is, err := sumFile(context.Background(), filepath.Join(s.dir, name))
	if err == nil && !os.SameFile(is, info) {
		err = fmt.Errorf("%s has been replaced: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return File{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[name] = summed{f, info}
	return f, nil
}

// sumLater hashes a large file beside, one at a time.
func (s *Source) sumLater(name string, info fs.FileInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.summing || time.Since(s.failed) < hashAgain {
		return
	}
	s.summing = true
	go func() {
		_, err := s.sum(name, info)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.summing = false; err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.failed = time.Now()
			s.log.Error("a published file cannot be read; replicas are told of the trust alone", "name", name, "error", err)
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
func sumFile(ctx context.Context, path string) (f File, info fs.FileInfo, err error) {
	r, err := os.Open(path)
	if err != nil {
		return File{}, nil, err
	}
	defer r.Close()
	if info, err = r.Stat(); err != nil {
		return File{}, nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, &until{ctx, r})
	if err != nil {
		return File{}, nil, err
	}
	f = File{Name: filepath.Base(path), Size: n}
	h.Sum(f.SHA256[:0])
	return f, info, nil
}

// until reads until a context ends.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u *until) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
