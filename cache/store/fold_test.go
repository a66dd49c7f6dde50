package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// samePublished holds what is published to what is stored.
func samePublished(t *testing.T, s *Store) {
	t.Helper()
	publish(t, s)
	published := publishedContents(s)
	stored := contents(func(put format.PutFunc) error {
		return s.view(func(tx *bbolt.Tx) error { return writeAll(tx, policyChooser(s.pub.inForce.Load()), put) })
	})
	if len(stored) == 0 || !maps.Equal(published, stored) {
		t.Errorf("%d values published, %d stored, or they differ", len(published), len(stored))
	}
}

// folds are the ways to a new base; held is called when it has been written.
var folds = map[string]func(s *Store, ctx context.Context, held func(func() error) error) error{
	"merged": func(s *Store, ctx context.Context, held func(func() error) error) error {
		cur := s.layers()
		return s.merge(ctx, cur, 0, len(cur.Names()), held)
	},
	"rendered": func(s *Store, ctx context.Context, held func(func() error) error) error { return s.rebase(ctx, held) },
}

// Nothing that is committed or published while a base is being made is lost by
// the switch to it.
func TestFoldsAmongCommits(t *testing.T) {
	for _, deltas := range []int{1, 11, 12, 13, 14, 15, 16} { // that are there when it begins
		for name, fold := range folds {
			t.Run(fmt.Sprint(name, deltas), func(t *testing.T) { foldAmongCommits(t, fold, deltas) })
		}
	}
}

func foldAmongCommits(t *testing.T, fold func(*Store, context.Context, func(func() error) error) error, deltas int) {
	s := openStore(t, t.TempDir(), Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, s.dir)
	row := func(n byte) trust.Digest { return trust.SumOf([]byte{n}) }
	commit := func(n byte) {
		mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: row(n), Present: true}}})
	}
	shows := func(when string, last byte) {
		t.Helper()
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		for n := range last + 1 {
			if _, err := snap.Digest(row(n)); err != nil {
				t.Errorf("%s: row %d: %v", when, n, err)
			}
		}
		if _, err := snap.Digest(image); (err == nil) != (last < 4) {
			t.Errorf("%s: what was removed: %v", when, err)
		}
	}
	commit(0)
	publish(t, s)
	for i := range deltas - 1 {
		mustCommit(t, s, Batch{Place: "before", Complete: true, Rows: []Row{{Digest: row(byte(50 + i)), Present: true}}})
		publish(t, s)
	}
	if n := len(s.pub.cur.Layers()); n != deltas {
		t.Fatalf("%d deltas, want %d", n, deltas)
	}
	commit(1) // not published
	err := fold(s, t.Context(), func(do func() error) error {
		commit(2)
		publish(t, s)
		shows("before the switch", 2)
		for i := range 2*format.MaxDeltas + 5 { // what comes meanwhile is folded by itself
			mustCommit(t, s, Batch{Place: "many more", Complete: true, Rows: []Row{{Digest: row(byte(100 + i)), Present: true}}})
			publish(t, s)
		}
		commit(3) // not published
		return s.withData(do)
	})
	if err != nil {
		t.Fatal(err)
	}
	shows("after the switch", 2)
	if tracked(t, s) > s.pub.tracked.Load() {
		t.Errorf("%d changes are kept, counted are %d", tracked(t, s), s.pub.tracked.Load())
	}
	if n := len(s.pub.cur.Layers()); n == 0 || n > format.MaxDeltas-1 {
		t.Errorf("%d deltas over the new base, want those of what came meanwhile", n)
	}
	publish(t, s)
	shows("after the next publication", 3)
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	commit(4)
	publish(t, s)
	shows("after the last publication", 4)
	if n := s.pub.tracked.Load(); n > 20 {
		t.Errorf("%d changes are still tracked", n)
	}
	samePublished(t, s)
	mustCommit(t, s, Batch{Place: "many", Remove: true})
	if n := s.pub.tracked.Load(); n != tracked(t, s) {
		t.Errorf("%d changes are kept, counted are %d", tracked(t, s), n)
	}
}

