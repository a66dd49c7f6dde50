package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"

	"go.etcd.io/bbolt"
)

// townsfolk is a cache in which every third image is trusted: what answers
// may say so is known.
func townsfolk(t testing.TB, dir string) map[trust.Digest]bool {
	t.Helper()
	s := openStore(t, dir, Options{Lease: -1})
	setTrust(t, s, inForce(keyA))
	publish(t, s) // a base, so that what follows is a delta
	trusted := map[trust.Digest]bool{}
	batch := func(place string, from, to int) Batch {
		b := Batch{Place: place, SetTags: true, Tags: map[string]trust.Digest{}}
		for i := from; i < to; i++ {
			d := trust.SumOf(binary.BigEndian.AppendUint32(nil, uint32(i)))
			sig := trust.SumOf(d[:])
			signer := keyB
			if i%3 == 0 {
				signer, trusted[d] = keyA, true
			}
			f := signedBy(signer)
			f.Subject, f.Signature, f.Hints = d, sig, []Hint{{HintSigner, byte(i)}}
			b.Rows = append(b.Rows, Row{Digest: d, MediaType: "m", Present: true, Tagged: true, References: []Reference{{Digest: sig, Carrier: 1}}})
			b.Facts = append(b.Facts, f)
			b.Tags[fmt.Sprint(i)] = d
		}
		return b
	}
	mustCommit(t, s, batch("one", 0, 150))
	publish(t, s)
	if err := s.publishBase(); err != nil { // fold, so that both files hold something
		t.Fatal(err)
	}
	mustCommit(t, s, batch("two", 150, 250))
	publish(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return trusted
}

// wronglyTrusted reads everything and returns an image that is answered as
// trusted and must not be. answers counts those that were given at all.
func wronglyTrusted(state string, trusted map[trust.Digest]bool) (bad string, answers int) {
	r, err := cache.OpenReader(state)
	if err != nil {
		return "", 0
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return "", 0
	}
	defer snap.Close()
	for _, repo := range []string{"one", "two"} {
		// Walks end where damage is met; what they gave before counts.
		_ = snap.Images(repo, func(img cache.Image) error {
			answers++
			if img.Code() == trust.ExitTrusted && !trusted[img.Digest] {
				bad = fmt.Sprintf("%s@%s", img.RepoName, img.Digest)
			}
			return nil
		})
	}
	for d := range trusted {
		if img, err := snap.Image("one", d); err == nil && img.Digest != d {
			bad = fmt.Sprintf("asked for %s, got %s", d, img.Digest)
		}
	}
	return bad, answers
}

func copyState(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// damages are the ways in which a page goes wrong.
var damages = map[string]func(page []byte, file []byte, rnd *rand.Rand){
	"zeros": func(page, _ []byte, _ *rand.Rand) { clear(page) },
	"noise": func(page, _ []byte, rnd *rand.Rand) {
		for i := range page {
			page[i] = byte(rnd.Uint32())
		}
	},
	"another page": func(page, file []byte, rnd *rand.Rand) {
		at := rnd.IntN(len(file)/4096+1) * 4096
		copy(page, file[at:])
	},
	// bbolt would go round and round.
	"a circle": func(page, _ []byte, _ *rand.Rand) {
		const branch, header, element = 1, 16, 16
		if binary.NativeEndian.Uint16(page[8:]) == branch {
			for n := range int(binary.NativeEndian.Uint16(page[10:])) {
				copy(page[header+n*element+8:], page[:8])
			}
		}
	},
	"one bit": func(page, _ []byte, rnd *rand.Rand) { page[rnd.IntN(len(page))] ^= 1 << rnd.IntN(8) },
}

// eachDamage calls fn for copies of a state directory in each of which one
// page of one file is damaged.
func eachDamage(t *testing.T, state string, files []string, fn func(t *testing.T, state string)) {
	turns := 0
	for _, name := range files {
		whole, err := os.ReadFile(filepath.Join(state, name))
		if err != nil {
			t.Fatal(err)
		}
		var pages []int // those that hold anything: bbolt grows its file ahead
		for at := 0; at < len(whole); at += 4096 {
			if bytes.Trim(whole[at:min(at+4096, len(whole))], "\x00") != nil {
				pages = append(pages, at/4096)
			}
		}
		for kind, damage := range damages {
			rnd := rand.New(rand.NewPCG(uint64(len(kind)), 1))
			some := rnd.Perm(len(pages))
			if os.Getenv("TRUST_WORKER_TORTURE") == "" && kind != "a circle" { // which few pages can be
				some = some[:min(len(pages), 10)]
			}
			for _, n := range some {
				page := pages[n]
				bad := append([]byte(nil), whole...)
				damage(bad[page*4096:min((page+1)*4096, len(bad))], whole, rnd)
				dir := filepath.Join(t.TempDir(), "state")
				copyState(t, state, dir)
				if err := os.WriteFile(filepath.Join(dir, name), bad, 0o600); err != nil {
					t.Fatal(err)
				}
				fn(t, dir)
				if t.Failed() {
					t.Fatalf("page %d of %s: %s", page, name, kind)
				}
				os.RemoveAll(dir)
				turns++
			}
		}
	}
	t.Logf("%d damaged files", turns)
}

func published(t testing.TB, state string) (files []string) {
	t.Helper()
	_, cur, err := format.ReadCurrent(filepath.Join(state, format.PublishedDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cur.Files() {
		files = append(files, filepath.Join(format.PublishedDir, name))
	}
	return files
}

// Whatever is damaged of what is published, no answer turns trusted by it.
func TestDamageOfPublishedFilesTrustsNothing(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o750); err != nil {
		t.Fatal(err)
	}
	trusted := townsfolk(t, state)
	if bad, n := wronglyTrusted(state, trusted); bad != "" || n != 250 {
		t.Fatalf("undamaged: %v, %d answers", bad, n)
	}
	found := 0
	eachDamage(t, state, published(t, state), func(t *testing.T, dir string) {
		if bad, _ := wronglyTrusted(dir, trusted); bad != "" {
			t.Errorf("wrongly trusted: %v", bad)
		}
		if report, err := Check(context.Background(), dir); err != nil {
			t.Error(err)
		} else if !report.OK() {
			found++
		}
	})
	if found == 0 {
		t.Error("cache check found none of it")
	}
}

// Whatever is damaged of the private store, the daemon is back after at most
// two starts, and what it then publishes trusts nothing that it should not.
func TestDamageOfThePrivateStoreIsSurvived(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o750); err != nil {
		t.Fatal(err)
	}
	trusted := townsfolk(t, state)
	rebuilt := 0
	eachDamage(t, state, []string{filepath.Join(format.PrivateDir, "cache.db")}, func(t *testing.T, dir string) {
		for start := 1; ; start++ {
			err := live(t, dir, &rebuilt)
			if bad, _ := wronglyTrusted(dir, trusted); bad != "" {
				t.Errorf("wrongly trusted: %v", bad)
			}
			if err == nil {
				return
			}
			if !errors.Is(err, format.ErrDamaged) || start == 3 {
				t.Errorf("start %d: %v", start, err)
				return
			}
		}
	})
	if rebuilt == 0 {
		t.Error("nothing was ever rebuilt")
	}
}

// live is one life of a daemon: open, trust, write, publish. Damage that is
// met is marked for the next one.
func live(t *testing.T, dir string, rebuilt *int) (err error) {
	s, err := Open(dir, Options{Lease: -1})
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, format.ErrDamaged) {
			err = errors.Join(err, s.MarkDamaged(err))
		}
		if closeErr := s.Close(); err == nil {
			err = closeErr
		}
	}()
	if s.Rebuilt() != "" {
		*rebuilt++
	}
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		return err
	}
	if _, err := s.Commit(Batch{Place: "three", Rows: []Row{{Digest: image, Present: true}}}); err != nil {
		return err
	}
	return s.publishBase()
}

