package cache

import (
	"fmt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Lists of repositories and images. Those that are read in pages begin where the last
// page ended: what comes before costs nothing.

// RepositoriesFrom is Repositories from a name on, itself included.
func (s *Snapshot) RepositoriesFrom(name string, fn func(name string) error) (err error) {
	format.Guard(&err, func() error {
		return s.from(format.InRepositories, nil, []byte(name), func(key, _ []byte) error { return fn(string(key)) })
	})
	return err
}

// TagsAfter is Tags after a tag, itself excluded.
func (s *Snapshot) TagsAfter(repository, tag string, fn func(tag string, d trust.Digest) error) (err error) {
	prefix := format.TagKey(repository, "")
	format.Guard(&err, func() error {
		return s.from(format.InTags, prefix, append(format.TagKey(repository, tag), 0), func(key, body []byte) error {
			if len(body) != 32 {
				return fmt.Errorf("%w: tag %q", format.ErrDamaged, key)
			}
			return fn(string(key[len(prefix):]), trust.Digest(body))
		})
	})
	return err
}

// DigestsFrom calls fn with the digest of every image of a repository that is
// not before first, in order. alone says that no tag and no index names it, so
// that a list of tags does not lead to it. The answers are not joined; fn may
// ask for [Snapshot.Image].
func (s *Snapshot) DigestsFrom(repository string, first trust.Digest, fn func(d trust.Digest, alone bool) error) (err error) {
	prefix := format.TagKey(repository, "")
	format.Guard(&err, func() error {
		return s.from(format.InImages, prefix, format.ImageKey(repository, first), func(key, body []byte) error {
			if len(key) != len(prefix)+32 {
				return fmt.Errorf("%w: image %.60x", format.ErrDamaged, key)
			}
			if err := s.record.decode(body); err != nil || s.record.other {
				return err
			}
			return fn(trust.Digest(key[len(prefix):]), !s.record.tagged && !s.record.child)
		})
	})
	return err
}

// from calls fn with the live values under a prefix, from the key start on.
func (s *Snapshot) from(bucket int, prefix, start []byte, fn func(key, body []byte) error) error {
	for m := s.layers.Merged(bucket, prefix, start); m.K != nil; m.Next() {
		body, ok, err := format.Unseal(m.K, m.V)
		if err != nil {
			return err
		}
		if ok {
			if err := fn(m.K, body); err != nil {
				return err
			}
		}
	}
	return nil
}

// Images calls fn with every image of a repository: one entry for each tag in
// tag order, then the untagged images that are not some index's child, in
// digest order.
func (s *Snapshot) Images(repository string, fn func(Image) error) error {
	// Many tags may name one image with many signatures.
	const heavy, most = 100, 32
	again := map[trust.Digest]Image{}
	err := s.Tags(repository, func(tag string, d trust.Digest) error {
		img, ok := again[d]
		if !ok {
			var err error
			if img, ok, err = s.image(repository, d, true); err != nil || !ok {
				return err
			}
			if img.weight() >= heavy && len(again) < most {
				again[d] = img
			}
		}
		img.Tag = tag
		return fn(img)
	})
	if err != nil {
		return err
	}
	prefix := format.TagKey(repository, "")
	format.Guard(&err, func() error {
		return s.each(format.InImages, prefix, func(key, body []byte) error {
			if len(key) != len(prefix)+32 {
				return fmt.Errorf("%w: image %.60x", format.ErrDamaged, key)
			}
			if err := s.record.decode(body); err != nil || s.record.tagged || s.record.child || s.record.other {
				return err
			}
			img, err := s.answer(repository, trust.Digest(key[len(prefix):]), body, true)
			if err != nil {
				return err
			}
			return fn(img)
		})
	})
	return err
}

// Each calls fn with every image of a repository once, by digest, without its
// tags and children. Manifests that are no images are left out.
func (s *Snapshot) Each(repository string, fn func(Image) error) (err error) {
	prefix := format.TagKey(repository, "")
	format.Guard(&err, func() error {
		return s.each(format.InImages, prefix, func(key, body []byte) error {
			if len(key) != len(prefix)+32 {
				return fmt.Errorf("%w: image %.60x", format.ErrDamaged, key)
			}
			img, err := s.answer(repository, trust.Digest(key[len(prefix):]), body, false)
			if err != nil || s.record.other {
				return err
			}
			return fn(img)
		})
	})
	return err
}
