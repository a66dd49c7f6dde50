package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

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
	// What comes back had a number, and is there at once.
	if err := s.PublishTrust(inForce(keys[9:]...), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := trusted(); !slices.Equal(got, []int{9, 10, 11}) || s.Lacking() {
		t.Errorf("trusted: %v, lacking %v", got, s.Lacking())
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

// A signer that is new gets its number after the transaction; a removal that came
// meanwhile is not taken back by that.
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
	if err := s.PublishTrust(both, time.Now()); err != nil || !s.Lacking() {
		t.Fatalf("lacking %v: %v", s.Lacking(), err)
	}
	var g sync.WaitGroup
	g.Go(func() { // waits for the transaction
		if change, _, err := s.RecordTrust(both); err != nil || !slices.Equal(change.Added, []trust.Signer{keyB}) {
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
	if s.Lacking() {
		t.Error("the new signer is not published")
	}
	if inForce := snapshot(t, r).g.trust.inForce; !inForce.Has(keyB) || inForce.Has(keyA) {
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
	var full, recount uint64
	if err := s.view(func(tx *bbolt.Tx) error {
		full, recount = getMeta(tx, metaFull), getMeta(tx, metaRecount)
		return nil
	}); err != nil || full == 0 || recount == 0 {
		t.Errorf("full %d, recount %d: %v", full, recount, err)
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
	a, b := TrustChange{Added: []trust.Signer{keyA}, First: true}, TrustChange{Removed: []trust.Signer{keyA}, Policies: true}
	if got := a.And(b); !reflect.DeepEqual(got, TrustChange{Added: []trust.Signer{keyA}, Removed: []trust.Signer{keyA}, First: true, Policies: true}) {
		t.Errorf("%+v", got)
	}
}

// A signer that this cache has never had is published by the next try when the trust
// file that would have named it cannot be written.
func TestANewSignerWhoseTrustFileFails(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world())
	publish(t, s)
	keyC := trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key C"))}
	withC := inForce(keyA, keyB, keyC)
	if err := s.PublishTrust(withC, time.Now()); err != nil || !s.Lacking() {
		t.Fatalf("lacking %v: %v", s.Lacking(), err)
	}
	blocked := filepath.Join(s.publishedPath(), fileName("trust", s.Generation()+1)+".new")
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.RecordTrust(withC); err == nil {
		t.Fatal("a trust file was written where none can be")
	}
	if !s.Lacking() {
		t.Error("what could not be published does not lack")
	}
	if _, _, err := s.RecordTrust(withC); err != nil || s.Lacking() {
		t.Errorf("lacking %v: %v", s.Lacking(), err)
	}
}
