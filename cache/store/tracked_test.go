package store

import (
	"errors"
	"testing"

	"trust-worker/trust"
)

// A commit that is rolled back as it gives tracking up takes nothing of what was
// tracked before it.
func TestRolledBackCommitForgetsNoChange(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	mustCommit(t, s, world(refuted()))
	s.pub.tracked.Store(maxTracked) // as if so much had changed
	s.failUpdate = func() error { return errors.New("no space left on device") }
	if _, err := s.Commit(Batch{Place: "more", Rows: []Row{{Digest: image, Present: true}}}); err == nil {
		t.Fatal("committed")
	}
	s.failUpdate = nil
	publish(t, s)
	want(t, openReader(t, dir), trust.Untrusted, trust.Malformed)
}

// Transactions count what is tracked in memory, too: they wait
// for each other until that is done.
func TestTransactionsAreAlone(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{fewBytes: 1})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	seen := 0
	s.failUpdate = func() error {
		if seen++; s.write.TryLock() {
			s.write.Unlock()
			t.Errorf("transaction %d does not hold the others off", seen)
		}
		return nil
	}
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	mustCommit(t, s, world())
	if err := s.Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	setTrust(t, s, inForce(keyA, keyB))
	if _, err := s.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if seen < 4 {
		t.Errorf("%d transactions", seen)
	}
}
