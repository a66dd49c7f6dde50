package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// blockCurrent keeps CURRENT from being replaced until it is called again.
func blockCurrent(t *testing.T, dir string) (unblock func()) {
	t.Helper()
	block := filepath.Join(dir, format.PublishedDir, format.CurrentName+".new")
	if err := errors.Join(os.Mkdir(block, 0o700), os.WriteFile(filepath.Join(block, "full"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return func() { remove(t, block) }
}

// A trust file in force that says the clock was ahead is replaced as soon as that
// can be done, not only tried once.
func TestClockThatWentBackIsToldUntilItIsPublished(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().Add(24 * time.Hour)
	s := openStore(t, dir, Options{Lease: -1, Now: func() time.Time { return now }})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Verdicts[0].Grounds[0].Until, f.Verdicts[0].Grounds[0].Limit = time.Now().Add(time.Hour).Unix(), trust.SignatureExpired
	mustCommit(t, s, world(f))
	publish(t, s)
	want(t, openReader(t, dir), trust.Expired, trust.SignatureExpired)
	now = time.Now()
	unblock := blockCurrent(t, dir)
	if err := s.Confirm(now); err == nil {
		t.Fatal("published through a directory")
	}
	unblock()
	if err := s.Confirm(now); err != nil {
		t.Fatal(err)
	}
	want(t, openReader(t, dir), trust.Trusted, "")
}

// What somebody else does to what is published is made good with the next
// confirmation: it would confirm what nobody reads.
func TestConfirmationOfWhatIsNotThere(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, s *Store, dir string){
		"CURRENT gone": func(t *testing.T, _ *Store, dir string) { remove(t, filepath.Join(dir, format.CurrentName)) },
		"CURRENT of a backup": func(t *testing.T, _ *Store, dir string) {
			_, c, err := format.ReadCurrent(dir)
			if err != nil {
				t.Fatal(err)
			}
			remove(t, filepath.Join(dir, format.CurrentName))
			c.Trusts--
			if err := os.Symlink(c.String(), filepath.Join(dir, format.CurrentName)); err != nil {
				t.Fatal(err)
			}
		},
		"trust file gone": func(t *testing.T, s *Store, dir string) { remove(t, s.pub.cur.TrustPath(dir)) },
		"base gone":       func(t *testing.T, s *Store, dir string) { remove(t, s.pub.cur.BasePath(dir)) },
		"delta gone":      func(t *testing.T, s *Store, dir string) { remove(t, filepath.Join(dir, s.pub.cur.Names()[1])) },
		"all gone": func(t *testing.T, s *Store, dir string) {
			remove(t, dir)
			if err := os.Mkdir(dir, 0o750); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world())
			publish(t, s)
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			harm(t, s, filepath.Join(dir, format.PublishedDir))
			if err := s.Confirm(time.Now()); err != nil {
				t.Fatal(err)
			}
			if s.pub.anew.Load() { // as Run does
				if err := s.Fold(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			want(t, openReader(t, dir), trust.Trusted, "")
			_, was, err := format.ReadCurrent(filepath.Join(dir, format.PublishedDir))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.take(); err != nil { // as when a delta is being written
				t.Fatal(err)
			}
			if err := s.Confirm(time.Now()); err != nil {
				t.Fatal(err)
			}
			if _, is, err := format.ReadCurrent(filepath.Join(dir, format.PublishedDir)); err != nil || is != was {
				t.Errorf("published again, though all is there: %v after %v, %v", is, was, err)
			}
		})
	}
}

// A Store whose state directory is no longer its own says so, and touches nothing
// of whoever has it now: neither CURRENT nor a file of a superseded one's name.
func TestStateThatIsNoLongerOurs(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string){
		"published":       func(t *testing.T, dir string) { remove(t, filepath.Join(dir, format.PublishedDir)) },
		"everything":      func(t *testing.T, dir string) { remove(t, dir) },
		"everything else": nil, // and another Store opens it
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := openStore(t, dir, Options{retention: time.Millisecond})
			defer s.Close()
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			if harm != nil {
				harm(t, dir)
				if err := s.Confirm(time.Now()); !errors.Is(err, ErrStateGone) {
					t.Fatalf("error %v", err)
				}
				return
			}
			remove(t, dir)
			other := openStore(t, dir, Options{})
			defer closeChecked(t, other)
			setTrust(t, other, inForce(keyB))
			publish(t, other)
			_, is, err := format.ReadCurrent(filepath.Join(dir, format.PublishedDir))
			if err != nil {
				t.Fatal(err)
			}
			s.removeLater(is.TrustPath(filepath.Join(dir, format.PublishedDir)))
			_, err = s.SetTrust(inForce())
			if !errors.Is(err, ErrStateGone) || !errors.Is(s.Confirm(time.Now()), ErrStateGone) {
				t.Errorf("error %v", err)
			}
			time.Sleep(20 * time.Millisecond) // beyond the retention
			if _, now, err := format.ReadCurrent(filepath.Join(dir, format.PublishedDir)); err != nil || now != is {
				t.Errorf("CURRENT names %v, was %v: %v", now, is, err)
			}
			if _, err := openReader(t, dir).Snapshot(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A gain whose publication failed after CURRENT had been replaced may be read: when
// the directories are found without it again, that is published, though nothing
// has changed since what was last known to be published.
func TestGainThatFailedHalfwayIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA, keyB))
	mustCommit(t, s, world(signedBy(keyB)))
	publish(t, s)
	setTrust(t, s, inForce(keyA))
	r := openReader(t, dir)
	want(t, r, trust.Untrusted, trust.SignerRemoved)
	unblock := blockCurrent(t, dir)
	if _, err := s.SetTrust(inForce(keyA, keyB)); err == nil {
		t.Fatal("published through a directory")
	}
	unblock()
	c := s.pub.cur // as if the rename had been done, and the directory's fsync failed
	c.Trusts = c.Generation
	if _, err := s.writeTrust(inForce(keyA, keyB), c); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, format.PublishedDir, format.CurrentName)
	if err := errors.Join(os.Remove(link), os.Symlink(c.String(), link)); err != nil {
		t.Fatal(err)
	}
	want(t, r, trust.Trusted, "")
	setTrust(t, s, inForce(keyA))
	want(t, r, trust.Untrusted, trust.SignerRemoved)
}

// A cache that was begun anew is partial until it is said to be whole, which lasts;
// a publication that fails says it the next time.
func TestPartialUntilSaidWhole(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	r := openReader(t, dir)
	missing := func(want error) {
		t.Helper()
		snap := snapshot(t, r)
		if _, err := snap.Image("nowhere", image); !errors.Is(err, want) || !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("image: %v", err)
		}
		if _, err := snap.Digest(image); !errors.Is(err, want) || snap.Partial() != (want == cache.ErrPartial) {
			t.Errorf("digest: %v; partial %v", err, snap.Partial())
		}
	}
	missing(cache.ErrPartial)
	unblock := blockCurrent(t, dir)
	if s.SetWhole(true) == nil {
		t.Error("published through a directory")
	}
	missing(cache.ErrPartial)
	unblock()
	for range 2 {
		if err := s.SetWhole(true); err != nil {
			t.Fatal(err)
		}
	}
	missing(cache.ErrNotFound)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA, keyB))
	missing(cache.ErrNotFound)
	if err := s.SetWhole(false); err != nil {
		t.Fatal(err)
	}
	missing(cache.ErrPartial)
}
