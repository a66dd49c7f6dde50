package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		id := m.Signer.ID()
		all = append(all, string(id[:]))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(all), "")))
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// trustFile is a published trust file, decoded.
type trustFile struct {
	inForce *trust.InForce
	// published is when the file was written, Unix nanoseconds; lease is how
	// long it is believed without confirmation, 0 for ever.
	published, lease int64
	// partial: what is not in the cache may be in storage.
	partial bool
}

// openTrust reads a trust file, which it leaves open: while it is, no other file is
// taken for it.
func openTrust(path string) (*trustFile, *os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	var p cachepb.Trust
	if ok, err := unsealMessage([]byte(filepath.Base(path)), b, &p); err != nil || !ok {
		return nil, nil, errors.Join(fmt.Errorf("%w: %s", ErrDamaged, path), f.Close())
	}
	t, err := decodeTrust(&p)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return t, f, nil
}

// decodeTrust refuses a file with a field that it does not know: what a later version
// adds narrows what is trusted.
func decodeTrust(p *cachepb.Trust) (*trustFile, error) {
	unknown := len(p.ProtoReflect().GetUnknown())
	t := &trustFile{published: p.PublishedAt, lease: p.Lease, partial: p.Partial}
	terms := trust.Terms{Cosign: p.Cosign, Notation: p.Notation, PolicyProblem: decodeReason(p.PolicyProblem),
		RegistryNames: p.RegistryNames, PolicyDetail: p.PolicyDetail, DefaultPolicy: p.DefaultPolicy}
	for _, ps := range p.Signers {
		unknown += len(ps.ProtoReflect().GetUnknown())
		if s := decodeSigner(ps); ps.Left != 0 {
			terms.Left = append(terms.Left, s)
		} else {
			terms.Materials = append(terms.Materials, trust.Material{Signer: s, Author: ps.Author})
		}
	}
	for _, pst := range p.Statements {
		unknown += len(pst.ProtoReflect().GetUnknown())
		terms.Statements = append(terms.Statements, trust.Statement{Name: pst.Name, Scopes: pst.Scopes, Stores: pst.Stores,
			Policy: decodePolicy(pst.Policy), Verifies: pst.Verifies})
	}
	if unknown > 0 {
		return nil, ErrFormat
	}
	t.inForce = trust.NewInForce(terms)
	return t, nil
}

func encodeSigner(s trust.Signer, author string, left int64) *cachepb.Signer {
	return &cachepb.Signer{Tool: encodeCode(toolCodes, s.Tool), StoreType: s.StoreType,
		StoreName: s.StoreName, Fingerprint: s.Fingerprint[:], Author: author, Left: left}
}

func decodeSigner(p *cachepb.Signer) trust.Signer {
	s := trust.Signer{Tool: decodeCode(toolCodes, p.Tool), StoreType: p.StoreType, StoreName: p.StoreName}
	copy(s.Fingerprint[:], p.Fingerprint)
	return s
}
