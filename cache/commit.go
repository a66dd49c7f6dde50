package cache

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// maxTracked is how many changed keys are tracked for a delta; beyond it the
// next publication is a full base.
const maxTracked = 50_000

// Commit applies the batches in one transaction and wakes the publisher. When
// it returns nil the batches are durable; on an error none of them is.
//
// Facts that are notation's or not wholly matched and were decided under an older set of
// signers are left out, since a signer that came meanwhile may match them and
// its pass may be over; outdated holds the indexes of the batches that had any,
// and a batch's repository is then marked unsettled.
func (s *Store) Commit(batches ...Batch) (outdated []int, err error) {
	s.write.Lock() // until the new numbers are kept: the next session counts on from them
	defer s.write.Unlock()
	var sess *session
	err = s.update(func(tx *bbolt.Tx) error {
		c := newCommit(s, tx)
		sess, outdated = c.sess, nil
		for i := range batches {
			late, err := c.apply(&batches[i])
			if err != nil {
				return err
			}
			if late {
				outdated = append(outdated, i)
			}
			if n := len(outdated); n > 0 && outdated[n-1] >= i-batches[i].Ends {
				continue
			}
			if err := c.marks(&batches[i]); err != nil {
				return err
			}
		}
		return c.finish()
	})
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	sess.keep()
	s.pub.wake()
	return outdated, nil
}

// commit is one write transaction in progress.
type commit struct {
	s    *Store
	tx   *bbolt.Tx
	sess *session
	seq  uint64
	full bool

	count *counting
}

func newCommit(s *Store, tx *bbolt.Tx) *commit {
	return &commit{s: s, tx: tx, sess: s.dict.session(tx),
		seq: getMeta(tx, metaSequence) + 1, full: getMeta(tx, metaFull) != 0, count: newCounting()}
}

func (c *commit) finish() error {
	if err := c.recount(); err != nil {
		return err
	}
	for _, id := range c.sess.authors {
		if err := c.changed(bucketAuthors, id32(id)); err != nil {
			return err
		}
	}
	return errors.Join(putMeta(c.tx, metaSequence, c.seq), c.s.noteNamed(c.tx))
}

// noteNamed remembers how far what is published has come.
func (s *Store) noteNamed(tx *bbolt.Tx) error { return putMeta(tx, metaGeneration, s.pub.named.Load()) }

// changed notes that a published key may have another value now. The key's
// first byte says which bucket it is in.
func (c *commit) changed(bucket, key []byte) error {
	if c.full {
		return nil
	}
	b := c.tx.Bucket(privChanged)
	k := append([]byte{bucket[0]}, key...)
	n := c.s.pub.tracked.Load()
	if n >= maxTracked {
		c.full = true
		c.s.pub.tracked.Store(0)
		if err := c.tx.DeleteBucket(privChanged); err != nil {
			return err
		}
		if _, err := c.tx.CreateBucket(privChanged); err != nil {
			return err
		}
		return putMeta(c.tx, metaFull, 1)
	}
	if b.Get(k) == nil {
		c.s.pub.tracked.Add(1) // an upper bound: a rolled back commit leaves it too high
	}
	return b.Put(k, number(c.seq))
}

func (c *commit) apply(b *Batch) (outdated bool, err error) {
	for d, kind := range b.Kinds {
		if err := c.putMessage(privKinds, d[:], encodeKind(kind)); err != nil {
			return false, err
		}
	}
	for i := range b.Facts {
		outdated = outdated || c.late(&b.Facts[i])
	}
	if b.Place != "" {
		if err := c.place(b, outdated); err != nil {
			return false, fmt.Errorf("repository %s: %w", b.Place, err)
		}
	}
	for i := range b.Facts {
		if c.late(&b.Facts[i]) {
			continue
		}
		if err := c.fact(&b.Facts[i], b.Place); err != nil {
			return false, err
		}
	}
	for _, d := range b.Recount {
		if err := c.touchAll(d); err != nil {
			return false, err
		}
	}
	return outdated, nil
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
	return f.Trust < getMeta(c.tx, metaTrust) && !f.Attachment && (f.Context.Tool == trust.Notation || !f.Matched())
}

func (c *commit) mark(name string, set bool) error {
	if !set {
		return c.tx.Bucket(privMarks).Delete([]byte(name))
	}
	return c.put(privMarks, []byte(name), []byte{1})
}

func (c *commit) put(bucket, key, body []byte) error {
	return c.tx.Bucket(bucket).Put(key, seal(key, body))
}

func (c *commit) putMessage(bucket, key []byte, m proto.Message) error {
	v, err := sealMessage(key, m)
	if err != nil {
		return err
	}
	return c.tx.Bucket(bucket).Put(key, v)
}

