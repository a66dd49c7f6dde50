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

// remembered are the signers that are published, and those that were.
type remembered map[trust.Signer]member

// member is what is remembered of a signer.
type member struct {
	left int64  // when it left, Unix seconds; 0: it is in force
	file string // that holds it, or did
	came int64  // when it came into force; 0: not known
}

// note brings them in step with what is in force at a time.
func (r remembered) note(f *trust.InForce, now int64) {
	for signer, m := range r {
		if m.left == 0 && !f.Has(signer.ID()) {
			r[signer] = member{left: now, file: m.file, came: m.came}
		}
	}
	for _, m := range f.Terms().Materials {
		was, known := r[m.Signer]
		if !known || was.left != 0 {
			was.came = now
		}
		r[m.Signer] = member{file: m.File, came: was.came}
	}
	for _, signer := range r.left()[min(maxLeft, len(r.left())):] {
		delete(r, signer)
	}
}

// left returns those that left, the last first.
func (r remembered) left() (list []trust.Signer) {
	for signer, m := range r {
		if m.left != 0 {
			list = append(list, signer)
		}
	}
	slices.SortFunc(list, func(a, b trust.Signer) int {
		x, y := a.ID(), b.ID()
		return cmp.Or(cmp.Compare(r[b].left, r[a].left), bytes.Compare(x[:], y[:]))
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
		m := format.DecodeSigner(&p)
		r[m.Signer] = member{p.Left, m.File, p.Came}
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
	for signer, m := range r {
		if old, ok := was[signer]; ok && old == m {
			continue
		}
		id := signer.ID()
		v, err := format.SealMessage(id[:], format.EncodeSigner(trust.Material{Signer: signer, File: m.file, Since: m.came}, m.left))
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
