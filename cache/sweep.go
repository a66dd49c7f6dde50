package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// What earlier publications left: where a new process goes on, and what it, or
// the next publication, removes.

// openPublished starts from a generation above all that there has been, and
// sweeps what an earlier run left. Nothing is published before SetTrust: what is
// there keeps its own trust file, and its lease runs out.
func (s *Store) openPublished() error {
	dir := s.publishedPath()
	id := s.ID()
	_, cur, err := readCurrent(dir)
	if err != nil || cur.id != id {
		cur = current{id: id}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read published files: %w", err)
	}
	top := cur.generation
	var left []fs.DirEntry
	for _, e := range entries {
		kind, generation, ok := parseFileName(e.Name())
		if ok {
			top = max(top, generation)
		}
		if ok && (kind == "base" && generation == cur.base || kind == "delta" && generation == cur.delta || kind == "trust" && generation == cur.trusts) ||
			e.Name() == currentName {
			continue
		}
		left = append(left, e)
	}
	full := cur.base == 0
	if !full {
		if _, err := os.Stat(cur.basePath(dir)); err != nil {
			full, cur.base, cur.delta = true, 0, 0
		}
	}
	if cur.generation, err = s.beginPublished(top, full); err != nil {
		return err
	}
	s.pub.cur = cur
	s.pub.notify = make(chan struct{}, 1)
	s.sweep(left)
	return nil
}

// beginPublished makes the generation durable from which this process counts on:
// once what is left of the last one has been swept, no file tells it. It also reads
// what of the private store is not in the base.
func (s *Store) beginPublished(top uint64, full bool) (uint64, error) {
	tracked := int64(0)
	err := s.update(func(tx *bbolt.Tx) error {
		top, tracked = max(top, getMeta(tx, metaGeneration)), 0
		if err := putMeta(tx, metaGeneration, top); err != nil {
			return err
		}
		if full || getMeta(tx, metaFolding) != 0 {
			return errors.Join(putMeta(tx, metaFull, 1), putMeta(tx, metaFolding, 0))
		}
		return tx.Bucket(privChanged).ForEach(func(_, _ []byte) error { tracked++; return nil })
	})
	if err == nil {
		s.pub.tracked.Store(tracked)
	}
	return top, err
}

// sweep removes files that nothing names, those that a reader may be about to open
// later.
func (s *Store) sweep(left []fs.DirEntry) {
	for _, e := range left {
		path := filepath.Join(s.publishedPath(), e.Name())
		_, _, published := parseFileName(e.Name())
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) < retention && published {
			s.removeLater(path)
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			s.opts.Log.Warn("cannot sweep published file", "name", e.Name(), "error", err)
		}
	}
}

// removeLater removes a superseded file after the retention, whether or not
// the process lives until then: the next start sweeps.
func (s *Store) removeLater(path string) {
	time.AfterFunc(retention, func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opts.Log.Warn("cannot remove superseded file", "path", path, "error", err)
		}
	})
}
