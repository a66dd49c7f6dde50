package trust

// Signers that were in force and are not: they trust nothing, and an answer names them.

// whoLeft says on whom a verdict rests that is not in force, as far as that is known.
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
