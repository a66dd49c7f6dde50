package cache

import "trust-worker/trust"

// Preview calls fn with every image of the snapshot that may read differently under
// another trust: the same decision over the same facts, at one time. If only signers differ,
// it passes over what rests on none of them. What has not been verified under the other
// trust reads pending in After; what a new signer may have made reads as it does now.
func (s *Snapshot) Preview(was, is *trust.InForce, fn func(*Difference) error) error {
	return s.under(is).Compare(s.under(was), s.now, s.now, false, fn)
}

// under is the snapshot with another trust in force.
func (s *Snapshot) under(f *trust.InForce) *Snapshot {
	g, t := *s.g, *s.g.trust
	t.InForce, g.trust = f, &t
	return &Snapshot{r: s.r, g: &g, layers: s.layers, now: s.now, asOf: s.asOf, scratch: new(scratch)}
}
