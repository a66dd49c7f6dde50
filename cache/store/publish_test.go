package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Publications that fail, and what they may not lose.

func TestDeltasThenFold(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{fewBytes: 1})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s) // an empty base
	base := s.pub.cur.Base
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	if s.pub.cur.Base != base || len(s.pub.cur.Layers()) != 1 {
		t.Fatalf("not a delta: %+v", s.pub.cur)
	}
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")

	// More than the base holds, and another's small change.
	var batches []Batch
	for i := range 4000 {
		d := trust.SumOf([]byte{byte(i), byte(i >> 8), 1})
		batches = append(batches, Batch{Place: "many", Rows: []Row{{Digest: d, Present: true}}})
	}
	mustCommit(t, s, batches...)
	publish(t, s)
	if err := s.Fold(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.pub.cur.Base == base || len(s.pub.cur.Layers()) != 0 {
		t.Fatalf("not folded: %+v", s.pub.cur)
	}
	base = s.pub.cur.Base
	want(t, r, trust.Trusted, "")

	// Tombstones: the repository goes.
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	if n := s.pub.tracked.Load(); n > 20 {
		t.Errorf("%d changes are kept that have been published", n)
	}
	publish(t, s)
	if err := s.Fold(context.Background()); err != nil || s.pub.cur.Base != base {
		t.Errorf("a small change has the base written again: %v", err)
	}
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if _, err := snap.Tag("team/app", "1.0"); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("removed tag: %v", err)
	}
	if _, err := snap.Digest(image); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("removed digest: %v", err)
	}
}

// A loss of trust that cannot be published withdraws CURRENT.
func TestLossThatCannotBePublishedIsWithdrawn(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	// A directory in the way of the next trust file stands for a full disk:
	// it cannot be written, also by root.
	block := format.Current{Trusts: s.Generation() + 1}.TrustPath(filepath.Join(dir, format.PublishedDir)) + ".new"
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetTrust(inForce()); err == nil {
		t.Fatal("published through a directory")
	}
	want(t, r, trust.Unknown, trust.NoCache)
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	setTrust(t, s, inForce())
	want(t, r, trust.Untrusted, trust.SignerRemoved)
}

// A publication that failed may have been seen: its number is not used again.
func TestAGenerationIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	last := s.Generation()
	block := filepath.Join(dir, format.PublishedDir, format.CurrentName+".new")
	if err := errors.Join(os.Mkdir(block, 0o700), os.WriteFile(filepath.Join(block, "full"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetTrust(inForce(keyA, keyB)); err == nil {
		t.Fatal("published through a directory")
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	setTrust(t, s, inForce(keyA, keyB))
	if cur := s.pub.cur; cur.Trusts != last+2 {
		t.Errorf("the number %d of a publication that failed is used again: %v", last+1, cur)
	}
}

// A key that cannot be added for want of space takes nothing from the others.
func TestGainThatCannotBePublishedLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	block := format.Current{Trusts: s.Generation() + 1}.TrustPath(filepath.Join(dir, format.PublishedDir)) + ".new"
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetTrust(inForce(keyA, keyB)); err == nil {
		t.Fatal("published through a directory")
	}
	want(t, r, trust.Trusted, "")
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if c := setTrust(t, s, inForce(keyA, keyB)); len(c.Added) != 1 {
		t.Errorf("%+v", c)
	}
	want(t, r, trust.Trusted, "")
}

// While a loss of trust is withdrawn, nothing that is published for another
// reason brings the lost trust back.
func TestWithdrawnTrustStaysWithdrawnWhateverElseIsPublished(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	block := format.Current{Trusts: s.Generation() + 1}.TrustPath(filepath.Join(dir, format.PublishedDir)) + ".new"
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetTrust(inForce()); err == nil {
		t.Fatal("published through a directory")
	}
	if err := os.Remove(block); err != nil { // there is space again
		t.Fatal(err)
	}
	mustCommit(t, s, Batch{Place: "other", Rows: []Row{{Digest: signature, Present: true}}})
	if err := s.Publish(context.Background()); err == nil {
		t.Error("data was published under trust that is no longer in force")
	}
	want(t, r, trust.Unknown, trust.NoCache)
	setTrust(t, s, inForce())
	publish(t, s)
	want(t, r, trust.Untrusted, trust.SignerRemoved)
}

// A new key whose number cannot be recorded is tried again as a new one: its
// signatures must not stay untrusted once the disk is well.
func TestKeyThatCannotBeRecordedIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	full := errors.New("no space left on device")
	s.failUpdate = func() error { return full }
	if _, err := s.SetTrust(inForce(keyA, keyB)); !errors.Is(err, full) {
		t.Fatalf("set trust on a full disk: %v", err)
	}
	s.failUpdate = nil
	mustCommit(t, s, world(signedBy(keyB)))
	setTrust(t, s, inForce(keyA, keyB))
	publish(t, s)
	want(t, openReader(t, dir), trust.Trusted, "")
}

// A base that cannot be written is made by the next publication.
func TestBaseThatFailsIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	block := filepath.Join(dir, format.PublishedDir, format.FileName("base", s.Generation()+1)+".new", "in the way")
	if err := os.MkdirAll(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(context.Background()); err == nil {
		t.Fatal("published through a directory")
	}
	publish(t, s)
	want(t, openReader(t, dir), trust.Trusted, "")
}
