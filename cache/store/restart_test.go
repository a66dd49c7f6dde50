package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"

	"go.etcd.io/bbolt"
)

// What a new process finds: its own work, another's, damage, or a policy that changed meanwhile.

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

// What is published and the private store belong together. When one of them is
// lost, or comes from a backup, the cache begins under a new id: a reader that was
// open before must not take new generations for old ones, and numbers that stood
// for one signer must not come to stand for another.
func TestPublishedAndPrivatePartCompany(t *testing.T) {
	type files map[string][]byte
	for name, part := range map[string]func(t *testing.T, dir string, before files){
		"published lost": func(t *testing.T, dir string, _ files) { remove(t, filepath.Join(dir, format.PublishedDir)) },
		"CURRENT lost": func(t *testing.T, dir string, _ files) {
			remove(t, filepath.Join(dir, format.PublishedDir, format.CurrentName))
		},
		"base lost": func(t *testing.T, dir string, _ files) {
			bases, err := filepath.Glob(filepath.Join(dir, format.PublishedDir, "base-*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, base := range bases {
				remove(t, base)
			}
		},
		"private from a backup": func(t *testing.T, dir string, before files) {
			name := filepath.Join(format.PrivateDir, "cache.db")
			if err := os.WriteFile(filepath.Join(dir, name), before[name], 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"published from a backup": func(t *testing.T, dir string, before files) {
			remove(t, filepath.Join(dir, format.PublishedDir))
			if err := os.Mkdir(filepath.Join(dir, format.PublishedDir), 0o750); err != nil {
				t.Fatal(err)
			}
			for name, content := range before {
				path, err := filepath.Join(dir, name), error(nil)
				switch {
				case filepath.Dir(name) != format.PublishedDir:
				case filepath.Base(name) == format.CurrentName:
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
			for _, name := range []string{format.PrivateDir, format.PublishedDir} {
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
			for who, r := range map[string]*cache.Reader{"a new reader": openReader(t, dir), "one that was open": open} {
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
		setTrust(t, s, inForce(keyA))
		mustCommit(t, s, Batch{Place: "many", Rows: []Row{{Digest: trust.SumOf([]byte("x")), Present: true}}})
	}
	defer closeChecked(t, s)
	if s.ID() != id {
		t.Error("the cache has a new id")
	}
	setTrust(t, s, inForce(keyA))
	want(t, openReader(t, dir), trust.Trusted, "")
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
	if _, err := snap.Tag("team/app", "1.0"); !errors.Is(err, cache.ErrNotFound) {
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
	unblock := blockCurrent(t, dir) // no space left on the device
	if err := s.Publish(context.Background()); err == nil {
		t.Fatal("published")
	}
	want(t, r, trust.Unknown, trust.NoCache)
	unblock()
	publish(t, s)
}

// A private database of another version is set aside, once, with a reason that does not
// read like damage, and what lies beside it stays.
func TestAnotherFormatIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	beside := []string{"upload.token", "changes.jsonl", "trust-memory.json"}
	for _, name := range beside {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // of former versions, one after the other
		if err := s.update(func(tx *bbolt.Tx) error { return putMeta(tx, metaFormat, privateFormat-1) }); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, Options{})
		if why := s.Rebuilt(); !strings.Contains(why, "of another version") || strings.Contains(why, "damage") {
			t.Errorf("rebuilt: %q", why)
		}
	}
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	publish(t, s)
	if _, err := snapshot(t, openReader(t, dir)).Image("team/app", image); !errors.Is(err, cache.ErrPartial) {
		t.Errorf("what was known under another format: %v", err)
	}
	for _, name := range beside {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != name {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, format.PrivateDir, "*"))
	if err != nil || len(files) != 2 {
		t.Errorf("private files %v", files)
	}
}
