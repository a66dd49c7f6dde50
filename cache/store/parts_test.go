package store

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// repositoryOf is a repository of n images, each with a tag and a signature of a key.
func repositoryOf(name, stamp string, n int, key trust.Signer, image func(int) trust.Digest) Batch {
	b := Batch{Place: name, SetTags: true, Complete: true, Tags: map[string]trust.Digest{},
		Kinds: map[trust.Digest]Kind{}, Update: &PlaceUpdate{Stamp: &stamp}}
	for i := range n {
		f := signedBy(key)
		f.Verdicts[0].VerifiedAt = 1700000000
		f.Subject = image(i)
		b.Tags[fmt.Sprint("t", i)] = f.Subject
		b.Rows = append(b.Rows, Row{Digest: f.Subject, MediaType: "m", Present: true, Tagged: true, References: []Reference{{Digest: signature, Carrier: 1}}})
		b.Facts = append(b.Facts, f)
		b.Kinds[f.Subject] = Kind{Class: 1, MediaType: "m"}
	}
	return b
}

// answers is everything that a reader sees.
func answers(t *testing.T, r *cache.Reader) (all []cache.Image) {
	t.Helper()
	snap := snapshot(t, r)
	err := snap.Repositories(func(name string) error {
		return snap.Images(name, func(img cache.Image) error {
			img.AsOf = time.Time{}
			for _, sigs := range [][]cache.Signature{img.SignatureInfo, img.Manifests[0].SignatureInfo} {
				for i := range sigs { // each store has its own time at which a key came
					sigs[i].Since = nil
				}
			}
			all = append(all, img)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A repository that is written in parts ends as one that is written at once. What
// ends trust is in the first part, another's batch in the first transaction, and
// until the last part the repository has no stamp.
func TestAWholeRepositoryInParts(t *testing.T) {
	before := repositoryOf("big", "one", 40, keyA, func(i int) trust.Digest { return trust.SumOf(fmt.Append(nil, "old", i)) })
	after := repositoryOf("big", "two", 50, keyB, func(i int) trust.Digest { return trust.SumOf(fmt.Append(nil, "new", i)) })
	after.Tags["kept"], after.Rows = before.Rows[3].Digest, append(after.Rows, before.Rows[3])
	before.Tags["kept"] = before.Rows[3].Digest
	small := repositoryOf("small", "one", 1, keyA, func(int) trust.Digest { return trust.SumOf([]byte("small")) })

	var want []cache.Image
	for _, parts := range []bool{false, true} {
		dir := t.TempDir()
		s := openStore(t, dir, Options{ShareSteps: 7})
		setTrust(t, s, inForce(keyA)) // keyB is not trusted
		mustCommit(t, s, before)
		publish(t, s)
		r := openReader(t, dir)
		if !parts {
			mustCommit(t, s, after, small)
			publish(t, s)
			want = answers(t, r)
			closeChecked(t, s)
			continue
		}
		big, another := after, small
		calls := 0
		for ; !big.Written(); calls++ {
			batches := []*Batch{&big}
			if calls == 0 {
				batches = append(batches, &another)
			}
			if _, err := s.CommitSome(batches); err != nil {
				t.Fatal(err)
			}
			publish(t, s)
			if !another.Written() {
				t.Fatal("a small batch has to wait for a large one")
			}
			p, _, err := s.Place("big")
			if err != nil || (p.Stamp == "") == big.Written() {
				t.Errorf("written %v, stamp %q: %v", big.Written(), p.Stamp, err)
			}
			for _, img := range answers(t, r) {
				if img.State() == "unknown" {
					t.Fatalf("part %d: %s:%s is there without its facts", calls, img.RepoName, img.Tag)
				}
			}
			if calls < 12 { // the forty tags and images that are there
				continue
			}
			for _, img := range answers(t, r) {
				if img.RepoName == "big" && img.State() == "trusted" && img.Digest != before.Rows[3].Digest {
					t.Fatalf("part %d: %s is still trusted", calls, img.Tag)
				}
			}
		}
		if most := 12 + 50/7*5; calls < 20 || calls > most {
			t.Errorf("%d parts", calls)
		}
		if got := answers(t, r); !reflect.DeepEqual(got, want) {
			t.Errorf("in parts:\n%+v\nat once:\n%+v", got, want)
		}
		gone := Batch{Place: "big", Remove: true}
		for calls = 0; !gone.Written(); calls++ {
			if _, err := s.CommitSome([]*Batch{&gone}); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, s)
		if got := answers(t, r); calls < 10 || len(got) != 1 {
			t.Errorf("removed in %d parts; left: %+v", calls, got)
		}
		closeChecked(t, s)
	}
}

// A repository that cannot be listed any more when its last part is written is not listed
// by it.
func TestUnlistedBetweenTwoParts(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{ShareSteps: 7})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	b := repositoryOf("big", "one", 20, keyA, func(i int) trust.Digest { return trust.SumOf(fmt.Append(nil, i)) })
	yes, no := true, false
	b.Update.Unlisted = &no
	for n := 0; !b.Written(); n++ {
		if _, err := s.CommitSome([]*Batch{&b}); err != nil {
			t.Fatal(err)
		}
		if n == 3 {
			mustCommit(t, s, Batch{Place: "big", Update: &PlaceUpdate{Unlisted: &yes}})
		}
	}
	publish(t, s)
	if p, _, err := s.Place("big"); err != nil || !p.Unlisted || p.Stamp != "" {
		t.Errorf("%+v: %v", p, err)
	}
}

// A signer that comes between two parts makes the facts of the rest outdated.
func TestASignerBetweenTwoParts(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{ShareSteps: 7})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	b := repositoryOf("big", "one", 20, keyA, func(i int) trust.Digest { return trust.SumOf(fmt.Append(nil, i)) })
	for i := range b.Facts {
		b.Facts[i].Trust = s.TrustGeneration()
		b.Facts[i].Verdicts = []trust.Verdict{{Format: trust.SimpleSigning, Reason: trust.NoTrustedKey}}
	}
	no := false
	b.Update.Unsettled = &no
	var outdated []int
	for n := 0; !b.Written(); n++ {
		late, err := s.CommitSome([]*Batch{&b})
		if err != nil {
			t.Fatal(err)
		}
		outdated = append(outdated, late...)
		if n == 0 { // seven of the facts
			setTrust(t, s, inForce(keyA, keyB))
		}
	}
	publish(t, s)
	p, _, err := s.Place("big")
	if err != nil || !slices.Equal(outdated, []int{0}) || !p.Unsettled {
		t.Errorf("outdated %v, unsettled %v: %v", outdated, p.Unsettled, err)
	}
	facts := map[bool]int{}
	for _, d := range slices.Collect(maps.Values(b.Tags)) {
		_, ok, err := s.Fact(d, signature, Context{Tool: trust.Cosign})
		if err != nil {
			t.Fatal(err)
		}
		facts[ok]++
	}
	if facts[true] == 0 || facts[false] == 0 {
		t.Errorf("facts kept and left out: %v", facts)
	}
}

// Why a repository could not be listed stays until it can be, whatever else is said of
// it, and readers see it.
func TestWhyItCouldNotBeListed(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	setTrust(t, s, inForce(keyA))
	yes, no := true, false
	seen := func() string {
		t.Helper()
		if err := s.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, _, err := s.Place("app")
		if err != nil {
			t.Fatal(err)
		}
		return p.Why
	}
	mustCommit(t, s, Batch{Place: "app", Update: &PlaceUpdate{Unlisted: &yes, Why: "permission denied"}})
	if got := seen(); got != "permission denied" {
		t.Errorf("why: %q", got)
	}
	mustCommit(t, s, Batch{Place: "app", Update: &PlaceUpdate{Unsettled: &yes}})
	if got := seen(); got != "permission denied" {
		t.Errorf("after another update: %q", got)
	}
	mustCommit(t, s, Batch{Place: "app", Update: &PlaceUpdate{Unlisted: &yes, Why: strings.Repeat("x", 1000)}})
	if got := seen(); len(got) != maxWhy {
		t.Errorf("%d bytes are kept", len(got))
	}
	mustCommit(t, s, Batch{Place: "app", Update: &PlaceUpdate{Unlisted: &no}})
	if got := seen(); got != "" {
		t.Errorf("listed again: %q", got)
	}
}
