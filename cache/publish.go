package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/trust"
)

// publisher owns what is published.
//
// mu guards cur, terms and every write below the published directory. A trust
// file and CURRENT are written under it in a few milliseconds; a base or a
// delta is written to a file of its own first, without it, and no transaction is
// waited for under it, so that a removal waits for none of them.
type publisher struct {
	mu      sync.Mutex
	cur     current
	terms   *trust.InForce // what is published, or to be published with the first base
	lacking bool           // something in the trust file has no number yet
	// inForce is what was last recorded: what everything is rendered and counted
	// under. It may be behind terms for as long as a transaction takes; readers join
	// with what is published.
	inForce   atomic.Pointer[trust.InForce]
	at        int64     // when the trust file in force was written, Unix nanoseconds
	looked    time.Time // when the look began that gave terms, or last confirmed them
	withdrawn bool
	// unsure: terms were set that could not be published or recorded.
	unsure bool
	// partial: storage has not been read to its end since the cache was begun, or
	// cannot be listed.
	partial bool
	// trustPublished: the trust file in force is this process's, not one
	// that an earlier run left.
	trustPublished bool

	named   atomic.Uint64 // the generation that CURRENT names, 0 if there is none
	tracked atomic.Int64  // changed keys since the base, an upper bound

	data      sync.Mutex    // held while a base or a delta is made
	published atomic.Uint64 // publications of data, for tests and status
	anew      atomic.Bool   // the next base is rendered from the private store

	notify    chan struct{}
	hurry     chan struct{} // somebody waits for the next publication
	onPublish func(asOf time.Time)
}

