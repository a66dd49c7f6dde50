package cache_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// Snapshots that are closed while their reader is, on generations old and new.
func TestSnapshotsOutliveTheirReader(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	mustCommit(t, s, world())
	publish(t, s)
	turns := 50
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		turns = 20_000
	}
	for range turns {
		r, err := cache.OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for n := range 3 {
			snap, err := r.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if n < 2 { // each its own generation
				r.Renew()
			}
			wg.Go(snap.Close)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
}

// A damaged file costs a reader no more than the answers: what a snapshot took
// before it met the damage is given back.
func TestDamageLeaksNothing(t *testing.T) {
	whole := t.TempDir()
	s := openStore(t, whole, store.Options{Lease: -1})
	setTrust(t, s, inForce(keyA))
	for n := range 3 {
		b := store.Batch{Place: fmt.Sprint("r", n)}
		for i := range 100 {
			b.Rows = append(b.Rows, store.Row{Digest: trust.SumOf(fmt.Append(nil, n, i)), Present: true, Tagged: true, MediaType: "m"})
		}
		mustCommit(t, s, b)
		publish(t, s)
	}
	closeChecked(t, s)
	found := 0
	eachDamage(t, whole, func(state string) {
		r := openReader(t, state)
		for range 3 {
			snap, err := r.Snapshot()
			if err != nil && !errors.Is(err, format.ErrDamaged) {
				continue
			}
			if snap != nil && err == nil {
				snap.Close()
				continue
			}
			if snap != nil {
				t.Errorf("%v, and a snapshot", err)
			}
			if r.CheckReleased(t) {
				found++
			}
		}
	})
	if found == 0 {
		t.Error("no damage was met by a snapshot")
	}
}

// eachDamage calls fn with copies of a state directory, in each of which a page of a
// published file holds something else.
func eachDamage(t *testing.T, state string, fn func(state string)) {
	t.Helper()
	_, cur, err := format.ReadCurrent(filepath.Join(state, format.PublishedDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cur.Names() {
		whole, err := os.ReadFile(filepath.Join(state, format.PublishedDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 4096 {
			page := whole[at:min(at+4096, len(whole))]
			if bytes.Trim(page, "\x00") == nil {
				continue // bbolt grows its file ahead
			}
			for _, filler := range []byte{0, 0xff} {
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(state)); err != nil {
					t.Fatal(err)
				}
				bad := slices.Concat(whole[:at], bytes.Repeat([]byte{filler}, len(page)), whole[at+len(page):])
				if err := os.WriteFile(filepath.Join(dir, format.PublishedDir, name), bad, 0o600); err != nil {
					t.Fatal(err)
				}
				fn(dir)
			}
		}
	}
}
