package trust

import "time"

// Since returns since when an answer is what it is: the latest of when the signature was
// verified, when its signer came or left, and the dates that have passed. It returns the
// zero time if that is not known. d is the decision about v at the time now.
//
// When an identity or a trusted root came is not known: for keyless signatures it is when
// they were verified.
func (f *InForce) Since(repository string, t Tool, v *Verdict, d *Decision, now time.Time) time.Time {
	if v == nil || v.VerifiedAt == 0 || d.Status == Pending || d.Status == Unknown {
		return time.Time{}
	}
	at := int64(0)
	switch d.Status {
	case Trusted:
		at = f.trustedSince(repository, t, v, now.Unix())
	case Expired:
		for i := range v.Grounds {
			if u := v.Grounds[i].Until; u <= now.Unix() {
				at = max(at, u)
			}
		}
	default:
		for i := range v.Grounds {
			for _, id := range v.Grounds[i].Signers {
				if m, known := f.material(id); known && !f.Has(id) {
					at = max(at, m.Since)
				}
			}
		}
	}
	return time.Unix(Date(max(at, v.VerifiedAt)), 0).UTC()
}

// trustedSince is when the first of those grounds began that hold one after the other until
// now, Unix seconds.
func (f *InForce) trustedSince(repository string, t Tool, v *Verdict, now int64) int64 {
	if g := v.Grounds; len(g) == 1 && len(g[0].Signers) == 1 { // it is the one that holds
		return max(g[0].From, f.governing(repository, g[0].Signers[0]).Since)
	}
	at := now
	for moved := true; moved; {
		moved = false
		for i := range v.Grounds {
			g := &v.Grounds[i]
			if g.Proof != nil {
				return 0
			}
			if !f.usable(repository, t, g) {
				continue
			}
			begin := g.From
			for _, id := range g.Signers {
				begin = max(begin, f.governing(repository, id).Since)
			}
			if begin < at && (g.Until == 0 || g.Until >= at) {
				at, moved = begin, true
			}
		}
	}
	return at
}
