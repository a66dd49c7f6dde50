package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// fatalRoot is set in the environment of a child that scans until it dies.
const fatalRoot, fatalSignature = "TRUST_WORKER_FATAL_ROOT", "TRUST_WORKER_FATAL_SIGNATURE"

func TestMain(m *testing.M) {
	if root := os.Getenv(fatalRoot); root != "" {
		os.Exit(scanToDeath(root, os.Getenv(fatalSignature)))
	}
	goleak.VerifyTestMain(m)
}

// scanToDeath scans as a process of its own, in which verifying one signature
// ends in an error that nothing recovers from.
func scanToDeath(root, signature string) int {
	debug.SetMaxStack(1 << 20)
	w := &world{t: &testing.T{}, st: &signtest.Storage{Dir: root}, state: filepath.Join(filepath.Dir(root), "state")}
	s := w.scheduler()
	s.verify = func(ctx context.Context, v *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
		if r.Signature.Digest.String() == signature {
			sink = overflow(1)
		}
		return v.Verify(ctx, r)
	}
	if err := s.Scan(context.Background(), false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// overflow never ends, which the compiler and its friends must not see.
func overflow(n int) int {
	if n == 0 {
		return 0
	}
	return overflow(n+1) + 1
}

var sink int

// A signature that kills whoever verifies it costs two processes, not more, and
// nobody else's answer.
func TestWhatKillsTheProcessIsQuarantined(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("key.pub", key)
	var good []signtest.Image
	for i := range 30 {
		img := w.st.Image(fmt.Sprint("repo", i%3), fmt.Sprint(i))
		w.st.SignSimple(img, key, signtest.CosignOptions{})
		good = append(good, img)
	}
	bad := w.st.Image("repo1", "bad")
	signature := w.st.SignSimple(bad, key, signtest.CosignOptions{})
	deaths := 0
	for ; ; deaths++ {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), fatalRoot+"="+w.st.Dir, fatalSignature+"="+signature.Digest.String(), "GORACE=atexit_sleep_ms=10")
		var errs bytes.Buffer
		c.Stderr = &errs
		err := c.Run()
		if err == nil {
			break
		}
		if deaths == 2 || !strings.Contains(errs.String(), "stack overflow") {
			t.Fatalf("after %d deaths: %v\n%.2000s", deaths, err, &errs)
		}
	}
	if deaths != 2 {
		t.Errorf("%d processes died, want 2", deaths)
	}
	for _, img := range good {
		w.want(img, "trusted")
	}
	w.want(bad, "unknown")
	w.reason(bad, trust.LimitExceeded)

	// Here it would verify; it is left alone, and said so.
	s := w.scheduler()
	if err := s.Scan(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.QuarantinedAll != 1 || st.Quarantined[0] != signature.Digest.String() {
		t.Errorf("status: %d %v", st.QuarantinedAll, st.Quarantined)
	}
	w.want(bad, "unknown")

	// Another epoch of the verifier begins anew.
	if v := openCrashes(w.store.PrivatePath("verifying"), verifier.Epoch+1, slog.New(slog.DiscardHandler)); v.deaths(signature.Trust()) != 0 {
		t.Error("another epoch still holds it")
	} else if err := v.close(); err != nil {
		t.Error(err)
	}
}

// A process that dies for other reasons blames nobody for long: what was being
// verified is verified alone at the next start, and is no suspect any more.
func TestDeathsForOtherReasonsBlameNobody(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("key.pub", key)
	img := w.st.Image("repo", "1")
	signature := w.st.SignSimple(img, key, signtest.CosignOptions{})
	for range 5 {
		w.scheduler()
		v := openCrashes(w.store.PrivatePath("verifying"), verifier.Epoch, slog.New(slog.DiscardHandler))
		v.begin(signature.Trust()) // and died
		if err := v.close(); err != nil {
			t.Fatal(err)
		}
		v = openCrashes(w.store.PrivatePath("verifying"), verifier.Epoch, slog.New(slog.DiscardHandler))
		if n := v.deaths(signature.Trust()); n != 1 {
			t.Fatalf("%d deaths, want 1", n)
		}
		done := v.begin(signature.Trust())
		done()
		if n := v.deaths(signature.Trust()); n != 0 {
			t.Fatalf("%d deaths after it was verified", n)
		}
		if err := v.close(); err != nil {
			t.Fatal(err)
		}
	}
	w.scan()
	w.want(img, "trusted")
}

// A panic costs the layer that caused it: it is counted, reads unknown, is tried
// once more and then left alone. The layer beside it and all others have their
// verdicts.
func TestPanicIsQuarantined(t *testing.T) {
	for _, inGuard := range []bool{true, false} {
		t.Run(fmt.Sprint("in the verifier ", inGuard), func(t *testing.T) {
			w := newWorld(t)
			key, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
			w.st.TrustKey("key.pub", key)
			good, bad := w.st.Image("repo", "good"), w.st.Image("repo", "bad")
			w.st.SignSimple(good, key, signtest.CosignOptions{})
			w.st.SignSimple(bad, other, signtest.CosignOptions{})
			signature := w.st.SignSimple(bad, key, signtest.CosignOptions{}) // layer 1 of the same manifest
			s := w.scheduler()
			var crashes atomic.Int64
			s.verify = func(ctx context.Context, v *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
				if r.Signature.Digest != signature.Trust() {
					return v.Verify(ctx, r)
				}
				if !inGuard {
					crashes.Add(1)
					panic("this one")
				}
				skipped := r.Skip(0)
				o, err := v.Verify(ctx, r)
				if !skipped && err == nil { // as a library that panics on the first layer
					crashes.Add(1)
					o.Panics++
					o.Layers[0] = verifier.LayerOutcome{Verdict: trust.Verdict{Format: trust.SimpleSigning, Layer: o.Layers[0].Verdict.Layer},
						Problem: trust.LimitExceeded, Panicked: true}
				}
				return o, err
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-s.FirstPass()
			eventually(t, "it is tried again and then quarantined", func() bool { return s.Status().QuarantinedAll == 1 })
			again := crashes.Load()
			for range 3 { // nothing makes it be tried once more
				walks := s.Work().Walks
				s.Rescan()
				eventually(t, "a pass", func() bool { return s.Work().Walks > walks && s.agenda.size() == 0 })
			}
			if n := crashes.Load(); n != tolerated || again != n {
				t.Errorf("tried %d times, then %d", again, n)
			}
			if n := s.Work().Panics; n != tolerated {
				t.Errorf("%d panics counted", n)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			w.want(good, "trusted")
			img := w.image(bad)
			reason := img.SignatureInfo[0].Reason
			if len(img.SignatureInfo) == 0 || reason != trust.LimitExceeded {
				t.Errorf("the layer that panics: %s", reason)
			}
			if trusted := img.SignatureInfo[len(img.SignatureInfo)-1].Status == trust.Trusted; trusted != inGuard {
				t.Errorf("the layer beside it: %+v", img.SignatureInfo)
			}
		})
	}
}