func (p *publisher) wake() {
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

func (s *Store) publishedPath() string { return filepath.Join(s.dir, publishedDir) }

// setCurrent replaces CURRENT by rename and lets the superseded files go
// later. pub.mu is held.
func (s *Store) setCurrent(next current) error {
	if err := s.owned(); err != nil {
		return err
	}
	dir := s.publishedPath()
	tmp := filepath.Join(dir, currentName+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(next.String(), tmp); err != nil {
		return err
	}
	superseded := []current{s.pub.cur}
	if _, named, err := readCurrent(dir); err == nil && named.id == next.id && named != s.pub.cur {
		superseded = append(superseded, named) // by a publication that failed after it was replaced
	}
	if err := os.Rename(tmp, filepath.Join(dir, currentName)); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	s.pub.cur, s.pub.withdrawn = next, false
	s.pub.named.Store(next.generation)
	for _, was := range superseded {
		for _, old := range []struct {
			kind     string
			was, now uint64
		}{{"base", was.base, next.base}, {"delta", was.delta, next.delta}, {"trust", was.trusts, next.trusts}} {
			if old.was != 0 && old.was != old.now {
				s.removeLater(filepath.Join(dir, fileName(old.kind, old.was)))
			}
		}
	}
	return nil
}

// discard removes a file that was not published after all, so that what is tried
// again and again fills no disk. After an error CURRENT may name it all the same:
// then it stays until it is superseded.
func (s *Store) discard(kind string, generation uint64) {
	dir := s.publishedPath()
	_, cur, err := readCurrent(dir)
	if err != nil && err != ErrNoCache { // which says that there is none
		return
	}
	if err == nil && slices.Contains([]string{fileName("base", cur.base), fileName("delta", cur.delta), fileName("trust", cur.trusts)}, fileName(kind, generation)) {
		return
	}
	if err := os.Remove(filepath.Join(dir, fileName(kind, generation))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opts.Log.Warn("cannot remove a file that was not published", "error", err)
	}
}

// Publish makes everything that is committed readable and returns when it is.
func (s *Store) Publish(ctx context.Context) (err error) {
	s.pub.data.Lock()
	defer s.pub.data.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	start := time.Now()
	defer func() {
		took := time.Since(start)
		s.opts.Log.Debug("published", "changed", s.pub.tracked.Load(), "took", took, "error", err)
		if err == nil && s.pub.onPublish != nil {
			s.pub.onPublish(start)
		}
	}()
	var full bool
	err = s.view(func(tx *bbolt.Tx) error {
		// A base that is marked as being made and is not (data is held) did
		// not come about, and its mark could not be taken back.
		full = getMeta(tx, metaFull) != 0 || getMeta(tx, metaFolding) != 0
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case full:
		return s.publishAll()
	case s.pub.tracked.Load() > 0:
		if _, err = s.publishDelta(); errors.Is(err, errUntracked) { // since this began
			return s.publishAll()
		}
		return err
	}
	return nil
}

// publishAll writes a base when changes are not tracked, so that no delta can
// be made. Tracking begins again before the base is read; should the base not
// come about, the mark makes the next start begin again. data is held.
func (s *Store) publishAll() error {
	mark := func(folding, full uint64) error {
		s.write.Lock()
		defer s.write.Unlock()
		return s.update(func(tx *bbolt.Tx) error {
			return errors.Join(putMeta(tx, metaFolding, folding), putMeta(tx, metaFull, full))
		})
	}
	if err := mark(1, 0); err != nil {
		return err
	}
	generation, _, err := s.writeBase()
	if err == nil {
		if err = s.switchData(func(next *current) { next.base, next.delta = generation, 0 }); err != nil {
			s.discard("base", generation)
		}
	}
	if err != nil {
		return errors.Join(err, mark(0, 1))
	}
	s.pub.anew.Store(false)
	s.write.Lock()
	defer s.write.Unlock()
	// metaFull stays: a long base may have outrun the tracking.
	return s.update(func(tx *bbolt.Tx) error { return errors.Join(putMeta(tx, metaFolding, 0), s.noteNamed(tx)) })
}

// getFull reports whether changes are not tracked.
func getFull(s *Store) (full uint64) {
	if err := s.view(func(tx *bbolt.Tx) error { full = getMeta(tx, metaFull); return nil }); err != nil {
		return 1
	}
	return full
}

// take reserves a generation for a file that is about to be written.
func (s *Store) take() (generation uint64, err error) {
	if s.pub.inForce.Load() == nil {
		return 0, errNotRecorded
	}
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	next, err := s.next()
	return next.generation, err
}

// errNotRecorded: nothing can be rendered before it is known which statements
// govern.
var errNotRecorded = errors.New("the trust in force is not recorded yet")

// next is what is current under the next generation, which is used up whatever
// becomes of it: a failed publication may have been seen. pub.mu is held. Files of
// the same generation are another's in a state directory that is not owned.
func (s *Store) next() (current, error) {
	if err := s.owned(); err != nil {
		return current{}, err
	}
	s.pub.cur.generation++
	return s.pub.cur, nil
}

// writeBase writes a compacted file of everything, as of commit seq.
func (s *Store) writeBase() (generation, seq uint64, err error) {
	if generation, err = s.take(); err != nil {
		return 0, 0, fmt.Errorf("publish base: %w", err)
	}
	err = writeDB(filepath.Join(s.publishedPath(), fileName("base", generation)), func(put putFunc) error {
		return s.view(func(tx *bbolt.Tx) error {
			seq = getMeta(tx, metaSequence)
			return errors.Join(putSequence(put, seq), s.writeAll(tx, put))
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("publish base: %w", err)
	}
	return generation, seq, nil
}

// errUntracked: changes are no longer tracked, so that no delta has all of them.
var errUntracked = errors.New("changes are not tracked")

// writeDelta writes all that changed after one commit, as of another.
func (s *Store) writeDelta(after uint64) (generation, seq uint64, err error) {
	if generation, err = s.take(); err != nil {
		return 0, 0, fmt.Errorf("publish delta: %w", err)
	}
	err = writeDB(filepath.Join(s.publishedPath(), fileName("delta", generation)), func(put putFunc) error {
		return s.view(func(tx *bbolt.Tx) error {
			if getMeta(tx, metaFull) != 0 {
				return errUntracked
			}
			seq = getMeta(tx, metaSequence)
			return errors.Join(putSequence(put, seq), s.writeChanged(tx, after, put))
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("publish delta: %w", err)
	}
	return generation, seq, nil
}

// publishDelta publishes all that changed since the base, as of commit seq. data
// is held.
func (s *Store) publishDelta() (seq uint64, err error) {
	generation, seq, err := s.writeDelta(0)
	if err != nil {
		return 0, err
	}
	if err = s.switchData(func(next *current) { next.delta = generation }); err != nil {
		s.discard("delta", generation)
	}
	return seq, err
}

// switchData makes CURRENT name a new base or delta.
func (s *Store) switchData(edit func(*current)) error {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	if s.pub.terms == nil {
		return errors.New("publish: the trust in force is not known") // none was set, or it was withdrawn
	}
	next, err := s.next()
	if err != nil {
		return err
	}
	edit(&next)
	written := trustWritten{s.pub.at, s.pub.lacking}
	if next.trusts == 0 || s.pub.withdrawn || !s.pub.trustPublished {
		next.trusts = next.generation
		if written, err = s.writeTrust(s.pub.terms, next); err != nil {
			return err
		}
	}
	if err := s.setCurrent(next); err != nil {
		if next.trusts == next.generation {
			s.discard("trust", next.trusts)
		}
		return err
	}
	s.pub.nowInForce(written)
	s.pub.published.Add(1)
	return nil
}

// Published counts the publications of data in this process.
func (s *Store) Published() uint64 { return s.pub.published.Load() }

// Generation returns the generation in force.
func (s *Store) Generation() uint64 {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return s.pub.cur.generation
}
