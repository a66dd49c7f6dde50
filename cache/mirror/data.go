package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/cache/internal/format"
)

// The data of publications: which layers are wanted, and when they are published.

// want notes which layers are being fetched: others that were fetched, and their parts,
// are of no use any more unless they are published.
func (m *Mirror) want(files []File) {
	for _, f := range m.wanted {
		m.superseded[partName(f)], m.superseded[f.Name] = time.Now(), time.Now()
	}
	m.wanted = files
	for _, name := range slices.Collect(maps.Keys(m.superseded)) {
		if m.named(name) {
			delete(m.superseded, name)
		}
	}
}

// Missing returns the layers of a publication that have to be fetched, and what is
// fetched for anything else is of no use any more. It reads files that it does not know
// to the end. If one that is published is not what the source told of, nothing is
// published any more: a confirmation would be one of damaged data.
func (m *Mirror) Missing(ctx context.Context, p *Publication) (missing []File, err error) {
	c, err := p.parse()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.want(p.Layers)
	m.mu.Unlock()
	for _, f := range p.Layers {
		m.mu.Lock()
		known, ok := m.sums[f.Name]
		m.mu.Unlock()
		if !ok {
			known, _, err = sumFile(ctx, filepath.Join(m.dir, f.Name))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			switch {
			case errors.Is(err, fs.ErrNotExist):
				known = File{}
			case errors.Is(err, unix.EIO): // damage of the disk; anything else may pass
				m.log.Error("a file of the replica cannot be read", "file", f.Name, "error", err)
				known = File{}
			case err != nil:
				return nil, err
			}
			m.mu.Lock()
			if known.Name != "" {
				m.sums[f.Name] = known
			}
			m.mu.Unlock()
		}
		if known != f {
			missing = append(missing, f)
		}
	}
	return missing, m.damaged(c, missing)
}

// damaged withdraws what is published if files of it are missing, and what would be
// published again with the next trust.
func (m *Mirror) damaged(c format.Current, missing []File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files.ID != c.ID {
		return nil
	}
	published := filesOf(m.files)
	i := slices.IndexFunc(missing, func(f File) bool { return slices.Contains(published, f.Name) })
	if i < 0 {
		return nil
	}
	m.log.Error("a file of the replica is damaged, or not the source's: nothing is answered until it has been fetched again", "file", missing[i].Name)
	m.supersede(format.Current{}) // the others are kept for a while, and not published without it
	return m.withdraw(nil)
}

// ErrNoTrust: the trust of the data is still to come.
var ErrNoTrust = errors.New("the trust of the data has not been taken over")

// TakeData publishes the data of a publication, none of whose layers is missing, below
// the trust that was taken over last.
func (m *Mirror) TakeData(p *Publication) error {
	c, err := p.parse()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(p.Layers) == 0:
		return fmt.Errorf("%w with data", errPublication)
	case m.trust.id != c.ID || m.trust.file.Name == "" || m.trust.generation < c.Generation:
		return fmt.Errorf("generation %d: %w", c.Generation, ErrNoTrust)
	case m.cur.Base != 0 && c.Data < m.cur.Data:
		return ErrOlder
	}
	for _, f := range p.Layers {
		if m.sums[f.Name] != f {
			return fmt.Errorf("%s: %w", f.Name, fs.ErrNotExist)
		}
		if _, err := os.Lstat(filepath.Join(m.dir, f.Name)); err != nil {
			delete(m.sums, f.Name)
			return err
		}
	}
	next := c
	next.Generation, next.Trusts = m.trust.generation, m.trust.number
	if next != m.cur || m.unsynced {
		if err := m.setCurrent(next); err != nil {
			return fmt.Errorf("publish data: %w", err)
		}
	}
	m.supersede(next)
	m.want(nil)
	for _, name := range m.left { // of an earlier process: what was of use is used
		if !m.named(name) {
			m.superseded[name] = time.Now()
		}
	}
	m.left = nil
	return nil
}

// Has reports whether a publication is published here: its data, each file checked since
// this process began, or later ones, below its trust or a later one.
func (m *Mirror) Has(p *Publication) bool {
	c, err := p.parse()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || m.cur.Base == 0 || m.cur.ID != c.ID || m.unsynced {
		return false
	}
	if m.cur.Data != c.Data || len(p.Layers) == 0 { // its trust was taken over already
		return m.cur.Data >= c.Data
	}
	return m.cur.Generation >= c.Generation && m.cur.Base == c.Base && m.cur.Deltas == c.Deltas && !slices.ContainsFunc(p.Layers, func(f File) bool { return m.sums[f.Name] != f })
}
