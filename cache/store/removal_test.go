package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// held keeps a write transaction open until release is called, and all that is
// made under the locks of publications of data.
func held(t *testing.T, s *Store) (release func()) {
	t.Helper()
	inside, let := make(chan bool), make(chan bool)
	s.failUpdate = func() error {
		inside <- true
		<-let
		return nil
	}
	var g sync.WaitGroup
	g.Go(func() {
		if _, err := s.Commit(Batch{Marks: map[string]bool{"held": true}}); err != nil {
			t.Error(err)
		}
	})
	<-inside
	s.failUpdate = nil
	s.pub.data.Lock()
	return sync.OnceFunc(func() {
		s.pub.data.Unlock()
		close(let)
		g.Wait()
	})
}

// C2: removals and the lease wait for no transaction, no base and no delta, however
// long that takes.
func TestRemovalsDuringATransaction(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	var keys []trust.Signer
	for n := range 12 {
		keys = append(keys, trust.Signer{Tool: trust.Cosign, Fingerprint: trust.Digest{byte(n + 1), 7}})
	}
	setTrust(t, s, inForce(keys...))
	subject := func(n int) trust.Digest { return trust.SumOf([]byte(fmt.Sprint(n))) }
	for n, k := range keys {
		f := signedBy(k)
		f.Subject = subject(n)
		b := world(f)
		b.Place, b.Rows[0].Digest = fmt.Sprint("r", n), f.Subject
		mustCommit(t, s, b)
	}
	publish(t, s)
	r := openReader(t, dir)
	trusted := func() (all []int) {
		snap := snapshot(t, r)
		for n := range keys {
			img, err := snap.Image(fmt.Sprint("r", n), subject(n))
			if err != nil {
				t.Fatal(err)
			}
			if img.State() == "trusted" {
				all = append(all, n)
			}
		}
		return all
	}
	if got := trusted(); len(got) != len(keys) {
		t.Fatalf("trusted: %v", got)
	}
	release := held(t, s)
	for n := 1; n <= 10; n++ {
		if err := s.PublishTrust(inForce(keys[n:]...), time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := trusted(); len(got) != len(keys)-n || got[0] != n {
			t.Errorf("after %d removals trusted: %v", n, got)
		}
		if err := s.Confirm(time.Now()); err != nil {
			t.Error(err)
		}
	}
	// What comes back is there at once.
	if err := s.PublishTrust(inForce(keys[9:]...), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := trusted(); !slices.Equal(got, []int{9, 10, 11}) {
		t.Errorf("trusted: %v", got)
	}
	release()
	if _, _, err := s.RecordTrust(inForce(keys[9:]...)); err != nil {
		t.Fatal(err)
	}
	publish(t, s)
	if got := trusted(); !slices.Equal(got, []int{9, 10, 11}) {
		t.Errorf("trusted: %v", got)
	}
}

// What is new is published at once and recorded after the transaction; a removal that
// came meanwhile is not taken back by that.
func TestRecordingTakesBackNoRemoval(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	r := openReader(t, dir)
	release := held(t, s)
	both := inForce(keyA, keyB)
	if err := s.PublishTrust(both, time.Now()); err != nil {
		t.Fatal(err)
	}
	if !snapshot(t, r).InForce().Has(keyB.ID()) {
		t.Error("a new signer waits for a transaction")
	}
	var g sync.WaitGroup
	g.Go(func() { // waits for the transaction
		if change, _, err := s.RecordTrust(both); err != nil || !slices.Equal(change.Added, []trust.SignerID{keyB.ID()}) {
			t.Errorf("%+v, %v", change, err)
		}
	})
	if err := s.PublishTrust(inForce(keyB), time.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, r, trust.Untrusted, trust.SignerRemoved)
	release()
	g.Wait()
	want(t, r, trust.Untrusted, trust.SignerRemoved)
	if inForce := snapshot(t, r).InForce(); !inForce.Has(keyB.ID()) || inForce.Has(keyA.ID()) {
		t.Errorf("published: %v", inForce.Terms().Materials)
	}
}

// What is published twice between two recordings — removed and back, or a policy
// changed and changed back — changes nothing that is recorded.
func TestWhatIsNotRecordedIsNotRendered(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	one, two := inForce(keyA), inForce(keyA, keyB)
	setTrust(t, s, one)
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	generation := s.TrustGeneration()
	for _, f := range []*trust.InForce{two, inForce(), one} {
		if err := s.PublishTrust(f, time.Now()); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, world(signedBy(keyA)))
		publish(t, s)
	}
	if change, g, err := s.RecordTrust(one); err != nil || change.Changed() || g != generation {
		t.Errorf("%+v, generation %d, was %d: %v", change, g, generation, err)
	}
	want(t, openReader(t, dir), trust.Trusted, "")
}

// A recording that failed may be in the store all the same: the next one counts
// on nothing.
func TestRecordingThatMayHaveBeenDone(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	generation := s.TrustGeneration()
	s.failUpdate = func() error { return errors.New("no space") }
	if _, _, err := s.RecordTrust(inForce(keyB)); err == nil {
		t.Fatal("recorded")
	}
	s.failUpdate = nil
	change, g, err := s.RecordTrust(inForce(keyA))
	if err != nil || !change.First || g <= generation {
		t.Errorf("%+v, generation %d, was %d: %v", change, g, generation, err)
	}
	var full uint64
	if err := s.view(func(tx *bbolt.Tx) error {
		full = getMeta(tx, metaFull)
		return nil
	}); err != nil || full == 0 {
		t.Errorf("full %d: %v", full, err)
	}
}

// Nothing is rendered before it is known which statements govern.
func TestNothingIsRenderedBeforeTrustIsRecorded(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer closeChecked(t, s)
	if err := s.PublishTrust(inForce(keyA), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context()); !errors.Is(err, errNotRecorded) {
		t.Errorf("error %v", err)
	}
	if _, _, err := s.RecordTrust(inForce(keyA)); err != nil {
		t.Fatal(err)
	}
	publish(t, s)
}

// That storage was read is recorded beside commits: one that fails loses none of
// their changes and gives no number twice.
func TestSetWholeBesideCommits(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	var g sync.WaitGroup
	g.Go(func() {
		for n := range 40 {
			if n%2 == 0 {
				s.write.Lock()
				s.failUpdate = func() error { return errors.New("no space") }
				s.write.Unlock()
			}
			_ = s.SetWhole(n%4 < 2) // the other turns succeed, or there is nothing to do
			s.write.Lock()
			s.failUpdate = nil
			s.write.Unlock()
		}
	})
	written := 0
	for n := range 40 {
		d := trust.SumOf([]byte(fmt.Sprint("beside", n)))
		_, err := s.Commit(Batch{Place: "beside", Rows: []Row{{Digest: d, Present: true, MediaType: "m"}}})
		if err == nil {
			written++
		}
	}
	g.Wait()
	s.failUpdate = nil
	publish(t, s)
	snap := snapshot(t, openReader(t, dir))
	got := 0
	for n := range 40 {
		if _, err := snap.Image("beside", trust.SumOf([]byte(fmt.Sprint("beside", n)))); err == nil {
			got++
		}
	}
	if got != written || written == 0 {
		t.Errorf("%d of %d images are published", got, written)
	}
}

func TestChangesAddUp(t *testing.T) {
	a, b := TrustChange{Added: []trust.SignerID{keyA.ID()}, First: true}, TrustChange{Removed: []trust.SignerID{keyA.ID()}, Policies: true}
	if got := a.And(b); !reflect.DeepEqual(got, TrustChange{Added: []trust.SignerID{keyA.ID()}, Removed: []trust.SignerID{keyA.ID()}, First: true, Policies: true}) {
		t.Errorf("%+v", got)
	}
}

// A signer whose trust file cannot be written is published by the next try.
func TestANewSignerWhoseTrustFileFails(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyB)))
	publish(t, s)
	blocked := filepath.Join(s.publishedPath(), format.FileName("trust", s.Generation()+1)+".new")
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	both := inForce(keyA, keyB)
	if err := s.PublishTrust(both, time.Now()); err == nil {
		t.Fatal("a trust file was written where none can be")
	}
	if err := s.PublishTrust(both, time.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, openReader(t, dir), trust.Trusted, "")
}

