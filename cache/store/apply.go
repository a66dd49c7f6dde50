package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// How a batch gets into the store: in stages, each in the order of its keys, since
// keys that come in order cost a page no search and no copying. A batch that is a
// whole repository may take as many transactions as it needs.

// transactionTime is after how long a transaction begins nothing further of a
// repository that can wait for the next one; to end it takes about as long again.
const transactionTime = 30 * time.Millisecond

// smallBatch is how many values a batch has at most that is not worth being cut.
const smallBatch = 1000

// share is what one batch may take of a transaction; nil: all that it needs.
type share struct {
	small int       // batches of so few are written at once
	until time.Time // of the monotonic clock
	most  int       // steps; 0: only time counts
	taken int
}

// take reports whether there is room for one more step, and counts it. The first
// steps are always allowed, so that every batch gets on.
func (s *share) take() bool {
	const few = 64
	if s == nil {
		return true
	}
	if s.most != 0 && s.taken >= s.most || s.taken > 0 && s.taken%few == 0 && time.Now().After(s.until) {
		return false
	}
	s.taken++
	return true
}

// progress is how much of a batch is in the store.
type progress struct {
	stage    int    // of stages
	next     int    // in the stage's list
	after    []byte // the last key of the store that the stage has dealt with
	outdated bool   // facts have been left out
	begun    bool
	unlisted bool // the repository could not be listed when it began
	done     bool

	kinds []trust.Digest // the batch's, sorted
	tags  []string       // the batch's, sorted
	keep  map[trust.Digest]bool
	known map[trust.Digest]bool
}

// Written reports whether all of the batch is in the store.
func (b *Batch) Written() bool { return b.written.done }

// whole reports whether the batch says what all of a repository is.
func (b *Batch) whole() bool { return b.SetTags || b.Complete || b.Remove }

// stages of a batch. What can end trust comes first; then facts, which are few in a scan:
// another repository's later verdict must not be overwritten by an earlier one that comes
// late, and a row must not name a signature whose fact is known and not there yet.
var stages = []func(*application) (more bool, err error){
	(*application).replaceTags, (*application).deleteRows, (*application).putFacts,
	(*application).deleteKinds, (*application).putKinds, (*application).putRows, (*application).addTags,
}

// application is a batch on its way into one transaction.
type application struct {
	*commit
	b     *Batch
	at    *progress
	place cachepb.Place
	// put and stored are what may be taken for what the batch has, and for what the
	// store has of its repository.
	put, stored *share
}

// apply applies as much of the batch as its share allows, from where at is on.
func (c *commit) apply(b *Batch, at *progress, share *share) error {
	if at.done {
		return nil
	}
	if !b.whole() {
		share = nil
	}
	a := &application{commit: c, b: b, at: at, stored: share}
	if share != nil && len(b.Kinds)+len(b.Rows)+len(b.Facts)+len(b.Tags) > share.small {
		a.put = share
	}
	known, err := a.open()
	if !at.begun {
		at.begun, at.unlisted = true, a.place.Unlisted
	}
	if err != nil || b.Remove && !known {
		at.done = true
		return err
	}
	for ; at.stage < len(stages); at.stage, at.next, at.after = at.stage+1, 0, nil {
		more, err := stages[at.stage](a)
		if err != nil {
			return a.wrap(err)
		}
		if more {
			return a.wrap(a.close(false))
		}
	}
	at.done, at.kinds, at.tags, at.keep, at.known = true, nil, nil, nil, nil
	return a.wrap(a.close(true))
}

func (a *application) wrap(err error) error {
	if err != nil && a.b.Place != "" {
		return fmt.Errorf("repository %s: %w", a.b.Place, err)
	}
	return err
}

