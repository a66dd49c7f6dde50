package truststore

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
	"trust-worker/verifier/recovery"
)

// build makes the trust store of what a completed pass has found.
func (p *pass) build() *TrustStore {
	t := Empty()
	t.revocation = p.cfg.Revocation
	t.ignored, t.missing = p.ignored, p.missing
	// Sorted by path, so that of several files with one key the first by name
	// gives the author, whatever order the directory has.
	slices.SortStableFunc(p.keys, func(a, b loaded[*Key]) int { return cmp.Compare(a.path, b.path) })
	slices.SortStableFunc(p.certs, func(a, b loaded[*x509.Certificate]) int { return cmp.Compare(a.path, b.path) })
	slices.SortStableFunc(p.roots, func(a, b loaded[[]*Root]) int { return cmp.Compare(a.path, b.path) })
	slices.SortStableFunc(p.rules, func(a, b loaded[*identities]) int { return cmp.Compare(a.path, b.path) })
	slices.SortStableFunc(p.refused, func(a, b Refusal) int { return cmp.Compare(a.Path, b.Path) })
	t.refused = slices.Compact(p.refused)

	terms := trust.Terms{Cosign: p.cfg.Cosign, Notation: p.cfg.Notation, RegistryNames: p.cfg.RegistryNames}
	type held struct {
		signer trust.Signer
		scope  string
	}
	known := map[held]bool{} // the first by name counts
	add := func(f File, author string) {
		t.loaded = append(t.loaded, f)
		if by := (held{f.Signer, f.Scope}); !known[by] {
			known[by] = true
			terms.Materials = append(terms.Materials, trust.Material{Signer: f.Signer, Scope: f.Scope, File: f.Path, Author: author})
		}
	}
	for _, f := range p.keys {
		k := f.value
		add(File{Path: f.path, Scope: f.scope, Signer: k.Signer(), Kind: KindKey, Algorithm: k.algorithm}, k.pem)
		t.keys.add(k)
	}
	p.keyless(t, &terms, add)
	terms.Scopes = p.cfg.Scopes
	t.scopes = p.scopes
	for _, f := range p.certs {
		c := f.value
		s := trust.Signer{Tool: trust.Notation, StoreType: f.storeType, StoreName: f.storeName, Fingerprint: FingerprintOf(c)}
		add(File{Path: f.path, Signer: s, Kind: KindCertificate, Algorithm: AlgorithmOf(c.PublicKey),
			Subject: c.Subject.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter}, c.Subject.String())
		t.anchors.add(c, truststore.Type(f.storeType), f.storeName)
	}
	t.keys.finish()
	t.anchors.finish()
	slices.SortStableFunc(t.loaded, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Subject, b.Subject))
	})

	t.policy = PolicySummary{Source: p.ruling.source, File: p.ruling.file, Problem: p.ruling.problem, Note: p.ruling.note}
	if p.cfg.Notation {
		p.statements(t, &terms)
	}
	t.inForce = trust.NewInForce(terms)
	t.policy.Lacking = t.inForce.Lacking()
	t.id = identify(terms, p.cfg.Revocation)
	return t
}

// keyless adds trusted roots and identities to t and terms.
func (p *pass) keyless(t *TrustStore, terms *trust.Terms, add func(File, string)) {
	files, many := map[string]bool{}, 0
	for _, f := range p.roots {
		many += len(f.value)
	}
	for _, f := range p.roots {
		if many > maxRoots { // all of them: else one that goes would let another in
			t.refused = append(t.refused, Refusal{Path: f.path, Reason: fmt.Sprintf("there are %d trusted roots; at most %d are taken, and else none", many, maxRoots)})
			continue
		}
		for _, r := range f.value {
			files[r.File] = true
			t.roots = append(t.roots, r)
			terms.Roots = append(terms.Roots, r.Root)
			add(File{Path: f.path, Line: r.Line, Signer: r.Signer(), Kind: KindRoot, Authorities: r.Authorities}, "")
		}
	}
	for _, f := range p.rules {
		for i := range f.value.rules {
			r := f.value.rules[i]
			r.Scope, r.File = f.scope, f.path
			terms.Identities = append(terms.Identities, r)
			t.loaded = append(t.loaded, File{Path: f.path, Line: r.Line, Scope: f.scope, Signer: trust.Signer{Tool: trust.Cosign, StoreType: trust.IdentityStore, Fingerprint: trust.SumOf([]byte(r.Key() + r.Root))}, Kind: KindIdentity, Identity: &r})
			if !files[r.Root] {
				why := "which is not there"
				if slices.ContainsFunc(p.refused, func(x Refusal) bool { return x.Path == filepath.Join(p.cosignLabel, r.Root) }) {
					why = "which is refused"
				}
				t.warnings = append(t.warnings, Refusal{Path: f.path, Reason: fmt.Sprintf("line %d: waits for the trusted root %s, %s", r.Line, r.Root, why)})
			}
		}
		for _, w := range f.value.warnings {
			t.warnings = append(t.warnings, Refusal{Path: f.path, Reason: w})
		}
	}
}

