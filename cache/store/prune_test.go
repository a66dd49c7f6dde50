package store

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// A fact outlives its place for some days: what comes back costs no
// verification; what stays away is forgotten, index rows and all.
func TestPruneKeepsFactsForDays(t *testing.T) {
	now := time.Now()
	s := openStore(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Hints = []Hint{{2, 1}, {HintSigner, 1}}
	mustCommit(t, s, world(f))
	known := func() bool {
		_, ok, err := s.Fact(image, signature, Context{Tool: trust.Cosign})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	prune := func(facts, orphans int) {
		t.Helper()
		p, err := s.Prune(context.Background())
		if err != nil || p.Facts != facts || p.Orphans != orphans {
			t.Errorf("%+v %v, want %d deleted, %d kept", p, err, facts, orphans)
		}
	}
	prune(0, 0)
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	prune(0, 1)
	now = now.Add(keepFacts - time.Hour)
	prune(0, 1)
	mustCommit(t, s, world()) // it comes back in time
	prune(0, 0)
	now = now.Add(2 * time.Hour)
	prune(0, 0)
	if !known() {
		t.Fatal("a fact with a place was forgotten")
	}
	mustCommit(t, s, Batch{Place: "team/app", Rows: []Row{{Digest: image, Present: true}}}) // the signature alone goes
	prune(0, 1)
	now = now.Add(keepFacts + time.Hour)
	prune(1, 0)
	if known() {
		t.Error("a fact without a place was kept for ever")
	}
	for _, h := range f.Hints {
		if facts, _, err := s.Candidates(h, 0, 10); err != nil || len(facts) != 0 {
			t.Errorf("index row %v is left: %v %v", h, facts, err)
		}
	}
}

// One repository cannot fill the store with unmatched rows.
func TestUnmatchedRowsAreBounded(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxFiled: 3})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	unmatched := func(n byte) Fact {
		f := Fact{Subject: image, Signature: trust.SumOf([]byte{n}), Context: Context{Tool: trust.Cosign}, Trust: s.TrustGeneration(),
			Verdicts: []trust.Verdict{{Reason: trust.NoTrustedKey, VerifiedAt: 1, Epoch: trust.MinEpoch}}, Hints: []Hint{{2, n}, {3, n}}}
		return f
	}
	b := world(unmatched(1))
	mustCommit(t, s, b)
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{unmatched(2)}}) // 4 rows: no room
	place, _, err := s.Place("team/app")
	if err != nil || !place.Overflow {
		t.Errorf("not flagged: %+v %v", place, err)
	}
	for n, want := range map[byte]int{1: 1, 2: 0} {
		if facts, _, err := s.Candidates(Hint{2, n}, 0, 10); err != nil || len(facts) != want {
			t.Errorf("fact %d: %d rows, want %d (%v)", n, len(facts), want, err)
		}
	}
	// A match takes its rows out, and makes room.
	f := signedBy(keyA)
	f.Signature, f.Hints = trust.SumOf([]byte{1}), []Hint{{HintSigner, 9}}
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{f}})
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{unmatched(3)}})
	if facts, _, err := s.Candidates(Hint{2, 3}, 0, 10); err != nil || len(facts) != 1 {
		t.Errorf("no room was made: %v %v", facts, err)
	}
}

// Facts decided before a signer came are not taken in when its pass may be
// over: the repository is marked instead.
func TestOutdatedFactsAreLeftOut(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	f := Fact{Subject: image, Signature: signature, Context: Context{Tool: trust.Cosign}, Trust: s.TrustGeneration(),
		Verdicts: []trust.Verdict{{Reason: trust.NoTrustedKey, VerifiedAt: 1, Epoch: trust.MinEpoch}}}
	setTrust(t, s, inForce(keyA, keyB))
	late, err := s.Commit(world(f))
	if err != nil || len(late) != 1 {
		t.Errorf("%v %v", late, err)
	}
	if _, ok, _ := s.Fact(image, signature, f.Context); ok {
		t.Error("it was taken in")
	}
	if p, _, err := s.Place("team/app"); err != nil || !p.Unsettled {
		t.Errorf("%+v %v", p, err)
	}
	f.Trust = s.TrustGeneration()
	if late, err := s.Commit(world(f)); err != nil || len(late) != 0 {
		t.Errorf("%v %v", late, err)
	}
}

