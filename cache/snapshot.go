package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Snapshot is one generation of the cache. It is for one goroutine at a time
// and must be closed.
type Snapshot struct {
	r      *Reader
	g      *generation
	layers format.Layers
	now    time.Time
	asOf   time.Time
	age    time.Duration
	stale  bool
	// lastAuthor is the text that was read last.
	lastAuthor struct {
		key  format.AuthorKey
		text string
	}

	*scratch
}

// scratch is used again for each record, and by one snapshot after another.
type scratch struct {
	record    imageRecord
	signature signatureRecord
	verdict   verdictRecord
	// Of a preview: the image just decoded, what was verified for it, and of which images.
	subject  trust.Digest
	verified Verified
	subjects map[trust.Digest]bool
	views    [format.MaxDeltas + 1]*format.View
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Generation identifies a publication. Numbers never go backwards within a
// cache id; a rebuilt cache has another id.
type Generation struct {
	CacheID string
	Number  uint64
	// Data is the generation that the data are of: less than Number where a replica
	// already has the trust of a later generation than its data.
	Data uint64
}

func (g Generation) String() string { return fmt.Sprintf("%s-%d", g.CacheID, g.Number) }

// open takes what the snapshot reads from, and begins it. What it took before it
// met damage Close gives back.
func (s *Snapshot) open() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer format.RecoverDamage(&err)
	s.layers = s.views[:0]
	for _, f := range s.g.files {
		v, err := f.Take()
		if err != nil {
			return err
		}
		s.layers = append(s.layers, v)
	}
	return s.begin()
}

// begin fixes the snapshot's clock. It is never earlier than the publication
// or its last confirmation: a reader whose clock is behind must not see dates
// that the daemon knows to be over.
func (s *Snapshot) begin() error {
	confirmed, age, err := s.r.confirmation(s.g)
	if errors.Is(err, fs.ErrNotExist) {
		// Superseded for longer than its retention: CURRENT has moved on.
		confirmed, age = time.Unix(0, s.g.trust.Published), math.MaxInt64
		s.stale = true
	} else if err != nil {
		return err
	}
	s.now, s.asOf = s.r.now(), confirmed.UTC()
	for _, t := range []time.Time{confirmed, time.Unix(0, s.g.trust.Published)} {
		if t.After(s.now) {
			s.now = t
		}
	}
	// By the reader's clock alone: a replica's source may have published by a clock that
	// is ahead of it.
	s.age = max(age, s.r.now().Sub(confirmed))
	s.stale = s.stale || s.g.trust.Lease > 0 && s.age > time.Duration(s.g.trust.Lease) ||
		s.r.maxAge > 0 && s.age > s.r.maxAge
	return nil
}

// Close gives the generation back.
func (s *Snapshot) Close() {
	if s.g == nil {
		return
	}
	for i, v := range s.layers {
		s.g.files[i].Give(v)
	}
	s.r.release(s.g)
	scratches.Put(s.scratch)
	s.g, s.layers, s.scratch = nil, nil, nil
}

// Generation returns which publication this is.
func (s *Snapshot) Generation() Generation {
	return Generation{CacheID: fmt.Sprintf("%016x", s.g.ID), Number: s.g.Generation, Data: s.g.Data}
}

// AsOf is when the daemon last confirmed that the trust in force was that of
// the trust directories.
func (s *Snapshot) AsOf() time.Time { return s.asOf }

// Age is how long ago that was at least, by the clock of this machine.
func (s *Snapshot) Age() time.Duration { return s.age }

// Current is what CURRENT says: it names the files of the publication.
func (s *Snapshot) Current() string { return s.g.target }

// Files are the files that the snapshot reads, the trust file last: what lies under their
// names may have been replaced since.
func (s *Snapshot) Files() ([]fs.FileInfo, error) {
	var all []fs.FileInfo
	for _, f := range slices.Backward(s.g.files) {
		all = append(all, f.Info)
	}
	info, err := s.g.trustOpen.Stat()
	return append(all, info), err
}

