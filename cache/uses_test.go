package cache_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// What rests on a signer alone is what a preview of its removal loses: with keys, with
// certificates of which one is the last of its store, with time stamp authorities, and where
// several signers are required.
func TestUsesAreWhatARemovalCosts(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	r := rand.New(rand.NewPCG(3, 4))
	var signers []trust.Signer
	for i := range 4 {
		signers = append(signers, trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf(fmt.Append(nil, "key ", i))})
	}
	for _, store := range []string{"ca:acme", "ca:acme", "ca:only", "tsa:stamps"} {
		storeType, name, _ := strings.Cut(store, ":")
		signers = append(signers, trust.Signer{Tool: trust.Notation, StoreType: storeType, StoreName: name, Fingerprint: trust.SumOf(fmt.Append(nil, "certificate ", len(signers)))})
	}
	unused := trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("unused"))}
	policy := trust.Meaning{Identities: []string{"*"}}.ID()
	terms := trust.Terms{Cosign: true, Notation: true, Statements: []trust.Statement{{Name: "all", Scopes: []string{"*"},
		Stores: []string{"ca:acme", "ca:only", "tsa:stamps"}, Policy: policy, Verifies: true}}}
	for i, signer := range append(slices.Clone(signers), unused) {
		terms.Materials = append(terms.Materials, trust.Material{Signer: signer, File: fmt.Sprint("file ", i)})
	}
	for name, edit := range map[string]func(*trust.Terms){
		"as it is":         func(*trust.Terms) {},
		"two required":     func(t *trust.Terms) { t.Scopes = []trust.Narrowing{{Prefix: "team-a", Require: 2}} },
		"a default policy": func(t *trust.Terms) { t.DefaultPolicy = true },
	} {
		terms := terms
		edit(&terms)
		f := trust.NewInForce(terms)
		setTrust(t, s, f)
		var batches []store.Batch
		for _, repository := range []string{"team-a/app", "team-b/app"} {
			b := store.Batch{Place: repository, Complete: true}
			for n := range 60 {
				row := store.Row{Digest: trust.SumOf(fmt.Append(nil, repository, n)), MediaType: "m", Present: true}
				for k := range r.IntN(4) {
					signer := signers[r.IntN(len(signers)-1)] // no time stamp authority signs
					sig := trust.SumOf(fmt.Append(row.Digest[:], k))
					g := trust.Ground{Signers: []trust.SignerID{signer.ID()}}
					v := trust.Verdict{Format: trust.SimpleSigning, VerifiedAt: time.Now().Unix(), Epoch: trust.MinEpoch, Grounds: []trust.Ground{g}}
					fact := store.Fact{Subject: row.Digest, Signature: sig, Context: store.Context{Tool: signer.Tool}, Trust: s.TrustGeneration()}
					carrier := trust.CosignTag
					if signer.Tool == trust.Notation {
						carrier, v.Format, v.Policy, v.StoreType, v.Author = trust.NotationReferrer, trust.JWS, policy, "ca", "CN=somebody"
						fact.Context.Policy, fact.Context.MediaType = policy, "m"
						if r.IntN(2) == 0 { // it expired, and was stamped
							v.Grounds[0].Until, v.Grounds[0].Limit = 1, trust.CertificateExpired
							v.Grounds = append(v.Grounds, trust.Ground{Signers: []trust.SignerID{signer.ID(), signers[len(signers)-1].ID()}})
						}
					}
					row.References = append(row.References, store.Reference{Digest: sig, Carrier: carrier})
					fact.Verdicts = []trust.Verdict{v}
					b.Facts = append(b.Facts, fact)
				}
				slices.SortFunc(row.References, func(x, y store.Reference) int { return slices.Compare(x.Digest[:], y.Digest[:]) })
				b.Rows = append(b.Rows, row)
			}
			batches = append(batches, b)
		}
		mustCommit(t, s, batches...)
		publish(t, s)
		snap := snapshot(t, openReader(t, s.dir))
		uses, err := snap.Uses()
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, m := range terms.Materials {
			lost := int64(0)
			err := snap.Preview(f, trust.NewInForce(terms.Without(m.Signer.ID())), nil, func(p *cache.Previewed) error {
				if p.Was == "trusted" && p.Is != "trusted" {
					lost++
				}
				return nil
			})
			got := uses[m.Signer.ID()]
			if err != nil || got.Alone != lost || m.Signer == unused && got != (cache.Use{}) || m.Signer != unused && got.Images == 0 {
				t.Errorf("%s: %s %s: %+v, a removal would cost %d, %v", name, m.File, m.Signer.Store(), got, lost, err)
			}
			total += lost
		}
		if total < 20 {
			t.Errorf("%s: removals cost %d images in all", name, total)
		}
	}
}
