package trust

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// InForce is the trust in force, immutable: signers, statements, and which
// tools are on. The zero value and nil trust nothing.
type InForce struct {
	terms    Terms
	signers  map[SignerID][]*Material // by file name
	left     map[SignerID]*Material
	roots    []root
	rules    []rule
	memo     *matchMemo
	wildcard int               // index into terms.Statements, plus 1; 0 for none
	byPath   map[string][]int  // repository path → statements that name it
	stores   []map[string]bool // per statement: the stores it names
	// lacking says, per statement and store type, which store of that type it
	// names that holds nothing; see lacks.
	lacking []map[string]string
}

// NewInForce builds an InForce. It keeps terms; the caller must not change them
// afterwards.
func NewInForce(terms Terms) *InForce {
	f := &InForce{terms: terms, signers: map[SignerID][]*Material{}, left: map[SignerID]*Material{}, byPath: map[string][]int{}, memo: &matchMemo{}}
	held := map[string]bool{}
	for i := range terms.Materials {
		m := &terms.Materials[i]
		id := m.Signer.ID()
		f.signers[id] = append(f.signers[id], m)
		held[m.Signer.Store()] = true
	}
	for i := range terms.Roots {
		f.roots = append(f.roots, newRoot(&terms.Roots[i]))
	}
	for i := range terms.Identities {
		f.rules = append(f.rules, compileRule(&terms.Identities[i]))
	}
	for i := range terms.Left {
		f.left[terms.Left[i].Signer.ID()] = &terms.Left[i]
	}
	for i, st := range terms.Statements {
		stores := map[string]bool{}
		for _, s := range st.Stores {
			stores[s] = true
		}
		f.stores, f.lacking = append(f.stores, stores), append(f.lacking, lacking(&st, held))
		for _, scope := range st.Scopes {
			if scope == "*" {
				f.wildcard = i + 1
				continue
			}
			host, path, ok := strings.Cut(scope, "/")
			if !ok || len(terms.RegistryNames) > 0 && !slices.Contains(terms.RegistryNames, host) {
				continue
			}
			if !slices.Contains(f.byPath[path], i) {
				f.byPath[path] = append(f.byPath[path], i)
			}
		}
	}
	return f
}

// Terms returns what f was built from. The caller must not change it.
func (f *InForce) Terms() Terms {
	if f == nil {
		return Terms{}
	}
	return f.terms
}

// Enabled reports whether answers about tool's signatures are given.
func (f *InForce) Enabled(t Tool) bool {
	switch {
	case f == nil:
		return false
	case t == Cosign:
		return f.terms.Cosign
	default:
		return t == Notation && f.terms.Notation
	}
}

// Has reports whether a store or key directory holds the signer. For notation
// this is not yet "in force": the statement must name the store as well.
func (f *InForce) Has(s SignerID) bool {
	if f == nil {
		return false
	}
	_, ok := f.signers[s]
	return ok
}

// Signer returns the signer with that ID: one in force, or one that has left.
func (f *InForce) Signer(id SignerID) (s Signer, ok bool) {
	m, ok := f.material(id)
	return m.Signer, ok
}

func (f *InForce) material(id SignerID) (m Material, ok bool) {
	if f == nil {
		return m, false
	}
	if all := f.signers[id]; len(all) > 0 {
		return *all[0], true
	}
	if m, ok := f.left[id]; ok {
		return *m, true
	}
	return m, false
}

// Statement returns the statement that governs the repository, or the reason
// why there is none: NoPolicy, PolicyInvalid or PolicyAmbiguous. An exact
// scope wins over "*" (Notary Project trust-store-trust-policy, "Selecting a
// trust policy based on artifact URI").
func (f *InForce) Statement(repository string) (*Statement, Reason) {
	i, reason := f.statement(repository)
	if reason != "" {
		return nil, reason
	}
	return &f.terms.Statements[i], ""
}