// An answer that rests on a signer that left names it, also after a restart, and when
// many have left since; the last of them are remembered.
func TestWhoLeft(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1_800_000_000, 0)
	opts := Options{Lease: -1, Now: func() time.Time { return now }}
	s := openStore(t, dir, opts)
	setTrust(t, s, inForce(keyA, keyB))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	if img, err := snapshot(t, openReader(t, dir)).Image("team/app", image); err != nil || img.SignatureInfo[0].SignerFile != fileOf(keyA) {
		t.Errorf("%+v: %v", img, err)
	}
	says := func(known bool) {
		t.Helper()
		img, err := snapshot(t, openReader(t, dir)).Image("team/app", image)
		if err != nil {
			t.Fatal(err)
		}
		sig := img.SignatureInfo[0]
		if sig.Reason != trust.SignerRemoved || strings.Contains(sig.Detail, keyA.Fingerprint.String()) != known ||
			strings.HasSuffix(sig.Detail, "; it was in "+fileOf(keyA)) != known {
			t.Errorf("%s %q", sig.Reason, sig.Detail)
		}
		if sig.Author != "" || sig.SignerFile != "" || sig.SignerFingerprint != (trust.Digest{}) {
			t.Errorf("who left is shown as the signer: %+v", sig)
		}
	}
	setTrust(t, s, inForce(keyB))
	says(true)
	closeChecked(t, s)
	s = openStore(t, dir, opts)
	defer func() { closeChecked(t, s) }()
	setTrust(t, s, inForce(keyB))
	says(true)
	for _, turn := range []struct {
		n     int
		known bool
	}{{maxLeft - 1, true}, {1, false}} {
		now = now.Add(time.Second)
		var more []trust.Signer
		for n := range turn.n {
			more = append(more, trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf(fmt.Append(nil, turn.n, n))})
		}
		setTrust(t, s, inForce(more...))
		setTrust(t, s, inForce(keyB))
		says(turn.known)
	}
	var recorded remembered
	if err := s.view(func(tx *bbolt.Tx) (err error) { recorded, err = readSigners(tx); return err }); err != nil || len(recorded) != maxLeft+1 {
		t.Errorf("%d signers are recorded: %v", len(recorded), err)
	}
}

// A removal that cannot be published before the first base is not undone by that base.
func TestARemovalThatFailsBeforeTheFirstBase(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	blocked := filepath.Join(s.publishedPath(), format.CurrentName)
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.PublishTrust(inForce(), time.Now()); err == nil {
		t.Fatal("CURRENT was removed where it cannot be")
	}
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context()); err == nil {
		t.Error("a base was published under the trust before")
	}
	if err := s.PublishTrust(inForce(), time.Now()); err != nil {
		t.Fatal(err)
	}
	publish(t, s)
	want(t, openReader(t, dir), trust.Untrusted, trust.SignerRemoved)
}
