package cache_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// Beginning in the middle gives the rest of the whole list, and what comes
// before is not visited.
func TestSeek(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	put := func(repo string, tags ...string) {
		b := store.Batch{Place: repo, SetTags: true, Complete: true, Tags: map[string]trust.Digest{}}
		for _, tag := range tags {
			b.Tags[tag] = image
		}
		mustCommit(t, s, b)
	}
	for r := range 5 {
		put(fmt.Sprint("r", r), "a", "a-b", "a.b", "b", "z")
	}
	publish(t, s)
	put("r1/sub", "a") // a delta beside the base
	put("r2", "a", "c")
	put("r4")
	publish(t, s)
	snap := snapshot(t, openReader(t, s.dir))
	if len(snap.Layers()) == 1 {
		t.Fatal("there is no delta")
	}
	var repos []string
	err := snap.Repositories(func(name string) error { repos = append(repos, name); return nil })
	if err != nil || len(repos) != 6 {
		t.Fatal(repos, err)
	}
	for _, from := range append(repos, "", "r1/a", "r9") {
		var want, got []string
		for _, name := range repos {
			if name >= from {
				want = append(want, name)
			}
		}
		if err := snap.RepositoriesFrom(from, func(name string) error { got = append(got, name); return nil }); err != nil || !slices.Equal(got, want) {
			t.Errorf("from %q: %v, %v", from, got, err)
		}
		if m := snap.Layers().Merged(format.InRepositories, nil, []byte(from)); len(want) > 0 && string(m.K) != want[0] {
			t.Errorf("from %q begins at %q", from, m.K)
		}
	}
	for _, repo := range repos {
		var tags []string
		if err := snap.Tags(repo, func(tag string, _ trust.Digest) error { tags = append(tags, tag); return nil }); err != nil {
			t.Fatal(err)
		}
		for _, after := range append(slices.Clone(tags), "", "a-", "~") {
			var want, got []string
			for _, tag := range tags {
				if tag > after {
					want = append(want, tag)
				}
			}
			err := snap.TagsAfter(repo, after, func(tag string, _ trust.Digest) error { got = append(got, tag); return nil })
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s after %q: %v, want %v (%v)", repo, after, got, want, err)
			}
		}
	}
}

// The digests of a repository come in order from any one on, whether they are in
// the base, in the delta or in both, and tell which no tag and no index names.
func TestDigestsFrom(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	digest := func(name string) trust.Digest { return trust.SumOf([]byte(name)) }
	commit := func(repo string, tags ...string) {
		b := store.Batch{Place: repo, SetTags: true, Complete: true, Tags: map[string]trust.Digest{},
			Rows: []store.Row{{Digest: digest("alone"), Present: true}, {Digest: digest("child"), Present: true, Child: true}}}
		for _, tag := range tags {
			b.Tags[tag] = digest(tag)
			b.Rows = append(b.Rows, store.Row{Digest: b.Tags[tag], Present: true, Tagged: true})
		}
		mustCommit(t, s, b)
	}
	commit("a", "1", "2", "3")
	commit("a/b", "x")
	publish(t, s)
	if err := s.Fold(context.Background()); err != nil {
		t.Fatal(err)
	}
	commit("a", "2", "3", "4")
	publish(t, s)
	snap := snapshot(t, openReader(t, s.dir))
	if len(snap.Layers()) == 1 {
		t.Fatal("there is no delta")
	}
	all := []trust.Digest{digest("2"), digest("3"), digest("4"), digest("alone"), digest("child")}
	slices.SortFunc(all, func(a, b trust.Digest) int { return slices.Compare(a[:], b[:]) })
	for i := range all {
		var got []trust.Digest
		err := snap.DigestsFrom("a", all[i], func(d trust.Digest, alone bool) error {
			if got = append(got, d); alone != (d == digest("alone")) {
				t.Errorf("%s: alone is %v", d, alone)
			}
			_, err := snap.Image("a", d)
			return err
		})
		if err != nil || !slices.Equal(got, all[i:]) {
			t.Errorf("digests from %s: %v %v", all[i], got, err)
		}
	}
}

