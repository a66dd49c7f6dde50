package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
)

// plan is what a scan makes of a repository: its rows, with what could be
// verified in this turn.
type plan struct {
	rows  []store.Row
	facts []store.Fact
	left  int // references still to be verified, and not left to other workers
	// returned: some reference is new here and its fact was known. A signer
	// that came while it was nowhere may be at work on that fact: once the
	// rows are in the store it is looked at again.
	returned bool
	notation bool
	deferred *deferred   // left to other workers
	asOf     uint64      // the store's sequence when it began
	under    *trustInUse // what it was verified under
}

// plan builds the rows and verifies up to turnSize new references, those whose
// subject had signatures before first: a co-signature that replaces the .sig
// manifest must not make a trusted image flicker (S7). It returns errLong if that takes
// longer than until, unless that is zero.
func (s *Scheduler) plan(ctx context.Context, p *layout.Repository, name string, c *layout.Contents, until time.Time, w *work) (*plan, error) {
	asOf, err := s.cfg.Store.Sequence()
	if err != nil {
		return nil, err
	}
	v := s.newVisit(s.trust.Load(), p, name, w)
	pl := &plan{rows: rowsOf(c), asOf: asOf, under: v.in}
	var replaced, others []found
	for i := range pl.rows {
		row := &pl.rows[i]
		if len(row.References) == 0 {
			continue
		}
		if !until.IsZero() && time.Now().After(until) {
			return nil, errLong
		}
		old, _, err := s.cfg.Store.Row(name, row.Digest)
		if err != nil {
			return nil, err
		}
		open, err := pl.compare(ctx, v, row, &old, until)
		if err != nil {
			return nil, err
		}
		if len(old.References) > 0 {
			replaced = append(replaced, open...)
		} else {
			others = append(others, open...)
		}
	}
	var of *store.Row // whose prior verdicts, and the image's own fault, are known
	var prior priorVerdicts
	var image *trust.Reason
	all := append(replaced, others...)
	v.in.ask(ctx, &v.opened, v.wanted(all)...)
	for n, f := range all {
		if v.in.peers != nil && n >= len(replaced) && !f.waited() {
			if !v.asked.has(v.keyOf(f)) { // the turns that follow ask about more
				pl.left++
				continue
			}
			if v.others(f.row, f.ref) {
				continue
			}
		}
		if !v.left.take() {
			if pl.left++; f.waited() { // its problems stand until it is looked at
				f.ref.Problems, f.ref.NextTry = f.was.Problems, cmp.Or(f.was.NextTry, s.now().Unix())
			}
			continue
		}
		if of != f.row {
			old, _, err := s.cfg.Store.Row(name, f.row.Digest)
			if err != nil {
				return nil, err
			}
			of, prior, image = f.row, priorVerdicts{of: old.References}, nil
		}
		if f.waited() && image == nil { // it may have been the image that was wrong
			reason, err := v.imageReason(ctx, &v.opened, f.row)
			if err != nil {
				return nil, err
			}
			image = &reason
		}
		if f.waited() && *image != "" {
			v.apply(f.ref, whole(*image))
			continue
		}
		if _, err := v.lookAndApply(ctx, f.row, f.ref, &prior); err != nil {
			return nil, err
		}
	}
	pl.facts, pl.deferred = v.facts, v.deferred
	return pl, nil
}

// found is a reference that has to be verified, with what was known of it here.
type found struct {
	row *store.Row
	ref *store.Reference
	was *store.Reference // or nil
}

// waited reports whether there was something wrong with the reference.
func (f *found) waited() bool { return f.was != nil && len(f.was.Problems) > 0 }