// tracked counts the changes that are kept.
func tracked(t *testing.T, s *Store) (n int64) {
	t.Helper()
	if err := s.view(func(tx *bbolt.Tx) (err error) { n, err = countTracked(tx); return err }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A fold that ends after everything was published anew does not take that back.
func TestFoldBehindAWholeBaseIsDropped(t *testing.T) {
	for name, fold := range folds {
		for _, published := range []bool{true, false} {
			t.Run(fmt.Sprint(name, published), func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{})
				defer closeChecked(t, s)
				setTrust(t, s, inForce(keyA))
				mustCommit(t, s, world(signedBy(keyA)))
				publish(t, s)
				mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
				var base uint64
				err := fold(s, t.Context(), func(do func() error) error {
					terms := inForce(keyA).Terms()
					terms.RegistryNames = []string{"registry.example"} // the policy has changed
					setTrust(t, s, trust.NewInForce(terms))
					mustCommit(t, s, Batch{Place: "team/app", Remove: true}, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("new")), Present: true}}})
					if published {
						publish(t, s)
						base = s.pub.cur.Base
					}
					return s.withData(do)
				})
				if err != nil || published && s.pub.cur.Base != base {
					t.Fatalf("base %d, then %d: %v", base, s.pub.cur.Base, err)
				}
				base = s.pub.cur.Base
				samePublished(t, s)
				if !published && s.pub.cur.Base == base {
					t.Error("another policy has not had everything published anew")
				}
			})
		}
	}
}

// Deltas that become one still say what is gone from the base below them.
func TestWhatIsGoneStaysGoneWhenDeltasAreFolded(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	publish(t, s)
	mustCommit(t, s, Batch{Place: "other", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
	publish(t, s)
	if err := s.merge(t.Context(), s.layers(), 1, 3, s.withData); err != nil || len(s.pub.cur.Layers()) != 1 {
		t.Fatalf("%v: %v", s.pub.cur, err)
	}
	snap := snapshot(t, r)
	if _, err := snap.Tag("team/app", "1.0"); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("the tag that went: %v", err)
	}
	if _, err := snap.Digest(image); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("the image that went: %v", err)
	}
	samePublished(t, s)
}

// A layer is written again only when what lies above it has come to half of its size.
func TestFoldFrom(t *testing.T) {
	for _, tt := range []struct {
		sizes []int64
		want  int
	}{
		{nil, -1}, {[]int64{5}, -1},
		{[]int64{1000, 499}, -1}, {[]int64{1000, 500}, 0},
		{[]int64{1000, 300, 100}, -1}, {[]int64{1000, 200, 100}, 1}, {[]int64{1000, 300, 200}, 0},
		{[]int64{10000, 3000, 1000, 400, 100}, -1}, {[]int64{10000, 3000, 1000, 30, 16}, 3},
		{[]int64{9, 9}, -1}, {[]int64{9, 9, 9}, 0}, {[]int64{90, 9, 9}, 1}, // few bytes
		{[]int64{1 << 40, 1 << 30, 1 << 20, 1 << 16, 1 << 12, 1 << 8, 1}, 5},
	} {
		if got := foldFrom(tt.sizes, 50-9+1); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.sizes, got, tt.want)
		}
	}
}

