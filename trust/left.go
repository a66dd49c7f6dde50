package trust

import (
	"fmt"
	"time"
)

// What answers say of signers that are not in force.

// whoLeft names a signer of the verdict's grounds that is not in force; "" if none is
// known.
func (f *InForce) whoLeft(repository string, v *Verdict) string {
	for i := range v.Grounds {
		for _, id := range v.Grounds[i].Signers {
			m, known := f.material(id)
			s, was := m.Signer, ""
			if m.File != "" {
				was = "; it was in " + clip(m.File, 120)
			}
			switch {
			case !known:
			case !f.Has(id) && s.Tool == Notation:
				return "the certificate " + s.Fingerprint.String() + " has left the trust store " + clip(s.Store(), 160) + was
			case !f.Has(id):
				return "the key " + s.Fingerprint.String() + " has left its directory" + was
			case s.Tool == Notation:
				if i, reason := f.statement(repository); reason == "" && !f.stores[i][s.Store()] {
					return "the policy does not name the trust store " + clip(s.Store(), 160)
				}
			}
		}
	}
	return ""
}

// unnamedStamp says of a verdict whose certificates have expired that its time stamp
// would count now, if the policy named the trust store of the time stamp authority or
// that still held it. It returns "" where there is no such ground.
func (f *InForce) unnamedStamp(repository string, v *Verdict, now time.Time) string {
	st, reason := f.statement(repository)
	if reason != "" {
		return ""
	}
	for i := range v.Grounds {
		g := &v.Grounds[i]
		if len(g.Signers) < 2 || g.outside(now.Unix()) != "" {
			continue
		}
		var lacking []Signer // not in force here
		for _, id := range g.Signers {
			if s, known := f.Signer(id); !known || !f.Has(id) || !f.stores[st][s.Store()] {
				lacking = append(lacking, s)
			}
		}
		if len(lacking) != 1 || lacking[0].StoreType != tsaStore {
			continue
		}
		s, held := lacking[0], f.Has(lacking[0].ID())
		named := fmt.Sprintf("the statement %.80q named the trust store %s", f.terms.Statements[st].Name, clip(s.Store(), 160))
		switch {
		case held:
			return "its time stamp would count if " + named
		case f.stores[st][s.Store()]:
			return "its time stamp would count if the trust store " + clip(s.Store(), 160) + " still held its authority's certificate " + s.Fingerprint.String()
		default:
			return "its time stamp would count if " + named + ", and that still held its authority's certificate " + s.Fingerprint.String()
		}
	}
	return ""
}
