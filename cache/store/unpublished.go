package store

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
)

// What has changed and is not published: entries of the bucket changed, each a commit's
// sequence and a published key. A publication takes a part of them, a repository at a
// time in turn, so that nobody waits until all of another's is published. What it took
// is spent, and deleted by the next transaction; should none come, it is published once
// more by the next process.

const (
	// maxTracked is how many changes are kept; beyond it the next publication is a
	// base.
	maxTracked = 200_000
	// manyTracked is how many are too many for repositories that come in parts: they
	// wait until some are published.
	manyTracked = 40_000
	// partKeys and partBytes bound one publication.
	partKeys  = 8_000
	partBytes = 8 << 20
	// fewKeys are a small change, which costs the others nothing.
	fewKeys = 16
)

// spent are the entries that have been published.
type spent struct {
	mu      sync.Mutex
	entries map[string]bool
	// through is the commit up to which a base has everything.
	through uint64
}

// add notes entries as published.
func (s *spent) add(entries []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[string]bool{}
	}
	for _, e := range entries {
		s.entries[e] = true
	}
}

// addThrough notes that everything up to a commit is published.
func (s *spent) addThrough(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.through = max(s.through, seq)
}

func (s *spent) has(entry []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[string(entry)] || format.NumberOf(entry[:8]) <= s.through
}

// trim deletes entries that are spent, so many at once as a transaction has time for,
// and returns which: they are forgotten when that is committed. n says how many of them
// were there.
func (s *spent) trim(b *bbolt.Bucket) (gone []string, n int64, err error) {
	const atOnce = 20_000
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.entries {
		if len(gone) == atOnce {
			break
		}
		gone = append(gone, e)
	}
	cur := b.Cursor()
	for k, _ := cur.First(); len(k) > 8 && format.NumberOf(k[:8]) <= s.through && len(gone) < atOnce; k, _ = cur.Next() {
		gone = append(gone, string(k))
	}
	slices.Sort(gone)
	for _, e := range gone {
		if b.Get([]byte(e)) == nil {
			continue // given up with all others: a base was to be made
		}
		if err := b.Delete([]byte(e)); err != nil {
			return nil, 0, err
		}
		n++
	}
	return gone, n, nil
}

// leaves reports whether the bucket has an entry that is not spent.
func (s *spent) leaves(b *bbolt.Bucket) bool {
	c := b.Cursor()
	for k, _ := c.First(); len(k) > 8; k, _ = c.Next() {
		if !s.has(k) {
			return true
		}
	}
	return false
}

func (s *spent) forget(gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range gone {
		delete(s.entries, e)
	}
}

// unpublished are changed keys with the entries that stand for them, in the order in
// which they are to be published.
type unpublished struct {
	order   []string
	entries map[string][]string
}

// readUnpublished reads what has changed and is not spent, of which at most so many keys
// are wanted. Small changes come first, up to half of them. Repositories with more take
// turns, key by key; turn says which of them is the next.
func readUnpublished(tx *bbolt.Tx, skip *spent, most, turn int) unpublished {
	u := unpublished{entries: map[string][]string{}}
	of := map[string][]string{} // keys by repository, oldest first
	c := tx.Bucket(privChanged).Cursor()
	for k, _ := c.First(); len(k) > 8; k, _ = c.Next() {
		if skip.has(k) {
			continue
		}
		key := string(k[8:])
		if u.entries[key] == nil {
			name := repositoryOfKey(k[8:])
			of[name] = append(of[name], key)
		}
		u.entries[key] = append(u.entries[key], string(k))
	}
	var small, large []string // repositories
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if len(of[name]) <= fewKeys {
			small = append(small, name)
		} else {
			large = append(large, name)
		}
	}
	if n := len(large); n > 0 {
		large = slices.Concat(large[turn%n:], large[:turn%n])
	}
	next := 0
	for ; next < len(small) && len(u.order) < most/2; next++ {
		u.order = append(u.order, of[small[next]]...)
	}
	for i, left := 0, true; left; i++ {
		left = false
		for _, name := range large {
			if keys := of[name]; i < len(keys) {
				u.order, left = append(u.order, keys[i]), true
			}
		}
	}
	for _, name := range small[next:] {
		u.order = append(u.order, of[name]...)
	}
	return u
}

// repositoryOfKey is the repository that a tracked key, with its bucket's first byte, is
// of; "" for what is of none.
func repositoryOfKey(key []byte) string {
	switch key[0] {
	case format.BucketAuthors[0]:
		return ""
	}
	name, _, _ := bytes.Cut(key[1:], []byte{0})
	return string(name)
}

// writeChanged renders a part of what has changed: values, or tombstones. It returns the
// entries that it took, and whether there are more.
func (s *Store) writeChanged(tx *bbolt.Tx, u unpublished, policies func(string) policyChoice, put format.PutFunc) (took []string, more bool, err error) {
	type value struct{ bucket, key, value []byte }
	var values []value
	size := 0
	for n, key := range u.order {
		if more = n >= s.opts.partKeys || size >= partBytes; more {
			break
		}
		err := writeOne(tx, key[0], []byte(key[1:]), policies, func(bucket, k, v []byte) error {
			values = append(values, value{bucket, k, v})
			size += len(k) + len(v)
			return nil
		})
		if err != nil {
			return nil, false, err
		}
		took = append(took, u.entries[key]...)
	}
	slices.SortFunc(values, func(a, b value) int { return cmp.Or(bytes.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key)) })
	for _, v := range values {
		if err := put(v.bucket, v.key, v.value); err != nil {
			return nil, false, err
		}
	}
	return took, more, nil
}
