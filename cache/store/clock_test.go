package store

import (
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// The wall clock jumps by a day either way while the daemon runs, and is set
// right again. An answer that ended meanwhile is never trusted after that, and
// none is lost for longer than until the next confirmation.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			dir := t.TempDir()
			start := time.Now().Round(0) // the wall clock alone
			now := start
			clock := func() time.Time { return now }
			s := openStore(t, dir, Options{Lease: 5 * time.Minute, Now: clock})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			ends := start.Add(time.Hour)
			f := signedBy(keyA)
			f.Verdicts[0].Grounds[0].Until = ends.Unix()
			f.Verdicts[0].Grounds[0].Limit = trust.SignatureExpired
			mustCommit(t, s, world(f))
			publish(t, s)
			r := openReader(t, dir, cache.WithClock(clock))
			confirm := func() {
				t.Helper()
				if err := s.Confirm(now); err != nil {
					t.Fatal(err)
				}
				r = openReader(t, dir, cache.WithClock(clock)) // a reader looks again only each second
			}
			confirm()
			want(t, r, trust.Trusted, "")

			now = start.Add(jump) // wrong
			if st, _ := status(t, r); jump > 0 && st == trust.Trusted {
				t.Error("trusted a day after the last confirmation")
			}
			confirm()
			if jump > 0 {
				want(t, r, trust.Expired, trust.SignatureExpired)
			} else {
				want(t, r, trust.Trusted, "") // by the only clock that there is
			}
			setTrust(t, s, inForce(keyA, keyB)) // something is published with that clock

			now = start.Add(2 * time.Minute) // right again
			confirm()
			want(t, r, trust.Trusted, "")
			now = ends.Add(-time.Second)
			confirm()
			want(t, r, trust.Trusted, "")
			now = ends
			want(t, r, trust.Expired, trust.SignatureExpired)
			confirm()
			want(t, r, trust.Expired, trust.SignatureExpired)
		})
	}
}

// What a clock that was ahead put off for a day is due once it is right.
func TestDueAfterTheClockWasAhead(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	now := time.Now().Truncate(time.Second)
	longest := time.Hour
	var rows []Row
	for i, at := range []time.Duration{-time.Minute, time.Minute, time.Hour, 24 * time.Hour, 25 * time.Hour} {
		rows = append(rows, Row{Digest: trust.SumOf([]byte{byte(i)}), Present: true,
			References: []Reference{{Digest: signature, Carrier: 1, Attempts: 1, NextTry: now.Add(at).Unix()}}})
	}
	mustCommit(t, s, Batch{Place: "p", Rows: rows})
	due, next, err := s.DueNow(now, longest, 10)
	if err != nil || len(due) != 3 || !next.Equal(now.Add(time.Minute)) {
		t.Fatalf("%d due, next at %v, %v", len(due), next.Sub(now), err)
	}
	for k, i := range []int{0, 3, 4} {
		if due[k].Subject != rows[i].Digest {
			t.Errorf("entry %d is not row %d", k, i)
		}
	}
	if due, next, err = s.DueNow(now, longest, 2); err != nil || len(due) != 2 || !next.Equal(now.Add(time.Minute)) {
		t.Errorf("with a limit: %d due, next at %v, %v", len(due), next.Sub(now), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A process that is frozen between its look at the trust directories and the
// confirmation confirms what it saw when it saw it.
func TestConfirmationIsAsOldAsTheLook(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: time.Minute})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	looked := time.Now()
	later := func() time.Time { return looked.Add(2 * time.Minute) } // when the process goes on
	if err := s.Confirm(looked); err != nil {
		t.Fatal(err)
	}
	want(t, openReader(t, dir, cache.WithClock(later)), trust.Unknown, trust.Stale)
}

// The same between its look and the publication of what it saw.
func TestPublicationIsAsOldAsTheLook(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Lease: time.Minute})
	defer closeChecked(t, s)
	setTrust(t, s, inForce())
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	if err := s.PublishTrust(inForce(keyA), time.Now().Add(-2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	want(t, openReader(t, dir), trust.Unknown, trust.Stale)
	if err := s.Confirm(time.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, openReader(t, dir), trust.Trusted, "")
}

// A reader whose clock is set back after the daemon's death believes what is
// published no longer than without that: what counts is also for how long it has
// seen no confirmation, also across publications.
func TestLeaseUnderAClockThatGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{})
		defer closeChecked(t, s)
		setTrust(t, s, inForce(keyA))
		mustCommit(t, s, world(signedBy(keyA)))
		publish(t, s)
		back := time.Duration(0)
		r := openReader(t, dir, cache.WithClock(func() time.Time { return time.Now().Add(-back) }))
		want(t, r, trust.Trusted, "")
		back = time.Hour
		time.Sleep(DefaultLease - 10*time.Second)
		want(t, r, trust.Trusted, "")
		mustCommit(t, s, Batch{Place: "more", Rows: []Row{{Digest: image, Present: true}}})
		publish(t, s) // but trust is not confirmed
		want(t, r, trust.Trusted, "")
		time.Sleep(20 * time.Second)
		want(t, r, trust.Unknown, trust.Stale)
		if err := s.Confirm(time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // a reader looks at the confirmation each second
		want(t, r, trust.Trusted, "")
	})
}
