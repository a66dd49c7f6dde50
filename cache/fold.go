package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// Folding: a delta that has grown becomes part of a new base.

// Fold writes a new base while deltas on the old one go on, then switches to
// it with a delta of what changed meanwhile. The new base is the old one merged
// with its delta, or rendered anew after [Store.RenderAnew] or when what is
// published cannot be read.
func (s *Store) Fold(ctx context.Context) (err error) {
	anew := s.pub.anew.Load()
	if getFull(s) != 0 || s.pub.tracked.Load() <= s.opts.foldAt && !anew {
		return nil
	}
	start := time.Now()
	defer func() {
		s.opts.Log.Debug("folded", "anew", anew, "changed", s.pub.tracked.Load(), "took", time.Since(start), "error", err)
	}()
	var generation, seq uint64
	if !anew {
		generation, seq, err = s.mergeBase(ctx)
		if anew = errors.Is(err, errUnreadable); anew {
			s.opts.Log.Error("the published base is made anew", "error", err)
		}
	}
	if anew {
		generation, seq, err = s.writeBase()
	}
	if errors.Is(err, errUntracked) {
		return nil // publishAll is next
	}
	if err != nil {
		return err
	}
	switched, err := s.switchBase(ctx, generation, seq)
	if !switched {
		s.discard("base", generation)
	}
	if switched && anew {
		s.pub.anew.Store(false)
	}
	return err
}

// switchBase publishes a base made as of commit seq, with a delta of what has
// changed since; unless everything has been made anew meanwhile, or has to be:
// then this base misses changes that were not tracked.
func (s *Store) switchBase(ctx context.Context, generation, seq uint64) (switched bool, err error) {
	s.pub.data.Lock()
	defer s.pub.data.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if s.base() > generation {
		return false, nil
	}
	delta, _, err := s.writeDelta(seq)
	if errors.Is(err, errUntracked) {
		return false, nil // publishAll is next
	}
	if err != nil {
		return false, err
	}
	if err := s.switchData(func(next *current) { next.base, next.delta = generation, delta }); err != nil {
		s.discard("delta", delta)
		return false, err
	}
	return true, s.forget(seq)
}

// base is the generation of the base in force.
func (s *Store) base() uint64 {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return s.pub.cur.base
}

// RenderAnew makes the next base from the private store instead of from the last
// one, soon: should anything be missing from that, it comes back.
func (s *Store) RenderAnew() {
	s.pub.anew.Store(true)
	s.pub.wake()
}

// mergeBase publishes a delta, and writes the base that it and the published
// base make, as of commit seq.
func (s *Store) mergeBase(ctx context.Context) (generation, seq uint64, err error) {
	r, err := OpenReader(s.dir)
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	snap, generation, seq, err := s.deltaSnapshot(r)
	if err != nil {
		return 0, 0, err
	}
	defer snap.Close()
	err = writeDB(filepath.Join(s.publishedPath(), fileName("base", generation)), func(put putFunc) error {
		return errors.Join(putSequence(put, seq), snap.writeMerged(ctx, put))
	})
	if err != nil {
		return 0, 0, fmt.Errorf("merge base: %w", err)
	}
	return generation, seq, nil
}

// errUnreadable: files that this process has published are damaged or gone.
var errUnreadable = errors.New("what is published cannot be read")

// deltaSnapshot publishes a delta as of commit seq, opens what is published then,
// and reserves a generation for the base that is made of it.
func (s *Store) deltaSnapshot(r *Reader) (snap *Snapshot, generation, seq uint64, err error) {
	s.pub.data.Lock()
	defer s.pub.data.Unlock()
	if seq, err = s.publishDelta(); err != nil {
		return nil, 0, 0, err
	}
	if snap, err = r.Snapshot(); err != nil {
		return nil, 0, 0, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if generation, err = s.take(); err != nil {
		snap.Close()
		return nil, 0, 0, err
	}
	return snap, generation, seq, nil
}

// forget clears the changes that a base of the given sequence holds.
func (s *Store) forget(seq uint64) error {
	left := int64(0)
	s.write.Lock() // until it is known what is left: a commit adds to it
	defer s.write.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(privChanged)
		var done [][]byte
		err := b.ForEach(func(k, v []byte) error {
			if len(v) == 8 && idOf(v) <= seq {
				done = append(done, bytes.Clone(k)) // never delete while iterating
			} else {
				left++
			}
			return nil
		})
		for _, k := range done {
			err = errors.Join(err, b.Delete(k))
		}
		return errors.Join(err, s.noteNamed(tx)) // what was published before lacks them
	})
	if err == nil {
		s.pub.tracked.Store(left)
	}
	return err
}
