package format

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// The pages of a bbolt database, as far as they say where others are (bbolt,
// internal/common/page.go and bucket.go). Numbers are in the order of this machine's bytes.
//
//	page    id u64, flags u16, count u16, overflow u32, then count elements
//	branch  position u32, key size u32, id of a page u64
//	leaf    flags u32, position u32, key size u32, value size u32; positions count from the element
//	bucket  (the value of a leaf element) id of its first page u64, sequence u64;
//	        where the id is 0, the only page follows
const (
	pageHeader  = 16
	elementSize = 16 // of both
	bucketSize  = 16

	branchPage = 1
	leafPage   = 2
	bucketLeaf = 1 // flag of a leaf element
)

// tree follows pages before bbolt does. bbolt goes wherever a page points, and has no
// other end than a leaf: where damaged pages point in a circle it dies of an endless stack,
// which nothing can catch.
type tree struct {
	file     io.ReaderAt
	pageSize int64
	end      uint64   // ids are below it
	seen     []uint64 // a bit for each page that something points at
}

// checkTree returns ErrDamaged unless branch pages, and buckets, point at no page twice.
// Of the leaves, which are nearly all pages, it reads none but those that hold buckets: it
// takes the pages at one depth to be of the kind of the first, as they are in every tree that
// bbolt makes. file is the one that db has open.
func checkTree(file *os.File, db *bbolt.DB) error {
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	root, size := uint64(tx.Cursor().Bucket().Root()), tx.Size()
	if err := tx.Rollback(); err != nil {
		return err
	}
	t := &tree{file: file, pageSize: int64(db.Info().PageSize)}
	t.end = uint64(size / t.pageSize)
	if info, err := file.Stat(); err != nil {
		return err
	} else if info.Size() < size {
		return fmt.Errorf("%w: %s is cut short", ErrDamaged, file.Name())
	}
	t.seen = make([]uint64, t.end/64+1)
	leaves, err := t.leaves(root)
	for _, p := range leaves {
		if err == nil {
			err = t.buckets(p)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	return nil
}

// leaves follows the branch pages below one page, and returns the ids of what they end in.
func (t *tree) leaves(root uint64) ([]uint64, error) {
	level := []uint64{root}
	if err := t.see(root); err != nil {
		return nil, err
	}
	for {
		var next []uint64
		for i, id := range level {
			p, err := t.load(id)
			if err != nil {
				return nil, err
			}
			if p.flags != branchPage {
				if i == 0 {
					return level, nil
				}
				continue
			}
			for n := range p.count {
				child := binary.NativeEndian.Uint64(p.element(n)[8:])
				if err := t.see(child); err != nil {
					return nil, err
				}
				next = append(next, child)
			}
		}
		if level = next; len(level) == 0 {
			return nil, fmt.Errorf("%w: page %d has nothing below it", ErrDamaged, root)
		}
	}
}

// buckets checks the buckets that a leaf holds.
func (t *tree) buckets(leaf uint64) error {
	p, err := t.load(leaf)
	if err == nil && p.flags != leafPage {
		err = fmt.Errorf("%w: page %d is no leaf", ErrDamaged, leaf)
	}
	if err != nil {
		return err
	}
	for n := range p.count {
		e := p.element(n)
		if binary.NativeEndian.Uint32(e)&bucketLeaf == 0 {
			continue
		}
		at := uint64(n*elementSize) + uint64(binary.NativeEndian.Uint32(e[4:])) + uint64(binary.NativeEndian.Uint32(e[8:]))
		length := uint64(binary.NativeEndian.Uint32(e[12:]))
		if length < bucketSize || at+length > uint64(len(p.elements)) {
			return fmt.Errorf("%w: page %d has a bucket beyond its end", ErrDamaged, leaf)
		}
		bucket := p.elements[at : at+length]
		if first := binary.NativeEndian.Uint64(bucket); first != 0 {
			if _, err := t.leaves(first); err != nil {
				return err
			}
			continue
		}
		if inline, err := parsePage(bucket[bucketSize:]); err != nil || inline.flags != leafPage {
			return fmt.Errorf("%w: page %d has a bucket that is no leaf", ErrDamaged, leaf)
		}
	}
	return nil
}

// see notes that something points at a page.
func (t *tree) see(id uint64) error {
	if id < 2 || id >= t.end {
		return fmt.Errorf("%w: page %d is not there", ErrDamaged, id)
	}
	if t.seen[id/64]&(1<<(id%64)) != 0 {
		return fmt.Errorf("%w: page %d is pointed at twice", ErrDamaged, id)
	}
	t.seen[id/64] |= 1 << (id % 64)
	return nil
}

// page is one page, with those that it overflows into.
type page struct {
	id       uint64
	flags    uint16
	count    int
	elements []byte // and what they stand for
}

func (p *page) element(n int) []byte { return p.elements[n*elementSize:][:elementSize] }

func parsePage(b []byte) (p page, err error) {
	if len(b) < pageHeader {
		return page{}, ErrDamaged
	}
	p = page{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:])), b[pageHeader:]}
	if p.count*elementSize > len(p.elements) {
		return page{}, ErrDamaged
	}
	return p, nil
}

// load reads a page: a branch as far as it points at others, a leaf as a whole.
func (t *tree) load(id uint64) (page, error) {
	b := make([]byte, t.pageSize)
	_, err := t.file.ReadAt(b, int64(id)*t.pageSize)
	more := uint64(binary.NativeEndian.Uint32(b[12:]))
	if err == nil && more > 0 {
		if id+more >= t.end {
			return page{}, fmt.Errorf("%w: page %d goes beyond the end", ErrDamaged, id)
		}
		size := int64(1+more) * t.pageSize
		if binary.NativeEndian.Uint16(b[8:]) == branchPage {
			size = min(size, pageHeader+elementSize*int64(binary.NativeEndian.Uint16(b[10:])))
		}
		b = make([]byte, max(size, t.pageSize))
		_, err = t.file.ReadAt(b, int64(id)*t.pageSize)
	}
	if err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	p, err := parsePage(b)
	if err != nil || p.id != id || p.flags != branchPage && p.flags != leafPage {
		return page{}, fmt.Errorf("%w: page %d is no branch and no leaf", ErrDamaged, id)
	}
	return p, nil
}