// statements adds the policy in force to t and terms.
func (p *pass) statements(t *TrustStore, terms *trust.Terms) {
	var doc trustpolicy.Document
	switch p.ruling.source {
	case PolicyOperator:
		doc = p.ruling.doc.doc
	case PolicyDefault:
		doc, terms.DefaultPolicy = defaultPolicy(p.stores()), true
	default:
		terms.PolicyProblem, terms.PolicyDetail = trust.PolicyInvalid, p.ruling.problem
		return
	}
	for i := range doc.TrustPolicies {
		s, join, err := newStatement(&doc.TrustPolicies[i], p.cfg.Revocation)
		if err != nil { // the document is valid, so this cannot be; but never half a policy
			t.policy = PolicySummary{Source: PolicyInvalid, Problem: err.Error()}
			terms.PolicyProblem, terms.PolicyDetail, terms.Statements = trust.PolicyInvalid, err.Error(), nil
			return
		}
		t.statements[s.Name] = s
		terms.Statements = append(terms.Statements, join)
	}
}

// identify hashes what verdicts and joins depend on.
func identify(terms trust.Terms, mode RevocationMode) trust.Digest {
	terms.Materials = slices.Clone(terms.Materials)
	for i := range terms.Materials {
		terms.Materials[i].File = "" // says something to people
	}
	terms.Identities = slices.Clone(terms.Identities)
	for i := range terms.Identities {
		terms.Identities[i].File, terms.Identities[i].Line = "", 0
	}
	slices.SortFunc(terms.Materials, func(a, b trust.Material) int {
		return cmp.Or(cmp.Compare(a.Signer.Tool, b.Signer.Tool), cmp.Compare(a.Signer.Store(), b.Signer.Store()),
			slices.Compare(a.Signer.Fingerprint[:], b.Signer.Fingerprint[:]), cmp.Compare(a.Scope, b.Scope))
	})
	b, err := json.Marshal(struct {
		Terms      trust.Terms
		Revocation RevocationMode
	}{terms, mode})
	if err != nil {
		panic(err) // strings, numbers and bytes cannot fail
	}
	return sha256.Sum256(b)
}

func (r *keyring) add(k *Key) {
	if r.byPrint[k.Fingerprint] == nil { // the first by name
		r.byPrint[k.Fingerprint] = k
		r.byClass[k.Class] = append(r.byClass[k.Class], k)
	}
}

func (r *keyring) finish() {
	for _, keys := range r.byClass {
		for _, k := range keys {
			r.inUse = append(r.inUse, k.Curves...)
		}
	}
	slices.Sort(r.inUse)
	r.inUse = slices.Compact(r.inUse)
}

func newKeyring() keyring {
	return keyring{byPrint: map[trust.Digest]*Key{}, byClass: map[recovery.Class][]*Key{}}
}

func (a *anchorage) add(c *x509.Certificate, st truststore.Type, name string) {
	of := a.byPrint[st]
	if of == nil {
		of = map[trust.Digest]*Anchor{}
		a.byPrint[st] = of
	}
	fp := FingerprintOf(c)
	if of[fp] == nil {
		of[fp] = &Anchor{Cert: c, fingerprint: fp, StoreType: st}
	}
	of[fp].names = append(of[fp].names, name)
}

func (a *anchorage) finish() {
	for st, of := range a.byPrint {
		for _, an := range of {
			slices.Sort(an.names)
			an.names = slices.Compact(an.names)
			if st == truststore.TypeTSA {
				a.tsa = append(a.tsa, an)
			}
		}
	}
	slices.SortFunc(a.tsa, func(x, y *Anchor) int { return slices.Compare(x.fingerprint[:], y.fingerprint[:]) })
}
