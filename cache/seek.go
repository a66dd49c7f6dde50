package cache

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"trust-worker/trust"
)

// Lists that are read in pages begin where the last page ended: what comes
// before costs nothing.

// RepositoriesFrom is Repositories from a name on, itself included.
func (s *Snapshot) RepositoriesFrom(name string, fn func(name string) error) (err error) {
	guard(&err, func() error {
		return s.from(inRepositories, nil, []byte(name), func(key, _ []byte) error { return fn(string(key)) })
	})
	return err
}

// TagsAfter is Tags after a tag, itself excluded.
func (s *Snapshot) TagsAfter(repository, tag string, fn func(tag string, d trust.Digest) error) (err error) {
	prefix := tagKey(repository, "")
	guard(&err, func() error {
		return s.from(inTags, prefix, append(tagKey(repository, tag), 0), func(key, body []byte) error {
			if len(body) != 32 {
				return fmt.Errorf("%w: tag %q", ErrDamaged, key)
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
	prefix := tagKey(repository, "")
	guard(&err, func() error {
		return s.from(inImages, prefix, imageKey(repository, first), func(key, body []byte) error {
			if len(key) != len(prefix)+32 {
				return fmt.Errorf("%w: image %.60x", ErrDamaged, key)
			}
			if err := s.record.decode(body); err != nil {
				return err
			}
			return fn(trust.Digest(key[len(prefix):]), !s.record.tagged && !s.record.child)
		})
	})
	return err
}

// from calls fn with the live values under a prefix, from the key start on.
func (s *Snapshot) from(bucket int, prefix, start []byte, fn func(key, body []byte) error) error {
	for m := s.merged(bucket, prefix, start, 0); m.k != nil; m.next() {
		body, ok, err := unseal(m.k, m.v)
		if err != nil {
			return err
		}
		if ok {
			if err := fn(m.k, body); err != nil {
				return err
			}
		}
	}
	return nil
}

type iterator struct {
	c      *bbolt.Cursor
	prefix []byte
	k, v   []byte
}

func (it *iterator) next() {
	it.k, it.v = it.c.Next()
	it.clip()
}

func (it *iterator) clip() {
	if !bytes.HasPrefix(it.k, it.prefix) {
		it.k, it.v = nil, nil
	}
}

// merged iterates over the sealed values under a prefix, in key order: where several
// layers have a key the newest wins.
type merged struct {
	layers []iterator // newest first
	k, v   []byte
}

// merged begins at the key start, and leaves out the oldest layers, as many as skip
// says. A nil snapshot has nothing.
func (s *Snapshot) merged(bucket int, prefix, start []byte, skip int) *merged {
	m := &merged{}
	if s == nil {
		return m
	}
	for _, v := range s.deltas[:min(len(s.deltas), len(s.deltas)+1-skip)] {
		m.layers = append(m.layers, seekFrom(v, bucket, prefix, start))
	}
	if skip == 0 {
		m.layers = append(m.layers, seekFrom(s.base, bucket, prefix, start))
	}
	m.settle()
	return m
}

func seekFrom(v *view, bucket int, prefix, start []byte) iterator {
	it := iterator{c: v.buckets[bucket].Cursor(), prefix: prefix}
	it.k, it.v = it.c.Seek(start)
	it.clip()
	return it
}

func (m *merged) settle() {
	m.k, m.v = nil, nil
	for i := range m.layers {
		if it := &m.layers[i]; it.k != nil && (m.k == nil || bytes.Compare(it.k, m.k) < 0) {
			m.k, m.v = it.k, it.v
		}
	}
}

func (m *merged) next() {
	k := m.k
	for i := range m.layers {
		if it := &m.layers[i]; it.k != nil && bytes.Equal(it.k, k) {
			it.next()
		}
	}
	m.settle()
}

// compareKeys orders keys; nil is the end and comes last.
func compareKeys(a, b []byte) int {
	switch {
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return bytes.Compare(a, b)
}
