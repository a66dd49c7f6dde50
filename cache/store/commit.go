package store

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Commit applies the batches in one transaction and wakes the publisher. When
// it returns nil the batches are durable; on an error none of them is.
//
// Facts that are notation's or not wholly matched and were decided under an older set of
// signers are left out, since a signer that came meanwhile may match them and
// its pass may be over; outdated holds the indexes of the batches that had any,
// and a batch's repository is then marked unsettled.
func (s *Store) Commit(batches ...Batch) (outdated []int, err error) {
	all := make([]*Batch, len(batches))
	for i := range batches {
		all[i] = &batches[i]
	}
	return s.commit(all, func() *share { return nil })
}

// CommitSome is Commit, but for batches that are a whole repository: of each it
// applies about as much as one transaction has time for. The rest is left to the
// next call, until [Batch.Written]. What can end trust is applied first: tags that
// moved or went, and images that went. A repository that is written in part has no
// stamp, so that it is scanned again should the rest never come.
//
// outdated holds the batches that are written and had facts left out.
func (s *Store) CommitSome(batches []*Batch) (outdated []int, err error) {
	until := time.Now().Add(transactionTime)
	if s.pub.tracked.Load() > manyTracked { // others' changes are to be published as well
		until = time.Now()
	}
	small := smallBatch
	if s.opts.ShareSteps != 0 {
		small = s.opts.ShareSteps
	}
	return s.commit(batches, func() *share { return &share{small: small, until: until, most: s.opts.ShareSteps} })
}

func (s *Store) commit(batches []*Batch, shareOf func() *share) (outdated []int, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	var written []progress
	var gone trimmed
	err = s.update(func(tx *bbolt.Tx) error {
		c := newCommit(s, tx)
		outdated, written = nil, make([]progress, len(batches))
		for i, b := range batches {
			written[i] = b.written
			if err := c.apply(b, &written[i], shareOf()); err != nil {
				return err
			}
			if !written[i].done {
				continue
			}
			if written[i].outdated {
				outdated = append(outdated, i)
			}
			if n := len(outdated); n > 0 && outdated[n-1] >= i-b.Ends {
				continue
			}
			if err := c.marks(b); err != nil {
				return err
			}
		}
		err := c.finish()
		gone = c.trimmed
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	s.forgetPublished(gone)
	for i, b := range batches {
		b.written = written[i]
	}
	s.pub.wake()
	return outdated, nil
}

// commit is one write transaction in progress.
type commit struct {
	s       *Store
	tx      *bbolt.Tx
	seq     uint64
	trimmed trimmed
}

func newCommit(s *Store, tx *bbolt.Tx) *commit {
	return &commit{s: s, tx: tx, seq: getMeta(tx, metaSequence) + 1}
}

func (c *commit) finish() error {
	gone, n, err := c.s.pub.spent.trim(c.tx.Bucket(privChanged))
	if err != nil {
		return err
	}
	c.trimmed = trimmed{gone, n}
	return errors.Join(putMeta(c.tx, metaSequence, c.seq), c.s.noteNamed(c.tx))
}

// trimmed are entries of what is published that a transaction has deleted; n of them
// were there.
type trimmed struct {
	gone []string
	n    int64
}

// forgetPublished forgets them: the transaction has been committed.
func (s *Store) forgetPublished(t trimmed) {
	s.pub.spent.forget(t.gone)
	s.pub.tracked.Add(-t.n)
}

// noteNamed remembers how far what is published has come.
func (s *Store) noteNamed(tx *bbolt.Tx) error { return putMeta(tx, metaGeneration, s.pub.named.Load()) }

// changed notes that a published key may have another value now. The key's
// first byte says which bucket it is in.
func (c *commit) changed(bucket, key []byte) error {
	if c.s.pub.tracked.Load() >= maxTracked {
		c.s.pub.tracked.Store(0)
		if err := c.tx.DeleteBucket(privChanged); err != nil {
			return err
		}
		if _, err := c.tx.CreateBucket(privChanged); err != nil {
			return err
		}
		if err := putMeta(c.tx, metaFull, c.seq); err != nil {
			return err
		}
	}
	b, entry := c.tx.Bucket(privChanged), append(append(format.Number(c.seq), bucket[0]), key...)
	if b.Get(entry) != nil {
		return nil
	}
	c.s.pub.tracked.Add(1)
	return b.Put(entry, []byte{})
}

// marks sets and clears the marks of a batch.
func (c *commit) marks(b *Batch) error {
	if b.InForce != nil && !c.s.pub.inForce.Load().Has(*b.InForce) {
		return nil
	}
	for name, set := range b.Marks {
		if err := c.mark(name, set); err != nil {
			return err
		}
	}
	return nil
}

// late reports whether a signer may have come that the fact does not know of. One
// key makes a cosign signature, so that a match is all there is to find; a notation
// chain may have several anchors, and another with a timestamp.
func (c *commit) late(f *Fact) bool {
	return f.Trust < getMeta(c.tx, metaTrust) && (!f.Attachment || len(f.Verdicts) > 0) && (f.Context.Tool == trust.Notation || !f.Matched())
}

func (c *commit) mark(name string, set bool) error {
	if !set {
		return c.tx.Bucket(privMarks).Delete([]byte(name))
	}
	return c.put(privMarks, []byte(name), []byte{1})
}

func (c *commit) put(bucket, key, body []byte) error {
	return c.tx.Bucket(bucket).Put(key, format.Seal(key, body))
}

func (c *commit) putMessage(bucket, key []byte, m proto.Message) error {
	v, err := format.SealMessage(key, m)
	if err != nil {
		return err
	}
	return c.tx.Bucket(bucket).Put(key, v)
}

// row writes or (nil) deletes one row, with its entries in digests and due.
func (c *commit) row(p *cachepb.Place, name string, d trust.Digest, row *Row) error {
	b := c.tx.Bucket(privRows)
	key := append(format.Number(p.Id), d[:]...)
	old := b.Get(key)
	var was cachepb.Row
	if _, err := format.UnsealMessage(key, old, &was); err != nil {
		return err
	}
	var is *cachepb.Row
	var v []byte
	if row != nil {
		var err error
		is = encodeRow(row)
		limitRow(is)
		if v, err = format.SealMessage(key, is); err != nil {
			return err
		}
		if bytes.Equal(old, v) {
			return nil
		}
	}
	due := c.tx.Bucket(privDue)
	for _, ref := range was.References {
		if ref.NextTry != 0 {
			if err := due.Delete(dueKey(ref.NextTry, p.Id, d)); err != nil {
				return err
			}
		}
	}
	places := append(d[:], format.Number(p.Id)...)
	if row == nil {
		if err := c.tx.Bucket(privDigests).Delete(places); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
		return c.changed(format.BucketImages, format.ImageKey(name, d))
	}
	for _, ref := range is.References {
		if ref.NextTry != 0 {
			if err := c.put(privDue, dueKey(ref.NextTry, p.Id, d), []byte{1}); err != nil {
				return err
			}
		}
	}
	if err := c.put(privDigests, places, []byte(name)); err != nil {
		return err
	}
	if err := b.Put(key, v); err != nil {
		return err
	}
	return c.changed(format.BucketImages, format.ImageKey(name, d))
}

func dueKey(at int64, place uint64, d trust.Digest) []byte {
	return append(append(format.Number(uint64(at)), format.Number(place)...), d[:]...)
}
