// Package cluster runs several workers over one storage, with NATS servers between them, all
// as processes of their own, and holds their answers to those of a worker that is alone.
//
// Nothing here measures time. A test waits for something observable, with a deadline that
// only a fault reaches; integration/fleet measures.
package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/natstest"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

var binary string

// torture has the histories be long.
var torture = os.Getenv("TRUST_WORKER_TORTURE") == "1"

func TestMain(m *testing.M) {
	natstest.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "trust-worker-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "trust-worker")
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/trust-worker")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "TRUST_WORKER_") || name == "STATE_DIRECTORY" {
			os.Unsetenv(name)
		}
	}
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=10 "+os.Getenv("GORACE")))
	return m.Run()
}

const deadline = 2 * time.Minute

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// fleet is storage with workers over it and NATS servers between them. The last worker is
// alone: it is what the others are held to.
type fleet struct {
	t       *testing.T
	st      *signtest.Storage
	dir     string
	servers []*natstest.Server
	workers []*worker
	alone   *worker
	key     string
}

// worker is a process of its own, that may be started again.
type worker struct {
	f      *fleet
	node   string
	root   string
	state  string
	args   []string
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
}

// newFleet makes empty storage and starts the NATS servers; no worker runs yet.
func newFleet(t *testing.T, workers, servers int) *fleet {
	t.Helper()
	dir := t.TempDir()
	f := &fleet{t: t, dir: dir, st: signtest.NewStorage(filepath.Join(dir, "registry")), servers: natstest.Servers(t, servers), key: filepath.Join(dir, "key")}
	secret := make([]byte, 32)
	rand.Read(secret) // cannot fail
	if err := os.WriteFile(f.key, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range workers {
		w := f.worker(fmt.Sprintf("w%d", n+1))
		w.joins(natstest.URLs(f.servers))
		f.workers = append(f.workers, w)
	}
	f.alone = f.worker("alone")
	return f
}

func (f *fleet) worker(node string) *worker {
	f.t.Helper()
	w := &worker{f: f, node: node, root: f.st.Dir, state: filepath.Join(f.dir, "state-"+node), log: &logBuffer{}}
	if err := os.Mkdir(w.state, 0o750); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		w.kill()
		for _, sign := range []string{"DATA RACE", "panic:", "fatal error:", "turn panicked"} {
			if strings.Contains(w.log.String(), sign) {
				f.t.Errorf("%s crashed (%s)", node, sign)
			}
		}
		if f.t.Failed() {
			f.t.Logf("log of %s:\n%s", node, w.log)
		}
	})
	return w
}

// joins has a worker take part over these servers.
func (w *worker) joins(urls string) {
	w.args = []string{"--cluster", urls, "--cluster-key", w.f.key, "--cluster-node", w.node}
}

// startAll starts everybody.
func (f *fleet) startAll() {
	f.t.Helper()
	for _, w := range append(f.workers, f.alone) {
		w.start()
	}
}

func (w *worker) start() {
	w.f.t.Helper()
	w.cmd = exec.Command(binary, append([]string{"serve", "--config", "none", "--root", w.root, "--state", w.state, "--scan-interval", "5s", "--mirror-policy=false"}, w.args...)...)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		w.f.t.Fatal(err)
	}
	cmd, exited := w.cmd, make(chan struct{})
	w.exited = exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit code is in ProcessState
	}()
}

func (w *worker) kill() {
	if w.cmd == nil {
		return
	}
	_ = w.cmd.Process.Kill() // it may have ended
	<-w.exited
	w.cmd = nil
}

func (w *worker) signal(sig syscall.Signal) {
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.f.t.Fatal(err)
	}
}

// report is what a worker says of itself.
type report struct {
	PID       int
	FirstPass bool
	Work      struct{ Verified, Taken int64 }
	Cluster   struct {
		Connected      bool
		StreamReplicas int
		Problem        string
		Members        []struct{ Alike bool }
		Refused        map[string]int64
		Given          int64
	}
}

// says waits until this process says something.
func (w *worker) says(what string, cond func(*report) bool) (r report) {
	w.f.t.Helper()
	eventually(w.f.t, w.node+" says: "+what, func() bool {
		r = report{}
		b, err := os.ReadFile(filepath.Join(w.state, "status.json"))
		return err == nil && json.Unmarshal(b, &r) == nil && w.cmd != nil && r.PID == w.cmd.Process.Pid && cond(&r)
	})
	return r
}

