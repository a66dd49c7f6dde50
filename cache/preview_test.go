package cache_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// A preview says of every image what reading it under the other trust would say, and passes
// over none that reads differently: keys come, leave and move between scopes, tools are
// switched, and more signers are required.
func TestPreviewIsWhatReadersWouldSee(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	keys := make([]trust.Signer, 4)
	for i := range keys {
		keys[i] = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf(fmt.Append(nil, "key ", i))}
	}
	setTrust(t, s, inForce(keys...))
	type place struct {
		repository string
		digest     trust.Digest
	}
	var all []place
	for _, repository := range []string{"team-a/app", "team-b/app", "other"} {
		b := store.Batch{Place: repository, Complete: true}
		for n := range 30 {
			row := store.Row{Digest: trust.SumOf(fmt.Append(nil, repository, n)), MediaType: "m", Present: true}
			for k := range r.IntN(3) {
				sig := trust.SumOf(fmt.Append(row.Digest[:], k))
				row.References = append(row.References, store.Reference{Digest: sig, Carrier: trust.CosignTag})
				f := store.Fact{Subject: row.Digest, Signature: sig, Context: store.Context{Tool: trust.Cosign}}
				for range 1 + r.IntN(2) {
					v := trust.Verdict{Format: trust.SimpleSigning, VerifiedAt: time.Now().Unix(), Epoch: trust.MinEpoch, Reason: trust.NoTrustedKey}
					if by := r.IntN(5); by < len(keys) {
						v.Reason, v.Grounds = "", []trust.Ground{{Signers: []trust.SignerID{keys[by].ID()}}}
					}
					f.Verdicts = append(f.Verdicts, v)
				}
				b.Facts = append(b.Facts, f)
			}
			slices.SortFunc(row.References, func(x, y store.Reference) int { return slices.Compare(x.Digest[:], y.Digest[:]) })
			b.Rows = append(b.Rows, row)
			all = append(all, place{repository, row.Digest})
		}
		mustCommit(t, s, b)
	}
	publish(t, s)
	terms := func(edit func(*trust.Terms)) *trust.InForce {
		t := trust.Terms{Cosign: true, Notation: true}
		for i, k := range keys {
			t.Materials = append(t.Materials, trust.Material{Signer: k, File: fmt.Sprintf("_cosign/%d.pub", i)})
		}
		edit(&t)
		return trust.NewInForce(t)
	}
	trusts := map[string]*trust.InForce{
		"all":          terms(func(*trust.Terms) {}),
		"one less":     terms(func(t *trust.Terms) { t.Materials = t.Materials[1:] }),
		"none":         terms(func(t *trust.Terms) { t.Materials = nil }),
		"in a scope":   terms(func(t *trust.Terms) { t.Materials[0].Scope = "team-a" }),
		"two required": terms(func(t *trust.Terms) { t.Scopes = []trust.Narrowing{{Prefix: "team-a", Require: 2}} }),
		"one alone":    terms(func(t *trust.Terms) { t.Scopes = []trust.Narrowing{{Prefix: "team-b", Alone: true}} }),
		"cosign off":   terms(func(t *trust.Terms) { t.Cosign = false }),
	}
	snap := snapshot(t, openReader(t, s.dir))
	differ := 0
	for nameA, a := range trusts {
		for nameB, b := range trusts {
			got := map[place]cache.Previewed{}
			err := snap.Preview(a, b, nil, func(p *cache.Previewed) error {
				one := *p
				one.Before, one.After = slices.Clone(p.Before), slices.Clone(p.After)
				got[place{p.Repository, p.Digest}] = one
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			was, is := snap.Under(a), snap.Under(b)
			for _, p := range all {
				x, errX := was.Image(p.repository, p.digest)
				y, errY := is.Image(p.repository, p.digest)
				if errX != nil || errY != nil {
					t.Fatal(errX, errY)
				}
				g, reported := got[p]
				if !reported {
					g = cache.Previewed{Was: x.State(), Is: x.State(), Before: trustees(&x), After: trustees(&x)}
				}
				if g.Was != x.State() || g.Is != y.State() || !slices.Equal(g.Before, trustees(&x)) || !slices.Equal(g.After, trustees(&y)) {
					t.Errorf("%s to %s, reported %t: %+v, read as %s %v and %s %v", nameA, nameB, reported, g, x.State(), trustees(&x), y.State(), trustees(&y))
				}
				if x.State() != y.State() {
					differ++
				}
			}
		}
	}
	if differ < 100 {
		t.Errorf("only %d answers differ", differ)
	}
}

func trustees(img *cache.Image) (list []cache.Trustee) {
	for _, sig := range img.SignatureInfo {
		if who := (cache.Trustee{File: sig.SignerFile}); sig.IsTrusted && !slices.Contains(list, who) {
			list = append(list, who)
		}
	}
	slices.SortFunc(list, func(a, b cache.Trustee) int { return slices.Compare([]byte(a.File), []byte(b.File)) })
	return list
}
