package cache

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"
)

// layers are the base and the deltas of a publication, open: the newest first, the
// base last. Where several have a key the newest wins.
type layers []*view

// sealed returns the value of a key as it is stored, nil if there is none.
func (l layers) sealed(bucket int, key []byte) []byte {
	for _, v := range l {
		if sealed := v.buckets[bucket].Get(key); sealed != nil {
			return sealed
		}
	}
	return nil
}

// unlisted reports whether any layer names a repository that could not be listed.
func (l layers) unlisted() bool {
	return slices.ContainsFunc(l, func(v *view) bool { return v.unlisted })
}

// merged iterates over the sealed values under a prefix, in key order. At the end k
// is nil.
type merged struct {
	layers []iterator // newest first
	k, v   []byte
}

// merged begins at the key start.
func (l layers) merged(bucket int, prefix, start []byte) *merged {
	m := &merged{}
	for _, v := range l {
		it := iterator{c: v.buckets[bucket].Cursor(), prefix: prefix}
		it.k, it.v = it.c.Seek(start)
		it.clip()
		m.layers = append(m.layers, it)
	}
	m.settle()
	return m
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