// place applies what the batch says of its repository.
func (c *commit) place(b *Batch, unsettled bool) error {
	name := []byte(b.Place)
	places := c.tx.Bucket(privPlaces)
	var p cachepb.Place
	if _, err := unsealMessage(name, places.Get(name), &p); err != nil {
		return err
	}
	if p.Id == 0 {
		if b.Remove {
			return nil
		}
		id, err := places.NextSequence()
		if err != nil {
			return err
		}
		p.Id = id
		if err := c.put(privPlaceIDs, number(id), name); err != nil {
			return err
		}
	}
	if b.Remove {
		if err := c.rows(&p, b.Place, nil, true); err != nil {
			return err
		}
		if err := c.tags(&p, b.Place, nil); err != nil {
			return err
		}
		if err := c.changed(bucketRepositories, name); err != nil {
			return err
		}
		for _, bucket := range [][]byte{privPlaceIDs, privCounts} {
			if err := c.tx.Bucket(bucket).Delete(number(p.Id)); err != nil {
				return err
			}
		}
		return places.Delete(name)
	}
	if b.SetTags {
		if err := c.tags(&p, b.Place, b.Tags); err != nil {
			return err
		}
	}
	if err := c.rows(&p, b.Place, b.Rows, b.Complete); err != nil {
		return err
	}
	unlisted := p.Unlisted
	if u := b.Update; u != nil {
		setIf(&p.Unlisted, u.Unlisted)
		if u.Unsettled != nil && (*u.Unsettled || p.UnsettledAt <= u.AsOf) {
			p.Unsettled = *u.Unsettled
		}
		unsettled = unsettled || u.Unsettled != nil && *u.Unsettled
		setIf(&p.HasNotation, u.HasNotation)
		if u.Stamp != nil {
			p.Stamp = []byte(*u.Stamp)
		}
	}
	if unsettled {
		p.Unsettled, p.UnsettledAt = true, c.seq
	}
	if old, _, err := unseal(name, places.Get(name)); err != nil || old == nil || unlisted != p.Unlisted {
		if err := c.changed(bucketRepositories, name); err != nil {
			return err
		}
	}
	return c.putMessage(privPlaces, name, &p)
}

func setIf[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// tags replaces the tags of a place.
func (c *commit) tags(p *cachepb.Place, name string, tags map[string]trust.Digest) error {
	b := c.tx.Bucket(privTags)
	prefix := number(p.Id)
	var gone [][]byte
	same := map[string]bool{}
	cur := b.Cursor()
	for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		tag := string(k[len(prefix):])
		d, ok := tags[tag]
		body, _, err := unseal(k, v)
		switch {
		case !ok:
			gone = append(gone, bytes.Clone(k)) // never delete while iterating
		case err == nil && bytes.Equal(body, d[:]):
			same[tag] = true
		}
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
		if err := c.changed(bucketTags, tagKey(name, string(k[len(prefix):]))); err != nil {
			return err
		}
	}
	for tag, d := range tags {
		if same[tag] {
			continue
		}
		if err := c.put(privTags, append(number(p.Id), tag...), d[:]); err != nil {
			return err
		}
		if err := c.changed(bucketTags, tagKey(name, tag)); err != nil {
			return err
		}
	}
	return nil
}

// rows writes the rows of a place that differ from what is there; complete
// deletes those that are not among them.
func (c *commit) rows(p *cachepb.Place, name string, rows []Row, complete bool) error {
	b := c.tx.Bucket(privRows)
	if complete {
		keep := make(map[trust.Digest]bool, len(rows))
		for i := range rows {
			keep[rows[i].Digest] = true
		}
		prefix := number(p.Id)
		var gone [][]byte
		cur := b.Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
			if len(k) == 8+32 && !keep[trust.Digest(k[8:])] {
				gone = append(gone, bytes.Clone(k))
			}
		}
		for _, k := range gone {
			if err := c.row(p, name, trust.Digest(k[8:]), nil); err != nil {
				return err
			}
		}
	}
	for i := range rows {
		if err := c.row(p, name, rows[i].Digest, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// row writes or (nil) deletes one row, with its entries in digests and due.
func (c *commit) row(p *cachepb.Place, name string, d trust.Digest, row *Row) error {
	b := c.tx.Bucket(privRows)
	key := append(number(p.Id), d[:]...)
	old := b.Get(key)
	var was cachepb.Row
	if _, err := unsealMessage(key, old, &was); err != nil {
		return err
	}
	var is *cachepb.Row
	var v []byte
	if row != nil {
		var err error
		is = encodeRow(row)
		limitRow(is)
		if v, err = sealMessage(key, is); err != nil {
			return err
		}
		if bytes.Equal(old, v) {
			return nil
		}
	}
	c.touch(p.Id, name, d)
	due := c.tx.Bucket(privDue)
	for _, ref := range was.References {
		if ref.NextTry != 0 {
			if err := due.Delete(dueKey(ref.NextTry, p.Id, d)); err != nil {
				return err
			}
		}
	}
	places := append(d[:], number(p.Id)...)
	if row == nil {
		if err := c.tx.Bucket(privDigests).Delete(places); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
		return c.changed(bucketImages, imageKey(name, d))
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
	return c.changed(bucketImages, imageKey(name, d))
}

func dueKey(at int64, place uint64, d trust.Digest) []byte {
	return append(append(number(uint64(at)), number(place)...), d[:]...)
}
