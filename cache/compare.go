package cache

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"trust-worker/trust"
)

// What has changed between two generations, as readers see it.

// Difference is one image as it read in two snapshots, or at two times.
type Difference struct {
	Repository string
	Digest     trust.Digest
	// Before and After are the image's own signatures, without its children's;
	// nil where there is no such image.
	Before, After []Signature
}

// Compare calls fn with every image that may read differently in s at the time
// to than it did in old at the time from: those whose records differ or whose
// repository could be listed in only one of the two; all images if the trust in
// force differs or all is set. A nil old had no image.
//
// Lease and staleness are left aside, since they say what may be believed and
// not what has changed: what fn is given is no answer to be acted on. Unchanged
// records cost a comparison of bytes, and nothing at all while both snapshots
// rest on the same base.
func (s *Snapshot) Compare(old *Snapshot, from, to time.Time, all bool, fn func(*Difference) error) (err error) {
	c := newComparison(old, s, from, to)
	guard(&err, func() error {
		all = all || old == nil || !sameTrust(old.InForce().Terms(), s.InForce().Terms())
		if all {
			return c.images(nil, true, nil, fn)
		}
		moved, err := c.moved()
		if err != nil {
			return err
		}
		if err := c.images(nil, false, moved, fn); err != nil {
			return err
		}
		for _, name := range moved {
			if err := c.images(tagKey(name, ""), true, nil, fn); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// CompareImage is Compare for one image.
func (s *Snapshot) CompareImage(old *Snapshot, from, to time.Time, repository string, d trust.Digest) (diff *Difference, err error) {
	c := newComparison(old, s, from, to)
	guard(&err, func() error {
		key := imageKey(repository, d)
		diff, err = c.difference(key, c.was.raw(key), c.is.raw(key))
		return err
	})
	return diff, err
}

// Now is the snapshot's clock: the reader's, but never earlier than the
// publication or its last confirmation.
func (s *Snapshot) Now() time.Time { return s.now }

// comparison is two snapshots with their clocks set, their leases out of force.
type comparison struct{ was, is *Snapshot }

func newComparison(old, s *Snapshot, from, to time.Time) comparison {
	at := func(s *Snapshot, t time.Time) *Snapshot {
		if s == nil {
			return nil
		}
		return &Snapshot{r: s.r, g: s.g, base: s.base, delta: s.delta, now: t, asOf: s.asOf, scratch: new(scratch)}
	}
	return comparison{at(old, from), at(s, to)}
}

func sameTrust(a, b trust.Terms) bool {
	return equalTerms(a, b) && slices.EqualFunc(a.Materials, b.Materials, func(x, y trust.Material) bool { return x.Signer == y.Signer })
}

// raw returns the sealed value of an image record, of nil snapshots none.
func (s *Snapshot) raw(key []byte) []byte {
	if s == nil {
		return nil
	}
	if s.delta != nil {
		if v := s.delta.buckets[inImages].Get(key); v != nil {
			return v
		}
	}
	return s.base.buckets[inImages].Get(key)
}

// images calls fn with the images under a prefix, all or those whose records
// differ, but for those of the repositories named in but (sorted).
func (c comparison) images(prefix []byte, all bool, but []string, fn func(*Difference) error) error {
	// On one base only what the deltas hold can differ.
	sameBase := !all && c.was.g.base == c.is.g.base
	a, b := c.was.merged(inImages, prefix, prefix, sameBase), c.is.merged(inImages, prefix, prefix, sameBase)
	for a.k != nil || b.k != nil {
		order := compareKeys(a.k, b.k)
		key, before, after := a.k, a.v, b.v
		switch {
		case order < 0:
			if after = nil; sameBase {
				after = c.is.raw(key)
			}
		case order > 0:
			key = b.k
			if before = nil; sameBase {
				before = c.was.raw(key)
			}
		}
		if all || !bytes.Equal(before, after) {
			d, err := c.difference(key, before, after)
			if err != nil {
				return err
			}
			if _, skip := slices.BinarySearch(but, d.Repository); !skip && (d.Before != nil || d.After != nil) {
				if err := fn(d); err != nil {
					return err
				}
			}
		}
		if order <= 0 {
			a.next()
		}
		if order >= 0 {
			b.next()
		}
	}
	return nil
}

// difference joins both sealed values of a record.
func (c comparison) difference(key, before, after []byte) (*Difference, error) {
	name, digest, ok := strings.Cut(string(key), "\x00")
	if !ok || len(digest) != len(trust.Digest{}) {
		return nil, ErrDamaged
	}
	d := &Difference{Repository: name, Digest: trust.Digest([]byte(digest))}
	for _, side := range []struct {
		s   *Snapshot
		v   []byte
		out *[]Signature
	}{{c.was, before, &d.Before}, {c.is, after, &d.After}} {
		body, ok, err := unseal(key, side.v)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		img, err := side.s.answer(name, d.Digest, body, false)
		if err != nil {
			return nil, err
		}
		*side.out = img.SignatureInfo
	}
	return d, nil
}

// moved returns, sorted, the repositories that could be listed in one of the
// two and not in the other.
func (c comparison) moved() ([]string, error) {
	count := map[string]int{}
	for _, s := range []*Snapshot{c.was, c.is} {
		if !s.base.unlisted && (s.delta == nil || !s.delta.unlisted) {
			continue
		}
		if err := s.each(inUnlisted, nil, func(key, _ []byte) error { count[string(key)]++; return nil }); err != nil {
			return nil, err
		}
	}
	var names []string
	for name, n := range count {
		if n == 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
