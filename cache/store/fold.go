package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Folding: layers that have grown are merged into one, beside publications. As in a
// log-structured merge tree, a layer is written again when the layers above it have
// reached half of its size, or when there are too many layers.

// fewBytes are not worth being folded, unless they are in more layers than some.
const fewBytes = 1 << 20

// foldFrom says which layer is to become one with all above it, -1 if none. sizes are
// in bytes, the base's first.
func foldFrom(sizes []int64, few int64) int {
	const some, many = 2, 6 // layers: each costs a look-up something
	if len(sizes) < 2 {
		return -1
	}
	from := len(sizes) - 1
	sum := sizes[from]
	for from > 0 && sizes[from-1] <= 2*sum {
		from--
		sum += sizes[from]
	}
	switch {
	case from < len(sizes)-1 && (sum > few || len(sizes) > some):
		return from
	case len(sizes) > many: // each is more than twice the next
		return len(sizes) - 2
	}
	return -1
}

// Fold makes one layer of several where that is due, or renders the base anew after
// [Store.RenderAnew] or when what is published cannot be read. Publications go on
// meanwhile.
func (s *Store) Fold(ctx context.Context) error {
	for ctx.Err() == nil {
		if s.pub.anew.Load() {
			return s.rebase(ctx, s.withData)
		}
		again, err := s.foldOnce(ctx)
		if errors.Is(err, errUnreadable) {
			s.opts.Log.Error("the published base is made anew", "error", err)
			s.pub.anew.Store(true)
			continue
		}
		if err != nil || !again {
			return err
		}
	}
	return ctx.Err()
}

// spareDeltas are left for publications to fold while layers below are being folded.
const spareDeltas = 4

// foldOnce makes one layer of several if that is due.
func (s *Store) foldOnce(ctx context.Context) (again bool, err error) {
	var layers format.Current
	from, to := -1, 0
	err = s.withData(func() error {
		layers = s.layers()
		sizes, err := s.sizes(layers)
		if err != nil {
			return err
		}
		to = min(len(sizes), 1+format.MaxDeltas-spareDeltas)
		from = foldFrom(sizes[:to], s.opts.fewBytes)
		if from >= 0 {
			s.pub.folding = to - 1
		}
		return nil
	})
	if err != nil || from < 0 {
		return false, err
	}
	defer s.foldingIsOver()
	return true, s.merge(ctx, layers, from, to, s.withData)
}

func (s *Store) foldingIsOver() {
	_ = s.withData(func() error { s.pub.folding = 0; return nil }) // which has no error
}

// makeRoom folds deltas so that there is room for another, beside a fold in progress. data
// is held.
func (s *Store) makeRoom(ctx context.Context) error {
	layers := s.layers()
	if len(layers.Layers()) < format.MaxDeltas {
		return nil
	}
	sizes, err := s.sizes(layers)
	if err != nil {
		return err
	}
	first := 1 + s.pub.folding
	if len(sizes)-first < 2 {
		return errors.New("publish delta: all layers are being folded")
	}
	from := foldFrom(sizes[first:], 0)
	if from < 0 {
		from = len(sizes) - first - 2
	}
	return s.merge(ctx, layers, first+from, len(sizes), func(do func() error) error { return do() })
}

// foldDue reports whether there is something to fold.
func (s *Store) foldDue() bool {
	sizes, err := s.sizes(s.layers())
	return s.pub.anew.Load() || err != nil || foldFrom(sizes, s.opts.fewBytes) >= 0
}

