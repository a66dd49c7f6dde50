package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/trust"
)

// A small world: one repository with one image, signed by one key.
var (
	keyA      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key A"))}
	keyB      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key B"))}
	image     = trust.SumOf([]byte("image"))
	signature = trust.SumOf([]byte("signature"))
)

func inForce(signers ...trust.Signer) *trust.InForce {
	t := trust.Terms{Cosign: true, Notation: true}
	for _, s := range signers {
		t.Materials = append(t.Materials, trust.Material{Signer: s, Author: "PEM of " + s.Fingerprint.String()})
	}
	return trust.NewInForce(t)
}

func signedBy(s trust.Signer) Fact {
	return Fact{Subject: image, Signature: signature, Context: Context{Tool: trust.Cosign},
		Verdicts: []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: time.Now().Unix(), Epoch: trust.MinEpoch,
			Grounds: []trust.Ground{{Signers: []trust.Signer{s}}}}}}
}

func world(facts ...Fact) Batch {
	stamp := "stamp"
	return Batch{Place: "team/app", SetTags: true, Complete: true, Tags: map[string]trust.Digest{"1.0": image},
		Update: &PlaceUpdate{Stamp: &stamp},
		Rows:   []Row{{Digest: image, MediaType: "m", Present: true, Tagged: true, References: []Reference{{Digest: signature, Carrier: 1}}}},
		Facts:  facts}
}