// A file that is cut short while it is mapped must not take the reader's
// process with it.
// What keeps the private store from being opened for a while costs nothing: a lock
// that is held, and a place for the compacted copy that cannot be had.
func TestWhatMayPassIsNotDamage(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{compactAbove: 4 << 10})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	many := Batch{Place: "many"}
	for i := range 500 {
		many.Rows = append(many.Rows, Row{Digest: trust.SumOf(fmt.Append(nil, i)), MediaType: string(make([]byte, 1500)), Present: true})
	}
	mustCommit(t, s, many)
	mustCommit(t, s, Batch{Place: "many", Remove: true}) // most of it is free
	publish(t, s)
	closeChecked(t, s)
	path := filepath.Join(dir, format.PrivateDir, "cache.db")
	held, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, Options{}); err == nil || errors.Is(err, format.ErrDamaged) {
		t.Errorf("opened %v beside another: %v", s, err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path+".new", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s = openStore(t, dir, Options{compactAbove: 4 << 10, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeChecked(t, s)
	if s.Rebuilt() != "" || !strings.Contains(log.String(), "cannot compact") {
		t.Errorf("set aside: %q; %s", s.Rebuilt(), log.String())
	}
	setTrust(t, s, inForce(keyA))
	want(t, openReader(t, dir), trust.Trusted, "")
}

func TestTruncationWhileReading(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o750); err != nil {
		t.Fatal(err)
	}
	trusted := townsfolk(t, state)
	r := openReader(t, state)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if err := os.Truncate(filepath.Join(state, published(t, state)[0]), 4096); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for d := range trusted {
		img, err := snap.Image("one", d)
		if err != nil {
			failed++
		} else if img.Digest != d {
			t.Errorf("asked for %s, got %s", d, img.Digest)
		}
	}
	if failed == 0 {
		t.Error("nothing was found missing")
	}
}

// A reader that stays open while the state is wiped and made anew accepts the
// new cache, though its generations begin again.
func TestWipedStateUnderALongLivedReader(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	want(t, r, trust.Trusted, "")
	closeChecked(t, s)
	for _, d := range []string{format.PublishedDir, format.PrivateDir} {
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	want(t, r, trust.Unknown, trust.NoCache)
	s = openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world())
	publish(t, s)
	want(t, r, trust.Pending, trust.New)
}

// The clock of a reader is never earlier than the publication: what had
// expired when it was published does not come back with a clock that is late.
func TestReaderClockIsNeverBeforeThePublication(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: -1})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Verdicts[0].Grounds[0].Until = time.Now().Add(-time.Hour).Unix()
	f.Verdicts[0].Grounds[0].Limit = trust.SignatureExpired
	mustCommit(t, s, world(f))
	publish(t, s)
	early := openReader(t, dir, cache.WithClock(func() time.Time { return time.Now().AddDate(-1, 0, 0) }))
	want(t, early, trust.Expired, trust.SignatureExpired)
}

