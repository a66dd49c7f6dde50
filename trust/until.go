package trust

import "time"

// TrustedUntil returns when a verdict that reads Trusted now stops doing so by its dates
// alone, if the trust in force stays as it is. It returns the zero time if no date ends
// it, and for a verdict that does not read Trusted. The end of a revocation service's
// answer does not count, since the service is asked again before.
func (f *InForce) TrustedUntil(repository string, t Tool, v *Verdict, now time.Time) time.Time {
	at := now.Unix()
	for moved := true; moved; { // a ground may take over where another ends
		moved = false
		for i := range v.Grounds {
			g := &v.Grounds[i]
			end := g.dates()
			if g.Proof != nil {
				if d, ok := f.holds(repository, t, v, g, now); ok && d.Reason == "" {
					return time.Time{}
				}
				continue
			}
			if g.From != 0 && g.From > at || end != 0 && end <= at || !f.usable(repository, t, g) {
				continue
			}
			if end == 0 {
				return time.Time{}
			}
			at, moved = end, true
		}
	}
	if at == now.Unix() {
		return time.Time{}
	}
	return time.Unix(Date(at), 0).UTC()
}

// dates is when an enforced date ends the ground; 0: none does.
func (g *Ground) dates() int64 {
	if g.Limit == RevocationUnknown {
		return g.Ends
	}
	return g.Until
}