// What an index lists passes for listed only while an index that is there and trusted does.
func TestListedByTrusted(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	child, attestation, other := trust.SumOf([]byte("child")), trust.SumOf([]byte("attestation")), trust.SumOf([]byte("other"))
	const index = "application/vnd.oci.image.index.v1+json"
	list := func(d trust.Digest, refs ...store.Reference) store.Row {
		return store.Row{Digest: d, MediaType: index, Present: true, Children: []store.Child{{Digest: child}}, References: refs}
	}
	signed := list(image, store.Reference{Digest: signature, Carrier: trust.CosignTag})
	kinds := map[trust.Digest]store.Kind{image: {Class: 2, MediaType: index, Children: []store.Child{{Digest: child}, {Digest: attestation, Attestation: true}}}}
	rows := []store.Row{signed, list(other), {Digest: child, MediaType: "m", Present: true, Child: true}}
	commit := func(rows ...store.Row) {
		t.Helper()
		mustCommit(t, s, store.Batch{Place: "team/app", Complete: true, Rows: rows, Kinds: kinds, Facts: []store.Fact{signedBy(keyA)}})
		publish(t, s)
	}
	commit(rows...)
	mustCommit(t, s, store.Batch{Place: "elsewhere", Complete: true, Rows: []store.Row{list(other), rows[2]}})
	publish(t, s)
	r := openReader(t, s.dir)
	want := func(step, repository string, d trust.Digest, by trust.Digest) {
		t.Helper()
		got, ok, more, err := snapshot(t, r).ListedByTrusted(repository, d)
		if err != nil || got != by || ok != (by != trust.Digest{}) || more {
			t.Errorf("%s: %s %s is listed by %s, %t, %t, %v", step, repository, d, got, ok, more, err)
		}
	}
	none := trust.Digest{}
	for _, step := range []string{"delta", "base"} {
		want(step, "team/app", child, image)
		want(step, "team/app", attestation, image)
		want(step, "team/app", image, none)
		want(step, "elsewhere", child, none) // another repository's index says nothing here
		rebase(t, s)
	}
	setTrust(t, s, inForce(keyB))
	want("key removed", "team/app", child, none)
	setTrust(t, s, inForce(keyA))
	want("key back", "team/app", child, image)
	commit(rows[1:]...) // the signed index is deleted
	want("index deleted", "team/app", child, none)
	snap := snapshot(t, r)
	listings := func() (n int) {
		for m := snap.Layers().Merged(format.InListings, nil, nil); m.K != nil; m.Next() {
			n++
		}
		return n
	}
	before := listings()
	for n := range 12 { // until all layers are folded into a base
		mustCommit(t, s, store.Batch{Place: "team/more", SetTags: true, Tags: map[string]trust.Digest{"t": trust.SumOf([]byte{byte(n)})}})
		publish(t, s)
		if err := s.Fold(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if snap = snapshot(t, r); listings() >= before {
		t.Errorf("%d listings of %d are left of what a deleted index listed", listings(), before)
	}
	commit(rows...)
	want("index back", "team/app", child, image)
	// Whoever may push makes no listing by that, nor by a signature of nobody's.
	many := slices.Clone(rows)
	for n := range 100 {
		many = append(many, list(trust.SumOf(fmt.Append(nil, n)), store.Reference{Digest: trust.SumOf([]byte("nobody's")), Carrier: trust.CosignTag}))
	}
	commit(many...)
	rebase(t, s)
	snap = snapshot(t, r)
	if n := listings(); n != 2 {
		t.Errorf("%d listings", n)
	}
	want("among many", "team/app", child, image)
	defer cache.SetListingTime(-1)()
	if _, ok, more, err := snap.ListedByTrusted("team/app", child); ok || !more || err != nil {
		t.Errorf("without time: %t, %t, %v", ok, more, err)
	}
}
