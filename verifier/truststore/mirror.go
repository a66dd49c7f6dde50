package truststore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// mirror is a default document that a load wants written, so that the notation
// command line sees the policy that is in force here.
type mirror struct {
	name     string
	document []byte
	was      policyFile // what stood there
}

// MirrorDefaultPolicy writes the default policy that the last load computed where
// no policy is, or over a default that names other stores; it returns the path
// written, or "". Anything else is somebody's policy and left alone, and so is
// what cannot be read or is a link into a volume. The new document's hash is in the
// trust memory before the file is there, and the former one until it is durable.
// It is best effort: the directory may be read-only. Loads do not wait for it.
func (l *Loader) MirrorDefaultPolicy(ctx context.Context) (written string, err error) {
	l.mu.Lock()
	m := l.mirror
	l.mirror = nil // once for each load that wants it
	l.mu.Unlock()
	if m == nil || ctx.Err() != nil {
		return "", ctx.Err()
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the default policy: %w", err)
		}
	}()
	file := filepath.Join(l.cfg.NotationDir, m.name)
	if same, err := m.stands(file); err != nil || !same {
		return "", err
	}
	sum := trust.SumOf(m.document)
	both := []trust.Digest{sum}
	if m.was.present {
		both = append(both, m.was.sum)
	}
	former := l.cfg.Memory.get().Defaults
	if err := l.remember(both); err != nil {
		return "", err
	}
	done, err := m.write(l.cfg.NotationDir, file)
	switch {
	case !done && err == nil: // somebody else's is there: the next load has another look
		return "", l.remember(former)
	case !done:
		return "", errors.Join(err, l.remember(former))
	case err != nil: // it is there, and may be the former one after a power cut
		return "", err
	}
	return file, l.remember(both[:1])
}

// remember changes which defaults count as written by the daemon.
func (l *Loader) remember(defaults []trust.Digest) error {
	for {
		was := l.cfg.Memory.get()
		next := was
		next.Defaults = defaults
		if err := l.cfg.Memory.set(was, next); !errors.Is(err, errMemoryChanged) {
			return err
		}
	}
}

// write puts the document at file, in place of what the load found there and of nothing
// else. done is set once the document has that name; an error after that means that it
// may not be durable. The calls are, besides those that make the temporary file,
//
//	write, fsync, and then either link(temporary, file), which fails if there is one,
//	or renameat2(temporary, file, RENAME_EXCHANGE), a look at what has come out, and
//	the same again if that was not to be replaced; unlink(temporary); fsync(dir)
func (m *mirror) write(dir, file string) (done bool, err error) {
	f, err := os.CreateTemp(dir, ".trustpolicy-*.tmp") // a name that is never loaded
	if err != nil {
		return false, err
	}
	tmp := f.Name()
	defer func() {
		if rerr := os.Remove(tmp); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	mode := fs.FileMode(0o644)
	if fi, err := os.Lstat(file); err == nil && m.was.present {
		mode = fi.Mode().Perm()
	}
	_, err = f.Write(m.document)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return false, err
	}
	if !m.was.present {
		if err := os.Link(tmp, file); errors.Is(err, fs.ErrExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		return true, syncDirectory(dir)
	}
	exchange := func() error { return unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE) }
	if err := exchange(); err != nil {
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP) {
			return false, err
		}
		// A file system that cannot: a last look, and a rename.
		if same, err := m.stands(file); err != nil || !same {
			return false, err
		}
		if err := os.Rename(tmp, file); err != nil {
			return false, err
		}
		return true, syncDirectory(dir)
	}
	if same, err := m.stands(tmp); err != nil || !same {
		return false, errors.Join(err, exchange())
	}
	return true, syncDirectory(dir)
}

// MemoryLags reports whether SaveMemory has something to write.
func (l *Loader) MemoryLags() bool { return l.cfg.Memory.lags() }

// SaveMemory writes what of the trust memory only time has changed. Nothing waits for
// it: what matters is durable already.
func (l *Loader) SaveMemory() error { return l.cfg.Memory.catchUp() }

// WantsMirror reports whether the last load found that MirrorDefaultPolicy has
// something to write.
func (l *Loader) WantsMirror() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mirror != nil
}

// DefaultPolicy returns the default policy over the trust stores on disk, as the
// file that counts as the default.
func (l *Loader) DefaultPolicy(ctx context.Context, now time.Time) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.newPass(now)
	p.last = true // read around a swap
	if err := p.runNotation(ctx); err != nil {
		return nil, err
	}
	return defaultDocument(p.stores()), ctx.Err()
}

// stands reports whether at file there is what the load found: nothing, or the
// very bytes of a default.
func (m *mirror) stands(file string) (bool, error) {
	fi, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err := os.Stat(filepath.Dir(file))
		return !m.was.present && err == nil, nil // no directory: nothing to write into
	case err != nil:
		return false, err
	case !m.was.present || !fi.Mode().IsRegular() || fi.Size() > maxPolicyFile:
		return false, nil
	}
	b, err := os.ReadFile(file)
	return err == nil && trust.SumOf(b) == m.was.sum && !bytes.Equal(b, m.document), err
}
