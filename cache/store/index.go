package store

import (
	"bytes"
	"errors"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Facts and the candidate index: which future signers matter to which fact.

// maxDetails is how many bytes of details a fact has, in layer order; what is beyond
// has its reason alone. A manifest of a thousand layers, of which a pusher names one
// signature at thousands of images, must not be multiplied.
const maxDetails = 1024

// fact writes a fact, files its hints, and marks the images it shows in.
func (c *commit) fact(f *Fact, place string) error {
	key := f.key
	if key == nil {
		key = factKey(f.Subject, f.Signature, f.Context)
	}
	b := c.tx.Bucket(privFacts)
	var was cachepb.Fact
	if _, err := format.UnsealMessage(key, b.Get(key), &was); err != nil {
		return err
	}
	p := &cachepb.Fact{Attachment: f.Attachment, Trust: f.Trust, Epoch: f.Epoch, Id: was.Id, FiledBy: was.FiledBy, UnfiledBy: was.UnfiledBy}
	details := 0
	for i := range f.Verdicts {
		v, err := format.EncodeVerdict(&f.Verdicts[i], c.author)
		if err != nil {
			return err
		}
		if details += len(v.Detail); details > maxDetails {
			v.Detail = ""
		}
		p.Verdicts = append(p.Verdicts, v)
	}
	hints := f.Hints
	if f.Partial && keepDecided(p, &was) {
		hints = union(hints, was.Hints)
	}
	p.Attachment = p.Attachment || attests(p.Verdicts)
	if err := c.file(key, p, &was, hints, place); err != nil {
		return err
	}
	if err := c.putMessage(privFacts, key, p); err != nil {
		return err
	}
	cur := c.tx.Bucket(privDigests).Cursor()
	for k, v := cur.Seek(f.Subject[:]); bytes.HasPrefix(k, f.Subject[:]); k, v = cur.Next() {
		name, ok, err := format.Unseal(k, v)
		if err != nil {
			return err
		}
		if ok {
			if err := c.changed(format.BucketImages, format.ImageKey(string(name), f.Subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

// author stores the text of an author, once, and returns its key.
func (c *commit) author(text string) ([]byte, error) {
	key := format.AuthorKeyOf(text)
	if c.s.named != nil {
		c.s.named[key] = true
	}
	b := c.tx.Bucket(privAuthors)
	if _, ok, err := format.Unseal(key[:], b.Get(key[:])); err != nil || ok {
		return key[:], err
	}
	if err := c.changed(format.BucketAuthors, key[:]); err != nil {
		return nil, err
	}
	return key[:], b.Put(key[:], format.Seal(key[:], []byte(text)))
}

// keepDecided fills the layers that a place kept from being decided with what is
// known of them, and reports whether there were any.
func keepDecided(p, was *cachepb.Fact) (kept bool) {
	if was.Epoch != p.Epoch || len(was.Verdicts) != len(p.Verdicts) {
		return false
	}
	decided := func(v *cachepb.Verdict) bool { return v.Reason != 0 || len(v.Grounds) > 0 }
	for i, v := range p.Verdicts {
		if w := was.Verdicts[i]; !decided(v) && decided(w) && bytes.Equal(v.Layer, w.Layer) {
			p.Verdicts[i], kept = w, true
		}
	}
	if kept {
		p.Trust = min(p.Trust, was.Trust)
	}
	return kept
}

// attests reports whether some verdict is about an attestation: what was once read as one
// stays one where its bytes are not there.
func attests(verdicts []*cachepb.Verdict) bool {
	return slices.ContainsFunc(verdicts, func(v *cachepb.Verdict) bool { return v.Predicate != "" })
}

func union(hints []Hint, more [][]byte) []Hint {
	all := slices.Clone(hints)
	for _, h := range more {
		if len(h) == len(Hint{}) {
			all = append(all, Hint(h))
		}
	}
	slices.SortFunc(all, func(a, b Hint) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

func factKey(subject, signature trust.Digest, ctx Context) []byte {
	return append(append(append(make([]byte, 0, 80), subject[:]...), signature[:]...), ctx.key()...)
}

// file brings the candidate index in line with the hints of a fact. Rows count
// for the repository that first filed the fact; beyond its bound
// ([Options.MaxFiled]) they are not filed, and the place is flagged so that new signers are
// tried on it as a whole.
func (c *commit) file(key []byte, p, was *cachepb.Fact, hints []Hint, place string) error {
	index := c.tx.Bucket(privIndex)
	wanted := make([][]byte, 0, len(hints))
	for _, h := range hints {
		wanted = append(wanted, h[:])
	}
	if was.UnfiledBy == 0 && slices.EqualFunc(wanted, was.Hints, bytes.Equal) {
		p.Hints = was.Hints
		return nil
	}
	for _, h := range was.Hints {
		if err := index.Delete(append(bytes.Clone(h), format.Number(was.Id)...)); err != nil {
			return err
		}
	}
	if err := c.account(p, was, chargedRows(wanted), place); err != nil {
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
		if err := c.put(privFactIDs, format.Number(id), key); err != nil {
			return err
		}
	}
	for _, h := range wanted {
		if err := c.put(privIndex, append(bytes.Clone(h), format.Number(p.Id)...), []byte{1}); err != nil {
			return err
		}
	}
	p.Hints = wanted
	return nil
}

// chargedRows is how many of the rows count against the bound.
func chargedRows(hints [][]byte) int {
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
	return c.tx.Bucket(privFactIDs).Delete(format.Number(id))
}

// nowhere is who has no room for a fact that no repository can be charged for.
const nowhere = math.MaxUint64

// account moves the count of filed rows from what the fact had to n: to the
// repository that had them, or else to the one that writes. When none has room it
// sets p.UnfiledBy instead of p.FiledBy, and the fact is one of those that a new
// signer does not find by the index.
func (c *commit) account(p, was *cachepb.Fact, n int, place string) error {
	if was.FiledBy != 0 {
		if err := c.changePlace(was.FiledBy, func(pl *cachepb.Place) { pl.Filed -= int64(chargedRows(was.Hints)) }); err != nil {
			return err
		}
	}
	if was.UnfiledBy != 0 {
		if err := c.changePlace(was.UnfiledBy, func(pl *cachepb.Place) { pl.Unfiled-- }); err != nil {
			return err
		}
	}
	p.FiledBy, p.UnfiledBy = 0, 0
	if n > 0 {
		charged, err := c.chargeable(was, place)
		if err != nil {
			return err
		}
		for _, id := range charged {
			if err := c.changePlace(id, func(pl *cachepb.Place) {
				if pl.Filed+int64(n) <= c.s.opts.MaxFiled {
					pl.Filed += int64(n)
					p.FiledBy = id
				}
			}); err != nil || p.FiledBy != 0 {
				return errors.Join(err, c.countUnfiled(was, p))
			}
		}
		p.UnfiledBy = append(charged, nowhere)[0]
		if err := c.changePlace(p.UnfiledBy, func(pl *cachepb.Place) { pl.Unfiled++ }); err != nil {
			return err
		}
	}
	return c.countUnfiled(was, p)
}

// chargeable returns the repositories, by number, whose bound a fact's rows may
// count against: those that are still there.
func (c *commit) chargeable(was *cachepb.Fact, place string) (ids []uint64, err error) {
	for _, id := range []uint64{was.FiledBy, was.UnfiledBy} {
		if id == 0 || id == nowhere {
			continue
		}
		name, err := placeName(c.tx, id)
		if err != nil {
			return nil, err
		}
		if name != nil {
			ids = append(ids, id)
		}
	}
	var pl cachepb.Place
	if ok, err := format.UnsealMessage([]byte(place), c.tx.Bucket(privPlaces).Get([]byte(place)), &pl); err != nil {
		return nil, err
	} else if ok && !slices.Contains(ids, pl.Id) {
		ids = append(ids, pl.Id)
	}
	return ids, nil
}

// countUnfiled keeps the number of facts that are not in the index.
func (c *commit) countUnfiled(was, is *cachepb.Fact) error {
	if (was.UnfiledBy != 0) == (is.UnfiledBy != 0) {
		return nil
	}
	n := getMeta(c.tx, metaUnfiled)
	if is.UnfiledBy != 0 {
		n++
	} else {
		n--
	}
	return putMeta(c.tx, metaUnfiled, n)
}

// Unfiled is how many facts are beyond the bounds of the index: a new signer finds
// them only by looking at everything.
func (s *Store) Unfiled() (n uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error { n = getMeta(tx, metaUnfiled); return nil })
	return n, err
}

// changePlace edits a place found by number. Places that are gone are left.
func (c *commit) changePlace(id uint64, edit func(*cachepb.Place)) error {
	name, err := placeName(c.tx, id)
	if err != nil || name == nil {
		return err
	}
	var p cachepb.Place
	if ok, err := format.UnsealMessage(name, c.tx.Bucket(privPlaces).Get(name), &p); err != nil || !ok || p.Id != id {
		return err
	}
	edit(&p)
	return c.putMessage(privPlaces, name, &p)
}
