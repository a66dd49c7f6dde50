package verifier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

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
// It is best effort: the directory may be read-only.
func (l *Loader) MirrorDefaultPolicy(ctx context.Context) (written string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.mirror
	if m == nil || ctx.Err() != nil {
		return "", ctx.Err()
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the default policy: %w", err)
		}
	}()
	file := filepath.Join(l.cfg.NotationDir, m.name)
	same, err := m.stands(file)
	if err != nil || !same {
		return "", err
	}
	l.mirror = nil // once for each load that wants it
	before := l.cfg.Memory.get()
	during := before
	during.Defaults = slices.Compact([]trust.Digest{trust.SumOf(m.document), m.was.sum})
	if m.was.doc == nil {
		during.Defaults = during.Defaults[:1]
	}
	if err := l.cfg.Memory.set(during, time.Time{}); err != nil {
		return "", err
	}
	w, err := renameio.NewPendingFile(file, renameio.WithTempDir(l.cfg.NotationDir), renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return "", err
	}
	defer func() { _ = w.Cleanup() }()
	if _, err := w.Write(m.document); err != nil {
		return "", err
	}
	// Once more, as late as possible: an operator may just have written theirs.
	if same, err := m.stands(file); err != nil || !same {
		return "", err // the next load has another look
	}
	if err := w.CloseAtomicallyReplace(); err != nil {
		return "", err
	}
	if err := syncDirectory(l.cfg.NotationDir); err != nil {
		return "", err
	}
	after := during
	after.Defaults = during.Defaults[:1]
	return file, l.cfg.Memory.set(after, time.Time{})
}

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