// SamePublication reports whether two snapshots read the same files, not only files of the
// same names.
func (s *Snapshot) SamePublication(as *Publication) bool { return as != nil && as.g == s.g }

// Publication identifies what a snapshot reads. It keeps nothing open.
type Publication struct{ g *generation }

// Publication returns what SamePublication compares with.
func (s *Snapshot) Publication() *Publication { return &Publication{s.g} }

// Stale reports whether that was too long ago: every answer reads
// unknown/stale.
func (s *Snapshot) Stale() bool { return s.stale }

// Lease is how long the publication is believed without confirmation; 0 for
// ever.
func (s *Snapshot) Lease() time.Duration { return time.Duration(s.g.trust.Lease) }

// InForce returns the trust in force.
func (s *Snapshot) InForce() *trust.InForce { return s.g.trust.InForce }

// get looks a key up.
func (s *Snapshot) get(bucket int, key []byte) ([]byte, bool, error) {
	return format.Unseal(key, s.layers.Sealed(bucket, key))
}

// each calls fn with the live values under a prefix, in key order.
func (s *Snapshot) each(bucket int, prefix []byte, fn func(key, body []byte) error) error {
	return s.from(bucket, prefix, prefix, fn)
}

// Resolve returns the digest that a tag names, or an error as Image does.
func (s *Snapshot) Resolve(repository, tag string) (d trust.Digest, err error) {
	format.Guard(&err, func() error {
		body, ok, err := s.get(format.InTags, format.TagKey(repository, tag))
		if err != nil {
			return err
		}
		if !ok || len(body) != len(d) {
			return s.Missing(repository)
		}
		copy(d[:], body)
		return nil
	})
	return d, err
}

// Tag returns the image that a tag names.
func (s *Snapshot) Tag(repository, tag string) (Image, error) {
	d, err := s.Resolve(repository, tag)
	if err != nil {
		return Image{}, err
	}
	img, err := s.Image(repository, d)
	img.Tag = tag
	return img, err
}

// Image returns one image of a repository, or what Missing does.
func (s *Snapshot) Image(repository string, d trust.Digest) (Image, error) {
	return s.ImageWithin(repository, d, NewBudget())
}

// ImageWithin is Image with another bound than [MaxAnswer] on what it lists.
func (s *Snapshot) ImageWithin(repository string, d trust.Digest, b *Budget) (img Image, err error) {
	format.Guard(&err, func() error {
		var ok bool
		img, ok, err = s.imageWithin(repository, d, true, b)
		if err == nil && !ok {
			err = s.Missing(repository)
		}
		return err
	})
	return img, err
}

// Missing is the error for something that is not among the answers about a
// repository: ErrNotFound, or that as ErrUnlisted or ErrPartial.
func (s *Snapshot) Missing(repository string) (err error) {
	format.Guard(&err, func() error {
		for name := repository; s.anyUnlisted(); {
			if why, unlisted, err := s.get(format.InUnlisted, []byte(name)); err != nil {
				return err
			} else if unlisted {
				if text := storedText(why); text != "" {
					return fmt.Errorf("%w: %s", ErrUnlisted, text)
				}
				return ErrUnlisted
			}
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
		}
		return s.absent()
	})
	return err
}

// absent is the error for what is nowhere in the cache.
func (s *Snapshot) absent() error {
	if s.g.trust.Partial {
		return ErrPartial
	}
	return ErrNotFound
}

// Partial reports whether storage has not been read to its end since the cache was
// begun: what is not in the cache may be in storage.
func (s *Snapshot) Partial() bool { return s.g.trust.Partial }

// anyUnlisted spares look-ups: nearly always everything could be listed.
func (s *Snapshot) anyUnlisted() bool {
	return s.layers.Unlisted()
}