// A repository is over its bound as long as some fact has no room in the index:
// not longer, whether that fact was matched, filed after all, or forgotten.
func TestOverBoundUntilNothingIsLeftOut(t *testing.T) {
	now := time.Now()
	s := openStore(t, t.TempDir(), Options{MaxFiled: 1, Now: func() time.Time { return now }})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	unmatched := func(n byte) Fact {
		return Fact{Subject: image, Signature: trust.SumOf([]byte{n}), Context: Context{Tool: trust.Cosign}, Trust: s.TrustGeneration(),
			Verdicts: []trust.Verdict{{Reason: trust.NoTrustedKey, VerifiedAt: 1, Epoch: trust.MinEpoch}}, Hints: []Hint{{2, n}}}
	}
	over := func(want bool) {
		t.Helper()
		if p, _, err := s.Place("team/app"); err != nil || p.Overflow != want {
			t.Errorf("%+v %v, want over bound %v", p, err, want)
		}
	}
	mustCommit(t, s, world(unmatched(1), unmatched(2), unmatched(3)))
	over(true)
	matched := unmatched(2)
	matched.Verdicts, matched.Hints = signedBy(keyA).Verdicts, []Hint{{HintSigner, 1}}
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{matched}})
	over(true) // the third
	gone := matched
	gone.Signature = unmatched(1).Signature
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{gone}}, Batch{Place: "team/app", Facts: []Fact{unmatched(3)}})
	over(false) // now there is room for it
	mustCommit(t, s, Batch{Place: "team/app", Facts: []Fact{unmatched(4)}})
	over(true)
	for range 2 { // none of these signatures has a place
		if _, err := s.Prune(context.Background()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(keepFacts + time.Hour)
	}
	over(false)
}

// A repository that was emptied and then removed leaves nothing.
func TestRemovedRepositoriesLeaveNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	for range 3 {
		mustCommit(t, s, world(signedBy(keyA)))
		mustCommit(t, s, Batch{Place: "team/app", SetTags: true, Complete: true})
		mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	}
	publish(t, s)
	left := map[string]int{}
	err := s.view(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{privPlaces, privPlaceIDs, privRows, privTags, privDigests, privDue} {
			if n := tx.Bucket(name).Stats().KeyN; n > 0 {
				left[string(name)] = n
			}
		}
		return nil
	})
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// What was decided under a statement that is no longer in force is kept for as long
// as what is nowhere, and comes back with the statement; while the policy cannot be
// read nothing ends.
func TestFactsOfFormerPoliciesEnd(t *testing.T) {
	now := time.Now()
	s := openStore(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	defer func() { publish(t, s); closeChecked(t, s) }()
	f := signedBy(keyA)
	f.Context = Context{Tool: trust.Notation, Policy: stormPolicy(1), MediaType: "m"}
	setTrust(t, s, stormTerms(op{pol: 1, signers: 1}))
	f.Trust = s.TrustGeneration()
	b := world(f, signedBy(keyA))
	b.Rows[0].References = append(b.Rows[0].References, Reference{Digest: f.Signature, Carrier: 4})
	mustCommit(t, s, b)
	prune := func(what string, facts, orphans int) {
		t.Helper()
		if p, err := s.Prune(t.Context()); err != nil || p.Facts != facts || p.Orphans != orphans {
			t.Errorf("%s: %+v %v, want %d deleted, %d kept", what, p, err, facts, orphans)
		}
	}
	prune("in force", 0, 0)
	setTrust(t, s, stormTerms(op{pol: 2, signers: 1}))
	prune("replaced", 0, 1)
	setTrust(t, s, stormTerms(op{pol: 1, signers: 1}))
	prune("back", 0, 0)
	setTrust(t, s, stormTerms(op{pol: 2, signers: 1}))
	prune("replaced again", 0, 1)
	now = now.Add(keepFacts + time.Hour)
	setTrust(t, s, trust.NewInForce(trust.Terms{Cosign: true, Notation: true, PolicyProblem: trust.PolicyInvalid}))
	prune("broken", 0, 0)
	setTrust(t, s, stormTerms(op{pol: 2, signers: 1}))
	prune("mended", 0, 1)
	now = now.Add(keepFacts + time.Hour)
	prune("for long", 1, 0)
	if _, ok, err := s.Fact(f.Subject, f.Signature, f.Context); err != nil || ok {
		t.Errorf("known %v, %v", ok, err)
	}
	if _, ok, err := s.Fact(f.Subject, f.Signature, Context{Tool: trust.Cosign}); err != nil || !ok {
		t.Errorf("cosign's known %v, %v", ok, err)
	}
}

// Facts without a place are bounded in bytes too.
func TestPruneBoundsBytes(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	for _, c := range []struct{ held, kept, gone int }{{0, 1, 0}, {maxOrphanBytes - 1, 0, 1}} {
		p := Pruned{orphanBytes: c.held}
		if err := s.update(func(tx *bbolt.Tx) error { _, _, err := s.pruneFacts(tx, nil, &p); return err }); err != nil {
			t.Fatal(err)
		}
		if p.Orphans != c.kept || p.Facts != c.gone {
			t.Errorf("with %d bytes held: %+v, want %d kept, %d deleted", c.held, p, c.kept, c.gone)
		}
	}
}

// What a manifest is, is remembered in the repository in which it was read, for as long as
// that lists it.
func TestKindsAreOfARepository(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	a, b, c := trust.SumOf([]byte("a")), trust.SumOf([]byte("b")), trust.SumOf([]byte("c"))
	kinds := func(of ...trust.Digest) map[trust.Digest]Kind {
		m := map[trust.Digest]Kind{}
		for _, d := range of {
			m[d] = Kind{Class: 1, MediaType: "m"}
		}
		return m
	}
	known := func(repository string) (n int) {
		for _, d := range []trust.Digest{a, b, c} {
			_, ok, err := s.Kind(repository, d)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				n++
			}
		}
		return n
	}
	mustCommit(t, s, Batch{Place: "one", Complete: true, Kinds: kinds(a, b, c)}, Batch{Place: "two", Complete: true, Kinds: kinds(a)})
	if known("one") != 3 || known("two") != 1 || known("three") != 0 {
		t.Errorf("%d, %d, %d are known", known("one"), known("two"), known("three"))
	}
	mustCommit(t, s, Batch{Place: "one", Facts: nil, Rows: []Row{{Digest: a}}}) // says nothing of the others
	if known("one") != 3 {
		t.Errorf("%d are known", known("one"))
	}
	mustCommit(t, s, Batch{Place: "one", Complete: true, Remembered: []trust.Digest{a}, Kinds: kinds(c)})
	if _, ok, _ := s.Kind("one", b); ok || known("one") != 2 {
		t.Errorf("%d are known", known("one"))
	}
	mustCommit(t, s, Batch{Place: "one", Remove: true})
	publish(t, s)
	if known("one") != 0 || known("two") != 1 {
		t.Errorf("%d, %d are known", known("one"), known("two"))
	}
}

