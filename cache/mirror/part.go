package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Part is a layer that is being fetched. What has come of it is kept, also when the
// process ends, and fetched on from there.
type Part struct {
	m    *Mirror
	file File
	hash hash.Hash
	have int64

	mu      sync.Mutex // held while f is written
	f       *os.File
	dropped bool // its place was needed
}

// A part is named by what the whole is to be.
const partPrefix = "part-"

func partName(f File) string { return partPrefix + fmt.Sprintf("%x", f.SHA256[:]) }

var errContent = errors.New("it is not what the source told of")

// Part begins or goes on with a layer that is missing.
func (m *Mirror) Part(ctx context.Context, f File) (_ *Part, err error) {
	if _, _, ok := format.ParseFileName(f.Name); !ok || f.Size <= 0 {
		return nil, fmt.Errorf("%w: a layer %.100q of %d bytes", errPublication, f.Name, f.Size)
	}
	p := &Part{m: m, file: f, hash: sha256.New()}
	if p.f, err = os.OpenFile(filepath.Join(m.dir, partName(f)), os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return nil, err
	}
	if p.have, err = io.Copy(p.hash, &until{ctx, p.f}); err == nil && p.have > f.Size {
		err = p.Restart()
	}
	if err != nil {
		return nil, errors.Join(err, p.f.Close())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[p] = true
	return p, nil
}

// errDropped: the disk is full, and trust needed the place.
var errDropped = errors.New("what had been fetched gave way to a trust file: the disk is full")

// drop gives back what the part takes.
func (p *Part) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropped = true
	_ = p.f.Truncate(0) // or the disk stays full, which is told
}

// Have is how many bytes have come.
func (p *Part) Have() int64 { return p.have }

// Restart forgets what has come.
func (p *Part) Restart() error {
	p.hash.Reset()
	p.have = 0
	_, err := p.f.Seek(0, io.SeekStart)
	return errors.Join(err, p.f.Truncate(0))
}

// Write adds what comes next, and refuses what is more than the whole.
func (p *Part) Write(b []byte) (int, error) {
	if p.have+int64(len(b)) > p.file.Size {
		return 0, fmt.Errorf("%s has more than %d bytes: %w", p.file.Name, p.file.Size, errContent)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return 0, errDropped
	}
	n, err := p.f.Write(b)
	p.hash.Write(b[:n])
	p.have += int64(n)
	return n, err
}

// Commit puts the whole in its place, durably. If it is not what the source told of,
// nothing of it is kept.
func (p *Part) Commit() error {
	if p.have < p.file.Size {
		return fmt.Errorf("%s: %w", p.file.Name, io.ErrUnexpectedEOF)
	}
	path := p.f.Name()
	if trust.Digest(p.hash.Sum(nil)) != p.file.SHA256 {
		return errors.Join(fmt.Errorf("%s: %w", p.file.Name, errContent), os.Remove(path))
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	m := p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.dropped {
		return errDropped
	}
	if slices.Contains(filesOf(m.files), p.file.Name) {
		// What is published, or was last, has another file of this name, or a damaged one.
		m.supersede(format.Current{})
		if err := m.withdraw(nil); err != nil {
			return err
		}
	}
	if err := os.Rename(path, filepath.Join(m.dir, p.file.Name)); err != nil {
		return err
	}
	m.sums[p.file.Name] = p.file
	if !slices.Contains(m.wanted, p.file) {
		m.superseded[p.file.Name] = time.Now() // nobody needs it any more
	}
	return nil
}

// Close gives the file up; what has come stays.
func (p *Part) Close() error {
	p.m.mu.Lock()
	delete(p.m.parts, p)
	p.m.mu.Unlock()
	if err := p.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// dropParts gives back what parts of files take.
func (m *Mirror) dropParts() {
	for p := range m.parts {
		p.drop()
	}
	entries, _ := os.ReadDir(m.dir) // then there is nothing to remove
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partPrefix) {
			_ = os.Remove(filepath.Join(m.dir, e.Name())) // or the disk stays full, which is told
		}
	}
}
