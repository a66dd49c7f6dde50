package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/faulttest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// torture is set by make torture.
var torture = os.Getenv("TRUST_WORKER_TORTURE") == "1"

// torn is storage that the real tools signed, with keys and repositories that
// come and go, and what the tools say of it.
type torn struct {
	t     *testing.T
	dir   string
	spare string // what is not in storage at present
	rnd   *rand.Rand
	// accepted holds, by repository and digest, the key files that some mode
	// of the tool accepts; "policy" stands for notation's.
	accepted map[string][]string
	keys     map[string]keyFile
	// since are the key files that have been in _cosign since the last start.
	since            map[string]bool
	notation         bool
	faults, compared int
}

// tornRepositories are those on which the tools and we agree (docs/differences.md
// has the others).
var tornRepositories = map[string][]string{
	"cosign2":  {"keys/p256", "keys/p384", "keys/rsa2048", "docker", "team", "swapped", "untrusted"},
	"notation": {"keys/p256", "docker", "swapped", "untrusted"},
}

func newTorn(t *testing.T, seed uint64) *torn {
	t.Helper()
	tmp := t.TempDir()
	s := &torn{t: t, dir: filepath.Join(tmp, "registry"), spare: filepath.Join(tmp, "spare"), rnd: rand.New(rand.NewPCG(seed, 6)),
		accepted: map[string][]string{}, since: map[string]bool{}}
	for _, d := range []string{s.dir, s.spare} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for root, repositories := range tornRepositories {
		v := loadVerdicts(t, root)
		for _, name := range repositories {
			if err := os.CopyFS(filepath.Join(s.dir, root, name), os.DirFS(filepath.Join(testdata, root, name))); err != nil {
				t.Fatal(err)
			}
			for _, img := range v.Images {
				if img.Repository != name && !strings.HasPrefix(img.Repository, name+"/") {
					continue
				}
				id := root + "/" + img.Repository + "@" + img.Digest.String()
				for mode, r := range img.Results {
					if root == "cosign2" || mode == "notation/default" {
						s.accepted[id] = append(s.accepted[id], r.Accepted...)
					}
				}
			}
		}
	}
	copyInto := func(from, to string) {
		if err := os.CopyFS(filepath.Join(s.dir, to), os.DirFS(filepath.Join(testdata, from, to))); err != nil {
			t.Fatal(err)
		}
	}
	copyInto("cosign2", "_cosign")
	copyInto("notation", "_notation")
	usePolicy(t, s.dir, "default.json")
	s.keys = keyFiles(t, s.dir)
	s.settled()
	return s
}

// settled begins a new turn: what was in force before no longer is.
func (s *torn) settled() {
	s.since, s.notation = map[string]bool{}, false
	s.see()
}