// open reads the batch's repository, or gives it a number.
func (a *application) open() (known bool, err error) {
	if a.b.Place == "" {
		return true, nil
	}
	name := []byte(a.b.Place)
	places := a.tx.Bucket(privPlaces)
	if _, err := format.UnsealMessage(name, places.Get(name), &a.place); err != nil {
		return false, a.wrap(err)
	}
	if a.place.Id != 0 || a.b.Remove {
		return a.place.Id != 0, nil
	}
	if a.place.Id, err = places.NextSequence(); err != nil {
		return false, err
	}
	if err := a.commit.put(privPlaceIDs, format.Number(a.place.Id), name); err != nil {
		return false, err
	}
	if err := a.changed(format.BucketRepositories, name); err != nil {
		return false, err
	}
	return false, a.putMessage(privPlaces, name, &a.place)
}

// close writes what the batch says of the repository itself, as far as it is true
// yet.
func (a *application) close(done bool) error {
	if a.b.Place == "" {
		return nil
	}
	p, name := &a.place, []byte(a.b.Place)
	places := a.tx.Bucket(privPlaces)
	p.Reset() // facts have been charged to it
	if _, err := format.UnsealMessage(name, places.Get(name), p); err != nil {
		return err
	}
	if a.b.Remove && done {
		if err := a.changed(format.BucketRepositories, name); err != nil {
			return err
		}
		return errors.Join(a.tx.Bucket(privPlaceIDs).Delete(format.Number(p.Id)), places.Delete(name))
	}
	unlisted, why, newest, unsettled := p.Unlisted, p.Why, p.Newest, a.at.outdated
	since := p.Unlisted && !a.at.unlisted // it cannot be listed since a part before this
	if u := a.b.Update; u != nil && done {
		if !since {
			setIf(&p.Unlisted, u.Unlisted)
			switch {
			case u.Unlisted == nil:
			case p.Unlisted:
				p.Why = strings.ToValidUTF8(u.Why[:min(len(u.Why), maxWhy)], "")
			default:
				p.Why = ""
			}
		}
		if u.Unsettled != nil && (*u.Unsettled || p.UnsettledAt <= u.AsOf) {
			p.Unsettled = *u.Unsettled
		}
		unsettled = unsettled || u.Unsettled != nil && *u.Unsettled
		setIf(&p.HasNotation, u.HasNotation)
		setIf(&p.Newest, u.Newest)
		if u.Stamp != nil && !since {
			p.Stamp = []byte(*u.Stamp)
		}
	}
	if !done { // should the rest never come, it is scanned again
		p.Stamp = nil
		p.HasNotation = p.HasNotation || a.b.Update != nil && a.b.Update.HasNotation != nil && *a.b.Update.HasNotation
	}
	if unsettled {
		p.Unsettled, p.UnsettledAt = true, a.seq
	}
	if unlisted != p.Unlisted || why != p.Why || newest != p.Newest {
		if err := a.changed(format.BucketRepositories, name); err != nil {
			return err
		}
	}
	return a.putMessage(privPlaces, name, p)
}

func setIf[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// choose calls fn for the keys that a bucket has of the repository, from where the
// stage is on, and then do for those that fn has chosen: nothing is changed below a
// cursor. more is set when the share is used up.
func (a *application) choose(bucket []byte, fn func(rest, value []byte) (choose bool), do func(rest []byte) error) (more bool, err error) {
	prefix := format.Number(a.place.Id)
	cur := a.tx.Bucket(bucket).Cursor()
	k, v := cur.Seek(prefix)
	if a.at.after != nil {
		if k, v = cur.Seek(a.at.after); bytes.Equal(k, a.at.after) {
			k, v = cur.Next()
		}
	}
	var chosen [][]byte
	for ; bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		if more = !a.stored.take(); more {
			break
		}
		a.at.after = append(a.at.after[:0:0], k...)
		if body, _, err := format.Unseal(k, v); err != nil || fn(k[len(prefix):], body) {
			chosen = append(chosen, a.at.after)
		}
	}
	for _, k := range chosen {
		if err := do(k[len(prefix):]); err != nil {
			return false, err
		}
	}
	return more, nil
}

