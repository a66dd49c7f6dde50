package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// equalTerms compares everything but the materials.
func equalTerms(a, b trust.Terms) bool {
	return a.Cosign == b.Cosign && a.Notation == b.Notation && a.PolicyProblem == b.PolicyProblem &&
		a.PolicyDetail == b.PolicyDetail && a.DefaultPolicy == b.DefaultPolicy && slices.Equal(a.RegistryNames, b.RegistryNames) &&
		slices.EqualFunc(a.Statements, b.Statements, func(x, y trust.Statement) bool {
			return x.Name == y.Name && x.Policy == y.Policy && x.Verifies == y.Verifies &&
				slices.Equal(x.Scopes, y.Scopes) && slices.Equal(x.Stores, y.Stores)
		})
}

// samePolicies reports whether every repository is governed by a statement of
// the same meaning under both.
func samePolicies(a, b trust.Terms) bool {
	return a.Notation == b.Notation && a.PolicyProblem == b.PolicyProblem &&
		slices.Equal(a.RegistryNames, b.RegistryNames) &&
		slices.EqualFunc(a.Statements, b.Statements, func(x, y trust.Statement) bool {
			return x.Policy == y.Policy && x.Verifies == y.Verifies && slices.Equal(x.Scopes, y.Scopes)
		})
}

// policiesSum stands for what samePolicies compares; it is never 0.
func policiesSum(t trust.Terms) uint64 {
	type governs struct {
		Policy   trust.PolicyID
		Verifies bool
		Scopes   []string
	}
	var all []governs
	for _, st := range t.Statements {
		all = append(all, governs{st.Policy, st.Verifies, st.Scopes})
	}
	b, err := json.Marshal([]any{t.Notation, t.PolicyProblem, t.RegistryNames, all})
	if err != nil {
		panic(err) // plain values
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// signersSum stands for the set of signers in force; it is never 0.
func signersSum(t trust.Terms) uint64 {
	all := make([]string, 0, len(t.Materials))
	for _, m := range t.Materials {
		all = append(all, fmt.Sprintf("%s %q %q %s", m.Signer.Tool, m.Signer.StoreType, m.Signer.StoreName, m.Signer.Fingerprint.Hex()))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(all), "\n")))
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// trustFile is a published trust file, decoded: the terms in force, and what
// the numbers in verdicts stand for.
type trustFile struct {
	inForce  *trust.InForce
	signers  map[uint32]trust.Signer
	policies map[uint32]trust.PolicyID
	// published is when the file was written, Unix nanoseconds; lease is how
	// long it is believed without confirmation, 0 for ever.
	published, lease int64
	// partial: what is not in the cache may be in storage.
	partial bool
}

func decodeTrust(p *cachepb.Trust) *trustFile {
	t := &trustFile{signers: map[uint32]trust.Signer{}, policies: map[uint32]trust.PolicyID{},
		published: p.PublishedAt, lease: p.Lease, partial: p.Partial}
	terms := trust.Terms{Cosign: p.Cosign, Notation: p.Notation, PolicyProblem: decodeReason(p.PolicyProblem),
		RegistryNames: p.RegistryNames, PolicyDetail: p.PolicyDetail, DefaultPolicy: p.DefaultPolicy}
	for _, ps := range p.Signers {
		s := decodeSigner(ps)
		t.signers[ps.Id] = s
		terms.Materials = append(terms.Materials, trust.Material{Signer: s, Author: ps.Author})
	}
	for _, pst := range p.Statements {
		st := trust.Statement{Name: pst.Name, Scopes: pst.Scopes, Stores: pst.Stores, Verifies: pst.Verifies}
		copy(st.Policy[:], pst.PolicyHash)
		if pst.Policy != 0 {
			t.policies[pst.Policy] = st.Policy
		}
		terms.Statements = append(terms.Statements, st)
	}
	t.inForce = trust.NewInForce(terms)
	return t
}
