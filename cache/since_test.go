package cache_test

import (
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// An answer says since when it is what it is, also to readers of a daemon that has been
// restarted: when the key came, when it left, and when it came back.
func TestSince(t *testing.T) {
	now := time.Now().Truncate(time.Second).Add(-time.Hour)
	opts := store.Options{Now: func() time.Time { return now }}
	dir := t.TempDir()
	s := openStore(t, dir, opts)
	r := openReader(t, dir, cache.WithClock(func() time.Time { return now }))
	want := func(step string, status trust.Status, at time.Time) {
		t.Helper()
		snap := snapshot(t, r)
		img, err := snap.Image("team/app", image)
		if err != nil {
			t.Fatal(err)
		}
		sig := img.SignatureInfo[0]
		if sig.Status != status || sig.Since == nil || !sig.Since.Equal(at) {
			t.Errorf("%s: %s since %v, want %s since %s", step, sig.Status, sig.Since, status, at)
		}
	}
	fact := signedBy(keyA)
	verified := now.Add(-time.Hour)
	fact.Verdicts[0].VerifiedAt = verified.Unix()
	came := now
	setTrust(t, s, inForce(keyA, keyB))
	mustCommit(t, s, world(fact))
	publish(t, s)
	want("the key came after the signature was verified", trust.Trusted, came)
	now = now.Add(time.Minute)
	closeChecked(t, s)
	s = openStore(t, dir, opts)
	setTrust(t, s, inForce(keyA, keyB))
	want("restarted", trust.Trusted, came)
	now = now.Add(time.Minute)
	left := now
	setTrust(t, s, inForce(keyB))
	want("the key left", trust.Untrusted, left)
	now = now.Add(time.Minute)
	closeChecked(t, s)
	s = openStore(t, dir, opts)
	setTrust(t, s, inForce(keyB))
	want("restarted without it", trust.Untrusted, left)
	now = now.Add(time.Minute)
	setTrust(t, s, inForce(keyA, keyB))
	want("the key is back", trust.Trusted, now)
	closeChecked(t, s)
}
