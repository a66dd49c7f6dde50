package cache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// Counting: how many images are in each state, and how many signatures rest on
// each signer, kept by the writer, since a join cannot be indexed.
//
// What each row was counted as is kept beside it; a change counts as the
// difference. A row is counted again in the transaction that changes it or one
// of its facts, when a signer that it rests on came or went (Batch.Recount),
// and at the next date that one of its grounds has (DueNow). When the terms
// change in another way, or the clock goes back, all rows are (Recount).

// rowKey names a row: place and digest.
type rowKey [8 + 32]byte

func rowKeyOf(place uint64, d trust.Digest) (k rowKey) {
	binary.BigEndian.PutUint64(k[:], place)
	copy(k[8:], d[:])
	return k
}

// counting is what one transaction has to count again, and what came of it.
type counting struct {
	touched map[rowKey]string // → repository
	counts  map[string]*countChange
	signers map[uint32]int64
}

// countChange is the difference that one repository's rows made.
type countChange struct {
	place uint64
	by    cachepb.Counts
}

func newCounting() *counting {
	return &counting{touched: map[rowKey]string{}, counts: map[string]*countChange{}, signers: map[uint32]int64{}}
}

// touch owes one row's count.
func (c *commit) touch(place uint64, name string, d trust.Digest) {
	c.count.touched[rowKeyOf(place, d)] = name
}

// touchAll owes the counts of all rows of a digest.
func (c *commit) touchAll(d trust.Digest) error {
	cur := c.tx.Bucket(privDigests).Cursor()
	for k, v := cur.Seek(d[:]); bytes.HasPrefix(k, d[:]); k, v = cur.Next() {
		name, ok, err := unseal(k, v)
		if err != nil {
			return err
		}
		if ok && len(k) == len(d)+8 {
			c.touch(idOf(k[len(d):]), string(name), d)
		}
	}
	return nil
}

// recount counts every row that was touched, and writes the differences.
func (c *commit) recount() error {
	if len(c.count.touched) == 0 {
		return nil
	}
	f, now := c.s.pub.inForce.Load(), c.s.opts.Now()
	policies := policyChooser(f)
	for key, name := range c.count.touched {
		counted, err := c.countRow(f, policies(name), key, name, now)
		if err != nil {
			return err
		}
		if err := c.replaceCounted(key, name, counted); err != nil {
			return err
		}
	}
	for name, change := range c.count.counts {
		if err := c.addCounts(name, change); err != nil {
			return err
		}
	}
	for id, n := range c.count.signers {
		if err := c.addSigned(id, n); err != nil {
			return err
		}
	}
	if at := uint64(now.Unix()); at > getMeta(c.tx, metaCountedAt) {
		return putMeta(c.tx, metaCountedAt, at)
	}
	return nil
}

// countRow evaluates a row; nil when there is nothing to count.
func (c *commit) countRow(f *trust.InForce, choice policyChoice, key rowKey, name string, now time.Time) (*cachepb.Counted, error) {
	var row cachepb.Row
	if ok, err := unsealMessage(key[:], c.tx.Bucket(privRows).Get(key[:]), &row); !ok || err != nil || !row.Present {
		return nil, err
	}
	img, err := renderImage(c.tx, trust.Digest(key[8:]), &row, choice)
	if err != nil {
		return nil, err
	}
	counted := &cachepb.Counted{}
	var statuses []trust.Status
	for _, sig := range img.Signatures {
		tool := decodeCode(toolCodes, sig.Tool)
		if !f.Enabled(tool) {
			continue
		}
		for _, p := range sig.Verdicts {
			v := decodeVerdict(p, c.sess)
			d := join(f, name, tool, &v, decodeReason(p.Problem), sig.PolicyChanged, now)
			statuses = append(statuses, d.Status)
			counted.Signers = append(counted.Signers, signersOf(p)...)
			counted.Next = earliest(counted.Next, p, now.Unix())
		}
	}
	for _, status := range statuses {
		counted.Signatures = addAt(counted.Signatures, encodeCode(stateCodes, string(status)), 1)
	}
	if row.Tagged || !row.Child {
		counted.State = encodeCode(stateCodes, stateOf(statuses))
	}
	slices.Sort(counted.Signers)
	return counted, nil
}

