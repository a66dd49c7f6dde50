package format

import (
	"bytes"
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

	"trust-worker/cache/internal/cachepb"
	"trust-worker/trust"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// EqualTerms compares everything but the signers, in force or left.
func EqualTerms(a, b trust.Terms) bool {
	return a.Cosign == b.Cosign && a.Notation == b.Notation && a.PolicyProblem == b.PolicyProblem &&
		a.PolicyDetail == b.PolicyDetail && a.DefaultPolicy == b.DefaultPolicy && slices.Equal(a.RegistryNames, b.RegistryNames) &&
		slices.EqualFunc(a.Statements, b.Statements, func(x, y trust.Statement) bool {
			return x.Name == y.Name && x.Policy == y.Policy && x.Verifies == y.Verifies &&
				slices.Equal(x.Scopes, y.Scopes) && slices.Equal(x.Stores, y.Stores)
		}) && slices.Equal(a.Scopes, b.Scopes) && slices.Equal(a.Identities, b.Identities) &&
		slices.EqualFunc(a.Roots, b.Roots, func(x, y trust.Root) bool {
			return x.File == y.File && x.Line == y.Line && slices.Equal(x.Authorities, y.Authorities)
		})
}

// SamePolicies reports whether every repository is governed by a statement of
// the same meaning under both.
func SamePolicies(a, b trust.Terms) bool {
	return a.Notation == b.Notation && a.PolicyProblem == b.PolicyProblem &&
		slices.Equal(a.RegistryNames, b.RegistryNames) &&
		slices.EqualFunc(a.Statements, b.Statements, func(x, y trust.Statement) bool {
			return x.Policy == y.Policy && x.Verifies == y.Verifies && slices.Equal(x.Scopes, y.Scopes)
		})
}

// PoliciesSum stands for what SamePolicies compares; it is never 0.
func PoliciesSum(t trust.Terms) uint64 {
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

// SignersSum stands for the set of signers in force; it is never 0.
func SignersSum(t trust.Terms) uint64 {
	all := make([]string, 0, len(t.Materials))
	for _, m := range t.Materials {
		id := m.Signer.ID()
		all = append(all, string(id[:]))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(all), "")))
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// TrustFile is a published trust file, decoded.
type TrustFile struct {
	InForce *trust.InForce
	// Published is when the file was written, Unix nanoseconds; lease is how
	// long it is believed without confirmation, 0 for ever.
	Published, Lease int64
	// Partial: what is not in the cache may be in storage.
	Partial bool
}

// OpenTrust reads a trust file, which it leaves open: while it is, no other file is
// taken for it.
func OpenTrust(path string) (*TrustFile, *os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	t, err := ReadTrust(filepath.Base(path), b)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return t, f, nil
}

// ReadTrust decodes the trust file of a name.
func ReadTrust(name string, b []byte) (*TrustFile, error) {
	var p cachepb.Trust
	if ok, err := UnsealMessage([]byte(name), b, &p); err != nil || !ok {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, name)
	}
	return DecodeTrust(&p)
}

// Informs is the first number of fields that decide nothing about trust; see
// cache.proto.
const Informs = 1000

// Demands reports whether a message has a field that this version does not know and
// that decides about trust.
func Demands(m proto.Message) bool {
	for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 || number < Informs {
			return true
		}
		b = b[n:]
	}
	return false
}

// DecodeTrust refuses a file with a demand that it does not know: what a later version
// adds narrows what is trusted.
func DecodeTrust(p *cachepb.Trust) (*TrustFile, error) {
	demands := Demands(p)
	t := &TrustFile{Published: p.PublishedAt, Lease: p.Lease, Partial: p.Partial}
	terms := trust.Terms{Cosign: p.Cosign, Notation: p.Notation, PolicyProblem: DecodeReason(p.PolicyProblem),
		RegistryNames: p.RegistryNames, PolicyDetail: p.PolicyDetail, DefaultPolicy: p.DefaultPolicy}
	for _, ps := range p.Signers {
		demands = demands || Demands(ps)
		if m := DecodeSigner(ps); ps.Left != 0 {
			m.Since = ps.Left
			terms.Left = append(terms.Left, m)
		} else {
			terms.Materials = append(terms.Materials, m)
		}
	}
	for _, pst := range p.Statements {
		demands = demands || Demands(pst) || len(pst.Policy) != len(trust.PolicyID{})
		terms.Statements = append(terms.Statements, trust.Statement{Name: pst.Name, Scopes: pst.Scopes, Stores: pst.Stores,
			Policy: DecodePolicy(pst.Policy), Verifies: pst.Verifies})
	}
	for _, pr := range p.Roots {
		demands = demands || Demands(pr)
		r := trust.Root{File: pr.File, Line: int(pr.Line)}
		for _, pa := range pr.Authorities {
			demands = demands || Demands(pa) || len(pa.Id) != len(trust.SignerID{}) || pa.Role < uint32(trust.CertificateAuthority) || pa.Role > uint32(trust.TimestampAuthority)
			a := trust.Authority{Role: trust.Role(pa.Role), From: pa.From, Until: pa.Until, Name: pa.Name}
			copy(a.ID[:], pa.Id)
			r.Authorities = append(r.Authorities, a)
		}
		terms.Roots = append(terms.Roots, r)
	}
	for _, pi := range p.Identities {
		demands = demands || Demands(pi)
		terms.Identities = append(terms.Identities, trust.IdentityRule{Scope: pi.Scope, File: pi.File, Line: int(pi.Line), Root: pi.Root,
			Issuer: pi.Issuer, IssuerRegExp: pi.IssuerRegExp, Subject: pi.Subject, SubjectRegExp: pi.SubjectRegExp,
			SourceRepositoryURI: pi.SourceRepositoryUri, SourceRepositoryRef: pi.SourceRepositoryRef,
			BuildSignerURI: pi.BuildSignerUri, RunnerEnvironment: pi.RunnerEnvironment})
	}
	for _, pn := range p.Scopes {
		demands = demands || Demands(pn)
		terms.Scopes = append(terms.Scopes, trust.Narrowing{Prefix: pn.Prefix, Alone: pn.Alone, Require: int(pn.Require)})
	}
	if demands {
		return nil, ErrFormat
	}
	t.InForce = trust.NewInForce(terms)
	return t, nil
}

// EncodeSigner encodes a signer that is in force, or was until left (Unix seconds).
func EncodeSigner(m trust.Material, left int64) *cachepb.Signer {
	s := &m.Signer
	return &cachepb.Signer{Tool: EncodeCode(ToolCodes, s.Tool), StoreType: s.StoreType,
		StoreName: s.StoreName, Fingerprint: bytes.Clone(s.Fingerprint[:]), Scope: m.Scope, File: m.File, Author: m.Author, Left: left, Came: m.Since}
}

// DecodeSigner is the inverse.
func DecodeSigner(p *cachepb.Signer) trust.Material {
	m := trust.Material{Signer: trust.Signer{Tool: DecodeCode(ToolCodes, p.Tool), StoreType: p.StoreType, StoreName: p.StoreName}, Scope: p.Scope, File: p.File, Author: p.Author, Since: p.Came}
	copy(m.Signer.Fingerprint[:], p.Fingerprint)
	return m
}
