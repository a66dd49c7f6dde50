package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

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
// Facts that are not wholly matched and were decided under an older set of
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
}

func newCommit(s *Store, tx *bbolt.Tx) *commit {
	return &commit{s: s, tx: tx, sess: s.dict.session(tx),
		seq: getMeta(tx, metaSequence) + 1, full: getMeta(tx, metaFull) != 0}
}

func (c *commit) finish() error {
	for _, id := range c.sess.authors {
		if err := c.changed(bucketAuthors, id32(id)); err != nil {
			return err
		}
	}
	return putMeta(c.tx, metaSequence, c.seq)
}

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
	for name, set := range b.Marks {
		if err := c.mark(name, set); err != nil {
			return false, err
		}
	}
	return outdated, nil
}

// late reports whether a signer may have come that the fact does not know of.
func (c *commit) late(f *Fact) bool {
	return f.Trust < getMeta(c.tx, metaTrust) && !f.Attachment && !f.Matched()
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
		if err := c.tx.Bucket(privPlaceIDs).Delete(number(p.Id)); err != nil {
			return err
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
		setIf(&p.Unsettled, u.Unsettled)
		setIf(&p.HasNotation, u.HasNotation)
		if u.Stamp != nil {
			p.Stamp = []byte(*u.Stamp)
		}
	}
	p.Unsettled = p.Unsettled || unsettled
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
	var v []byte
	if row != nil {
		var err error
		if v, err = sealMessage(key, encodeRow(row)); err != nil {
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
	for _, ref := range row.References {
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

// fact writes a fact, files its hints, and marks the images it shows in.
func (c *commit) fact(f *Fact, place string) error {
	key := factKey(f.Subject, f.Signature, f.Context)
	b := c.tx.Bucket(privFacts)
	var was cachepb.Fact
	if _, err := unsealMessage(key, b.Get(key), &was); err != nil {
		return err
	}
	p := &cachepb.Fact{Attachment: f.Attachment, Trust: f.Trust, Epoch: f.Epoch, Id: was.Id, FiledBy: was.FiledBy}
	for i := range f.Verdicts {
		v, err := encodeVerdict(&f.Verdicts[i], c.sess)
		if err != nil {
			return err
		}
		p.Verdicts = append(p.Verdicts, v)
	}
	if err := c.file(key, p, &was, f.Hints, place); err != nil {
		return err
	}
	if err := c.putMessage(privFacts, key, p); err != nil {
		return err
	}
	cur := c.tx.Bucket(privDigests).Cursor()
	for k, v := cur.Seek(f.Subject[:]); bytes.HasPrefix(k, f.Subject[:]); k, v = cur.Next() {
		name, ok, err := unseal(k, v)
		if err != nil {
			return err
		}
		if ok {
			if err := c.changed(bucketImages, imageKey(string(name), f.Subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

func factKey(subject, signature trust.Digest, ctx Context) []byte {
	return append(append(append(make([]byte, 0, 80), subject[:]...), signature[:]...), ctx.key()...)
}

// file brings the candidate index in line with the hints of a fact. Rows count
// for the repository that first filed the fact; beyond its bound (invariant
// I4) they are not filed, and the place is flagged so that new signers are
// tried on it as a whole.
func (c *commit) file(key []byte, p, was *cachepb.Fact, hints []Hint, place string) error {
	index := c.tx.Bucket(privIndex)
	wanted := make([][]byte, 0, len(hints))
	for _, h := range hints {
		wanted = append(wanted, h[:])
	}
	if slices.EqualFunc(wanted, was.Hints, bytes.Equal) {
		p.Hints = was.Hints
		return nil
	}
	for _, h := range was.Hints {
		if err := index.Delete(append(bytes.Clone(h), number(was.Id)...)); err != nil {
			return err
		}
	}
	if err := c.account(p, was, counted(wanted), place); err != nil {
		return err
	}
	if p.FiledBy == 0 { // no room: only what it rests on
		wanted = slices.DeleteFunc(wanted, func(h []byte) bool { return h[0] != HintSigner })
	}
	if len(wanted) == 0 {
		return c.unfile(p)
	}
	if p.Id == 0 {
		id, err := c.tx.Bucket(privFactIDs).NextSequence()
		if err != nil {
			return err
		}
		p.Id = id
		if err := c.put(privFactIDs, number(id), key); err != nil {
			return err
		}
	}
	for _, h := range wanted {
		if err := c.put(privIndex, append(bytes.Clone(h), number(p.Id)...), []byte{1}); err != nil {
			return err
		}
	}
	p.Hints = wanted
	return nil
}

// counted is how many of the rows count against the bound.
func counted(hints [][]byte) int {
	n := 0
	for _, h := range hints {
		if h[0] != HintSigner {
			n++
		}
	}
	return n
}

// unfile gives the fact's number back.
func (c *commit) unfile(p *cachepb.Fact) error {
	if p.Id == 0 {
		return nil
	}
	id := p.Id
	p.Id = 0
	return c.tx.Bucket(privFactIDs).Delete(number(id))
}

// account moves the count of filed rows from what the fact had to n, and
// clears p.FiledBy when the repository has no room for them.
func (c *commit) account(p, was *cachepb.Fact, n int, place string) error {
	if was.FiledBy != 0 {
		if err := c.changePlace(was.FiledBy, func(pl *cachepb.Place) { pl.Filed -= int64(counted(was.Hints)) }); err != nil {
			return err
		}
	}
	p.FiledBy = 0
	if n == 0 || place == "" && was.FiledBy == 0 {
		return nil
	}
	id := was.FiledBy
	if id == 0 {
		var pl cachepb.Place
		name := []byte(place)
		if ok, err := unsealMessage(name, c.tx.Bucket(privPlaces).Get(name), &pl); err != nil || !ok {
			return err
		}
		id = pl.Id
	}
	return c.changePlace(id, func(pl *cachepb.Place) {
		if pl.Filed+int64(n) > c.s.opts.MaxFiled {
			pl.Overflow = true
			return
		}
		pl.Filed += int64(n)
		p.FiledBy = id
	})
}

// changePlace edits a place found by number. Places that are gone are left.
func (c *commit) changePlace(id uint64, edit func(*cachepb.Place)) error {
	name, err := placeName(c.tx, id)
	if err != nil || name == nil {
		return err
	}
	var p cachepb.Place
	if ok, err := unsealMessage(name, c.tx.Bucket(privPlaces).Get(name), &p); err != nil || !ok || p.Id != id {
		return err
	}
	edit(&p)
	return c.putMessage(privPlaces, name, &p)
}

func encodeKind(k Kind) *cachepb.Kind {
	p := &cachepb.Kind{Class: uint32(k.Class), MediaType: k.MediaType, Size: k.Size, Ambiguous: k.Ambiguous,
		Children: encodeChildren(k.Children)}
	if k.Subject != (trust.Digest{}) {
		p.Subject = k.Subject[:]
	}
	return p
}

func encodeRow(r *Row) *cachepb.Row {
	p := &cachepb.Row{MediaType: r.MediaType, Size: r.Size, Present: r.Present, Ambiguous: r.Ambiguous,
		Tagged: r.Tagged, Child: r.Child, Children: encodeChildren(r.Children)}
	for _, ref := range r.References {
		pr := &cachepb.Reference{Digest: ref.Digest[:], Carrier: uint32(ref.Carrier), Attempts: ref.Attempts, NextTry: ref.NextTry}
		for _, problem := range ref.Problems {
			pr.Problems = append(pr.Problems, &cachepb.Problem{Layer: uint32(problem.Layer + 1), Reason: encodeCode(reasonCodes, problem.Reason)})
		}
		p.References = append(p.References, pr)
	}
	return p
}

func decodeRow(d trust.Digest, p *cachepb.Row) Row {
	r := Row{Digest: d, MediaType: p.MediaType, Size: p.Size, Present: p.Present, Ambiguous: p.Ambiguous,
		Tagged: p.Tagged, Child: p.Child, Children: decodeChildren(p.Children)}
	for _, pr := range p.References {
		ref := Reference{Carrier: uint8(pr.Carrier), Attempts: pr.Attempts, NextTry: pr.NextTry}
		copy(ref.Digest[:], pr.Digest)
		for _, problem := range pr.Problems {
			ref.Problems = append(ref.Problems, Problem{Layer: int(problem.Layer) - 1, Reason: decodeReason(problem.Reason)})
		}
		r.References = append(r.References, ref)
	}
	return r
}

// idOf reads a number key.
func idOf(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