func (f *InForce) statement(repository string) (int, Reason) {
	switch {
	case f == nil:
		return 0, NoPolicy
	case f.terms.PolicyProblem != "":
		return 0, f.terms.PolicyProblem
	}
	switch named := f.byPath[repository]; {
	case len(named) > 1:
		return 0, PolicyAmbiguous
	case len(named) == 1:
		return named[0], ""
	case f.wildcard > 0:
		return f.wildcard - 1, ""
	}
	return 0, NoPolicy
}

// Policy returns the policy under which the tool's signatures in a repository
// are to be verified, or the reason why they are not verified at all.
func (f *InForce) Policy(repository string, t Tool) (PolicyID, Reason) {
	if t == Cosign {
		return PolicyID{}, ""
	}
	st, reason := f.Statement(repository)
	if reason != "" {
		return PolicyID{}, reason
	}
	if !st.Verifies {
		return PolicyID{}, PolicyDoesNotVerify
	}
	return st.Policy, ""
}

// Decide joins one verdict with what is in force, in the repository at the path
// below the storage root, at the reader's clock. A nil verdict reads
// Pending/New; one made under another policy reads Pending/PolicyChanged.
//
// A verdict about an attestation is never trusted by it: see [InForce.DecideAttestation].
func (f *InForce) Decide(repository string, t Tool, v *Verdict, now time.Time) Decision {
	if v != nil && v.Predicate != "" {
		return refuse(PayloadTypeUnknown)
	}
	return f.DecideAttestation(repository, t, v, now)
}

// DecideAttestation is Decide for what makes nothing trusted.
func (f *InForce) DecideAttestation(repository string, t Tool, v *Verdict, now time.Time) Decision {
	policy, reason := f.Policy(repository, t)
	if reason != "" {
		d := refuse(reason)
		if reason == PolicyInvalid {
			d.Detail = f.terms.PolicyDetail
		}
		return d
	}
	switch {
	case !f.Enabled(t): // such answers are not even listed; fail closed
		return refuse(NoPolicy)
	case t == Notation && policy == (PolicyID{}): // no statement's: one that could not be read
		return refuse(PolicyChanged)
	case v == nil:
		return refuse(New)
	case v.Policy != policy:
		return refuse(PolicyChanged)
	case v.Epoch < MinEpoch:
		return refuse(New)
	case !v.Matched() && v.Reason == "":
		return refuse(New)
	case !v.Matched():
		if d, lacks := f.lacks(repository, t, v.StoreType, v.Reason); lacks {
			return d
		}
		d := refuse(v.Reason)
		d.Detail = v.Detail
		return d
	}
	best := refuse(SignerRemoved)
	for i := range v.Grounds {
		g := &v.Grounds[i]
		d, ok := f.holds(repository, t, v, g, now)
		switch {
		case !ok && rank(best.Reason) >= 0 && rank(d.Reason) > rank(best.Reason):
			best = d // a keyless signature
			continue
		case !ok:
			continue
		case d.Reason != "":
			if best.Status != Trusted && saysMore(d, best) {
				best = d
			}
			continue
		case best.Status == Trusted && !outlives(d, best):
			continue
		}
		d.Notes = v.notes(now.Unix())
		d.Status = Trusted // the only such statement: T1
		best = d
	}
	if best.Status == Trusted {
		return best
	}
	if d, lacks := f.lacks(repository, t, v.StoreType, best.Reason); lacks {
		return d
	}
	for i := range v.Grounds { // of time stamp authorities
		for _, id := range v.Grounds[i].Signers {
			s, _ := f.Signer(id)
			if d, lacks := f.lacks(repository, t, s.StoreType, best.Reason); lacks {
				return d
			}
		}
	}
	switch best.Reason {
	case SignerRemoved:
		if where := f.elsewhere(repository, v); where != "" {
			best = refuse(NoTrustedKey)
			best.Detail = where
			return best
		}
		best.Detail = f.whoLeft(repository, v)
	case CertificateExpired:
		best.Detail = cmp.Or(f.unnamedStamp(repository, v, now), v.Detail)
	}
	return best
}

// refuse is every decision that rests on no ground.
func refuse(r Reason) Decision { return Decision{Status: r.Status(), Reason: r} }

