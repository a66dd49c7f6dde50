package cache

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"trust-worker/trust"
)

// Counting again what nothing was written of: dates that have come, terms that
// have changed, a clock that has gone back.

// recountChunk is how many rows one transaction of Recount counts.
const recountChunk = 1000

// Recount counts again what a date has changed since, and everything if that
// is owed: the terms have changed, or the clock has gone back behind what was
// counted. It works in short transactions; should it be cut short, the next
// call begins again. When nothing is owed it only looks.
func (s *Store) Recount(ctx context.Context) error {
	var all, due bool
	err := s.view(func(tx *bbolt.Tx) error {
		now := s.opts.Now().Unix()
		all = getMeta(tx, metaRecount) != 0 || int64(getMeta(tx, metaCountedAt)) > now
		due = len(countsDue(tx, now)) > 0
		return nil
	})
	var after []byte
	for more := all; more && err == nil; {
		after, more, err = s.recountSome(ctx, func(c *commit) ([]byte, error) { return c.touchRows(after) })
	}
	for more := due; more && err == nil; {
		_, more, err = s.recountSome(ctx, func(c *commit) ([]byte, error) { return c.touchDue() })
	}
	return err
}

// recountSome counts what choose touches in one transaction. choose returns
// nil when there is no more.
func (s *Store) recountSome(ctx context.Context, choose func(*commit) ([]byte, error)) (last []byte, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	s.write.Lock()
	defer s.write.Unlock()
	var gone trimmed
	err = s.update(func(tx *bbolt.Tx) error {
		c := newCommit(s, tx)
		if last, err = choose(c); err != nil {
			return err
		}
		err := c.finish()
		gone = c.trimmed
		return err
	})
	if err == nil {
		s.forgetPublished(gone)
	}
	s.pub.wake()
	return last, last != nil, err
}

// touchRows touches the rows after a key. With the first of them the clock is
// set, with the last the debt is paid.
func (c *commit) touchRows(after []byte) (last []byte, err error) {
	if after == nil {
		if err := cmp.Or(putMeta(c.tx, metaRecount, 1), putMeta(c.tx, metaCountedAt, 0)); err != nil {
			return nil, err
		}
	}
	cur := c.tx.Bucket(privRows).Cursor()
	k, _ := cur.Seek(after)
	if after != nil && bytes.Equal(k, after) {
		k, _ = cur.Next()
	}
	for ; k != nil; k, _ = cur.Next() {
		if len(c.count.touched) == recountChunk {
			return last, nil
		}
		last = bytes.Clone(k)
		if err := c.touchKey(rowKey(k)); err != nil {
			return nil, err
		}
	}
	return nil, putMeta(c.tx, metaRecount, 0)
}

// touchDue touches the rows whose date has come.
func (c *commit) touchDue() ([]byte, error) {
	due := countsDue(c.tx, c.s.opts.Now().Unix())
	for _, key := range due {
		if err := c.touchKey(key); err != nil {
			return nil, err
		}
	}
	if len(due) < recountChunk {
		return nil, nil
	}
	return due[0][:], nil
}

func (c *commit) touchKey(key rowKey) error {
	place := idOf(key[:8])
	name, err := placeName(c.tx, place)
	if err == nil {
		c.touch(place, string(name), trust.Digest(key[8:]))
	}
	return err
}

// countsDue returns up to recountChunk rows whose date has come.
func countsDue(tx *bbolt.Tx, now int64) []rowKey {
	var keys []rowKey
	cur := tx.Bucket(privDue).Cursor()
	for k, _ := cur.First(); len(k) >= 8 && int64(idOf(k[:8])) <= now && len(keys) < recountChunk; k, _ = cur.Next() {
		if len(k) == 8+len(rowKey{})+1 {
			keys = append(keys, rowKey(k[8:]))
		}
	}
	return keys
}

// termsNumber stands for everything in the terms that may change the state of
// an image that does not rest on a signer that came or went: all but the
// signers, and which stores hold anything.
func termsNumber(f *trust.InForce) uint64 {
	t := f.Terms()
	p := encodeTerms(t)
	for _, m := range t.Materials {
		if store := m.Signer.Store(); store != "" {
			p.RegistryNames = append(p.RegistryNames, "store "+store)
		}
	}
	slices.Sort(p.RegistryNames)
	p.RegistryNames = slices.Compact(p.RegistryNames)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return 0 // counted again whenever trust changes
	}
	sum := sha256.Sum256(b)
	return idOf(sum[:8])
}

// oweRecount notes in the transaction that brings new terms that everything is
// to be counted again.
func oweRecount(tx *bbolt.Tx, f *trust.InForce) error {
	n := termsNumber(f)
	if n != 0 && getMeta(tx, metaTerms) == n {
		return nil
	}
	return cmp.Or(putMeta(tx, metaTerms, n), putMeta(tx, metaRecount, 1))
}
