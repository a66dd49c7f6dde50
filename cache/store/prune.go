package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What Prune keeps of what is nowhere any more.
const (
	// keepFacts is how long a fact outlives its last place, so that a
	// push-delete loop or a briefly missing mount costs no cryptography.
	keepFacts = 3 * 24 * time.Hour
	// maxOrphans and maxOrphanBytes bound how many such facts are kept at all.
	maxOrphans     = 100_000
	maxOrphanBytes = 64 << 20

	pruneChunk = 2_000
)

// Pruned is what Prune did.
type Pruned struct {
	Orphans int // facts without a place, kept
	Facts   int // deleted
	Texts   int // of authors and identities, deleted

	orphanBytes int
}

// room says whether another fact without a place may be kept.
func (p *Pruned) room(key, fact []byte) bool {
	return p.Orphans < maxOrphans && p.orphanBytes+len(key)+len(fact) <= maxOrphanBytes
}

func (p *Pruned) keep(key, fact []byte) {
	p.Orphans++
	p.orphanBytes += len(key) + len(fact)
}

// Prune deletes facts that have had no place for some days, also for want of a
// policy under which they would count, and then the authors and identities that no fact
// names any more. It works in short transactions and may be called at any time, by one
// goroutine.
func (s *Store) Prune(ctx context.Context) (p Pruned, err error) {
	name := func(named map[format.AuthorKey]bool) {
		s.write.Lock()
		s.named = named
		s.write.Unlock()
	}
	name(map[format.AuthorKey]bool{})
	defer name(nil)
	var after []byte
	for {
		var more bool
		s.write.Lock()
		err = s.update(func(tx *bbolt.Tx) error {
			after, more, err = s.pruneFacts(tx, after, &p)
			return err
		})
		s.write.Unlock()
		if err != nil || ctx.Err() != nil {
			return p, err
		}
		if !more {
			break
		}
	}
	for more := true; more && ctx.Err() == nil; {
		s.write.Lock()
		err = s.update(func(tx *bbolt.Tx) error {
			more, err = s.pruneTexts(tx, &p)
			return err
		})
		s.write.Unlock()
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// pruneTexts deletes up to pruneChunk texts that nothing names.
func (s *Store) pruneTexts(tx *bbolt.Tx, p *Pruned) (more bool, err error) {
	var gone [][]byte
	cur := tx.Bucket(privAuthors).Cursor()
	for k, _ := cur.First(); k != nil && len(gone) < pruneChunk; k, _ = cur.Next() {
		if len(k) == len(format.AuthorKey{}) && !s.named[format.AuthorKey(k)] {
			gone = append(gone, bytes.Clone(k))
		}
	}
	c := newCommit(s, tx)
	for _, k := range gone {
		if err := errors.Join(c.changed(format.BucketAuthors, k), tx.Bucket(privAuthors).Delete(k)); err != nil {
			return false, err
		}
	}
	p.Texts += len(gone)
	return len(gone) == pruneChunk, nil
}

// nameTexts notes which texts a fact names.
func (s *Store) nameTexts(key, sealed []byte) error {
	var p cachepb.Fact
	if _, err := format.UnsealMessage(key, sealed, &p); err != nil {
		return err
	}
	for _, v := range p.Verdicts {
		for _, text := range [][]byte{v.Author, v.Identity} {
			if len(text) == len(format.AuthorKey{}) {
				s.named[format.AuthorKey(text)] = true
			}
		}
	}
	return nil
}

// pruneFacts looks at up to pruneChunk facts after a key.
func (s *Store) pruneFacts(tx *bbolt.Tx, after []byte, p *Pruned) (last []byte, more bool, err error) {
	now := s.opts.Now()
	orphans := tx.Bucket(privOrphans)
	choose := func(string) policyChoice { return policyChoice{refused: true} } // not known yet
	if f := s.pub.inForce.Load(); f != nil {
		choose = policyChooser(f)
	}
	var gone, found, lost [][]byte
	cur := tx.Bucket(privFacts).Cursor()
	k, v := cur.Seek(after)
	if after != nil && bytes.Equal(k, after) {
		k, v = cur.Next()
	}
	for n := 0; k != nil && n < pruneChunk; n++ {
		last = bytes.Clone(k)
		placed, err := isPlaced(tx, k, choose)
		if err != nil {
			return nil, false, err
		}
		since, marked, err := format.Unseal(k, orphans.Get(k))
		switch {
		case err != nil:
			return nil, false, err
		case placed && marked:
			found = append(found, last)
		case placed:
		case !marked && p.room(k, v):
			lost = append(lost, last)
			p.keep(k, v)
		case marked && p.room(k, v) && now.Sub(time.Unix(int64(binary.BigEndian.Uint64(since)), 0)) < keepFacts:
			p.keep(k, v)
		default:
			gone = append(gone, last)
		}
		if len(gone) == 0 || !bytes.Equal(gone[len(gone)-1], last) {
			if err := s.nameTexts(k, v); err != nil {
				return nil, false, err
			}
		}
		k, v = cur.Next()
	}
	for _, key := range found {
		if err := orphans.Delete(key); err != nil {
			return nil, false, err
		}
	}
	for _, key := range lost {
		if err := orphans.Put(key, format.Seal(key, format.Number(uint64(now.Unix())))); err != nil {
			return nil, false, err
		}
	}
	c := newCommit(s, tx)
	for _, key := range gone {
		if err := c.dropFact(key); err != nil {
			return nil, false, err
		}
	}
	p.Facts += len(gone)
	return last, k != nil, nil
}

// isPlaced reports whether some row of the fact's subject refers to its signature,
// where a notation fact is about the statement in force. While none is, for want of
// a policy that can be read, it may be again what it was.
func isPlaced(tx *bbolt.Tx, key []byte, choose func(string) policyChoice) (bool, error) {
	subject, signature := key[:32], key[32:64]
	cur := tx.Bucket(privDigests).Cursor()
	for k, _ := cur.Seek(subject); bytes.HasPrefix(k, subject); k, _ = cur.Next() {
		rowKey := append(bytes.Clone(k[32:]), subject...)
		var row cachepb.Row
		if ok, err := format.UnsealMessage(rowKey, tx.Bucket(privRows).Get(rowKey), &row); err != nil || !ok {
			return false, err
		}
		if !slices.ContainsFunc(row.References, func(r *cachepb.Reference) bool { return bytes.Equal(r.Digest, signature) }) {
			continue
		}
		if len(key) == 64 { // cosign's
			return true, nil
		}
		name, _, err := format.Unseal(k[32:], tx.Bucket(privPlaceIDs).Get(k[32:]))
		if err != nil {
			return false, err
		}
		choice := choose(string(name))
		here := Context{Tool: trust.Notation, Policy: choice.policy, MediaType: row.MediaType}
		if choice.refused || bytes.Equal(here.key(), key[64:]) {
			return true, nil
		}
	}
	return false, nil
}

// dropFact deletes a fact with its index rows and its orphan mark.
func (c *commit) dropFact(key []byte) error {
	facts := c.tx.Bucket(privFacts)
	var was cachepb.Fact
	if _, err := format.UnsealMessage(key, facts.Get(key), &was); err != nil {
		return err
	}
	if err := c.file(key, &cachepb.Fact{Id: was.Id}, &was, nil, ""); err != nil {
		return err
	}
	if err := c.tx.Bucket(privOrphans).Delete(key); err != nil {
		return err
	}
	return facts.Delete(key)
}
