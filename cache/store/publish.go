package store

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

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// publisher owns what is published.
//
// mu guards cur and terms, and the writing of trust files and of CURRENT, which takes a
// few milliseconds. A base or a delta is written to a new file without mu, and nothing
// waits for a transaction under it: a removal waits for none of these.
type publisher struct {
	mu      sync.Mutex
	cur     format.Current
	terms   *trust.InForce // what is published, or to be published with the first base
	signers remembered
	// inForce is what was last recorded in the private store; values are rendered
	// under it. It may be behind terms for as long as a transaction takes. Readers
	// decide by what is published.
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

	named    atomic.Uint64 // the generation that CURRENT names, 0 if there is none
	tracked  atomic.Int64  // changed keys that are kept, an upper bound
	sequence atomic.Uint64 // the commit as of which the newest layer was made
	spent    spent         // changes that are published

	data      sync.Mutex        // held while data are published, guards the next three
	sequences map[uint64]uint64 // of each layer: the commit as of which it was made
	turn      int               // whose large changes are published first
	folding   int               // of how many of the oldest deltas one is being made
	published atomic.Uint64     // publications of data, for tests and status
	anew      atomic.Bool       // the next base is rendered from the private store

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

func (s *Store) publishedPath() string { return filepath.Join(s.dir, format.PublishedDir) }

// setCurrent replaces CURRENT and lets the superseded files go later. pub.mu is held.
func (s *Store) setCurrent(next format.Current) error {
	if err := s.owned(); err != nil {
		return err
	}
	dir := s.publishedPath()
	superseded := s.pub.cur.Files()
	if _, named, err := format.ReadCurrent(dir); err == nil && named.ID == next.ID && named != s.pub.cur {
		superseded = append(superseded, named.Files()...) // by a publication that failed after it was replaced
	}
	if err := format.SetCurrent(dir, next); err != nil {
		return err
	}
	s.pub.cur, s.pub.withdrawn = next, false
	s.pub.named.Store(next.Generation)
	for _, name := range superseded {
		if _, generation, _ := format.ParseFileName(name); generation != 0 && !slices.Contains(next.Files(), name) {
			s.removeLater(filepath.Join(dir, name))
		}
	}
	return nil
}

// discard removes a file that was not published after all, so that what is tried
// again and again fills no disk. After an error CURRENT may name it all the same:
// then it stays until it is superseded.
func (s *Store) discard(kind string, generation uint64) {
	dir := s.publishedPath()
	_, cur, err := format.ReadCurrent(dir)
	if err != nil && err != format.ErrNoCache { // which says that there is none
		return
	}
	if err == nil && slices.Contains(cur.Files(), format.FileName(kind, generation)) {
		return
	}
	if err := os.Remove(filepath.Join(dir, format.FileName(kind, generation))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opts.Log.Warn("cannot remove a file that was not published", "error", err)
	}
}

// Publish makes everything that is committed readable and returns when it is.
func (s *Store) Publish(ctx context.Context) error {
	for {
		if more, err := s.publishPart(ctx); err != nil || !more {
			return err
		}
	}
}

// publishPart publishes what has changed, or a part of it: then there is more.
func (s *Store) publishPart(ctx context.Context) (more bool, err error) {
	s.pub.data.Lock()
	defer s.pub.data.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	start := time.Now()
	defer func() {
		took := time.Since(start)
		s.opts.Log.Debug("published", "changed", s.pub.tracked.Load(), "more", more, "took", took, "error", err)
		if err == nil && !more && s.pub.onPublish != nil {
			s.pub.onPublish(start)
		}
	}()
	full, changed := false, false
	err = s.view(func(tx *bbolt.Tx) error {
		full, changed = s.onlyABaseDoes(tx), s.pub.spent.leaves(tx.Bucket(privChanged))
		return nil
	})
	switch {
	case err != nil:
		return false, err
	case full:
		return false, s.publishBase()
	case changed:
		more, err = s.publishDelta(ctx)
		if errors.Is(err, errUntracked) { // since this began
			return false, s.publishBase()
		}
		return more, err
	}
	return false, nil
}

// onlyABaseDoes reports whether what is not published is more than the tracked changes.
func (s *Store) onlyABaseDoes(tx *bbolt.Tx) bool {
	return getMeta(tx, metaFull) > s.pub.sequence.Load()
}

// errUntracked: no delta has all that has changed.
var errUntracked = errors.New("changes are not tracked")

// publishBase publishes everything anew. data is held.
func (s *Store) publishBase() error {
	generation, seq, err := s.writeBase()
	if err != nil {
		return err
	}
	err = s.switchLayers("base", generation, seq, func(next *format.Current) { next.Base = generation; next.SetLayers(nil) })
	if err == nil {
		s.pub.spent.addThrough(seq)
		s.pub.anew.Store(false)
	}
	return err
}

// publishDelta publishes a part of what has changed. data is held.
func (s *Store) publishDelta(ctx context.Context) (more bool, err error) {
	if err := s.makeRoom(ctx); errors.Is(err, errUnreadable) {
		return false, s.publishBase()
	} else if err != nil {
		return false, err
	}
	var took []string
	generation, seq, err := s.writeLayer("delta", func(tx *bbolt.Tx, policies func(string) policyChoice, put format.PutFunc) (err error) {
		if s.onlyABaseDoes(tx) {
			return errUntracked
		}
		s.pub.turn++
		took, more, err = s.writeChanged(tx, readUnpublished(tx, &s.pub.spent, s.opts.partKeys, s.pub.turn), policies, put)
		return err
	})
	if err != nil {
		return false, err
	}
	err = s.switchLayers("delta", generation, seq, func(next *format.Current) {
		next.SetLayers(append(slices.Clone(next.Layers()), generation))
	})
	if err != nil {
		return false, err
	}
	s.pub.spent.add(took)
	return more, nil
}

// switchLayers has CURRENT name a new base or delta that was made as of a commit. data
// is held.
func (s *Store) switchLayers(kind string, generation, seq uint64, edit func(*format.Current)) error {
	if err := s.switchData(edit); err != nil {
		s.discard(kind, generation)
		return err
	}
	now, sequences := s.layers(), map[uint64]uint64{}
	s.pub.sequences[generation] = seq
	for _, layer := range append(slices.Clone(now.Layers()), now.Base) {
		sequences[layer] = s.pub.sequences[layer]
	}
	s.pub.sequences = sequences
	s.pub.sequence.Store(sequences[newestLayer(now)])
	return nil
}

// layers is what is current.
func (s *Store) layers() format.Current {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return s.pub.cur
}

// take reserves a generation for a file that is about to be written.
func (s *Store) take() (generation uint64, err error) {
	if s.pub.inForce.Load() == nil {
		return 0, errNotRecorded
	}
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	next, err := s.next()
	return next.Generation, err
}

// errNotRecorded: nothing can be rendered before it is known which statements
// govern.
var errNotRecorded = errors.New("the trust in force is not recorded yet")

// next is what is current under the next generation, which is used up whatever
// becomes of it: a failed publication may have been seen. pub.mu is held. Files of
// the same generation are another's in a state directory that is not owned.
func (s *Store) next() (format.Current, error) {
	if err := s.owned(); err != nil {
		return format.Current{}, err
	}
	s.pub.cur.Generation++
	s.pub.cur.Data = s.pub.cur.Generation
	return s.pub.cur, nil
}

// writeBase writes a compacted file of everything, as of commit seq.
func (s *Store) writeBase() (generation, seq uint64, err error) {
	return s.writeLayer("base", writeAll)
}

// writeLayer renders a file from the private store, under the trust that is recorded
// in what it reads.
func (s *Store) writeLayer(kind string, render func(*bbolt.Tx, func(string) policyChoice, format.PutFunc) error) (generation, seq uint64, err error) {
	if generation, err = s.take(); err != nil {
		return 0, 0, fmt.Errorf("publish %s: %w", kind, err)
	}
	err = format.WriteDB(filepath.Join(s.publishedPath(), format.FileName(kind, generation)), func(put format.PutFunc) error {
		s.write.Lock() // recordTrust has it until both are changed
		begun := sync.OnceFunc(s.write.Unlock)
		defer begun()
		return s.view(func(tx *bbolt.Tx) error {
			policies := policyChooser(s.pub.inForce.Load())
			begun()
			seq = getMeta(tx, metaSequence)
			return errors.Join(format.PutSequence(put, seq), render(tx, policies, put))
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("publish %s: %w", kind, err)
	}
	return generation, seq, nil
}

// switchData makes CURRENT name a new base or delta.
func (s *Store) switchData(edit func(*format.Current)) error {
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
	at := s.pub.at
	if next.Trusts == 0 || s.pub.withdrawn || !s.pub.trustPublished {
		next.Trusts = next.Generation
		if at, err = s.writeTrust(s.pub.terms, next); err != nil {
			return err
		}
	}
	if err := s.setCurrent(next); err != nil {
		if next.Trusts == next.Generation {
			s.discard("trust", next.Trusts)
		}
		return err
	}
	s.pub.trustPublished, s.pub.at = true, at
	s.pub.published.Add(1)
	return nil
}

// Published counts the publications of data in this process.
func (s *Store) Published() uint64 { return s.pub.published.Load() }

// Generation returns the generation in force.
func (s *Store) Generation() uint64 {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return s.pub.cur.Generation
}

// OnPublish has fn called after each Publish with a time: whatever was committed
// before it can be read. Set it before Run; fn must not wait for the store.
func (s *Store) OnPublish(fn func(asOf time.Time)) { s.pub.onPublish = fn }
