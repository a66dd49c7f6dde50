package cache

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What has changed between two generations, as readers see it.

// Difference is one image as it read in two snapshots, or at two times.
type Difference struct {
	Repository string
	Digest     trust.Digest
	// Before and After are the image's own signatures, without its children's;
	// nil where there is no such image. Of very many they are those within
	// [MaxAnswer], and those that tell what has changed: of each signer who makes
	// the image trusted, and for each of their dates, the first; of what is yet to
	// be valid the same; and, in After, those that are in Before.
	Before, After []Signature
	// Was and Is name the states, of all signatures; empty where there is no
	// such image.
	Was, Is string
	// Next is the first time after the later of the two times at which a date may
	// change how the image reads, in Unix seconds; 0 if there is none.
	Next int64

	was, is counted
}

// Compare calls fn with every image that may read differently in s at the time
// to than it did in old at the time from: those whose records differ or whose
// repository could be listed in only one of the two. If the trust in force differs,
// it also calls fn with unchanged records that the difference may concern; if all is
// set, with all images. A nil old had no image.
//
// Compare ignores lease and staleness: what fn is given is no answer to act on.
// Unchanged records cost a comparison of bytes, and nothing in layers that both
// snapshots share. If only signers came or went, records that name none of them are
// skimmed.
func (s *Snapshot) Compare(old *Snapshot, from, to time.Time, all bool, fn func(*Difference) error) (err error) {
	c := newComparison(old, s, from, to)
	format.Guard(&err, func() error {
		if all || old == nil {
			return c.images(nil, true, nil, fn)
		}
		moved, err := c.moved()
		if err != nil {
			return err
		}
		if !sameTrust(old.InForce().Terms(), s.InForce().Terms()) {
			if old.g.ID == s.g.ID && from.Equal(to) {
				c.signers, c.elsewhere = movedSigners(old.InForce(), s.InForce()), moved
			}
			return c.images(nil, true, nil, fn)
		}
		if err := c.images(nil, false, moved, fn); err != nil {
			return err
		}
		for _, name := range moved {
			if err := c.images(format.TagKey(name, ""), true, nil, fn); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// CompareImage is Compare for one image.
func (s *Snapshot) CompareImage(old *Snapshot, from, to time.Time, repository string, d trust.Digest) (diff *Difference, err error) {
	c := newComparison(old, s, from, to)
	format.Guard(&err, func() error {
		key := format.ImageKey(repository, d)
		diff, err = c.difference(key, c.was.raw(key), c.is.raw(key))
		return err
	})
	return diff, err
}

// Now is the snapshot's clock: the reader's, but never earlier than the
// publication or its last confirmation.
func (s *Snapshot) Now() time.Time { return s.now }

// comparison is two snapshots with their clocks set, their leases out of force.
type comparison struct {
	was, is *Snapshot
	// signers, if not nil, are the only ones that can make an unchanged record
	// read differently, except in the repositories elsewhere.
	signers   map[trust.SignerID]bool
	elsewhere []string
}

func newComparison(old, s *Snapshot, from, to time.Time) comparison {
	at := func(s *Snapshot, t time.Time) *Snapshot {
		if s == nil {
			return nil
		}
		return &Snapshot{r: s.r, g: s.g, layers: s.layers, now: t, asOf: s.asOf, scratch: new(scratch)}
	}
	return comparison{was: at(old, from), is: at(s, to)}
}

// movedSigners returns the signers that are in force in one of two alone, if nothing else in
// them can make an answer read differently; else nil.
func movedSigners(x, y *trust.InForce) map[trust.SignerID]bool {
	if !format.EqualTerms(x.Terms(), y.Terms()) || !trust.SameScopes(x.Terms(), y.Terms()) || !slices.Equal(storesHeld(x), storesHeld(y)) {
		return nil
	}
	ids := map[trust.SignerID]bool{}
	for _, two := range [][2]*trust.InForce{{x, y}, {y, x}} {
		for _, m := range two[0].Terms().Materials {
			if id := m.Signer.ID(); !two[1].Has(id) {
				ids[id] = true
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return ids
}

// storesHeld are the trust stores that hold a certificate: whether others do can end trust.
func storesHeld(f *trust.InForce) []string {
	var stores []string
	for _, m := range f.Terms().Materials {
		stores = append(stores, m.Signer.Store())
	}
	slices.Sort(stores)
	return slices.Compact(stores)
}

// mayDiffer reports whether an unchanged record may read differently.
func (c comparison) mayDiffer(key, sealed []byte) bool {
	if c.signers == nil || names(key, sealed, c.signers) {
		return true
	}
	repository, _, _ := bytes.Cut(key, []byte{0})
	_, moved := slices.BinarySearch(c.elsewhere, string(repository))
	return moved
}

// names reports whether a sealed image record has a ground that names one of
// the signers. What cannot be read is taken for one that does.
func names(key, sealed []byte, ids map[trust.SignerID]bool) (found bool) {
	body, ok, err := format.Unseal(key, sealed)
	if !ok || err != nil {
		return err != nil
	}
	below := func(wanted protowire.Number, next func([]byte) error) func([]byte) error {
		return func(b []byte) error {
			return fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, bytes []byte) error {
				if num != wanted || found {
					return nil
				}
				return next(bytes)
			})
		}
	}
	var list []trust.SignerID
	ground := below(1, func(b []byte) error {
		list = format.DecodeSigners(list[:0], b)
		found = slices.ContainsFunc(list, func(id trust.SignerID) bool { return ids[id] })
		return nil
	})
	verdict := below(3, ground)
	signature := below(3, verdict)
	return below(5, signature)(body) != nil || found || below(1000, signature)(body) != nil || found
}

func sameTrust(a, b trust.Terms) bool {
	return format.EqualTerms(a, b) && slices.EqualFunc(a.Materials, b.Materials, func(x, y trust.Material) bool { return x.Signer == y.Signer && x.Scope == y.Scope })
}

// raw returns the sealed value of an image record, of nil snapshots none.
func (s *Snapshot) raw(key []byte) []byte {
	if s == nil {
		return nil
	}
	return s.layers.Sealed(format.InImages, key)
}

// common is how many of the oldest layers two snapshots have in common: only what the
// others hold can differ.
func (c comparison) common() int {
	a, b := c.was.g.files, c.is.g.files
	n := 0
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// without are the snapshot's layers but for the oldest; a nil snapshot has none.
func (s *Snapshot) without(oldest int) format.Layers {
	if s == nil {
		return nil
	}
	return s.layers[:len(s.layers)-oldest]
}

// images calls fn with the images under a prefix, all or those whose records
// differ, but for those of the repositories named in but (sorted).
func (c comparison) images(prefix []byte, all bool, but []string, fn func(*Difference) error) error {
	skip := 0
	if !all {
		skip = c.common()
	}
	a, b := c.was.without(skip).Merged(format.InImages, prefix, prefix), c.is.without(skip).Merged(format.InImages, prefix, prefix)
	for a.K != nil || b.K != nil {
		order := compareKeys(a.K, b.K)
		key, before, after := a.K, a.V, b.V
		switch {
		case order < 0:
			if after = nil; skip > 0 {
				after = c.is.raw(key)
			}
		case order > 0:
			key = b.K
			if before = nil; skip > 0 {
				before = c.was.raw(key)
			}
		}
		if !bytes.Equal(before, after) || all && c.mayDiffer(key, before) {
			d, err := c.difference(key, before, after)
			if err != nil {
				return err
			}
			if _, skip := slices.BinarySearch(but, d.Repository); !skip && (d.Before != nil || d.After != nil) {
				if err := fn(d); err != nil {
					return err
				}
			}
		}
		if order <= 0 {
			a.Next()
		}
		if order >= 0 {
			b.Next()
		}
	}
	return nil
}

// difference joins both sealed values of a record.
func (c comparison) difference(key, before, after []byte) (*Difference, error) {
	name, digest, ok := strings.Cut(string(key), "\x00")
	if !ok || len(digest) != len(trust.Digest{}) {
		return nil, format.ErrDamaged
	}
	d := &Difference{Repository: name, Digest: trust.Digest([]byte(digest))}
	for _, side := range []struct {
		s   *Snapshot
		v   []byte
		out *[]Signature
		is  *counted
	}{{c.was, before, &d.Before, &d.was}, {c.is, after, &d.After, &d.is}} {
		body, ok, err := format.Unseal(key, side.v)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if *side.out, *side.is, d.Next, err = side.s.telling(name, body, d.Before); err != nil {
			return nil, err
		}
	}
	d.Was, d.Is = d.was.state, d.is.state
	return d, nil
}

// moved returns, sorted, the repositories that could be listed in one of the
// two and not in the other.
func (c comparison) moved() ([]string, error) {
	count := map[string]int{}
	for _, s := range []*Snapshot{c.was, c.is} {
		if !s.anyUnlisted() {
			continue
		}
		if err := s.each(format.InUnlisted, nil, func(key, _ []byte) error { count[string(key)]++; return nil }); err != nil {
			return nil, err
		}
	}
	var names []string
	for name, n := range count {
		if n == 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// maxTelling bounds what is kept of an image to compare it, beyond MaxAnswer. Signers
// are the operator's, and each has few dates.
const maxTelling = 10_000

// telling returns the signatures of a record that a Difference shows, with those that
// are in also, what the image counts as, and its next date.
func (s *Snapshot) telling(repository string, body []byte, also []Signature) (out []Signature, is counted, next int64, err error) {
	if err := s.record.decode(body); err != nil {
		return nil, counted{}, 0, err
	}
	is.other = s.record.other
	if len(s.record.foreign) > 0 {
		is.layers = slices.Clone(notJudged)
	}
	is.listed = s.record.tagged || !s.record.child
	unlisted := false
	if s.anyUnlisted() {
		if _, unlisted, err = s.get(format.InUnlisted, []byte(repository)); err != nil {
			return nil, counted{}, 0, err
		}
	}
	type layer struct {
		digest trust.Digest
		n      int
	}
	type told struct {
		tool        trust.Tool
		signer      trust.Digest
		reason      trust.Reason
		from, until int64
	}
	wanted, seen := map[layer]bool{}, map[told]bool{}
	for i := range also {
		wanted[layer{also[i].Digest, also[i].Layer}] = true
	}
	out = []Signature{}
	budget := NewBudget()
	quorum, err := s.quorum(repository, s.record.signatures, unlisted)
	if err != nil {
		return nil, counted{}, 0, err
	}
	for _, b := range s.record.signatures {
		err := s.eachLayer(repository, b, unlisted, quorum, func(sig *Signature) {
			is.layers.add(sig.Status, sig.Reason)
			is.signers = append(is.signers, s.verdict.distinct()...)
			next = s.verdict.next(next, s.now.Unix())
			if until := s.trustedUntil(repository, sig); !until.IsZero() {
				is.ends = append(is.ends, until.Unix()/secondsPerDay)
			}
			key := told{tool: sig.Tool, signer: sig.SignerFingerprint, reason: sig.Reason}
			if sig.ValidFrom != nil {
				key.from = sig.ValidFrom.Unix()
			}
			if sig.ValidUntil != nil {
				key.until = sig.ValidUntil.Unix()
			}
			tells := (sig.IsTrusted || sig.Reason == trust.NotYetValid) && !seen[key]
			if budget.take(sig) || len(out) < maxTelling && (tells || wanted[layer{sig.Digest, sig.Layer}]) {
				seen[key] = true
				out = append(out, *sig)
			}
		})
		if err != nil {
			return nil, counted{}, 0, err
		}
	}
	if len(s.record.attestations) > 0 {
		is.attestations = map[trust.Status]int64{}
		err := s.eachAttestation(repository, unlisted, func(_ int, d *trust.Decision) {
			is.attestations[attestationStatus(&s.verdict.Verdict, d)]++
			next = s.verdict.next(next, s.now.Unix())
		})
		if err != nil {
			return nil, counted{}, 0, err
		}
	}
	if unread := s.unread(unlisted); unread != "" && len(is.layers) == 0 {
		is.layers = notRead(unread)
	}
	is.state = (&Image{omitted: is.layers}).State()
	return out, is, next, nil
}

// compareKeys orders keys; nil is the end and comes last.
func compareKeys(a, b []byte) int {
	switch {
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return bytes.Compare(a, b)
}