// together waits until all workers count on each other.
func (f *fleet) together() {
	f.t.Helper()
	for _, w := range f.workers {
		w.says("all are there", func(r *report) bool {
			alike := 0
			for _, m := range r.Cluster.Members {
				if m.Alike {
					alike++
				}
			}
			return r.Cluster.Connected && r.Cluster.StreamReplicas > 0 && alike == len(f.workers)-1
		})
	}
}

// answers are all answers of a worker as another process reads them, without what differs by
// right. The error is that there are none now.
func (w *worker) answers() (string, error) {
	r, err := cache.OpenReader(w.state)
	if err != nil {
		return "", err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return "", err
	}
	defer snap.Close()
	if snap.Stale() || snap.Partial() {
		return "", fmt.Errorf("not all is known")
	}
	var out bytes.Buffer
	err = snap.Repositories(func(repo string) error {
		return snap.Images(repo, func(img cache.Image) error {
			img.AsOf = time.Time{}
			alike(img.SignatureInfo)
			for i := range img.Manifests {
				alike(img.Manifests[i].SignatureInfo)
			}
			b, err := json.Marshal(img)
			out.Write(append(b, '\n'))
			return err
		})
	})
	return out.String(), err
}

// alike takes out what differs by right: times, and whether a signer that is not trusted once
// was, which depends on what was verified before it left.
func alike(signatures []cache.Signature) {
	for i := range signatures {
		s := &signatures[i]
		s.Since, s.VerifiedAt = nil, nil
		if s.Reason == trust.SignerRemoved {
			s.Reason = trust.NoTrustedKey
		}
		if s.Reason == trust.NoTrustedKey {
			s.Detail = ""
		}
	}
}

// stateOf is the state of one image at a worker, "" if it has none.
func (w *worker) stateOf(img signtest.Image) string {
	r, err := cache.OpenReader(w.state)
	if err != nil {
		return ""
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return ""
	}
	defer snap.Close()
	d, err := trust.ParseDigest(img.Digest.String())
	if err != nil {
		return ""
	}
	a, err := snap.Image(img.Repo, d)
	if err != nil {
		return ""
	}
	return a.State()
}

// agree waits until every worker that runs answers as the one that is alone does, and that
// has decided about everything.
func (f *fleet) agree(when string) {
	f.t.Helper()
	last := map[string]string{}
	end := time.Now().Add(deadline)
	for {
		want, err := f.alone.answers()
		ok := err == nil && !strings.Contains(want, `"Status":"pending"`)
		last["alone"] = want
		for _, w := range f.workers {
			if w.cmd == nil {
				continue
			}
			got, err := w.answers()
			last[w.node] = fmt.Sprint(got, err)
			ok = ok && err == nil && got == want
		}
		if ok {
			return
		}
		if time.Now().After(end) {
			for name, text := range last {
				f.t.Logf("%s answers:\n%s", name, text)
			}
			f.t.Fatalf("%s: the workers never agree", when)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// all waits until an image is in a state at every worker that runs.
func (f *fleet) all(img signtest.Image, state string) {
	f.t.Helper()
	for _, w := range append(f.workers, f.alone) {
		if w.cmd != nil {
			eventually(f.t, fmt.Sprintf("%s/%s is %s at %s", img.Repo, img.Tag, state, w.node), func() bool { return w.stateOf(img) == state })
		}
	}
}

// line is a connection to a NATS server that can be cut.
type line struct {
	url string
	mu  sync.Mutex
	cut bool
	all map[net.Conn]bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	is := &line{url: "nats://" + l.Addr().String(), all: map[net.Conn]bool{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go is.carry(c, strings.TrimPrefix(to, "nats://"))
		}
	}()
	return is
}

func (l *line) carry(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return
	}
	l.all[c], l.all[d] = true, true
	l.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, d}, {d, c}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // it ends with the line
			done <- struct{}{}
		}()
	}
	<-done
}

// set cuts the line, or mends it. One that is cut takes no connection.
func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut = cut; cut {
		for c := range l.all {
			c.Close()
		}
		clear(l.all)
	}
}

// logBuffer collects what processes say.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
