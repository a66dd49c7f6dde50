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
	"golang.org/x/sync/errgroup"

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
	if len(stored) < 5 || !maps.Equal(published, stored) {
		t.Errorf("%d values published, %d stored, or they differ", len(published), len(stored))
	}
}

// Nothing that is committed while a base is being made is lost by the switch to it.
func TestFoldsAmongCommits(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{foldAt: 3})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	var g errgroup.Group
	g.Go(func() error {
		for i := range 300 {
			name := fmt.Sprint("many", i%20)
			b := Batch{Place: name, Rows: []Row{{Digest: trust.SumOf(fmt.Append(nil, i)), Present: true}}}
			if i%20 == 19 {
				b = Batch{Place: name, Remove: true}
			}
			if _, err := s.Commit(b); err != nil {
				return err
			}
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	for {
		if err := s.Fold(context.Background()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			samePublished(t, s)
			return
		default:
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
	generation := s.take()
	err := writeDB(s.publishedPath()+"/"+fileName("base", generation), func(putFunc) error { return nil }) // all is missing
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
