package verifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// MirrorDefaultPolicy writes trustpolicy.json as the mirror of the default policy
// that Load computes, so that the notation command line sees the same: only when
// the file is absent, or of the default shape and different. An operator's policy
// and anything that cannot be read is left alone. It is best effort: storage may
// be read-only.
func (l *Loader) MirrorDefaultPolicy(ctx context.Context) error {
	if !l.cfg.Notation {
		return nil
	}
	// Read afresh, without memory: nothing here may rest on a file's past.
	p := l.newPass(time.Now())
	p.summary.Source = PolicyDefault
	if err := p.runNotation(ctx); err != nil {
		return fmt.Errorf("mirror default policy: %w", err)
	}
	if p.summary.Source != PolicyDefault {
		return nil
	}
	doc := p.computed()
	b, err := json.MarshalIndent(doc, "", "    ")
	if err != nil {
		return fmt.Errorf("mirror default policy: %w", err)
	}
	file := filepath.Join(l.cfg.NotationDir, policyFile)
	was, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(l.cfg.NotationDir); err != nil {
			return nil // no directory, nothing to mirror into
		}
	case err != nil:
		return fmt.Errorf("mirror default policy: %w", err)
	case !was.Mode().IsRegular():
		return nil // a link into a volume is not ours to replace
	default:
		if p.policy != nil && sameSet(p.policy.doc.TrustPolicies[0].TrustStores, doc.TrustPolicies[0].TrustStores) &&
			p.policy.doc.TrustPolicies[0].SignatureVerification.VerifyTimestamp == doc.TrustPolicies[0].SignatureVerification.VerifyTimestamp {
			return nil
		}
	}
	w, err := renameio.NewPendingFile(file, renameio.WithTempDir(l.cfg.NotationDir), renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("mirror default policy: %w", err)
	}
	defer func() { _ = w.Cleanup() }()
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("mirror default policy: %w", err)
	}
	// Once more, as late as possible: an operator may just have written theirs.
	now, err := os.Lstat(file)
	if (was == nil) != errors.Is(err, fs.ErrNotExist) || was != nil && (err != nil || !os.SameFile(was, now) ||
		was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime())) {
		return nil // the next load has another look
	}
	if err := w.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("mirror default policy: %w", err)
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
