package cache_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// readAll is every image with its signatures, read without Compare.
func readAll(t *testing.T, s *cache.Snapshot) map[string][]cache.Signature {
	t.Helper()
	all := map[string][]cache.Signature{}
	err := s.Repositories(func(name string) error {
		return s.Each(name, func(img cache.Image) error {
			forgetSince(img.SignatureInfo)
			all[name+"@"+img.Digest.String()] = img.SignatureInfo
			if is, err := s.IsTrusted(name, img.Digest); err != nil || is != (img.State() == "trusted") {
				t.Errorf("%s@%s is %s; IsTrusted says %v, %v", name, img.Digest, img.State(), is, err)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// forgetSince: a signer that leaves and comes back between two looks changes since when an
// answer is so, and not the answer.
func forgetSince(lists ...[]cache.Signature) {
	for _, list := range lists {
		for i := range list {
			list[i].Since = nil
		}
	}
}

// Whatever happens between two generations (deltas, folds, new bases, signers
// that come and go, repositories that cannot be listed), Compare tells every
// image that reads differently, with how it read and reads.
func TestCompareTellsWhatReadersSee(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	signers := []trust.Signer{keyA, keyB, {Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key C"))}}
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	reader := openReader(t, s.dir)
	old := snapshot(t, reader)
	told, sameBase, walked := 0, 0, 0
	for turn := range 250 {
		for range 1 + r.IntN(3) {
			switch r.IntN(8) {
			case 0:
				mustCommit(t, s, store.Batch{Place: fmt.Sprint("r", r.IntN(4)), Remove: true})
			case 1:
				yes := r.IntN(2) == 0
				mustCommit(t, s, store.Batch{Place: fmt.Sprint("r", r.IntN(4)), Update: &store.PlaceUpdate{Unlisted: &yes}})
			case 2:
				some := slices.DeleteFunc(slices.Clone(signers), func(trust.Signer) bool { return r.IntN(2) == 0 })
				terms := inForce(some...).Terms()
				for i := range terms.Materials {
					if m := &terms.Materials[i]; m.Signer.Tool == trust.Cosign {
						m.Scope = []string{"", "", "r0", "r1"}[r.IntN(4)]
					}
				}
				if r.IntN(3) == 0 {
					terms.Scopes = []trust.Narrowing{{Prefix: []string{"", "r0"}[r.IntN(2)], Alone: r.IntN(2) == 0, Require: r.IntN(3)}}
				}
				setTrust(t, s, trust.NewInForce(terms))
			case 3: // a new base with everything, as a fold leaves it
				rebase(t, s)
			default:
				randomImages(t, s, r, signers)
			}
		}
		publish(t, s)
		now := snapshot(t, reader)
		before, after := readAll(t, old), readAll(t, now)
		want := map[string]bool{}
		for name := range before {
			if !reflect.DeepEqual(before[name], after[name]) {
				want[name] = true
			}
		}
		for name := range after {
			if _, ok := before[name]; !ok {
				want[name] = true
			}
		}
		seen := map[string]bool{}
		at := time.Now()
		err := now.Compare(old, at, at, false, func(d *cache.Difference) error {
			name := d.Repository + "@" + d.Digest.String()
			if seen[name] {
				t.Errorf("turn %d: %s is told twice", turn, name)
			}
			seen[name] = true
			walked++
			forgetSince(d.Before, d.After)
			if !reflect.DeepEqual(d.Before, before[name]) || !reflect.DeepEqual(d.After, after[name]) {
				t.Errorf("turn %d: %s read %v and now %v, not %v and %v", turn, name, before[name], after[name], d.Before, d.After)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for name := range want {
			if told++; !seen[name] {
				t.Errorf("turn %d: %s reads differently and is not told", turn, name)
			}
		}
		base, _ := old.Base()
		if same, _ := now.Base(); base == same {
			sameBase++
		}
		old = now
	}
	if told < 400 || sameBase < 80 || sameBase > 230 {
		t.Errorf("%d differences, %d turns on one base: the test tries too little", told, sameBase)
	}
}

func randomImages(t *testing.T, s *writer, r *rand.Rand, signers []trust.Signer) {
	place := fmt.Sprint("r", r.IntN(4))
	b := store.Batch{Place: place, SetTags: true, Complete: true, Tags: map[string]trust.Digest{}}
	for i := range r.IntN(5) {
		d := trust.SumOf([]byte(fmt.Sprint("image ", i))) // the same in several repositories
		sig := trust.SumOf([]byte(fmt.Sprint("signature ", i)))
		b.Tags[fmt.Sprint("t", i)] = d
		row := store.Row{Digest: d, MediaType: "m", Present: true, Tagged: true}
		if r.IntN(3) > 0 {
			row.References = []store.Reference{{Digest: sig, Carrier: 1}}
			f := signedBy(signers[r.IntN(len(signers))])
			f.Subject, f.Signature = d, sig
			f.Verdicts[0].VerifiedAt = 1_700_000_000
			b.Facts = append(b.Facts, f)
		}
		b.Rows = append(b.Rows, row)
	}
	mustCommit(t, s, b)
}

// On one base, unchanged images are not even looked at; with all set every
// image is.
func TestCompareWork(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	var many store.Batch
	many.Place, many.Complete, many.SetTags = "many", true, true
	for i := range 500 {
		many.Rows = append(many.Rows, store.Row{Digest: trust.SumOf([]byte(fmt.Sprint(i))), MediaType: "m", Present: true})
	}
	mustCommit(t, s, many)
	publish(t, s)
	reader := openReader(t, s.dir)
	old := snapshot(t, reader)
	mustCommit(t, s, world(signedBy(keyA)))
	if err := s.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
	now := snapshot(t, reader)
	count := func(all bool) map[string]int {
		told := map[string]int{}
		err := now.Compare(old, time.Now(), time.Now(), all, func(d *cache.Difference) error { told[d.Repository]++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	if got := count(false); !maps.Equal(got, map[string]int{"team/app": 1}) {
		t.Errorf("told %v", got)
	}
	if got := count(true); !maps.Equal(got, map[string]int{"team/app": 1, "many": 500}) {
		t.Errorf("all: told %v", got)
	}
	if visited := cache.Visited(old, now); visited != 1 {
		t.Errorf("%d records of the delta visited", visited)
	}
}

// The clocks are the caller's: a date between them is a difference.
func TestCompareTimes(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	f.Verdicts[0].Grounds[0].Until, f.Verdicts[0].Grounds[0].Limit = end.Unix(), trust.SignatureExpired
	mustCommit(t, s, world(f))
	publish(t, s)
	now := snapshot(t, openReader(t, s.dir))
	d, err := now.CompareImage(now, end.Add(-time.Second), end, "team/app", image)
	if err != nil {
		t.Fatal(err)
	}
	if d.Before[0].Status != trust.Trusted || d.After[0].Status != trust.Expired {
		t.Errorf("read %s, then %s", d.Before[0].Status, d.After[0].Status)
	}
	if d, err := now.CompareImage(nil, end, end, "team/none", image); err != nil || d.Before != nil || d.After != nil {
		t.Errorf("of no image: %v, %v", d, err)
	}
}

// A repository that can't be listed any more, in the very publication that
// brings another signer: its images read differently whoever signed them.
func TestCompareSignerAndRepositoryAtOnce(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	reader := openReader(t, s.dir)
	old := snapshot(t, reader)
	yes := true
	mustCommit(t, s, store.Batch{Place: "team/app", Update: &store.PlaceUpdate{Unlisted: &yes}})
	setTrust(t, s, inForce(keyA, keyB))
	publish(t, s)
	var told []trust.Status
	at := time.Now()
	err := snapshot(t, reader).Compare(old, at, at, false, func(d *cache.Difference) error {
		told = append(told, d.Before[0].Status, d.After[0].Status)
		return nil
	})
	if err != nil || !slices.Equal(told, []trust.Status{trust.Trusted, trust.Unknown}) {
		t.Errorf("told %v %v", told, err)
	}
}