// see notes what is in force now, before it changes.
func (s *torn) see() {
	entries, err := os.ReadDir(filepath.Join(s.dir, "_cosign"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		s.since[e.Name()] = true
	}
	if _, err := os.Stat(filepath.Join(s.dir, "_notation")); err == nil {
		s.notation = true
	}
}

// change moves a key, the certificates or a repository out of storage or back,
// by rename.
func (s *torn) change() {
	movable := []string{"_cosign/p256.pub", "_cosign/p384.pub", "_cosign/rsa2048.pub", "_cosign/p256-second.pub", "_notation",
		"cosign2/docker", "cosign2/keys/p256", "notation/docker"}
	name := movable[s.rnd.IntN(len(movable))]
	here, there := filepath.Join(s.dir, name), filepath.Join(s.spare, strings.ReplaceAll(name, "/", "+"))
	s.see()
	if os.Rename(here, there) != nil {
		if err := os.Rename(there, here); err != nil {
			s.t.Fatal(err)
		}
	}
	s.see()
}

// answersNow reads as another program does. Nothing published is no answers.
func (s *torn) answersNow() map[string]cache.Image {
	s.t.Helper()
	state := filepath.Join(s.dir, "_trust")
	if _, err := os.Stat(state); err != nil {
		return nil
	}
	r, err := cache.OpenReader(state)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	if snap, err := r.Snapshot(); err != nil {
		return nil
	} else {
		snap.Close()
	}
	return reader{s.t, r}.all()
}

// check holds answers to the tools' verdicts under the keys that were in force
// at some time in this turn.
func (s *torn) check(images map[string]cache.Image, when string) {
	s.t.Helper()
	file := map[trust.Digest]string{}
	for name, k := range s.keys {
		file[k.fingerprint] = name
	}
	one := func(id string, signatures []cache.Signature) {
		s.compared++
		for _, sig := range signatures {
			if !sig.IsTrusted {
				continue
			}
			key, inForce := file[sig.SignerFingerprint], false
			if sig.Tool == trust.Notation {
				key, inForce = "policy", s.notation
			} else {
				inForce = s.since[key]
			}
			if !inForce || !slices.Contains(s.accepted[id], key) {
				s.t.Errorf("WRONGLY TRUSTED %s: %s by %q, in force: %v; the tool accepts %v", when, id, key, inForce, s.accepted[id])
			}
		}
	}
	for _, img := range images {
		one(img.RepoName+"@"+img.Digest.String(), img.SignatureInfo)
	}
}

// settle starts the daemon undisturbed and holds its answers to a scan into a
// new cache, and some to verify, both from storage alone.
func (s *torn) settle(args ...string) {
	s.t.Helper()
	d := serve(s.t, s.dir, args...)
	s.settled()
	got := s.answersNow()
	d.kill()
	s.check(got, "once settled")
	forget(got)
	want := s.fromStorage()
	if !reflect.DeepEqual(got, want) {
		for name := range want {
			if !reflect.DeepEqual(got[name], want[name]) {
				s.t.Errorf("%s: settled and from storage alone differ:\n  %+v\n  %+v", name, got[name], want[name])
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				s.t.Errorf("%s is answered and not in storage", name)
			}
		}
	}
	if len(want) == 0 {
		s.t.Error("storage has no images")
	}
	var some []cache.Image
	for _, img := range got { // in random order
		if img.Tag != "" && len(some) < 2 {
			some = append(some, img)
		}
	}
	compareWithVerify(s.t, s.dir, some)
	s.compared += len(got)
}

// forget makes of what was trusted once what storage alone can tell of it.
func forget(images map[string]cache.Image) {
	for _, img := range images {
		all := [][]cache.Signature{img.SignatureInfo}
		for _, m := range img.Manifests {
			all = append(all, m.SignatureInfo)
		}
		for _, signatures := range all {
			for i := range signatures {
				if signatures[i].Reason == trust.SignerRemoved {
					signatures[i].Reason, signatures[i].Detail = trust.NoTrustedKey, ""
				}
			}
		}
	}
}

// memory is what the daemon remembers of the trust in force, "" if it has not begun.
func (s *torn) memory() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "_trust", truststore.MemoryFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(b)
}

// fromStorage is every answer, made anew.
func (s *torn) fromStorage() map[string]cache.Image {
	s.t.Helper()
	state := s.t.TempDir()
	// What was in force before is no part of storage.
	if memory := s.memory(); memory != "" {
		if err := os.WriteFile(filepath.Join(state, truststore.MemoryFile), []byte(memory), 0o640); err != nil {
			s.t.Fatal(err)
		}
	}
	must(s.t, nil, "scan", "--root", s.dir, "--state", state)
	return open(s.t, state).all()
}

