package integration

import (
	"syscall"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Expiry needs no daemon: what is published holds the date, and the reader's
// clock decides.
func TestExpiryAtItsSecondWithTheDaemonStopped(t *testing.T) {
	s := newSample(t)
	expiry := time.Now().Add(12 * time.Hour).Truncate(time.Second)
	s.SignNotation(s.Image("app", "jws"), s.root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{Expiry: expiry})
	s.SignNotation(s.Image("app", "cose"), s.root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{Expiry: expiry, COSE: true})
	ending := s.root.Leaf(signtest.CertOptions{CommonName: "Ending", NotAfter: expiry})
	s.SignNotation(s.Image("app", "certificate"), ending, signtest.NotationOptions{})
	d := serve(t, s.Dir, "--lease", "72h")
	if code := d.stop(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d at TERM", code)
	}
	for _, c := range []struct {
		tag    string
		from   time.Time // the first instant that is over
		reason trust.Reason
	}{
		{"jws", expiry, trust.SignatureExpired},
		{"cose", expiry, trust.SignatureExpired},
		{"certificate", expiry, trust.CertificateExpired},
	} {
		for _, at := range []time.Time{time.Now(), c.from.Add(-time.Nanosecond), c.from, c.from.Add(24 * time.Hour)} {
			img := open(t, d.state, cache.WithClock(func() time.Time { return at })).image("app", c.tag)
			want := cache.Signature{Status: trust.Trusted, IsTrusted: true}
			if !at.Before(c.from) {
				want = cache.Signature{Status: trust.Expired, Reason: c.reason}
			}
			got := img.SignatureInfo[0]
			if got.Status != want.Status || got.Reason != want.Reason || got.IsTrusted != want.IsTrusted {
				t.Errorf("app:%s %v from its date: %s %s, want %s %s", c.tag, at.Sub(c.from), got.Status, got.Reason, want.Status, want.Reason)
			}
			if got.Author == "" {
				t.Errorf("app:%s %v from its date: no author, though the signer is in force", c.tag, at.Sub(c.from))
			}
		}
	}
}

// On the real clock: never trusted at or after the date, and expired after it
// without anybody's doing.
func TestExpiryOnTheRealClock(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	expiry := time.Now().Add(3 * time.Second).Truncate(time.Second)
	s.SignNotation(s.Image("app", "soon"), s.root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{Expiry: expiry})
	eventually(t, "the signature expires", func() bool {
		before := time.Now()
		state := r.state("app", "soon")
		if state == "trusted" && !before.Before(expiry) {
			t.Fatalf("trusted %v after its expiry", before.Sub(expiry))
		}
		return state == "expired"
	})
}

// Nobody confirms the answers of a daemon that was killed: they end with the
// lease, however good they were.
func TestAnswersEndWithTheLease(t *testing.T) {
	s := newSample(t)
	s.Image("app", "unsigned")
	d := serve(t, s.Dir, "--lease", "30s")
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	d.kill()
	asOf := r.image("app", "1").AsOf

	stale := func(r reader, why string) {
		t.Helper()
		img := r.image("app", "1")
		if img.Code() != trust.ExitUndecided || img.SignatureInfo[0].Status != trust.Unknown || img.SignatureInfo[0].Reason != trust.Stale {
			t.Errorf("%s: reads %s %v, want unknown, stale", why, img.State(), reasons(img))
		}
		if img.SignatureInfo[0].Author != "" {
			t.Errorf("%s: an author is shown", why)
		}
	}
	at := func(at time.Time) cache.Option { return cache.WithClock(func() time.Time { return at }) }
	if state := open(t, d.state, at(asOf.Add(30*time.Second))).state("app", "1"); state != "trusted" {
		t.Errorf("at the end of the lease: reads %s", state)
	}
	stale(open(t, d.state, at(asOf.Add(30*time.Second+time.Nanosecond))), "after the lease")
	stale(open(t, d.state, at(asOf.Add(11*time.Second)), cache.WithMaxAge(10*time.Second)), "after the reader's own limit")
	if state := open(t, d.state, at(asOf.Add(-5*time.Second))).state("app", "1"); state != "trusted" {
		t.Errorf("with a clock that is a little behind: reads %s", state)
	}
	stale(open(t, d.state, at(asOf.Add(-time.Hour))), "seen first by a clock that was set back")
	if e := command(t, "status", "--root", s.Dir); e.code != 1 {
		t.Errorf("status ends with %d beside a daemon that was killed", e.code)
	}
}

// The same on the real clock, with a reader that was there all along.
func TestAnswersEndWithTheLeaseOnTheRealClock(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir, "--lease", "3s")
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	d.kill()
	r.becomes("app", "1", "unknown")
	if e := command(t, "get", "app:1", "--root", s.Dir); e.code != trust.ExitUndecided {
		t.Errorf("get ends with %d", e.code)
	}
	again := serve(t, s.Dir, "--lease", "1h")
	r.becomes("app", "1", "trusted")
	_ = again
}

// A one-shot scan is believed until the next: nobody confirms it.
func TestScanHasNoLease(t *testing.T) {
	s := newSample(t)
	must(t, nil, "scan", "--root", s.Dir)
	later := func() time.Time { return time.Now().AddDate(1, 0, 0) }
	if state := open(t, s.Dir+"/_trust", cache.WithClock(later)).state("app", "1"); state != "trusted" {
		t.Errorf("a year after the scan: reads %s", state)
	}
	if state := open(t, s.Dir+"/_trust", cache.WithClock(later), cache.WithMaxAge(time.Hour)).state("app", "1"); state != "unknown" {
		t.Errorf("a year after the scan, with a limit of an hour: reads %s", state)
	}
}

// A daemon that is frozen confirms nothing: its answers end with the lease. Once
// it goes on they are back, and what changed meanwhile is not among them.
func TestFrozenDaemonLosesItsLease(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir, "--lease", "3s")
	r := open(t, d.state)
	for range 2 {
		r.becomes("app", "1", "trusted")
		d.signal(t, syscall.SIGSTOP)
		r.becomes("app", "1", "unknown")
		if got := reasons(r.image("app", "1")); len(got) != 1 || got[0] != trust.Stale {
			t.Errorf("reasons %v, want stale", got)
		}
		s.Untrust("_cosign/team.pub")
		d.signal(t, syscall.SIGCONT)
		eventually(t, "the key's removal shows", func() bool {
			state := r.state("app", "1")
			if state == "trusted" {
				t.Fatal("WRONGLY TRUSTED: app:1, whose key was removed while the daemon was frozen")
			}
			return state == "untrusted"
		})
		r.becomes("app", "2", "trusted")
		s.TrustKey("team.pub", s.team)
	}
	r.becomes("app", "1", "trusted")
	if code := d.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