// Texts of authors and identities go with the last fact that names them, and not while one
// names them meanwhile.
func TestPruneTakesTextsThatNothingNames(t *testing.T) {
	now := time.Now()
	s := openStore(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Verdicts[0].Identity = &trust.Identity{Issuer: "https://i.test", Subject: "a"}
	f.Verdicts[0].Author = "CN=a"
	mustCommit(t, s, world(f))
	texts := func() (n int) {
		if err := s.view(func(tx *bbolt.Tx) error { n = tx.Bucket(privAuthors).Stats().KeyN; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	prune := func(want int) {
		t.Helper()
		p, err := s.Prune(context.Background())
		if err != nil || p.Texts != want {
			t.Errorf("%+v %v, want %d texts deleted", p, err, want)
		}
	}
	prune(0)
	if n := texts(); n != 2 {
		t.Errorf("%d texts", n)
	}
	if got, _, err := s.Fact(image, signature, Context{Tool: trust.Cosign}); err != nil || got.Verdicts[0].Identity == nil || got.Verdicts[0].Identity.Subject != "a" || got.Verdicts[0].Author != "CN=a" {
		t.Errorf("%+v %v", got, err)
	}
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	prune(0) // the fact is kept for some days
	// While a Prune has passed over the fact it is named again.
	s.named = map[format.AuthorKey]bool{}
	mustCommit(t, s, world(f))
	if err := s.update(func(tx *bbolt.Tx) error { _, err := s.pruneTexts(tx, &Pruned{}); return err }); err != nil {
		t.Fatal(err)
	}
	s.named = nil
	if n := texts(); n != 2 {
		t.Errorf("%d texts are left of those that were named meanwhile", n)
	}
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	prune(0)
	now = now.Add(keepFacts + time.Hour)
	prune(2)
	if n := texts(); n != 0 {
		t.Errorf("%d texts are left", n)
	}
}
