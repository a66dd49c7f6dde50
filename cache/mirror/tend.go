package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trust-worker/cache/internal/format"
)

// What is done from time to time: the clock, what somebody else does to the files, and what is not needed any more.

// ErrStateGone is returned when the state directory was removed or replaced: another
// process may have the new one.
var ErrStateGone = errors.New("state directory was removed or replaced while it was in use")

// Tend keeps what is published true: it sets the time of the last confirmation anew when
// somebody has set the clock, withdraws what somebody has removed files of, so that
// they are fetched again, and removes what was superseded long enough ago. Call it every second.
func (m *Mirror) Tend() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.owned(); err != nil {
		return err
	}
	if _, err := os.Lstat(m.dir); errors.Is(err, fs.ErrNotExist) {
		m.sums = map[string]File{}
		m.supersede(format.Current{})
		m.cur, m.trust.file = format.Current{}, File{}
		return errors.Join(errors.New("somebody has removed what is published; it is fetched again"), makeDir(m.dir))
	}
	return errors.Join(m.whole(), m.restamp(), m.sweep())
}

func (m *Mirror) owned() error {
	holds, err := format.Holds(m.lock, filepath.Dir(m.dir))
	if err == nil && !holds {
		return ErrStateGone
	}
	return err
}

// whole makes good what somebody did to what is published.
func (m *Mirror) whole() error {
	for _, name := range filesOf(m.cur) {
		if _, err := os.Lstat(filepath.Join(m.dir, name)); errors.Is(err, fs.ErrNotExist) {
			delete(m.sums, name)
			m.supersede(format.Current{}) // the others are kept for a while, and not published without it
			return m.withdraw(fmt.Errorf("somebody has removed %s; it is fetched again", name))
		}
	}
	target, err := os.Readlink(filepath.Join(m.dir, format.CurrentName))
	if m.cur.Base == 0 && !errors.Is(err, fs.ErrNotExist) { // it could not be removed
		return format.RemoveCurrent(m.dir)
	}
	if m.cur.Base != 0 && (err != nil || target != m.cur.String()) {
		return errors.Join(errors.New("CURRENT is not what was published; it is published anew"), format.SetCurrent(m.dir, m.cur))
	}
	return nil
}

func (m *Mirror) restamp() error {
	if m.trust.file.Name == "" {
		return nil
	}
	info, err := os.Stat(filepath.Join(m.dir, m.trust.file.Name))
	if now := Now(); err == nil && info.ModTime().Sub(m.heard.at(now)).Abs() > time.Second {
		return m.stamp(now)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return m.withdraw(nil)
	}
	return err
}

func (m *Mirror) sweep() (err error) {
	for name, since := range m.superseded {
		if time.Since(since) < m.retention || m.named(name) {
			continue
		}
		if rmErr := os.RemoveAll(filepath.Join(m.dir, name)); rmErr != nil {
			err = errors.Join(err, rmErr)
			continue
		}
		delete(m.superseded, name)
		delete(m.sums, name)
	}
	return err
}

// named reports whether a file is in use, or will be.
func (m *Mirror) named(name string) bool {
	return slices.Contains(filesOf(m.files), name) || slices.Contains(filesOf(m.cur), name) || name == m.trust.file.Name ||
		slices.ContainsFunc(m.wanted, func(f File) bool { return f.Name == name || partName(f) == name })
}