// A start that was killed costs nothing; a file that kills those who open it is
// set aside at the second start at the latest.
func TestStartThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	townsfolk(t, dir)
	open := func() string {
		t.Helper()
		s := openStore(t, dir, Options{Lease: -1})
		defer closeChecked(t, s)
		return s.Rebuilt()
	}
	mark := filepath.Join(dir, format.PrivateDir, "opening")
	for _, c := range []struct {
		mark    string
		cut     int64 // the file, to so many bytes; -1: it is left whole
		rebuilt bool
	}{
		{"", -1, false},         // killed once
		{markAgain, -1, true},   // twice: whatever it is, it is not tried a third time
		{markDamaged, -1, true}, // as the daemon marks what it met
		{"", 3 * 4096, true},
		{"", 0, true},
	} {
		if err := os.WriteFile(mark, []byte(c.mark), 0o600); err != nil {
			t.Fatal(err)
		}
		if c.cut >= 0 {
			if err := os.Truncate(filepath.Join(dir, format.PrivateDir, "cache.db"), c.cut); err != nil {
				t.Fatal(err)
			}
		}
		if why := open(); (why != "") != c.rebuilt {
			t.Errorf("after %+v: rebuilt because %q", c, why)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Errorf("after %+v the mark is still there", c)
		}
	}
}