// sizes are those of the layers that are there, the base's first.
func (s *Store) sizes(cur format.Current) (sizes []int64, err error) {
	if cur.Base == 0 {
		return nil, nil
	}
	for _, name := range cur.Names() {
		fi, err := os.Stat(filepath.Join(s.publishedPath(), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, fi.Size())
	}
	return sizes, nil
}

// RenderAnew makes the next base from the private store instead of from the last
// one, soon: should anything be missing from that, it comes back.
func (s *Store) RenderAnew() {
	s.pub.anew.Store(true)
	s.pub.wake()
}

// rebase makes a base from the private store while deltas go on, and has it take the
// place of all that was published before it was begun.
func (s *Store) rebase(ctx context.Context, held func(func() error) error) error {
	if s.layers().Base == 0 {
		return nil // the next publication is one
	}
	defer s.foldingIsOver()
	// A delta that is published after this sees what the base does, or more.
	s.pub.data.Lock()
	begun := sync.OnceFunc(s.pub.data.Unlock)
	defer begun()
	layers := s.layers()
	if most := format.MaxDeltas - spareDeltas; len(layers.Layers()) > most {
		if err := s.merge(ctx, layers, most, len(layers.Names()), func(do func() error) error { return do() }); err != nil && !errors.Is(err, errUnreadable) {
			return err
		} else if err != nil {
			return s.publishBase()
		}
		layers = s.layers()
	}
	before := layers.Layers()
	generation, seq, err := s.writeLayer("base", func(tx *bbolt.Tx, policies func(string) policyChoice, put format.PutFunc) error {
		s.pub.folding = len(before)
		begun()
		return writeAll(tx, policies, put)
	})
	if err != nil {
		return err
	}
	return held(func() error {
		now := s.layers()
		after := now.Layers()
		if now.Base != layers.Base || len(after) < len(before) || !slices.Equal(after[:len(before)], before) {
			s.discard("base", generation)
			if now.Base > generation { // everything has been published anew meanwhile
				s.pub.anew.Store(false)
			}
			return nil
		}
		err := s.switchLayers("base", generation, seq, func(next *format.Current) {
			next.Base = generation
			next.SetLayers(slices.Clone(next.Layers()[len(before):]))
		})
		if err == nil {
			s.pub.spent.addThrough(seq)
			s.pub.anew.Store(false)
		}
		return err
	})
}

// withData runs do while nothing else is published.
func (s *Store) withData(do func() error) error {
	s.pub.data.Lock()
	defer s.pub.data.Unlock()
	return do()
}

// errUnreadable: files that this process has published are damaged or gone.
var errUnreadable = errors.New("what is published cannot be read")

// merge makes one layer of those from one on and before another, and has it take their
// place unless that has been taken meanwhile. held runs the last step while data is held.
func (s *Store) merge(ctx context.Context, layers format.Current, from, to int, held func(func() error) error) error {
	kind := "delta"
	if from == 0 {
		kind = "base"
	}
	generation, err := s.take()
	if err != nil {
		return fmt.Errorf("fold: %w", err)
	}
	seq, err := s.writeMerged(ctx, filepath.Join(s.publishedPath(), format.FileName(kind, generation)), layers.Names()[from:to])
	if err != nil {
		return fmt.Errorf("fold: %w", err)
	}
	deltas := layers.Layers()[:to-1]
	return held(func() error {
		now := s.layers()
		after := now.Layers()
		if now.Base != layers.Base || len(after) < len(deltas) || !slices.Equal(after[:len(deltas)], deltas) {
			s.discard(kind, generation)
			return nil
		}
		newer := after[len(deltas):]
		return s.switchLayers(kind, generation, seq, func(next *format.Current) {
			if from == 0 {
				next.Base = generation
				next.SetLayers(newer)
				return
			}
			next.SetLayers(slices.Concat(deltas[:from-1], []uint64{generation}, newer))
		})
	})
}

// writeMerged writes what files of the published directory, oldest first, hold together,
// each value checked, as of the commit that the newest was made as of. Without a base
// among them tombstones stay.
func (s *Store) writeMerged(ctx context.Context, path string, names []string) (seq uint64, err error) {
	var all format.Layers
	whole := false
	for i, name := range names {
		if seq, err = publishedSequence(filepath.Join(s.publishedPath(), name)); err != nil {
			return 0, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		f, err := format.OpenFile(filepath.Join(s.publishedPath(), name))
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		defer f.Close()
		v, err := f.Take()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		defer f.Give(v)
		all = slices.Insert(all, 0, v)
		if kind, _, _ := format.ParseFileName(name); kind == "base" && i == 0 {
			whole = true
		}
	}
	return seq, format.WriteDB(path, func(put format.PutFunc) error {
		return errors.Join(format.PutSequence(put, seq), writeMerged(ctx, all, whole, put))
	})
}

// writeMerged copies what layers hold together, each value checked. Unless they are whole,
// with a base, tombstones stay.
func writeMerged(ctx context.Context, l format.Layers, whole bool, put format.PutFunc) (err error) {
	format.Guard(&err, func() error {
		n, kept := 0, &listers{layers: l}
		for bucket, name := range format.PublishedBuckets {
			for m := l.Merged(bucket, nil, nil); m.K != nil; m.Next() {
				if n++; n%4096 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				_, ok, err := format.Unseal(m.K, m.V)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if whole && (!ok || bucket == format.InListings && !kept.keeps(m.K)) {
					continue // a tombstone, or what a deleted index listed
				}
				if err := put(name, bytes.Clone(m.K), bytes.Clone(m.V)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, format.ErrDamaged) {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return err
}

// listers are the indexes whose listings are kept.
type listers struct {
	layers format.Layers
	known  map[string]bool // by the keys of their images; begun anew when it grows
}

// keeps reports whether the index is there that a listing is of.
func (l *listers) keeps(listing []byte) bool {
	const most = 100_000
	repository, digests, _ := bytes.Cut(listing, []byte{0})
	if len(digests) != 2*len(trust.Digest{}) {
		return false
	}
	key := format.ImageKey(string(repository), trust.Digest(digests[len(trust.Digest{}):]))
	there, ok := l.known[string(key)]
	if !ok {
		sealed := l.layers.Sealed(format.InImages, key)
		if there = len(sealed) > 0 && !bytes.Equal(sealed, tombstone); len(l.known) >= most || l.known == nil {
			l.known = map[string]bool{}
		}
		l.known[string(key)] = there
	}
	return there
}
