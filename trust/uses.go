package trust

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// What trust rests on: of each ground that holds, everything that could be taken away and
// would end it.

// ID names an entry of an identities.yaml among signers, by its place.
func (r *IdentityRule) ID() SignerID {
	sum := sha256.Sum256(fmt.Appendf(nil, "trust-worker entry 1\n%s\n%d", r.File, r.Line))
	return SignerID(sum[:len(SignerID{})])
}

// Holders calls fn, for each way in which a verdict is good now, with all that this way rests
// on: signers and, of keyless signatures, a trusted root and an entry of an identities.yaml.
// It calls nothing for a verdict that does not read Trusted. What fn is given is used again.
func (f *InForce) Holders(repository string, t Tool, v *Verdict, now time.Time, fn func(ids []SignerID)) {
	if d := f.Decide(repository, t, v, now); d.Status != Trusted {
		return
	}
	var ids []SignerID
	for i := range v.Grounds {
		g := &v.Grounds[i]
		if g.Proof == nil {
			if d, ok := f.holds(repository, t, v, g, now); ok && d.Reason == "" {
				fn(append(ids[:0], g.Signers...))
			}
			continue
		}
		if v.Identity == nil {
			continue
		}
		n := f.narrow(repository)
		for k := range f.roots {
			r := &f.roots[k]
			if _, why, _ := r.accepts(g.Proof); why != "" {
				continue
			}
			for _, m := range f.matching(v.Identity) {
				if rule := &f.rules[m]; rule.Root == r.File && n.counts(rule.Scope, repository) {
					fn(append(ids[:0], r.id, rule.ID()))
				}
			}
		}
	}
}

// Last returns the signers that are the only certificate of a trust store which a statement
// names: to take one away may end more than what rests on it, since notation then refuses
// whatever needs a store of that type.
func (f *InForce) Last() map[SignerID]bool {
	if f == nil || f.terms.DefaultPolicy {
		return nil
	}
	in := map[string][]SignerID{}
	for id, all := range f.signers {
		if store := all[0].Signer.Store(); store != "" {
			in[store] = append(in[store], id)
		}
	}
	last := map[SignerID]bool{}
	for store, ids := range in {
		if len(ids) == 1 && slices.ContainsFunc(f.stores, func(named map[string]bool) bool { return named[store] }) {
			last[ids[0]] = true
		}
	}
	return last
}

// Without returns the terms as they are without a signer, in whatever files and scopes it is,
// or without an entry of an identities.yaml.
func (t Terms) Without(id SignerID) Terms {
	t.Materials = slices.DeleteFunc(slices.Clone(t.Materials), func(m Material) bool { return m.Signer.ID() == id })
	t.Roots = slices.DeleteFunc(slices.Clone(t.Roots), func(r Root) bool { return r.Signer().ID() == id })
	t.Identities = slices.DeleteFunc(slices.Clone(t.Identities), func(r IdentityRule) bool { return r.ID() == id })
	if !t.DefaultPolicy {
		return t
	}
	// The default names the stores that hold something.
	t.Statements = slices.Clone(t.Statements)
	for i := range t.Statements {
		st := &t.Statements[i]
		st.Stores = slices.DeleteFunc(slices.Clone(st.Stores), func(store string) bool {
			return !slices.ContainsFunc(t.Materials, func(m Material) bool { return m.Signer.Store() == store })
		})
	}
	return t
}