// replaceTags moves and deletes tags that the repository has.
func (a *application) replaceTags() (more bool, err error) {
	if !a.b.SetTags && !a.b.Remove {
		return false, nil
	}
	return a.choose(privTags, func(tag, body []byte) bool {
		d, ok := a.b.Tags[string(tag)]
		return !ok || !bytes.Equal(body, d[:])
	}, func(tag []byte) error {
		if d, ok := a.b.Tags[string(tag)]; ok {
			return a.putTag(string(tag), d)
		}
		if err := a.tx.Bucket(privTags).Delete(append(format.Number(a.place.Id), tag...)); err != nil {
			return err
		}
		return a.changed(format.BucketTags, format.TagKey(a.b.Place, string(tag)))
	})
}

// addTags puts the tags that the repository has not.
func (a *application) addTags() (more bool, err error) {
	if a.at.tags == nil {
		a.at.tags = slices.Sorted(maps.Keys(a.b.Tags))
	}
	for ; a.at.next < len(a.at.tags); a.at.next++ {
		if !a.put.take() {
			return true, nil
		}
		tag := a.at.tags[a.at.next]
		d, key := a.b.Tags[tag], append(format.Number(a.place.Id), tag...)
		if body, _, err := format.Unseal(key, a.tx.Bucket(privTags).Get(key)); err == nil && bytes.Equal(body, d[:]) {
			continue
		}
		if err := a.putTag(tag, d); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (a *application) putTag(tag string, d trust.Digest) error {
	if err := a.commit.put(privTags, append(format.Number(a.place.Id), tag...), d[:]); err != nil {
		return err
	}
	return a.changed(format.BucketTags, format.TagKey(a.b.Place, tag))
}

// deleteRows deletes the rows that the batch does not name, if it names all.
func (a *application) deleteRows() (more bool, err error) {
	if !a.b.Complete && !a.b.Remove {
		return false, nil
	}
	if a.at.keep == nil {
		a.at.keep = make(map[trust.Digest]bool, len(a.b.Rows))
		for i := range a.b.Rows {
			a.at.keep[a.b.Rows[i].Digest] = true
		}
	}
	return a.choose(privRows, func(d, _ []byte) bool { return len(d) == 32 && !a.at.keep[trust.Digest(d)] },
		func(d []byte) error { return a.row(&a.place, a.b.Place, trust.Digest(d), nil) })
}

// deleteKinds forgets the manifests that the batch does not name, if it names all.
func (a *application) deleteKinds() (more bool, err error) {
	if !a.b.Complete && !a.b.Remove {
		return false, nil
	}
	if a.at.known == nil {
		a.at.known = make(map[trust.Digest]bool, len(a.b.Remembered))
		for _, d := range a.b.Remembered {
			a.at.known[d] = true
		}
	}
	return a.choose(privKinds, func(d, _ []byte) bool {
		if len(d) != 32 || a.at.known[trust.Digest(d)] {
			return false
		}
		_, found := a.b.Kinds[trust.Digest(d)]
		return !found
	}, func(d []byte) error { return a.tx.Bucket(privKinds).Delete(append(format.Number(a.place.Id), d...)) })
}

func (a *application) putKinds() (more bool, err error) {
	if a.at.kinds == nil {
		a.at.kinds = slices.SortedFunc(maps.Keys(a.b.Kinds), func(x, y trust.Digest) int { return bytes.Compare(x[:], y[:]) })
	}
	for ; a.at.next < len(a.at.kinds); a.at.next++ {
		if !a.put.take() {
			return true, nil
		}
		d := a.at.kinds[a.at.next]
		if err := a.putMessage(privKinds, append(format.Number(a.place.Id), d[:]...), encodeKind(a.b.Kinds[d])); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (a *application) putRows() (more bool, err error) {
	for ; a.at.next < len(a.b.Rows); a.at.next++ {
		if !a.put.take() {
			return true, nil
		}
		row := &a.b.Rows[a.at.next]
		if err := a.row(&a.place, a.b.Place, row.Digest, row); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (a *application) putFacts() (more bool, err error) {
	for ; a.at.next < len(a.b.Facts); a.at.next++ {
		if !a.put.take() {
			return true, nil
		}
		f := &a.b.Facts[a.at.next]
		if a.late(f) {
			a.at.outdated = true
			continue
		}
		if err := a.fact(f, a.b.Place); err != nil {
			return false, err
		}
	}
	return false, nil
}