// signersOf returns each signer that a verdict rests on once.
func signersOf(p *cachepb.Verdict) []uint32 {
	var ids []uint32
	for _, g := range p.Grounds {
		ids = append(ids, g.Signers...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// earliest returns the first of next (0: none) and the dates of the verdict's
// grounds that is after now.
func earliest(next int64, p *cachepb.Verdict, now int64) int64 {
	for _, g := range p.Grounds {
		for _, at := range []int64{g.From, g.Until} {
			if at > now && (next == 0 || at < next) {
				next = at
			}
		}
	}
	return next
}

// replaceCounted puts what a row counts as in the place of what it did.
func (c *commit) replaceCounted(key rowKey, name string, counted *cachepb.Counted) error {
	b := c.tx.Bucket(privCounted)
	old := b.Get(key[:])
	var was cachepb.Counted
	if _, err := unsealMessage(key[:], old, &was); err != nil {
		return err
	}
	var v []byte
	if counted != nil {
		var err error
		if v, err = sealMessage(key[:], counted); err != nil {
			return err
		}
	}
	if bytes.Equal(old, v) {
		return nil
	}
	c.difference(key, name, &was, -1)
	due := c.tx.Bucket(privDue)
	if was.Next != 0 {
		if err := due.Delete(countKey(was.Next, key)); err != nil {
			return err
		}
	}
	if counted == nil {
		return b.Delete(key[:])
	}
	c.difference(key, name, counted, 1)
	if counted.Next != 0 {
		if err := c.put(privDue, countKey(counted.Next, key), []byte{1}); err != nil {
			return err
		}
	}
	return b.Put(key[:], v)
}

// countKey is the entry in the date-ordered bucket under which a row is
// counted again.
func countKey(at int64, key rowKey) []byte {
	return append(append(number(uint64(at)), key[:]...), 'c')
}

// difference adds n times what a row counts as.
func (c *commit) difference(key rowKey, name string, counted *cachepb.Counted, n int64) {
	change := c.count.counts[name]
	if change == nil {
		change = &countChange{place: idOf(key[:8])}
		c.count.counts[name] = change
	}
	if counted.State != 0 {
		change.by.Images = addAt(change.by.Images, counted.State, n)
	}
	for code, many := range counted.Signatures {
		change.by.Signatures = addAt(change.by.Signatures, uint32(code), n*many)
	}
	for _, id := range counted.Signers {
		c.count.signers[id] += n
	}
}

// addAt adds n at a code, growing the list as far as it needs to.
func addAt(counts []int64, code uint32, n int64) []int64 {
	for int(code) >= len(counts) {
		counts = append(counts, 0)
	}
	counts[code] += n
	return counts
}

// addCounts adds a difference to a repository's counts, and deletes those of a
// repository that is gone.
func (c *commit) addCounts(name string, change *countChange) error {
	b, key := c.tx.Bucket(privCounts), number(change.place)
	var counts cachepb.Counts
	if _, err := unsealMessage(key, b.Get(key), &counts); err != nil {
		return err
	}
	before := proto.Clone(&counts)
	for code, n := range change.by.Images {
		counts.Images = addAt(counts.Images, uint32(code), n)
	}
	for code, n := range change.by.Signatures {
		counts.Signatures = addAt(counts.Signatures, uint32(code), n)
	}
	if proto.Equal(before, &counts) {
		return nil
	}
	if err := c.changed(bucketRepositories, []byte(name)); err != nil {
		return err
	}
	if placed, err := placeName(c.tx, change.place); err != nil || placed == nil {
		return cmp.Or(err, b.Delete(key))
	}
	return c.putMessage(privCounts, key, &counts)
}

// addSigned adds to the number of signatures that rest on a signer.
func (c *commit) addSigned(id uint32, n int64) error {
	if n == 0 {
		return nil
	}
	b, key := c.tx.Bucket(privSigned), id32(id)
	body, _, err := unseal(key, b.Get(key))
	if err != nil {
		return err
	}
	if len(body) == 8 {
		n += int64(idOf(body))
	}
	if err := c.changed(bucketSigned, key); err != nil {
		return err
	}
	if n == 0 {
		return b.Delete(key)
	}
	return c.put(privSigned, key, number(uint64(n)))
}
