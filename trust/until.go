package trust

import "time"

// TrustedUntil returns until when a verdict that reads Trusted now goes on to do so by
// its dates alone, as long as the trust in force stays as it is. The zero time: for
// ever, as far as dates say; also for what does not read Trusted. When the answer of a
// revocation service ends is no such date: it is asked again.
func (f *InForce) TrustedUntil(repository string, t Tool, v *Verdict, now time.Time) time.Time {
	at := now.Unix()
	for moved := true; moved; { // a ground may take over where another ends
		moved = false
		for i := range v.Grounds {
			g := &v.Grounds[i]
			end := g.dates()
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
	return time.Unix(at, 0).UTC()
}

// dates is when the ground ends by what it enforces of dates, 0 for never.
func (g *Ground) dates() int64 {
	if g.Limit == RevocationUnknown {
		return g.Ends
	}
	return g.Until
}
