package store

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

func TestTheJoinFollowsTrustWithoutNewFacts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Unknown, trust.NoCache)

	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world())
	publish(t, s)
	want(t, r, trust.Pending, trust.New)

	mustCommit(t, s, Batch{Facts: []Fact{signedBy(keyA)}})
	publish(t, s)
	want(t, r, trust.Trusted, "")

	published := s.Published()
	if c := setTrust(t, s, inForce(keyB)); len(c.Added) != 1 || len(c.Removed) != 1 {
		t.Errorf("change %+v", c)
	}
	want(t, r, trust.Untrusted, trust.SignerRemoved)
	setTrust(t, s, inForce(keyA, keyB))
	want(t, r, trust.Trusted, "")
	if s.Published() != published {
		t.Error("a change of trust published data")
	}
}

// The trust generation counts changes of the signers, not processes: what was
// decided under the same ones is not looked at again.
func TestTrustGenerationCountsChangesOfTheSigners(t *testing.T) {
	dir := t.TempDir()
	var s *Store
	last := uint64(0)
	for i, set := range []struct {
		keys    []trust.Signer
		again   bool // in a new process
		rises   bool
		changes uint64 // publications it takes
	}{
		{[]trust.Signer{keyA}, true, true, 0}, // with the first base
		{[]trust.Signer{keyA}, false, false, 0},
		{[]trust.Signer{keyA}, true, false, 1},
		{[]trust.Signer{keyA, keyB}, false, true, 1},
		{[]trust.Signer{keyB, keyA}, true, false, 1},
		{[]trust.Signer{keyB}, false, true, 1},
		{nil, true, true, 1},
		{[]trust.Signer{keyB}, true, true, 1},
	} {
		if set.again {
			if s != nil {
				closeChecked(t, s)
			}
			s = openStore(t, dir, Options{})
		}
		before := s.Generation()
		setTrust(t, s, inForce(set.keys...))
		if g := s.TrustGeneration(); (g > last) != set.rises {
			t.Errorf("%d: the trust generation went from %d to %d", i, last, g)
		}
		if n := s.Generation() - before; n != set.changes {
			t.Errorf("%d: published %d times, want %d", i, n, set.changes)
		}
		last = s.TrustGeneration()
		publish(t, s)
	}
	closeChecked(t, s)
}

func TestLease(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: time.Minute})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	late := openReader(t, dir, cache.WithClock(func() time.Time { return time.Now().Add(2 * time.Minute) }))
	want(t, late, trust.Unknown, trust.Stale)
	strict := openReader(t, dir, cache.WithMaxAge(time.Second), cache.WithClock(func() time.Time { return time.Now().Add(5 * time.Second) }))
	want(t, strict, trust.Unknown, trust.Stale)
	// Seen first by a clock that has been set back, a confirmation may be of any age: one
	// that comes while this process looks is not.
	synctest.Test(t, func(t *testing.T) {
		early := func(by time.Duration) *cache.Reader {
			return openReader(t, dir, cache.WithClock(func() time.Time { return time.Now().Add(-by) }))
		}
		at := time.Now()
		if err := s.Confirm(at); err != nil {
			t.Fatal(err)
		}
		r := early(time.Hour)
		want(t, r, trust.Unknown, trust.Stale)
		want(t, early(5*time.Second), trust.Trusted, "")
		if err := s.Confirm(at.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // a reader looks at the confirmation each second
		want(t, r, trust.Trusted, "")
		want(t, early(time.Hour), trust.Unknown, trust.Stale)
		time.Sleep(2 * time.Minute)
		want(t, r, trust.Unknown, trust.Stale)
	})
}

func TestExpiryNeedsNoDaemon(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: -1})
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	until := time.Now().Add(time.Hour)
	f.Verdicts[0].Grounds[0].Until = until.Unix()
	f.Verdicts[0].Grounds[0].Limit = trust.SignatureExpired
	mustCommit(t, s, world(f))
	publish(t, s)
	closeChecked(t, s)
	at := func(d time.Duration) cache.Option {
		return cache.WithClock(func() time.Time { return time.Unix(until.Unix(), 0).Add(d) })
	}
	want(t, openReader(t, dir, at(-time.Second)), trust.Trusted, "")
	want(t, openReader(t, dir, at(0)), trust.Expired, trust.SignatureExpired)
}

func TestSecondWriterIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer func() { _ = s.Close() }()
	_, err := Open(dir, Options{})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second open: %v", err)
	}
	if !cache.Alive(dir) {
		t.Error("holder not seen")
	}
}

// A signer's pass that ends after the signer has left leaves no mark of having
// been applied.
func TestMarksOfASignerThatHasLeft(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	idA := keyA.ID()
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, Batch{Marks: map[string]bool{"applied A": true}, InForce: &idA})
	setTrust(t, s, inForce(keyB))
	mustCommit(t, s, Batch{Marks: map[string]bool{"applied A": false, "applied A again": true}, InForce: &idA})
	marks, err := s.Marks()
	if err != nil || !marks["applied A"] || len(marks) != 1 {
		t.Errorf("marks %v, %v", marks, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