// A large change is published in parts, in turn with others of its kind; a small one does
// not wait for it. What a process did not come to, the next publishes.
func TestPublicationsInParts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{partKeys: 40})
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	digest := func(name string, i int) trust.Digest { return trust.SumOf(fmt.Append(nil, name, i)) }
	for _, name := range []string{"big 1", "big 2", "small"} {
		n := 100
		if name == "small" {
			n = 3
		}
		mustCommit(t, s, repositoryOf(name, "one", n, keyA, func(i int) trust.Digest { return digest(name, i) }))
	}
	for i := range 60 { // in turn with all of them a small change would wait for several parts
		name := fmt.Sprint("middling ", i)
		mustCommit(t, s, repositoryOf(name, "one", 20, keyA, func(i int) trust.Digest { return digest(name, i) }))
	}
	r := openReader(t, dir)
	images := func() map[string]int {
		count := map[string]int{}
		for _, name := range []string{"big 1", "big 2", "small"} {
			if err := snapshot(t, r).Each(name, func(cache.Image) error { count[name]++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return count
	}
	parts := 0
	for more := true; more && parts < 4; parts++ {
		var err error
		if more, err = s.publishPart(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := images()
		if got["small"] != 3 || !more || got["big 1"] == 100 || parts == 3 && got["big 1"]+got["big 2"] == 0 {
			t.Errorf("after part %d: %v, more %v", parts+1, got, more)
		}
		mustCommit(t, s, Batch{Place: "other", Rows: []Row{{Digest: digest("other", parts), Present: true}}}) // trims
	}
	closeChecked(t, s)
	s = openStore(t, dir, Options{partKeys: 40})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	samePublished(t, s)
	if got := images(); got["big 1"] != 100 || got["big 2"] != 100 {
		t.Errorf("in the end %v", got)
	}
	mustCommit(t, s, Batch{Place: "other", Remove: true})
	if n := s.pub.tracked.Load(); n > 20 {
		t.Errorf("%d changes are kept that have been published", n)
	}
}

// However often a little changes, publications cost what changes, and layers stay few.
func TestPublicationsOfLittleCostLittle(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	b := repositoryOf("big", "one", 3000, keyA, func(i int) trust.Digest { return trust.SumOf(fmt.Append(nil, "big", i)) })
	mustCommit(t, s, b)
	publish(t, s)
	base := s.layers().Base
	for i := range 300 {
		d := trust.SumOf(fmt.Append(nil, "small", i))
		mustCommit(t, s, Batch{Place: "small", Rows: []Row{{Digest: d, Present: true}}})
		publish(t, s)
		if i%40 == 0 { // folding is behind
			if err := s.Fold(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		cur := s.layers()
		newest, err := os.Stat(filepath.Join(s.publishedPath(), format.FileName("delta", newestLayer(cur))))
		if err != nil || newest.Size() > 128<<10 {
			t.Fatalf("change %d: %v %+v", i, err, newest)
		}
		if cur.Base != base {
			t.Fatalf("change %d has the base written again", i)
		}
	}
	samePublished(t, s)
}

// A base that is damaged or gone is not merged: the next one is made from what is
// stored.
func TestFoldOfADamagedBaseMakesItAnew(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 4096) },
		"a value": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for i := range b[:len(b)-4] {
				if string(b[i:i+4]) == "team" { // in keys and in values' checksums
					b[i] ^= 1
				}
			}
			return os.WriteFile(path, b, 0o640)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{fewBytes: 1})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			base := s.pub.cur.BasePath(s.publishedPath())
			if err := harm(base); err != nil {
				t.Fatal(err)
			}
			var rows []Batch
			for i := range 9 {
				rows = append(rows, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte{byte(i)}), Present: true}}})
			}
			mustCommit(t, s, rows...)
			publish(t, s)
			if err := s.merge(t.Context(), s.layers(), 0, 2, s.withData); !errors.Is(err, errUnreadable) {
				t.Errorf("merged: %v", err)
			}
			if err := s.Fold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.pub.cur.BasePath(s.publishedPath()) == base {
				t.Fatal("not folded")
			}
			samePublished(t, s)
			want(t, openReader(t, dir), trust.Trusted, "")
		})
	}
}

// RenderAnew brings back what is missing from the published base, though nothing
// has changed since.
func TestRenderAnewHealsTheBase(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	generation, err := s.take()
	if err != nil {
		t.Fatal(err)
	}
	err = format.WriteDB(s.publishedPath()+"/"+format.FileName("base", generation), func(format.PutFunc) error { return nil }) // all is missing
	if err := errors.Join(err, s.switchData(func(next *format.Current) { next.Base = generation })); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, dir)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snap.Digest(image); !errors.Is(err, cache.ErrNotFound) {
		t.Fatal("nothing is missing", err)
	}
	snap.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.RenderAnew()
	for deadline := time.Now().Add(time.Minute); s.pub.anew.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no new base")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, r, trust.Trusted, "")
	samePublished(t, s)
}
