package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/trust"
)

// samePublished holds what is published to what is stored.
func samePublished(t *testing.T, s *Store) {
	t.Helper()
	publish(t, s)
	snap, err := openReader(t, s.dir).Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	published := contents(func(put putFunc) error { return snap.writeMerged(t.Context(), put) })
	stored := contents(func(put putFunc) error {
		return s.view(func(tx *bbolt.Tx) error { return s.writeAll(tx, put) })
	})
	if len(stored) == 0 || !maps.Equal(published, stored) {
		t.Errorf("%d values published, %d stored, or they differ", len(published), len(stored))
	}
}

// Nothing that is committed or published while a base is being made is lost by
// the switch to it.
func TestFoldsAmongCommits(t *testing.T) {
	for name, base := range map[string]func(*Store) (generation, seq uint64, err error){
		"merged":   func(s *Store) (uint64, uint64, error) { return s.mergeBase(t.Context()) },
		"rendered": (*Store).writeBase,
	} {
		t.Run(name, func(t *testing.T) {
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
			commit(1) // not published
			generation, seq, err := base(s)
			if err != nil {
				t.Fatal(err)
			}
			commit(2)
			publish(t, s)
			shows("before the switch", 2)
			commit(3) // not published
			if switched, err := s.switchBase(t.Context(), generation, seq); err != nil || !switched {
				t.Fatal(switched, err)
			}
			shows("after the switch", 3)
			mustCommit(t, s, Batch{Place: "team/app", Remove: true})
			commit(4)
			publish(t, s)
			shows("after the next publication", 4)
			if n := s.pub.tracked.Load(); n > 20 {
				t.Errorf("%d changes are still tracked", n)
			}
		})
	}
}

// A fold that ends after everything was published anew does not take that back:
// what was committed before was not tracked.
func TestFoldBehindAWholeBaseIsDropped(t *testing.T) {
	for name, base := range map[string]func(*Store) (generation, seq uint64, err error){
		"merged":   func(s *Store) (uint64, uint64, error) { return s.mergeBase(t.Context()) },
		"rendered": (*Store).writeBase,
	} {
		for _, published := range []bool{true, false} {
			t.Run(fmt.Sprint(name, published), func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{})
				defer closeChecked(t, s)
				setTrust(t, s, inForce(keyA))
				mustCommit(t, s, world(signedBy(keyA)))
				publish(t, s)
				mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
				generation, seq, err := base(s)
				if err != nil {
					t.Fatal(err)
				}
				terms := inForce(keyA).Terms()
				terms.RegistryNames = []string{"registry.example"} // the policy has changed: nothing is tracked
				setTrust(t, s, trust.NewInForce(terms))
				mustCommit(t, s, Batch{Place: "team/app", Remove: true}, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("new")), Present: true}}})
				if published {
					publish(t, s)
				}
				if switched, err := s.switchBase(t.Context(), generation, seq); err != nil || switched {
					t.Fatalf("switched %v: %v", switched, err)
				}
				samePublished(t, s)
			})
		}
	}
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
			s := openStore(t, dir, Options{foldAt: 3})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			base := s.pub.cur.basePath(s.publishedPath())
			if err := harm(base); err != nil {
				t.Fatal(err)
			}
			var rows []Batch
			for i := range 9 {
				rows = append(rows, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte{byte(i)}), Present: true}}})
			}
			mustCommit(t, s, rows...)
			if err := s.Fold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.pub.cur.basePath(s.publishedPath()) == base {
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
	err = writeDB(s.publishedPath()+"/"+fileName("base", generation), func(putFunc) error { return nil }) // all is missing
	if err := errors.Join(err, s.switchData(func(next *current) { next.base = generation })); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, dir)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snap.Digest(image); !errors.Is(err, ErrNotFound) {
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
