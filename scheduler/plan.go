package scheduler

import (
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
	left  int // references still to be verified
	// returned: some reference is new here and its fact was known. A signer
	// that came while it was nowhere may be at work on that fact: once the
	// rows are in the store it is looked at again.
	returned bool
	notation bool
	asOf     uint64      // the store's sequence when it began
	under    *trustInUse // what it was verified under
}

// plan builds the rows and verifies up to turnSize new references, those whose
// subject had signatures before first: a co-signature that replaces the .sig
// manifest must not make a trusted image flicker (S7). It returns errLong if that takes
// longer than until, unless that is zero.
func (s *Scheduler) plan(ctx context.Context, p *layout.Repository, name string, c *layout.Contents, until time.Time) (*plan, error) {
	asOf, err := s.cfg.Store.Sequence()
	if err != nil {
		return nil, err
	}
	in := s.trust.Load()
	pl := &plan{rows: rowsOf(c), asOf: asOf, under: in}
	type open struct {
		row, ref int
		was      *store.Reference
	}
	var replaced, others []open
	left, looks := newAllowance(), 0
	for i := range pl.rows {
		row := &pl.rows[i]
		if len(row.References) == 0 {
			continue
		}
		old, _, err := s.cfg.Store.Row(name, row.Digest)
		if err != nil {
			return nil, err
		}
		if row.Other && row.Present && !old.Present { // the signatures are about bytes of this repository
			if !until.IsZero() && time.Now().After(until) {
				return nil, errLong
			}
			reason := s.imageReason(ctx, p, row)
			if ctx.Err() != nil {
				return nil, ctx.Err()
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
			if looks++; looks%256 == 0 && !until.IsZero() && time.Now().After(until) {
				return nil, errLong
			}
			ref := &row.References[k]
			pl.notation = pl.notation || ref.Carrier.Tool() == trust.Notation
			was := had[ref.Digest]
			if was != nil {
				ref.Attempts = was.Attempts
			}
			if len(ref.Problems) > 0 { // what reading the manifest just said
				s.apply(ref, whole(ref.Problems[0].Reason))
				continue
			}
			needs, until, err := s.needs(in, name, row, ref)
			if err != nil {
				return nil, err
			}
			if !needs && (was == nil || !old.Present || isUnread(was)) && row.Present { // known from elsewhere: is it here, whole?
				if !left.take() {
					ref.Problems = unread // settled by the turns that follow
					pl.left++
					continue
				}
				if reason := s.reread(ctx, p, ref); ctx.Err() != nil {
					return nil, ctx.Err()
				} else if reason != "" {
					s.apply(ref, whole(reason))
					continue
				}
			}
			switch {
			case !needs && (was == nil || len(was.Problems) == 0 || isUnread(was)):
				if ref.NextTry = s.again(until); was != nil && was.NextTry != 0 {
					ref.NextTry = was.NextTry
				}
				pl.returned = pl.returned || was == nil
				continue
			case len(old.References) > 0:
				replaced = append(replaced, open{i, k, was})
			default:
				others = append(others, open{i, k, was})
			}
		}
	}
	var prior priorVerdicts
	var of trust.Digest // whose they are
	images := map[trust.Digest]trust.Reason{}
	for _, o := range append(replaced, others...) {
		row := &pl.rows[o.row]
		if !row.Present {
			continue
		}
		if o.was != nil && len(o.was.Problems) > 0 && !left.spent() {
			// It may have been the image that was wrong: its size alone has
			// been looked at since.
			reason, known := images[row.Digest]
			if !known {
				if reason = s.imageReason(ctx, p, row); ctx.Err() != nil {
					return nil, ctx.Err()
				}
				images[row.Digest] = reason
			}
			if reason != "" {
				s.apply(&row.References[o.ref], whole(reason))
				continue
			}
		}
		if !left.take() {
			if pl.left++; o.was != nil && len(o.was.Problems) > 0 { // they stand until it is looked at
				ref := &row.References[o.ref]
				ref.Problems, ref.NextTry = o.was.Problems, cmp.Or(o.was.NextTry, s.now().Unix())
			}
			continue
		}
		old, _, err := s.cfg.Store.Row(name, row.Digest)
		if err != nil {
			return nil, err
		}
		if of != row.Digest {
			prior, of = priorVerdicts{}, row.Digest
		}
		verdicts, err := prior.of(s, in, row.Digest, old.References)
		if err != nil {
			return nil, err
		}
		l, err := s.look(ctx, in, p, name, row, &row.References[o.ref], verdicts)
		if err != nil {
			return nil, err
		}
		s.apply(&row.References[o.ref], l)
		if l.fact != nil {
			pl.facts = append(pl.facts, *l.fact)
		}
	}
	return pl, nil
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
		for _, ref := range refs[:min(len(refs), store.MaxReferences+1)] {
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
