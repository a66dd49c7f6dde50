package store

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Who was in force: an answer that rests on a signer that left names it.

// maxLeft is how many signers are remembered that left, the last ones: about as many
// as a journal of changes (package changes) tells of.
const maxLeft = 2000

// remembered are the signers that are published, and those that were, by when they
// left in Unix seconds; 0: they are in force.
type remembered map[trust.Signer]int64

// note brings them in step with what is in force at a time.
func (r remembered) note(f *trust.InForce, now int64) {
	for signer, left := range r {
		if left == 0 && !f.Has(signer.ID()) {
			r[signer] = now
		}
	}
	for _, m := range f.Terms().Materials {
		r[m.Signer] = 0
	}
	for _, signer := range r.left()[min(maxLeft, len(r.left())):] {
		delete(r, signer)
	}
}

// left returns those that left, the last first.
func (r remembered) left() (list []trust.Signer) {
	for signer, at := range r {
		if at != 0 {
			list = append(list, signer)
		}
	}
	slices.SortFunc(list, func(a, b trust.Signer) int {
		x, y := a.ID(), b.ID()
		return cmp.Or(cmp.Compare(r[b], r[a]), bytes.Compare(x[:], y[:]))
	})
	return list
}

// readSigners reads those that are recorded.
func readSigners(tx *bbolt.Tx) (remembered, error) {
	r := remembered{}
	err := tx.Bucket(privSigners).ForEach(func(k, v []byte) error {
		var p cachepb.Signer
		if _, err := format.UnsealMessage(k, v, &p); err != nil {
			return err
		}
		r[format.DecodeSigner(&p)] = p.Left
		return nil
	})
	return r, err
}

// record makes what is recorded the same.
func (r remembered) record(tx *bbolt.Tx) error {
	was, err := readSigners(tx)
	if err != nil {
		return err
	}
	b := tx.Bucket(privSigners)
	for signer := range was {
		if _, ok := r[signer]; !ok {
			id := signer.ID()
			if err := b.Delete(id[:]); err != nil {
				return err
			}
		}
	}
	for signer, left := range r {
		if at, ok := was[signer]; ok && at == left {
			continue
		}
		id := signer.ID()
		v, err := format.SealMessage(id[:], format.EncodeSigner(signer, "", left))
		if err != nil {
			return err
		}
		if err := b.Put(id[:], v); err != nil {
			return err
		}
	}
	return nil
}

// remembered returns a copy of the signers as they are published.
func (s *Store) remembered() remembered {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return maps.Clone(s.pub.signers)
}