func openStore(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func setTrust(t testing.TB, s *Store, f *trust.InForce) TrustChange {
	t.Helper()
	change, err := s.SetTrust(f)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func mustCommit(t testing.TB, s *Store, batches ...Batch) {
	t.Helper()
	if _, err := s.Commit(batches...); err != nil {
		t.Fatal(err)
	}
}

func openReader(t *testing.T, dir string, opts ...Option) *Reader {
	t.Helper()
	r, err := OpenReader(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// status looks the image up as another process would.
func status(t *testing.T, r *Reader) (trust.Status, trust.Reason) {
	t.Helper()
	s, err := r.Snapshot()
	if errors.Is(err, ErrNoCache) {
		return trust.Unknown, trust.NoCache
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img, err := s.Tag("team/app", "1.0")
	if err != nil {
		t.Fatal(err)
	}
	return img.SignatureInfo[0].Status, img.SignatureInfo[0].Reason
}

func want(t *testing.T, r *Reader, st trust.Status, reason trust.Reason) {
	t.Helper()
	if s, why := status(t, r); s != st || why != reason {
		t.Errorf("read %s/%s, want %s/%s", s, why, st, reason)
	}
}

// closeChecked closes the store and holds it to Check.
func closeChecked(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	report, err := Check(context.Background(), s.dir)
	if err != nil || !report.OK() {
		t.Errorf("check: %v %+v", err, report)
	}
}

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

func TestRestartKeepsAnswersAndGenerationsGoOn(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	before := s.Generation()
	closeChecked(t, s)

	s = openStore(t, dir, Options{})
	defer closeChecked(t, s)
	want(t, r, trust.Trusted, "")
	setTrust(t, s, inForce())
	want(t, r, trust.Untrusted, trust.SignerRemoved)
	if s.Generation() <= before {
		t.Errorf("generation %d after %d", s.Generation(), before)
	}
	if s.Rebuilt() != "" {
		t.Errorf("rebuilt: %s", s.Rebuilt())
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
		{[]trust.Signer{keyA, keyB}, false, true, 2}, // keyB's number is new
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

func TestDeltasThenFold(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s) // an empty base
	base := s.pub.cur.base
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	if s.pub.cur.base != base || s.pub.cur.delta == 0 {
		t.Fatalf("not a delta: %+v", s.pub.cur)
	}
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")

	// A fold of many rows, with a commit that comes while it runs.
	var batches []Batch
	for i := range foldAt {
		d := trust.SumOf([]byte{byte(i), byte(i >> 8), 1})
		batches = append(batches, Batch{Place: "many", Rows: []Row{{Digest: d, Present: true}}})
	}
	mustCommit(t, s, batches...)
	publish(t, s)
	if err := s.Fold(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.pub.cur.base == base {
		t.Fatal("not folded")
	}
	if n := s.pub.tracked.Load(); n != 0 {
		t.Errorf("%d changes left", n)
	}
	want(t, r, trust.Trusted, "")

	// Tombstones: the repository goes.
	mustCommit(t, s, Batch{Place: "team/app", Remove: true})
	publish(t, s)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if _, err := snap.Tag("team/app", "1.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed tag: %v", err)
	}
	if _, err := snap.Digest(image); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed digest: %v", err)
	}
}

func TestLease(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: time.Minute})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	late := openReader(t, dir, WithClock(func() time.Time { return time.Now().Add(2 * time.Minute) }))
	want(t, late, trust.Unknown, trust.Stale)
	strict := openReader(t, dir, WithMaxAge(time.Second), WithClock(func() time.Time { return time.Now().Add(5 * time.Second) }))
	want(t, strict, trust.Unknown, trust.Stale)
	early := openReader(t, dir, WithClock(func() time.Time { return time.Now().Add(-time.Hour) }))
	want(t, early, trust.Trusted, "")
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
	at := func(d time.Duration) Option {
		return WithClock(func() time.Time { return time.Unix(until.Unix(), 0).Add(d) })
	}
	want(t, openReader(t, dir, at(-time.Second)), trust.Trusted, "")
	want(t, openReader(t, dir, at(0)), trust.Expired, trust.SignatureExpired)
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
	block := current{trusts: s.Generation() + 1}.trustPath(filepath.Join(dir, publishedDir)) + ".new"
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
	block := filepath.Join(dir, publishedDir, currentName+".new")
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
	if cur := s.pub.cur; cur.trusts != last+3 { // once with what has a number, once more with keyB's
		t.Errorf("the number %d of a publication that failed is used again: %v", last+1, cur)
	}
}

// What is published and the private store belong together. When one of them is
// lost, or comes from a backup, the cache begins under a new id: a reader that was
// open before must not take new generations for old ones, and numbers that stood
// for one signer must not come to stand for another.
func TestPublishedAndPrivatePartCompany(t *testing.T) {
	type files map[string][]byte
	for name, part := range map[string]func(t *testing.T, dir string, before files){
		"published lost": func(t *testing.T, dir string, _ files) { remove(t, filepath.Join(dir, publishedDir)) },
		"CURRENT lost":   func(t *testing.T, dir string, _ files) { remove(t, filepath.Join(dir, publishedDir, currentName)) },
		"base lost": func(t *testing.T, dir string, _ files) {
			bases, err := filepath.Glob(filepath.Join(dir, publishedDir, "base-*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, base := range bases {
				remove(t, base)
			}
		},
		"private from a backup": func(t *testing.T, dir string, before files) {
			name := filepath.Join(privateDir, "cache.db")
			if err := os.WriteFile(filepath.Join(dir, name), before[name], 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"published from a backup": func(t *testing.T, dir string, before files) {
			remove(t, filepath.Join(dir, publishedDir))
			if err := os.Mkdir(filepath.Join(dir, publishedDir), 0o750); err != nil {
				t.Fatal(err)
			}
			for name, content := range before {
				path, err := filepath.Join(dir, name), error(nil)
				switch {
				case filepath.Dir(name) != publishedDir:
				case filepath.Base(name) == currentName:
					err = os.Symlink(string(content), path)
				default:
					err = os.WriteFile(path, content, 0o640)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{})
			setTrust(t, s, inForce())
			mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
			publish(t, s)
			closeChecked(t, s)
			before := files{}
			for _, name := range []string{privateDir, publishedDir} {
				entries, err := os.ReadDir(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					name := filepath.Join(name, e.Name())
					if target, err := os.Readlink(filepath.Join(dir, name)); err == nil {
						before[name] = []byte(target)
					} else if before[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			s = openStore(t, dir, Options{})
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world(signedBy(keyA)))
			for i := range 5 { // some life
				mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte{byte(i)}), Present: true}}})
				publish(t, s)
			}
			open := openReader(t, dir)
			want(t, open, trust.Trusted, "")
			id := s.ID()
			closeChecked(t, s)

			part(t, dir, before)
			s = openStore(t, dir, Options{})
			defer closeChecked(t, s)
			if s.ID() == id {
				t.Error("the id is the same")
			}
			setTrust(t, s, inForce(keyB)) // keyA has gone; keyB may have its number
			mustCommit(t, s, world())
			publish(t, s)
			for who, r := range map[string]*Reader{"a new reader": openReader(t, dir), "one that was open": open} {
				snap, err := r.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				img, err := snap.Image("team/app", image)
				if err != nil || img.SignatureInfo[0].Status == trust.Trusted {
					t.Errorf("%s: %+v %v", who, img.SignatureInfo, err)
				}
				if g := snap.Generation(); g.CacheID != fmt.Sprintf("%016x", s.ID()) {
					t.Errorf("%s reads %s", who, g)
				}
				snap.Close()
			}
		})
	}
}

// A file that was being made when the process ended has a number that CURRENT has
// not come to.
func TestAFileThatWasNotPublishedChangesNoID(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	id := s.ID()
	for range 3 {
		if _, _, err := s.writeBase(); err != nil {
			t.Fatal(err)
		}
		closeChecked(t, s)
		s = openStore(t, dir, Options{})
		mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
	}
	defer closeChecked(t, s)
	if s.ID() != id {
		t.Error("the cache has a new id")
	}
	setTrust(t, s, inForce(keyA))
	want(t, openReader(t, dir), trust.Trusted, "")
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
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
	block := current{trusts: s.Generation() + 1}.trustPath(filepath.Join(dir, publishedDir)) + ".new"
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

func TestSecondWriterIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer func() { _ = s.Close() }()
	_, err := Open(dir, Options{})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second open: %v", err)
	}
	if !Alive(dir) {
		t.Error("holder not seen")
	}
}

func TestDamagedPrivateStoreIsRebuilt(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	closeChecked(t, s)
	if err := os.Truncate(s.privatePath(), 100); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{})
	defer closeChecked(t, s)
	if s.Rebuilt() == "" {
		t.Error("not reported")
	}
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if _, err := snap.Tag("team/app", "1.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a rebuilt cache answered %v for what it has not verified", err)
	}
}

func TestCompactionKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	big := make([]Row, 0, 12_000)
	for i := range cap(big) {
		big = append(big, Row{Digest: trust.SumOf([]byte{byte(i), byte(i >> 8), byte(i >> 16)}), MediaType: string(make([]byte, 1500)), Present: true})
	}
	mustCommit(t, s, Batch{Place: "big", Rows: big})
	mustCommit(t, s, Batch{Place: "big", Remove: true})
	publish(t, s)
	before := s.PrivateSize()
	closeChecked(t, s)
	if before < compactAbove {
		t.Fatalf("only %d bytes: nothing to compact", before)
	}
	s = openStore(t, dir, Options{})
	defer closeChecked(t, s)
	if after := s.PrivateSize(); after > before/10 {
		t.Errorf("%d bytes became %d", before, after)
	}
	setTrust(t, s, inForce(keyA))
	want(t, openReader(t, dir), trust.Trusted, "")
	if f, ok, err := s.Fact(image, signature, Context{Tool: trust.Cosign}); err != nil || !ok || !f.Matched() {
		t.Errorf("fact %v %v %v", f, ok, err)
	}
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
	block := current{trusts: s.Generation() + 1}.trustPath(filepath.Join(dir, publishedDir)) + ".new"
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

// The policies that records were rendered under may change while nobody runs:
// facts of the new one that are known already have to be shown.
func TestPolicyThatChangedWhileStopped(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, stormOptions())
	one, two := op{signers: 1, pol: 1}, op{signers: 1, pol: 2}
	commit := func(o op) { o.place, o.to = "one", 1; mustCommit(t, s, o.batch()) }
	state := func() trust.Status {
		snap, err := openReader(t, dir).Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		img, err := snap.Image("one", stormImage("one", 0))
		if err != nil {
			t.Fatal(err)
		}
		return img.SignatureInfo[0].Status
	}
	for _, o := range []op{one, two} {
		setTrust(t, s, stormTerms(o))
		commit(o)
		publish(t, s)
		if st := state(); st != trust.Trusted {
			t.Fatalf("reads %s under policy %d", st, o.pol)
		}
	}
	closeChecked(t, s)
	s = openStore(t, dir, stormOptions())
	defer closeChecked(t, s)
	setTrust(t, s, stormTerms(one))
	publish(t, s)
	if st := state(); st != trust.Trusted {
		t.Errorf("reads %s: what is known under the statement in force is not shown", st)
	}
}

// A rebuilt cache begins without answers. What the one before it published may
// rest on trust that has gone: unless it is replaced at once it is withdrawn.
func TestRebuiltCacheThatCannotPublishWithdrawsTheOld(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: -1})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	closeChecked(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	if err := os.Truncate(s.privatePath(), 100); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{Lease: -1})
	defer closeChecked(t, s)
	setTrust(t, s, inForce())
	s.failUpdate = func() error { return errors.New("no space left on device") }
	if err := s.Publish(context.Background()); err == nil {
		t.Fatal("published")
	}
	want(t, r, trust.Unknown, trust.NoCache)
	s.failUpdate = nil
	publish(t, s)
}

// A base that cannot be written, and whose mark cannot be taken back either, is
// made by the next publication and not first by the next start.
func TestBaseThatFailsTwiceIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	block := filepath.Join(dir, publishedDir, fileName("base", s.Generation()+1)+".new", "in the way")
	if err := os.MkdirAll(block, 0o700); err != nil {
		t.Fatal(err)
	}
	updates := 0
	s.failUpdate = func() error {
		if updates++; updates > 1 {
			return errors.New("no space left on device")
		}
		return nil
	}
	if err := s.Publish(context.Background()); err == nil || updates != 2 {
		t.Fatalf("published through a directory: %v, %d updates", err, updates)
	}
	s.failUpdate = nil
	publish(t, s)
	want(t, openReader(t, dir), trust.Trusted, "")
}

// A signer's pass that ends after the signer has left leaves no mark of having
// been applied.
func TestMarksOfASignerThatHasLeft(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, Batch{Marks: map[string]bool{"applied A": true}, InForce: &keyA})
	setTrust(t, s, inForce(keyB))
	mustCommit(t, s, Batch{Marks: map[string]bool{"applied A": false, "applied A again": true}, InForce: &keyA})
	marks, err := s.Marks()
	if err != nil || !marks["applied A"] || len(marks) != 1 {
		t.Errorf("marks %v, %v", marks, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