// compare takes over into a row what is known of its references, and returns those that
// have to be verified.
func (pl *plan) compare(ctx context.Context, v *visit, row, old *store.Row, until time.Time) (open []found, err error) {
	if row.Other && row.Present && !old.Present { // the signatures are about bytes of this repository
		reason, err := v.imageReason(ctx, &v.opened, row)
		if err != nil {
			return nil, err
		}
		for k := range row.References {
			if reason != "" && len(row.References[k].Problems) == 0 {
				row.References[k].Problems = []store.Problem{{Layer: -1, Reason: reason}}
			}
		}
	}
	had := map[trust.Digest]*store.Reference{}
	for k := range old.References {
		had[old.References[k].Digest] = &old.References[k]
	}
	for k := range row.References {
		if (k+1)%looksAtOnce == 0 && !until.IsZero() && time.Now().After(until) {
			return nil, errLong
		}
		ref := &row.References[k]
		pl.notation = pl.notation || ref.Carrier.Tool() == trust.Notation
		was := had[ref.Digest]
		if was != nil {
			ref.Attempts = was.Attempts
		}
		if len(ref.Problems) > 0 { // what reading the manifest just said
			v.apply(ref, whole(ref.Problems[0].Reason))
			continue
		}
		needs, ends, err := v.needs(v.in, v.name, row, ref)
		if err != nil {
			return nil, err
		}
		if !needs && (was == nil || !old.Present || isUnread(was)) && row.Present { // known from elsewhere: is it here, whole?
			if !v.left.take() {
				ref.Problems = unread // settled by the turns that follow
				pl.left++
				continue
			}
			reason, err := v.reread(ctx, &v.opened, ref)
			if err != nil {
				return nil, err
			}
			if reason != "" {
				v.apply(ref, whole(reason))
				continue
			}
		}
		switch {
		case !needs && (was == nil || len(was.Problems) == 0 || isUnread(was)):
			if ref.NextTry = v.again(ends); was != nil && was.NextTry != 0 {
				ref.NextTry = was.NextTry
			}
			pl.returned = pl.returned || was == nil
		case row.Present:
			open = append(open, found{row, ref, was})
		}
	}
	return open, nil
}

// firstReferences are as many as a row keeps, and one more if there are more: no attestation
// takes a signature's place. They stay in the order of digests.
func firstReferences(refs []layout.Reference) []layout.Reference {
	const most = store.MaxReferences + 1
	if len(refs) <= most {
		return refs
	}
	first := slices.SortedStableFunc(slices.Values(refs), func(a, b layout.Reference) int { return a.Carrier.Rank() - b.Carrier.Rank() })[:most]
	slices.SortFunc(first, func(a, b layout.Reference) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return first
}

// rowsOf turns the contents of a repository into rows, in digest order.
func rowsOf(c *layout.Contents) []store.Row {
	rows := make(map[trust.Digest]*store.Row, len(c.Images))
	children := map[trust.Digest]bool{}
	image := func(d trust.Digest) *layout.Image { return cmp.Or(c.Images[d], c.Others[d]) }
	for d := range c.Others {
		rows[d] = &store.Row{Digest: d, Other: true}
	}
	for d := range c.Images {
		rows[d] = &store.Row{Digest: d}
	}
	for d, row := range rows {
		img := image(d)
		row.MediaType, row.Size, row.Present, row.Ambiguous, row.Tagged = img.MediaType, img.Size, true, img.Ambiguous, !img.Untagged
		row.Foreign = img.Foreign
		if img.Unreadable != trust.Malformed { // that is how it was pushed
			row.Unreadable = img.Unreadable
		}
		for _, child := range img.Children {
			children[child.Digest] = true
			row.Children = append(row.Children, store.Child{Digest: child.Digest, Platform: child.Platform, MediaType: child.MediaType, Size: child.Size, Foreign: child.Foreign})
		}
	}
	for subject, refs := range c.Signatures {
		row := rows[subject]
		if row == nil {
			row = &store.Row{Digest: subject}
			rows[subject] = row
		}
		for _, ref := range firstReferences(refs) {
			r := store.Reference{Digest: ref.Digest, Carrier: ref.Carrier}
			unusable := ref.Unreadable
			if img := image(subject); unusable == "" && img != nil {
				if unusable = img.Unreadable; img.Ambiguous {
					unusable = trust.Ambiguous
				}
			}
			if unusable != "" {
				r.Problems = []store.Problem{{Layer: -1, Reason: unusable}}
			}
			row.References = append(row.References, r)
		}
	}
	out := make([]store.Row, 0, len(rows))
	for d, row := range rows {
		row.Child = children[d]
		out = append(out, *row)
	}
	slices.SortFunc(out, func(a, b store.Row) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return out
}
