package changes

import (
	"errors"
	"path"
	"slices"

	"trust-worker/cache"
	"trust-worker/trust"
)

// About asks about an image, given the answers of today: by its digest, by the tag that was
// given, and by those whose signatures it has. An image that is no longer in storage is asked
// about by what was given.
func (q *Query) About(snap *cache.Snapshot, repository, tag string, d trust.Digest) error {
	q.Repository, q.Tag, q.Digest = repository, tag, d
	if d == (trust.Digest{}) && tag != "" {
		found, err := snap.Resolve(repository, tag)
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			return err
		}
		q.Digest = found
	}
	if q.Digest == (trust.Digest{}) {
		return nil
	}
	made, err := snap.MadeBy(repository, q.Digest)
	for _, s := range made {
		q.by(s.Fingerprint)
	}
	return err
}

func (q *Query) by(fingerprint trust.Digest) {
	if !slices.Contains(q.Signers, fingerprint) {
		q.Signers = append(q.Signers, fingerprint)
	}
}

// By asks about a signer, named by fingerprint, by the file that holds or held it, or by the
// subject of its certificate. It reports whether there is or was such a signer, as far as
// that is known.
func (q *Query) By(snap *cache.Snapshot, name string) bool {
	for _, text := range []string{name, "sha256:" + name} {
		if d, err := trust.ParseDigest(text); err == nil {
			q.by(d)
			return true
		}
	}
	found := false
	t := snap.InForce().Terms()
	for _, m := range slices.Concat(t.Materials, t.Left) {
		if m.File != "" && (m.File == name || path.Base(m.File) == name) || m.Signer.Tool == trust.Notation && m.Author == name {
			q.by(m.Signer.Fingerprint)
			found = true
		}
	}
	return found
}
