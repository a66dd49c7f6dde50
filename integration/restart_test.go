package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"trust-worker/internal/signtest"
)

// manySamples is storage with every kind of answer.
func manySamples(t *testing.T) *sample {
	t.Helper()
	s := newSample(t)
	stranger := signtest.NewKey(signtest.P256)
	s.Batch(func() {
		for i := range 20 {
			repo := fmt.Sprintf("team/app%d", i%4)
			s.SignSimple(s.Image(repo, fmt.Sprint("simple", i)), s.team, signtest.CosignOptions{})
			s.SignBundle(s.Image(repo, fmt.Sprint("bundle", i)), stranger, signtest.CosignOptions{})
			s.Image(repo, fmt.Sprint("unsigned", i))
		}
	})
	return s
}

func TestKillAndStartAgainVerifiesNothing(t *testing.T) {
	s := manySamples(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	before := r.all()
	d.kill()
	if got := r.all(); !reflect.DeepEqual(got, before) {
		t.Errorf("the answers changed when the daemon was killed:\n%v\n%v", before, got)
	}
	for range 3 {
		d = serve(t, s.Dir)
		if got := open(t, d.state).all(); !reflect.DeepEqual(got, before) {
			t.Errorf("the answers changed with the start:\n%v\n%v", before, got)
		}
		st := d.status(t, "the first pass is over", func(r *report) bool { return r.FirstPass })
		if st.Work.Verified != 0 || st.Work.Calls != 0 {
			t.Errorf("%d signatures verified by %d calls after a restart with nothing changed", st.Work.Verified, st.Work.Calls)
		}
		d.kill()
	}
	var sum struct{ Verified, Trusted, Errors int }
	must(t, &sum, "scan", "--root", s.Dir, "-o", "json")
	if sum.Verified != 0 || sum.Trusted != 22 || sum.Errors != 0 {
		t.Errorf("scan after that: %+v, want nothing verified and 22 trusted", sum)
	}
}

// What changes while nobody runs is found at the start, a loss of trust first.
func TestChangesWhileStopped(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	if code := d.stop(t, syscall.SIGINT); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	s.Untrust("_cosign/team.pub")
	next := signtest.NewKey(signtest.P521)
	s.TrustKey("next.pub", next)
	s.SignBundle(s.Image("app", "3"), next, signtest.CosignOptions{})
	serve(t, s.Dir)
	for tag, want := range map[string]string{"1": "untrusted", "2": "trusted", "3": "trusted"} {
		if got := r.state("app", tag); got != want {
			t.Errorf("after the first pass app:%s reads %s, want %s", tag, got, want)
		}
	}
}

func TestKilledDuringTheFirstPass(t *testing.T) {
	s := manySamples(t)
	for range 5 {
		d := start(t, serveCommand(s.Dir), filepath.Join(s.Dir, "_trust"))
		eventually(t, "it has begun", func() bool { return d.log.contains("trust in force") })
		d.kill()
	}
	d := serve(t, s.Dir)
	trusted := 0
	for name, img := range open(t, d.state).all() {
		isSimple := strings.Contains(name, ":simple") || strings.HasPrefix(name, "app:")
		if (img.State() == "trusted") != isSimple {
			t.Errorf("%s reads %s", name, img.State())
		}
		if isSimple {
			trusted++
		}
	}
	if trusted != 22 {
		t.Errorf("%d images trusted, want 22", trusted)
	}
	must(t, nil, "cache", "check", "--root", s.Dir)
}

func TestSecondDaemonIsRefused(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	for _, args := range [][]string{{"serve"}, {"scan"}, {"cache", "rebuild"}} {
		e := command(t, append(args, "--root", s.Dir)...)
		pid := d.cmd.Process.Pid
		if e.code != 1 || !strings.Contains(e.stderr, fmt.Sprintf("pid %d", pid)) || !strings.Contains(e.stderr, fmt.Sprintf("kill -USR1 %d", pid)) {
			t.Errorf("%v beside a daemon: exit code %d, %q; want 1, its pid %d and what to do", args, e.code, e.stderr, pid)
		}
	}
	// The first is unharmed, and the state directory is free once it ends.
	r := open(t, d.state)
	s.SignSimple(s.Image("app", "3"), s.team, signtest.CosignOptions{})
	r.becomes("app", "3", "trusted")
	if code := d.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, nil, "scan", "--root", s.Dir)
}

// A cache that is lost is made again, under another id, and never trusted
// meanwhile beyond what was verified.
func TestLostCacheIsMadeAgain(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	before := r.all()
	d.kill()
	if err := os.RemoveAll(d.state); err != nil {
		t.Fatal(err)
	}
	serve(t, s.Dir)
	if got := r.all(); !reflect.DeepEqual(got, before) {
		t.Errorf("answers after the loss differ:\n%v\n%v", before, got)
	}
}
