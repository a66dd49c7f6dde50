package store

import (
	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Private values: the Go forms of model.go to messages and back.

func encodeKind(k Kind) *cachepb.Kind {
	p := &cachepb.Kind{Class: uint32(k.Class), MediaType: k.MediaType, Size: k.Size, Ambiguous: k.Ambiguous,
		Skipped: int64(k.Skipped), Children: encodeChildren(k.Children)}
	if k.Subject != (trust.Digest{}) {
		p.Subject = k.Subject[:]
	}
	return p
}

func encodeRow(r *Row) *cachepb.Row {
	p := &cachepb.Row{MediaType: r.MediaType, Size: r.Size, Present: r.Present, Ambiguous: r.Ambiguous,
		Tagged: r.Tagged, Child: r.Child, Other: r.Other, Foreign: r.Foreign, Unreadable: format.EncodeCode(format.ReasonCodes, r.Unreadable),
		Children: encodeChildren(r.Children)}
	for _, ref := range r.References {
		pr := &cachepb.Reference{Digest: ref.Digest[:], Carrier: uint32(ref.Carrier), Attempts: ref.Attempts, NextTry: ref.NextTry}
		for _, problem := range ref.Problems {
			pr.Problems = append(pr.Problems, &cachepb.Problem{Layer: uint32(problem.Layer + 1), Reason: format.EncodeCode(format.ReasonCodes, problem.Reason)})
		}
		p.References = append(p.References, pr)
	}
	return p
}

func decodeRow(d trust.Digest, p *cachepb.Row) Row {
	r := Row{Digest: d, MediaType: p.MediaType, Size: p.Size, Present: p.Present, Ambiguous: p.Ambiguous,
		Tagged: p.Tagged, Child: p.Child, Other: p.Other, Foreign: p.Foreign, Unreadable: format.DecodeReason(p.Unreadable),
		Children: decodeChildren(p.Children)}
	for _, pr := range p.References {
		ref := Reference{Carrier: trust.Carrier(pr.Carrier), Attempts: pr.Attempts, NextTry: pr.NextTry}
		copy(ref.Digest[:], pr.Digest)
		for _, problem := range pr.Problems {
			ref.Problems = append(ref.Problems, Problem{Layer: int(problem.Layer) - 1, Reason: format.DecodeReason(problem.Reason)})
		}
		r.References = append(r.References, ref)
	}
	return r
}

func encodeChildren(cs []Child) []*cachepb.Child {
	var out []*cachepb.Child
	for _, c := range cs {
		child := &cachepb.Child{Digest: c.Digest[:], Platform: c.Platform, MediaType: c.MediaType, Size: c.Size, Attestation: c.Attestation, Foreign: c.Foreign}
		if c.About != (trust.Digest{}) {
			child.About = c.About[:]
		}
		out = append(out, child)
	}
	return out
}

func decodeChildren(cs []*cachepb.Child) []Child {
	var out []Child
	for _, c := range cs {
		child := Child{Platform: c.Platform, MediaType: c.MediaType, Size: c.Size, Attestation: c.Attestation, Foreign: c.Foreign}
		copy(child.Digest[:], c.Digest)
		copy(child.About[:], c.About)
		out = append(out, child)
	}
	return out
}
