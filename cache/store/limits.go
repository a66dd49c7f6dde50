package store

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What one repository stores of one image must fit into a value (maxValue):
// one that does not would be taken for damage, and cost everybody the cache.

const (
	// MaxReferences is how many signatures of one subject are looked at, the
	// first by digest. If there are more the next one stands for them, as
	// unknown/limit-exceeded.
	MaxReferences = 50_000
	// maxWhy is how many bytes are kept of why a repository could not be listed.
	maxWhy = 300
	// maxProblems is how many problems of single layers one row holds; the
	// references after them have one for all of their layers.
	maxProblems = 100_000
	// maxVerdicts is how many bytes of an image record may be verdicts; the
	// signatures after them read limit-exceeded.
	maxVerdicts = 5 << 20
	// fewVerdicts are not worth being measured.
	fewVerdicts = 1000
)

var beyond = []*cachepb.Problem{{Reason: format.EncodeCode(format.ReasonCodes, trust.LimitExceeded)}}

// limitRow keeps a row within its bounds. What it makes of a row depends on
// nothing else, and leaves a row that is within them as it is.
func limitRow(r *cachepb.Row) {
	if len(r.References) > MaxReferences {
		slices.SortStableFunc(r.References, func(a, b *cachepb.Reference) int {
			return trust.Carrier(a.Carrier).Rank() - trust.Carrier(b.Carrier).Rank()
		})
		r.References = r.References[:MaxReferences+1]
		last := r.References[MaxReferences]
		last.Problems, last.Attempts, last.NextTry = beyond, 0, 0
		slices.SortFunc(r.References, func(a, b *cachepb.Reference) int { return bytes.Compare(a.Digest, b.Digest) })
	}
	n := 0
	for _, ref := range r.References {
		if n += len(ref.Problems); n > maxProblems {
			ref.Problems = beyond
		}
	}
}

// limitImage keeps an image record within its bounds.
func limitImage(img *cachepb.Image) {
	verdicts := 0
	all := slices.Concat(img.Signatures, img.Attestations)
	for _, sig := range all {
		verdicts += len(sig.Verdicts)
	}
	if verdicts < fewVerdicts {
		return
	}
	n := 0
	for _, c := range img.Children {
		n += proto.Size(c)
	}
	for _, sig := range all {
		if n += proto.Size(sig); n > maxVerdicts {
			sig.Verdicts = []*cachepb.Verdict{{Problem: format.EncodeCode(format.ReasonCodes, trust.LimitExceeded)}}
		}
	}
}
