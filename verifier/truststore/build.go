package truststore

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
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
	slices.SortStableFunc(p.refused, func(a, b Refusal) int { return cmp.Compare(a.Path, b.Path) })
	t.refused = slices.Compact(p.refused)

	terms := trust.Terms{Cosign: p.cfg.Cosign, Notation: p.cfg.Notation, RegistryNames: p.cfg.RegistryNames}
	known := map[trust.Signer]bool{}
	add := func(f File, author string) {
		t.loaded = append(t.loaded, f)
		if !known[f.Signer] {
			known[f.Signer] = true
			terms.Materials = append(terms.Materials, trust.Material{Signer: f.Signer, File: f.Path, Author: author})
		}
	}
	for _, f := range p.keys {
		k := f.value
		add(File{Path: f.path, Signer: k.Signer(), Kind: "public key", Algorithm: k.algorithm}, k.pem)
		t.keys.add(k)
	}
	for _, f := range p.certs {
		c := f.value
		s := trust.Signer{Tool: trust.Notation, StoreType: f.storeType, StoreName: f.storeName, Fingerprint: FingerprintOf(c)}
		add(File{Path: f.path, Signer: s, Kind: "certificate", Algorithm: AlgorithmOf(c.PublicKey),
			Subject: c.Subject.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter}, c.Subject.String())
		t.anchors.add(c, truststore.Type(f.storeType), f.storeName)
	}
	t.keys.finish()
	t.anchors.finish()
	slices.SortFunc(t.loaded, func(a, b File) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Subject, b.Subject)) })

	t.policy = PolicySummary{Source: p.ruling.source, File: p.ruling.file, Problem: p.ruling.problem, Note: p.ruling.note}
	if p.cfg.Notation {
		p.statements(t, &terms)
	}
	t.inForce = trust.NewInForce(terms)
	t.policy.Lacking = t.inForce.Lacking()
	t.id = identify(terms, p.cfg.Revocation)
	return t
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
	slices.SortFunc(terms.Materials, func(a, b trust.Material) int {
		return cmp.Or(cmp.Compare(a.Signer.Tool, b.Signer.Tool), cmp.Compare(a.Signer.Store(), b.Signer.Store()),
			slices.Compare(a.Signer.Fingerprint[:], b.Signer.Fingerprint[:]))
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
