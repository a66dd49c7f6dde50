package cache

import "trust-worker/trust"

// What answers list is bounded in bytes: a pusher decides how many signatures an
// image has, and a few megabytes of storage can hold millions.

// MaxAnswer bounds the signatures that one image lists, with those of its children,
// by their size as JSON. Half of it is for those that are trusted alone, so that many
// that are not crowd none of them out.
const MaxAnswer = 1 << 20

// signatureBytes is more than a signature without its author takes as JSON.
const signatureBytes = 512

// maxLooked bounds how many signatures are decided for one image and its children.
// More than that are not listed, and read limit-exceeded: an index lists the same
// storage as often as it likes. No image has so many of its own.
const maxLooked = 1_000_000

// Budget is what is left for the signatures of one image and its children.
type Budget struct {
	limit, used, others, looked int
	trusted                     bool // one that is trusted is listed
}

// look reports whether n more signatures may be decided.
func (b *Budget) look(n int) bool {
	b.looked += n
	return b.looked <= maxLooked
}

// NewBudget returns a whole one: MaxAnswer.
func NewBudget() *Budget { return BudgetOf(MaxAnswer) }

// BudgetOf returns one of so many bytes.
func BudgetOf(bytes int) *Budget { return &Budget{limit: bytes} }

// take reports whether there is room for a signature, and uses it.
func (b *Budget) take(sig *Signature) bool {
	n := signatureBytes + len(sig.Author) + len(sig.Detail) + len(sig.SignerFile)
	first := sig.IsTrusted && !b.trusted // always has room, whatever its size
	if !first && b.used+n > b.limit || !sig.IsTrusted && b.others+n > b.limit/2 {
		return false
	}
	b.used += n
	if b.trusted = b.trusted || sig.IsTrusted; !sig.IsTrusted {
		b.others += n
	}
	return true
}

// has reports whether so many bytes more fit.
func (b *Budget) has(n int) bool { return b.used+n <= b.limit }

// spend is take for all of them or none.
func (b *Budget) spend(sigs []Signature) bool {
	before := *b
	for i := range sigs {
		if !b.take(&sigs[i]) {
			*b = before
			return false
		}
	}
	return true
}

// Listing collects the signatures of an image within a budget.
type Listing struct {
	Kept    []Signature
	Omitted int

	budget  *Budget
	omitted omissions
}

// NewListing returns an empty one.
func NewListing(b *Budget) *Listing { return &Listing{Kept: []Signature{}, budget: b} }

// Add lists a signature, or counts it among those left out.
func (l *Listing) Add(sig *Signature) {
	if l.budget.take(sig) {
		l.Kept = append(l.Kept, *sig)
		return
	}
	l.Omitted++
	l.omitted.add(sig.Status, sig.Reason)
}

// Into makes the listing an image's.
func (l *Listing) Into(img *Image) {
	img.SignatureInfo, img.SignaturesOmitted, img.omitted, img.IsSigned = l.Kept, l.Omitted, l.omitted, len(l.Kept)+l.Omitted > 0
}

// omissions count what is left out, by status and reason: there are few of those.
type omissions []omission

type omission struct {
	status trust.Status
	reason trust.Reason
	n      int
}

func (o *omissions) add(status trust.Status, reason trust.Reason) {
	for i := range *o {
		if e := &(*o)[i]; e.status == status && e.reason == reason {
			e.n++
			return
		}
	}
	*o = append(*o, omission{status, reason, 1})
}

// Size estimates, from above, how many bytes the image takes as JSON.
func (i *Image) Size() int {
	n := 512 + len(i.MediaType)
	add := func(sigs []Signature) {
		for k := range sigs {
			n += signatureBytes + len(sigs[k].Author) + len(sigs[k].Detail)
		}
	}
	add(i.SignatureInfo)
	for k := range i.Attestations {
		n += i.Attestations[k].size()
	}
	for k := range i.Manifests {
		m := &i.Manifests[k]
		n += 256 + len(m.Platform)
		add(m.SignatureInfo)
	}
	return n
}
