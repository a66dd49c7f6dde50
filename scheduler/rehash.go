package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
)

// The slow pass.

// oweRehash owes the slow pass: the bytes of signatures and of the images that they
// are about are read again and hashed, so that rot is found within its interval.
func (s *Scheduler) oweRehash() error {
	places, err := s.cfg.Store.Places()
	if err != nil {
		return fmt.Errorf("list repositories: %w", err)
	}
	for _, p := range places {
		s.agenda.add(item{repository: p.Name}, slow, func(w *work) { w.rehash = true })
	}
	return nil
}

// rehashTurn re-reads the signatures of some rows, and their images. One that cannot
// be read any more gets a problem, which is retried like any other.
func (s *Scheduler) rehashTurn(ctx context.Context, name string, w *work) (result, error) {
	p, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.oweScan(name, false)
		return result{}, nil
	}
	if err != nil {
		return s.unlisted(name, w, err), nil
	}
	at, left, more := w.reread, newAllowance(), true
	batch := store.Batch{Place: name}
	for more && !left.spent() && err == nil {
		var rows []store.Row
		rows, err = s.cfg.Store.Rows(name, at.after, rowsAtOnce)
		for k := range rows {
			if left.spent() {
				break
			}
			if s.rehashRow(ctx, p, name, &rows[k], &at, left, &batch) {
				break
			}
			at = place{after: rows[k].Digest}
		}
		more = len(rows) == rowsAtOnce || left.spent()
	}
	if err = errors.Join(err, ctx.Err(), p.Close()); err != nil {
		return result{}, err
	}
	other := *w
	other.rehash, other.reread = more, at
	var batches []store.Batch
	if len(batch.Rows) > 0 { // or a transaction for nothing
		batches = append(batches, batch)
	}
	return result{again: w, batches: batches, then: func(bool) {
		poke(s.wakeup)
		if other.rehash {
			s.agenda.add(item{repository: name}, slow, func(w *work) { w.merge(&other) })
		}
	}}, nil
}

// rehashRow re-reads the signatures of a row, and its image, from at on, as far as left
// allows; more is set when some are still to be done.
func (s *Scheduler) rehashRow(ctx context.Context, p *layout.Repository, name string, row *store.Row, at *place, left *allowance, batch *store.Batch) (more bool) {
	if !row.Present || len(row.References) == 0 {
		return false
	}
	changed := false
	image := s.imageReason(ctx, p, row)
	if image != "" && ctx.Err() == nil {
		s.tampered.warn(name, "stored image manifest has changed", "digest", row.Digest.String(), "reason", string(image))
	}
	for n := range row.References {
		ref := &row.References[n]
		if len(ref.Problems) > 0 || at.passes(row, ref) {
			continue
		}
		if !left.take() {
			more = true
			break
		}
		reason := image
		if reason == "" {
			if reason = s.reread(ctx, p, ref); reason != "" && ctx.Err() == nil {
				s.tampered.warn(name, "stored signature has changed", "subject", row.Digest.String(), "signature", ref.Digest.String(), "reason", string(reason))
			}
		}
		if ctx.Err() != nil {
			return false
		}
		if reason != "" {
			s.apply(ref, whole(reason))
			changed = true
		}
		at.row, at.ref = row.Digest, ref.Digest
	}
	if changed {
		batch.Rows = append(batch.Rows, *row)
	}
	return more
}

// reread reads a signature manifest and its layers, and says what is wrong.
func (s *Scheduler) reread(ctx context.Context, p *layout.Repository, ref *store.Reference) trust.Reason {
	s.counters.reread.Add(1)
	m, err := p.Manifest(ctx, ref.Digest)
	if err != nil {
		return reasonOf(err)
	}
	for i, l := range m.Layers {
		if i == trust.MaxLayers {
			break
		}
		d, err := trust.ParseDigest(l.Digest.String())
		if err != nil {
			continue // read as malformed already
		}
		if _, err := p.Blob(ctx, d, l.Size, trust.MaxBlob); err != nil {
			return reasonOf(err)
		}
	}
	return ""
}