// holds asks one ground. If ok, the decision is about a signer in force: it has no
// reason where the ground holds, else why its dates do not contain now.
func (f *InForce) holds(repository string, t Tool, v *Verdict, g *Ground, now time.Time) (d Decision, ok bool) {
	if g.Proof != nil {
		if t != Cosign || len(g.Signers) > 0 { // no such ground is made
			return refuse(AuthorityRemoved), false
		}
		d = f.proven(repository, v, g)
		d.key = v.Key
		return d, d.Reason == ""
	}
	if !f.usable(repository, t, g) {
		return refuse(SignerRemoved), false
	}
	d = f.describe(repository, t, v, g)
	if reason := g.outside(now.Unix()); reason != "" {
		d.Status, d.Reason = reason.Status(), reason
	}
	return d, true
}

func (f *InForce) describe(repository string, t Tool, v *Verdict, g *Ground) Decision {
	m := f.governing(repository, g.Signers[0])
	d := Decision{Signer: m.Signer, File: m.File, Author: v.Author, key: v.Key}
	if t == Cosign {
		d.Author, d.key = m.Author, KeyID(m.Signer.Fingerprint[:len(KeyID{})])
	}
	if g.From != 0 {
		d.From = time.Unix(Date(g.From), 0).UTC()
	}
	if g.Until != 0 {
		d.Until = time.Unix(Date(g.Until), 0).UTC()
	}
	return d
}

// usable reports whether all that a ground asks for is in force, its dates apart: its
// signers, and no trust store of their types that the statement names and that is
// missing, since notation verify fails then, whatever its other stores hold.
func (f *InForce) usable(repository string, t Tool, g *Ground) bool {
	return f.signersInForce(repository, t, g) && !slices.ContainsFunc(g.Signers, func(id SignerID) bool {
		_, lacks := f.lacks(repository, t, f.signers[id][0].Signer.StoreType, SignerRemoved)
		return lacks
	})
}

// signersInForce reports whether every signer of g is held by its directory and may
// sign in the repository: by its scope or, for notation, by the statement there. A
// ground without signers holds never.
func (f *InForce) signersInForce(repository string, t Tool, g *Ground) bool {
	if f == nil || len(g.Signers) == 0 {
		return false
	}
	for _, id := range g.Signers {
		m := f.governing(repository, id)
		if m == nil || m.Signer.Tool != t {
			return false
		}
		if t == Notation {
			i, reason := f.statement(repository)
			if reason != "" || !f.stores[i][m.Signer.Store()] {
				return false
			}
		}
	}
	return true
}

// outside returns "" when now lies in [From, Until), else the reason. A ground may
// end before it begins: a countersignature counts only once the certificates have
// expired, by when the signature itself may have.
func (g *Ground) outside(now int64) Reason {
	switch {
	case g.Until != 0 && now >= g.Until && g.Limit != "":
		return g.Limit
	case g.Until != 0 && now >= g.Until:
		return CertificateExpired
	case g.From != 0 && now < g.From:
		return NotYetValid
	}
	return ""
}

// saysMore reports whether a, which is outside its dates, explains better than b why a
// signature is not trusted. Of two grounds that begin in the future it is the earlier
// one, else the one that ended last.
func saysMore(a, b Decision) bool {
	if a.Reason == NotYetValid && b.Reason == NotYetValid {
		return a.From.Before(b.From)
	}
	return b.Signer == (Signer{}) || outlives(a, b)
}

func outlives(a, b Decision) bool {
	return !b.Until.IsZero() && (a.Until.IsZero() || a.Until.After(b.Until))
}

func (v *Verdict) notes(now int64) []Note {
	var notes []Note
	if v.LoggedExpiry != 0 && now >= v.LoggedExpiry {
		notes = append(notes, ExpiryLogged)
	}
	if v.RevocationLogged {
		notes = append(notes, RevocationLogged)
	}
	if v.RevocationNotChecked || v.RevocationUntil != 0 && now >= v.RevocationUntil {
		notes = append(notes, RevocationNotChecked)
	}
	return notes
}
