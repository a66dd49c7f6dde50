package verifier

import (
	"crypto/x509"
	"time"

	"trust-worker/trust"
)

// The dates between which a ground holds.

// firstExpiry is when the first certificate of a chain expires.
func firstExpiry(chain []*x509.Certificate) int64 {
	first := chain[0].NotAfter
	for _, c := range chain {
		if c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return unixBound(first)
}

// bounds are a ground's dates in Unix seconds, 0 for none.
type bounds struct {
	from, until int64
	limit       trust.Reason
	ends        int64 // by dates, where the answer of a revocation service ends before
}

// unixBound is t in seconds, see [trust.Date], never 0, which would be no bound.
// Fractions are cut off: an end comes early rather than late.
func unixBound(t time.Time) int64 {
	if u := trust.Date(t.Unix()); u != 0 {
		return u
	}
	return -1
}

func (b *bounds) begin(t time.Time) {
	if u := trust.Date(t.Unix()); b.from == 0 || u > b.from {
		b.from = u
	}
}

func (b *bounds) end(t time.Time, limit trust.Reason) {
	if u := unixBound(t); !t.IsZero() && (b.until == 0 || u < b.until) {
		if limit == trust.RevocationUnknown && b.limit != trust.RevocationUnknown {
			b.ends = b.until
		}
		b.until, b.limit = u, limit
	}
}

func (b *bounds) contain(t time.Time) bool {
	u := t.Unix()
	return (b.from == 0 || u >= b.from) && (b.until == 0 || u < b.until)
}
