package format

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"
)

// Layers are the base and the deltas of a publication, open: the newest first, the
// base last. Where several have a key the newest wins.
type Layers []*View

// Sealed returns the value of a key as it is stored, nil if there is none.
func (l Layers) Sealed(bucket int, key []byte) []byte {
	for _, v := range l {
		if sealed := v.Buckets[bucket].Get(key); sealed != nil {
			return sealed
		}
	}
	return nil
}

// Unlisted reports whether any layer names a repository that could not be listed.
func (l Layers) Unlisted() bool {
	return slices.ContainsFunc(l, func(v *View) bool { return v.unlisted })
}

// merged iterates over the sealed values under a prefix, in key order. At the end k
// is nil.
type merged struct {
	layers []iterator // newest first
	K, V   []byte
}

// Merged begins at the key start.
func (l Layers) Merged(bucket int, prefix, start []byte) *merged {
	m := &merged{}
	for _, v := range l {
		it := iterator{c: v.Buckets[bucket].Cursor(), prefix: prefix}
		it.k, it.v = it.c.Seek(start)
		it.clip()
		m.layers = append(m.layers, it)
	}
	m.settle()
	return m
}

func (m *merged) settle() {
	m.K, m.V = nil, nil
	for i := range m.layers {
		if it := &m.layers[i]; it.k != nil && (m.K == nil || bytes.Compare(it.k, m.K) < 0) {
			m.K, m.V = it.k, it.v
		}
	}
}

func (m *merged) Next() {
	k := m.K
	for i := range m.layers {
		if it := &m.layers[i]; it.k != nil && bytes.Equal(it.k, k) {
			it.next()
		}
	}
	m.settle()
}

// iterator is one layer's cursor; at the end of the prefix k is nil.
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