// Digest returns one answer for each repository that holds d, by name.
func (s *Snapshot) Digest(d trust.Digest) (images []Image, err error) {
	format.Guard(&err, func() error {
		return s.each(format.InDigests, d[:], func(key, _ []byte) error {
			img, ok, err := s.image(string(key[len(d):]), d, true)
			if err == nil && ok {
				images = append(images, img)
			}
			return err
		})
	})
	if err == nil && len(images) == 0 {
		err = s.absent()
	}
	return images, err
}

// Signature returns the answers about one signature manifest of an image in a
// repository, one for each of its layers.
func (s *Snapshot) Signature(repository string, manifest, signature trust.Digest) ([]Signature, error) {
	var l *Listing
	var err error
	format.Guard(&err, func() error {
		body, ok, err := s.get(format.InImages, format.ImageKey(repository, manifest))
		if err != nil {
			return err
		}
		if !ok {
			return s.Missing(repository)
		}
		if err := s.record.decode(body); err != nil {
			return err
		}
		unlisted := false
		if s.anyUnlisted() {
			if _, unlisted, err = s.get(format.InUnlisted, []byte(repository)); err != nil {
				return err
			}
		}
		var one [][]byte
		for _, b := range s.record.signatures {
			if err := s.signature.decode(b); err != nil {
				return err
			}
			if s.signature.digest == signature {
				one = append(one, b)
			}
		}
		l, err = s.signatures(repository, one, unlisted, NewBudget())
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(l.Kept) == 0:
		return nil, ErrNotFound
	}
	return l.Kept, nil
}

// Repositories calls fn with every repository name, in order.
func (s *Snapshot) Repositories(fn func(name string) error) (err error) {
	format.Guard(&err, func() error {
		return s.each(format.InRepositories, nil, func(key, _ []byte) error { return fn(string(key)) })
	})
	return err
}

// Unlisted calls fn, in order, with every repository, and directory above
// repositories, that could not be listed, and why, which may be empty. What is known
// of it reads unknown; there may be more in it.
func (s *Snapshot) Unlisted(fn func(name, why string) error) (err error) {
	format.Guard(&err, func() error {
		return s.each(format.InUnlisted, nil, func(key, value []byte) error { return fn(string(key), storedText(value)) })
	})
	return err
}

// storedText is the text of a value, which is 1 where there is none.
func storedText(value []byte) string {
	if string(value) == "\x01" {
		return ""
	}
	return string(value)
}

// Newest returns the tag of the image that was written last in a repository; "" if that
// is not known, or no tag names an image.
func (s *Snapshot) Newest(repository string) (tag string, err error) {
	format.Guard(&err, func() error {
		value, _, err := s.get(format.InRepositories, []byte(repository))
		tag = storedText(value)
		return err
	})
	return tag, err
}

// HasRepository reports whether the cache knows the repository.
func (s *Snapshot) HasRepository(name string) (ok bool, err error) {
	format.Guard(&err, func() error {
		_, ok, err = s.get(format.InRepositories, []byte(name))
		return err
	})
	return ok, err
}

// Tags calls fn with every tag of a repository, in order.
func (s *Snapshot) Tags(repository string, fn func(tag string, d trust.Digest) error) (err error) {
	prefix := format.TagKey(repository, "")
	format.Guard(&err, func() error {
		return s.each(format.InTags, prefix, func(key, body []byte) error {
			if len(body) != 32 {
				return fmt.Errorf("%w: tag %q", format.ErrDamaged, key)
			}
			return fn(string(key[len(prefix):]), trust.Digest(body))
		})
	})
	return err
}

// image reads and joins one record.
func (s *Snapshot) image(repository string, d trust.Digest, children bool) (Image, bool, error) {
	return s.imageWithin(repository, d, children, NewBudget())
}

func (s *Snapshot) imageWithin(repository string, d trust.Digest, children bool, b *Budget) (Image, bool, error) {
	key := format.ImageKey(repository, d)
	body, ok, err := s.get(format.InImages, key)
	if !ok || err != nil {
		return Image{}, false, err
	}
	img, err := s.answerWithin(repository, d, body, children, b)
	return img, err == nil, err
}
