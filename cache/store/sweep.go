package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
)

// What earlier publications left: where a new process goes on, and what it, or
// the next publication, removes.

// openPublished goes on from what is published, if that was published from this
// private store, and sweeps what else an earlier run left. Nothing is published
// before SetTrust: what is there keeps its own trust file, and its lease runs out.
//
// If it was not — there is nothing, or one of the two was lost or comes from a
// backup — the cache gets a new id and everything is published anew: under the old
// one a reader would take new generations for old ones, and numbers of signers
// would be given twice.
func (s *Store) openPublished() error {
	dir := s.publishedPath()
	_, cur, err := format.ReadCurrent(dir)
	known := err == nil && cur.ID == s.ID()
	var sequences map[uint64]uint64
	if known {
		sequences = s.continues(cur)
	}
	continues := sequences != nil
	if !continues {
		if known {
			s.opts.Log.Warn("what is published is not from the private cache as it is now; everything is published anew")
		}
		cur = format.Current{}
	}
	s.pub.named.Store(cur.Generation)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read published files: %w", err)
	}
	var left []fs.DirEntry
	for _, e := range entries {
		_, generation, ok := format.ParseFileName(e.Name())
		if continues && slices.Contains(cur.Files(), e.Name()) || e.Name() == format.CurrentName {
			continue
		}
		if ok {
			cur.Generation = max(cur.Generation, generation)
		}
		left = append(left, e)
	}
	if cur.ID, err = s.beginPublished(!continues); err != nil {
		return err
	}
	if sequences == nil {
		sequences = map[uint64]uint64{}
	}
	s.pub.cur, s.pub.sequences = cur, sequences
	s.pub.sequence.Store(sequences[newestLayer(cur)])
	s.pub.notify, s.pub.hurry = make(chan struct{}, 1), make(chan struct{}, 1)
	s.sweep(left)
	return nil
}

// newestLayer is the generation that made the newest delta, or the base.
func newestLayer(cur format.Current) uint64 {
	if deltas := cur.Layers(); len(deltas) > 0 {
		return deltas[len(deltas)-1]
	}
	return cur.Base
}

// continues returns the commits as of which the layers that CURRENT names were made,
// by generation, if they were published from this private store, and nothing after
// it; else nil.
func (s *Store) continues(cur format.Current) map[uint64]uint64 {
	var sequence, named uint64
	err := s.view(func(tx *bbolt.Tx) error {
		sequence, named = getMeta(tx, metaSequence), getMeta(tx, metaGeneration)
		return nil
	})
	sequences := map[uint64]uint64{}
	for _, name := range cur.Names() {
		n, ferr := publishedSequence(filepath.Join(s.publishedPath(), name))
		if err = errors.Join(err, ferr); n > sequence {
			return nil
		}
		_, generation, _ := format.ParseFileName(name)
		sequences[generation] = n
	}
	if err != nil || cur.Generation < named {
		return nil
	}
	return sequences
}

// publishedSequence returns the commit as of which a base or a delta was made.
func publishedSequence(path string) (n uint64, err error) {
	f, err := format.OpenFile(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	format.Guard(&err, func() error {
		return f.DB.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(format.BucketMeta)
			if b == nil {
				return fmt.Errorf("%w: %s has no bucket %s", format.ErrDamaged, path, format.BucketMeta)
			}
			body, ok, err := format.Unseal(format.KeySequence, b.Get(format.KeySequence))
			if err != nil || !ok || len(body) != 8 {
				return errors.Join(err, fmt.Errorf("%w: %s has no sequence", format.ErrDamaged, path))
			}
			n = format.NumberOf(body)
			return nil
		})
	})
	return n, err
}

// beginPublished returns the cache's id, anew a new one, and reads what of the
// private store is not in the base.
func (s *Store) beginPublished(anew bool) (id uint64, err error) {
	fresh, err := newID()
	if err != nil {
		return 0, err
	}
	tracked := int64(0)
	err = s.update(func(tx *bbolt.Tx) (err error) {
		s.pub.partial = getMeta(tx, metaWhole) == 0
		if tracked = 0; anew {
			if err := errors.Join(putMeta(tx, metaID, fresh), putMeta(tx, metaGeneration, 0)); err != nil {
				return err
			}
		}
		id = getMeta(tx, metaID)
		tracked, err = countTracked(tx)
		return err
	})
	if err == nil {
		s.pub.tracked.Store(tracked)
	}
	return id, err
}

// countTracked counts the changes that are tracked.
func countTracked(tx *bbolt.Tx) (n int64, err error) {
	err = tx.Bucket(privChanged).ForEach(func(_, _ []byte) error { n++; return nil })
	return n, err
}

// sweep removes files that nothing names, those that a reader may be about to open
// later.
func (s *Store) sweep(left []fs.DirEntry) {
	for _, e := range left {
		path := filepath.Join(s.publishedPath(), e.Name())
		_, _, published := format.ParseFileName(e.Name())
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
// the process lives until then: the next start sweeps. By then the name may be
// another Store's.
func (s *Store) removeLater(path string) {
	time.AfterFunc(s.opts.retention, func() {
		if s.owned() != nil {
			return
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opts.Log.Warn("cannot remove superseded file", "path", path, "error", err)
		}
	})
}
