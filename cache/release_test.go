package cache

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

// Snapshots that are closed while their reader is, on generations old and new.
func TestSnapshotsOutliveTheirReader(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{fewBytes: 1})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	mustCommit(t, s, world())
	publish(t, s)
	turns := 50
	if torture {
		turns = 20_000
	}
	for range turns {
		r, err := OpenReader(dir)
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
				r.mu.Lock()
				g := r.cur
				r.cur = nil
				r.releaseLocked(g)
				r.mu.Unlock()
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
	townsfolk(t, whole)
	found := 0
	eachDamage(t, whole, published(t, whole), func(t *testing.T, state string) {
		r := openReader(t, state)
		var g *generation
		for range 3 {
			snap, err := r.Snapshot()
			if err != nil && !errors.Is(err, ErrDamaged) {
				continue
			}
			if snap != nil && err == nil {
				snap.Close()
				continue
			}
			if g = r.cur; g == nil {
				continue // it could not be opened
			}
			found++
			if snap != nil || g.refs != 1 {
				t.Errorf("%v: %d references are left", err, g.refs)
			}
			for _, f := range g.files {
				if f.db.Stats().OpenTxN != len(f.idle) {
					t.Errorf("%s: %d transactions are open, %d are idle", filepath.Base(f.name), f.db.Stats().OpenTxN, len(f.idle))
				}
			}
		}
	})
	if found == 0 {
		t.Error("no damage was met by a snapshot")
	}
}
