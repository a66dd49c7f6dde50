package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trust-worker/cache/internal/format"
)

// Whose a replica's state directory is, and where a new process goes on.

// replicaFile is what ReplicaName holds.
type replicaFile struct{ Source string }

// Open takes the lock of a state directory, which it makes if there is none, for a
// replica of source, and goes on from what is there. A worker's own is refused.
func Open(state, source string, log *slog.Logger) (*Mirror, error) {
	m := &Mirror{dir: filepath.Join(state, format.PublishedDir), log: log, sums: map[string]File{}, parts: map[*Part]bool{}, superseded: map[string]time.Time{}, retention: retention}
	if _, err := os.Lstat(filepath.Join(state, format.PrivateDir)); err == nil {
		return nil, fmt.Errorf("state directory %s is a worker's own (it has %s): give a replica another", state, format.PrivateDir)
	}
	if err := makeDir(state); err != nil {
		return nil, err
	}
	if err := empty(state); err != nil {
		return nil, err
	}
	if err := m.takeLock(state); err != nil {
		return nil, err
	}
	_, err := os.Lstat(filepath.Join(state, format.PrivateDir)) // a worker may have come and gone
	if err == nil {
		return nil, errors.Join(fmt.Errorf("state directory %s has just become a worker's own: give a replica another", state), m.lock.Close())
	}
	if err = makeDir(m.dir); err == nil {
		err = m.note(state, source)
	}
	if err == nil {
		err = errors.Join(format.SyncDir(state), m.load())
	}
	if err != nil {
		return nil, errors.Join(err, m.lock.Close())
	}
	return m, nil
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// empty refuses a directory that is something else: nothing is written into a registry's
// storage.
func empty(state string) error {
	if _, err := os.Lstat(filepath.Join(state, format.ReplicaName)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(state)
	if err != nil {
		return err
	}
	begun := []string{format.LockName, format.PublishedDir, format.ReplicaName + ".new", "lost+found"} // by a process that was killed
	for _, e := range entries {
		if !slices.Contains(begun, e.Name()) {
			return fmt.Errorf("%s is not empty (it has %s) and no replica (it has no %s): give the replica a directory of its own", state, e.Name(), format.ReplicaName)
		}
	}
	return nil
}

// Replica returns the source of the replica that a state directory is, "" if it is none.
func Replica(state string) string {
	var f replicaFile
	b, err := os.ReadFile(filepath.Join(state, format.ReplicaName))
	if err != nil || json.Unmarshal(b, &f) != nil {
		return ""
	}
	return f.Source
}

func (m *Mirror) takeLock(state string) error {
	lock, noted, err := format.Lock(state)
	if errors.Is(err, format.ErrLocked) {
		return fmt.Errorf("%w: %s, pid %d", err, state, format.Holder(state))
	}
	if noted != nil {
		m.log.Warn("cannot write pid to lock file", "error", noted)
	}
	m.lock = lock
	return err
}

// note writes whose replica this is.
func (m *Mirror) note(state, source string) error {
	was := Replica(state)
	if was == source {
		return nil
	}
	if was != "" {
		m.log.Warn("the replica has another source from now on", "was", was, "is", source)
	}
	b, err := json.Marshal(replicaFile{source})
	if err != nil {
		return err
	}
	if err := format.WriteFile(filepath.Join(state, format.ReplicaName), append(b, '\n'), time.Now()); err != nil {
		return fmt.Errorf("note the source: %w", err)
	}
	return nil
}

// load goes on from what is published. What cannot be read is removed: it is fetched again.
func (m *Mirror) load() error {
	_, cur, err := format.ReadCurrent(m.dir)
	if err == nil {
		err = m.loadTrust(cur)
	}
	switch {
	case err == nil:
		m.cur, m.files = cur, cur
	case errors.Is(err, format.ErrNoCache):
	default:
		m.log.Warn("what the replica has cannot be used; it is fetched anew", "error", err)
		if err := format.RemoveCurrent(m.dir); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("read published files: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != format.CurrentName && !slices.Contains(filesOf(m.cur), name) {
			m.left = append(m.left, name)
		}
	}
	return nil
}

func (m *Mirror) loadTrust(cur format.Current) error {
	path := cur.TrustPath(m.dir)
	f, _, err := sumFile(context.Background(), path)
	if err != nil {
		return err
	}
	t, open, err := format.OpenTrust(path)
	if err != nil {
		return err
	}
	defer open.Close()
	info, err := open.Stat()
	if err != nil {
		return err
	}
	m.trust = taken{cur.ID, cur.Generation, f, cur.Trusts, t.Published, time.Duration(t.Lease)}
	// What was confirmed by a clock that has been set back since may be of any age.
	now := Now()
	m.heard = Heard{Sent: now, Age: now.Wall.Sub(info.ModTime())}
	if m.heard.Age < 0 {
		m.heard.Age = now.Wall.Sub(time.Unix(0, 0))
		return os.Chtimes(path, time.Time{}, m.heard.at(now))
	}
	return nil
}

// Close gives the state directory up. What is published stays and is believed until its
// lease ends.
func (m *Mirror) Close() error { return m.lock.Close() }
