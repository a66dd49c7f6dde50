package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Pages that point in a circle, at nothing, or are of no kind are found when a file is
// opened: bbolt would follow them until its stack is full.
func TestPagesThatLeadAstray(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName("base", 1))
	err := WriteDB(path, func(put PutFunc) error {
		key := make([]byte, 8)
		for i := range uint64(2000) {
			binary.BigEndian.PutUint64(key, i)
			if err := put(PublishedBuckets[InImages], bytes.Clone(key), make([]byte, 100)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pageSize := f.DB.Info().PageSize
	f.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	branches, inline := 0, 0
	refused := func(what string, at int, value []byte) {
		t.Helper()
		bad := bytes.Clone(whole)
		copy(bad[at:], value)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(path)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	id := func(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }
	for at := 2 * pageSize; at < len(whole); at += pageSize {
		p, err := parsePage(whole[at:])
		if err != nil || p.id != uint64(at/pageSize) {
			continue
		}
		switch p.flags {
		case branchPage:
			if branches++; p.count < 2 {
				t.Fatal("a branch page has one element")
			}
			last := at + pageHeader + (p.count-1)*elementSize + 8
			refused("a page points at itself", last, id(p.id))
			refused("two point at one", last, whole[at+pageHeader+8:][:8])
			refused("a page points beyond the end", last, id(1<<40))
			refused("a page points at the first", last, id(0))
			refused("a page of no kind", at+8, []byte{0})
			refused("a page with too many elements", at+10, []byte{0xff, 0xff})
			refused("a page that goes on beyond the end", at+12, []byte{0xff, 0xff})
		case leafPage:
			for n := range p.count {
				e := p.element(n)
				value := at + pageHeader + n*elementSize + int(binary.NativeEndian.Uint32(e[4:])+binary.NativeEndian.Uint32(e[8:]))
				if binary.NativeEndian.Uint32(e)&bucketLeaf == 0 {
					continue
				}
				if binary.NativeEndian.Uint64(whole[value:]) != 0 {
					refused("a bucket that is the page of all buckets", value, id(p.id))
					continue
				}
				inline++
				for bit := range 8 {
					refused("an inline bucket of another kind", value+bucketSize+8, []byte{leafPage ^ 1<<bit})
				}
				refused("an inline bucket with too many elements", value+bucketSize+10, []byte{0xff, 0xff})
			}
		}
	}
	if branches == 0 || inline == 0 {
		t.Errorf("%d branch pages and %d inline buckets were damaged", branches, inline)
	}
}