// serveUnder runs the daemon by a command until it ends or has seen all changes.
func (s *torn) serveUnder(made func(argv ...string) *exec.Cmd, changes int) (ended bool) {
	s.t.Helper()
	state := filepath.Join(s.dir, "_trust")
	cmd := made(binary, "serve", "--root", s.dir, "--scan-interval", "150ms", "--log-level", "warn")
	d := start(s.t, cmd, state)
	s.t.Cleanup(func() { killTraced(d) })
	held := func() bool { return d.ended() || cache.Alive(state) }
	eventually(s.t, "the daemon has its state or has ended", held)
	target := filepath.Join(state, "published", "CURRENT")
	for range changes {
		before, _ := os.Readlink(target)
		s.change()
		// Most changes are published; one that is not is not waited for.
		for tries := 0; tries < 60 && !d.ended(); tries++ {
			if now, _ := os.Readlink(target); now != before {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if d.ended() {
			return true
		}
	}
	killTraced(d)
	return false
}

// killTraced kills the daemon itself: strace, which it runs under, then ends. The
// lock does not tell which process that is when writing it is what has failed: it
// names nobody, or an earlier daemon.
func killTraced(d *daemon) {
	strace := d.cmd.Process.Pid
	for {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", strace)) // none when it has ended
		for _, child := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(child); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
		select {
		case <-d.exited:
			return
		case <-time.After(20 * time.Millisecond): // strace may not have begun it yet
		}
	}
}

// points are the system calls of a daemon that sees some changes.
func (s *torn) points(calls []string, concerning string) []faulttest.Point {
	s.t.Helper()
	trace := filepath.Join(s.t.TempDir(), "trace")
	s.serveUnder(func(argv ...string) *exec.Cmd { return faulttest.Watching(trace, calls, argv...) }, 4)
	return faulttest.Points(s.t, trace, concerning)
}

// Killed at a system call by which it changes its state — while it makes a new
// one, verifies, publishes, or follows keys and repositories that come and go —
// the daemon leaves no wrong answer, and the next start finds the right ones.
func TestKillDaemonAtSystemCalls(t *testing.T) {
	faulttest.Need(t)
	t.Parallel()
	turns := 5
	if torture {
		turns = 100
	}
	s := newTorn(t, 1)
	points := s.points(faulttest.Changing, filepath.Join(s.dir, "_trust"))
	killed := map[string]int{}
	for turn := range turns {
		if turn%3 == 0 { // its first start is at risk as well
			if err := os.RemoveAll(filepath.Join(s.dir, "_trust")); err != nil {
				t.Fatal(err)
			}
		}
		f := faulttest.Fault{Point: points[s.rnd.IntN(len(points))], Kill: true}
		if s.serveUnder(func(argv ...string) *exec.Cmd { return faulttest.Command(f, argv...) }, 6) {
			s.faults++
			killed[f.Call]++
		}
		s.check(s.answersNow(), "after the kill")
		s.settle()
		if t.Failed() {
			t.Fatalf("turn %d, %s: %s", turn, f, f.Line)
		}
	}
	t.Logf("%d turns, killed at a system call %d times (%v) and at once otherwise, %d answers compared, 0 wrongly trusted, 0 lost", turns, s.faults, killed, s.compared)
}

// A system call of the daemon's that fails, once on each of its threads — a read of storage or of the trust
// directories, a write or an fsync of its state — makes nothing trusted, is not
// remembered as a verdict, and is made good without a restart (C6). A daemon that
// cannot even begin says so and ends.
func TestKillNothingButFailDaemonSystemCalls(t *testing.T) {
	faulttest.Need(t)
	t.Parallel()
	turns := 4
	if torture {
		turns = 40
	}
	s := newTorn(t, 2)
	points := s.points(slices.Concat(faulttest.Changing, faulttest.Reading), s.dir)
	failed, ended := map[string]int{}, 0
	for turn := range turns {
		if turn%2 == 0 {
			if err := os.RemoveAll(filepath.Join(s.dir, "_trust")); err != nil {
				t.Fatal(err)
			}
		}
		f := faulttest.Fault{Point: points[s.rnd.IntN(len(points))], Errno: []string{"EIO", "ENOSPC", "ENOMEM"}[s.rnd.IntN(3)]}
		failed[f.Call]++
		if s.heals(f) {
			ended++
		}
		s.settle()
		if t.Failed() {
			t.Fatalf("turn %d, %s: %s", turn, f, f.Line)
		}
	}
	t.Logf("%d turns, failed at %v, the daemon ended %d times, %d answers compared, 0 wrongly trusted, 0 lost", turns, failed, ended, s.compared)
}

// runtimeHit says that a fault has hit not the program but what it runs on.
// Counting by thread can hit the eventfd by which Go's runtime wakes itself, or
// the loading of a program with cgo, as one with the race detector is: that ends
// any program, and counts as a kill here.
func runtimeHit(log string) bool {
	return strings.Contains(log, "runtime: netpollBreak write failed") || strings.Contains(log, "error while loading shared libraries")
}

// heals runs the daemon with a fault, changes things, and waits until its answers
// are those that storage gives. One that ends has to say why.
func (s *torn) heals(f faulttest.Fault) (ended bool) {
	s.t.Helper()
	cmd := faulttest.Command(f, binary, "serve", "--root", s.dir, "--scan-interval", "150ms", "--lease", "6s", "--log-level", "warn")
	state := filepath.Join(s.dir, "_trust")
	d := start(s.t, cmd, state)
	s.t.Cleanup(func() { killTraced(d) })
	eventually(s.t, "the daemon has its state or has ended", func() bool { return d.ended() || cache.Alive(state) })
	for range 2 {
		s.change()
		s.check(s.answersNow(), "beside a failing call")
	}
	want, memory := s.fromStorage(), s.memory()
	s.t.Cleanup(func() {
		if s.t.Failed() {
			got := s.answersNow()
			forget(got)
			for name := range want {
				if !reflect.DeepEqual(got[name], want[name]) {
					s.t.Logf("%s:\n  %+v\n  %+v", name, got[name], want[name])
				}
			}
		}
	})
	eventually(s.t, "the answers are those of storage after "+f.String(), func() bool {
		if d.ended() {
			return true
		}
		if now := s.memory(); now != memory { // it could not be written before
			want, memory = s.fromStorage(), now
		}
		got := s.answersNow()
		s.check(got, "beside a failing call")
		forget(got)
		return reflect.DeepEqual(got, want)
	})
	if d.ended() {
		code, log := d.cmd.ProcessState.ExitCode(), d.log.String()
		if !runtimeHit(log) && (code != 1 || log == "") {
			s.t.Errorf("%s ends the daemon with %d and says %q", f, code, log)
		}
		return true
	}
	killTraced(d)
	return false
}
