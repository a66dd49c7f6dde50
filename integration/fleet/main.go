// Command fleet measures workers that share facts over NATS: how evenly and how fast they
// divide a first pass, what one who comes later takes, and how long keys, pushes and a worker
// that fails take to show at all of them. The workers are the built trust-worker, the NATS
// server is this program again.
//
//	make bench-fleet N=50000
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"trust-worker/internal/natstest"
)

var (
	n     = flag.Int("n", 10_000, "signatures")
	bin   = flag.String("bin", "bin/trust-worker", "the built program")
	scale = flag.String("scale", "bin/scale", "the program that makes the storage")
	dir   = flag.String("dir", "", "where storage and states are; storage that is there is used (default: a temporary directory, removed at the end)")
	only  = flag.String("only", "", "passes, late or changes (default: all)")
)

func main() {
	natstest.Main()
	flag.Parse()
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench is what is measured on.
type bench struct {
	dir, root string
	nats      *natstest.Server
	workers   []*worker
	states    int
}

// worker is a trust-worker in its process.
type worker struct {
	state string
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{}
}

// report is what a worker leaves in status.json.
type report struct {
	PID          int
	FirstPass    bool
	Updated      time.Time
	Work         struct{ Verified, Taken int64 }
	Repositories int
	Cluster      struct {
		Connected      bool
		StreamReplicas int
		Members        []struct{ Alike bool }
	}
}

func row(what, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, args...))
}

func measure() (err error) {
	b := &bench{dir: *dir}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "fleet-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	b.root = filepath.Join(b.dir, "storage", "registry")
	if _, err := os.Stat(b.root); err != nil {
		cmd := exec.Command(*scale, "-bin", *bin, "-n", strconv.Itoa(*n), "-dir", filepath.Join(b.dir, "storage"), "-until", "first pass")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("make the storage: %w", err)
		}
	}
	servers, err := natstest.Begin(filepath.Join(b.dir, "nats"), 1)
	if err != nil {
		return err
	}
	b.nats = servers[0]
	defer func() {
		for _, w := range b.workers {
			w.stop(syscall.SIGKILL)
		}
		b.nats.Kill()
	}()
	fmt.Printf("%d signatures, %s\n\n| what | measured |\n|---|---|\n", *n, time.Now().Format(time.DateOnly))
	for _, part := range []struct {
		name string
		run  func() error
	}{{"passes", b.passes}, {"late", b.late}, {"changes", b.changes}} {
		if *only == "" || *only == part.name {
			if err := part.run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// newKey makes the key of another cluster.
func (b *bench) newKey() (string, error) {
	secret := make([]byte, 32)
	rand.Read(secret) // cannot fail
	b.states++
	path := filepath.Join(b.dir, fmt.Sprintf("key%d", b.states))
	return path, os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(secret)), 0o600)
}

// start starts a worker on a fresh state; key "" is one that is alone.
func (b *bench) start(key string, processors int, args ...string) (*worker, error) {
	b.states++
	w := &worker{state: filepath.Join(b.dir, fmt.Sprintf("state%d", b.states)), done: make(chan struct{})}
	if err := os.Mkdir(w.state, 0o750); err != nil {
		return nil, err
	}
	all := []string{"serve", "--config", "none", "--root", b.root, "--state", w.state}
	if key != "" {
		all = append(all, "--cluster", b.nats.URL, "--cluster-key", key, "--cluster-node", fmt.Sprint("w", b.states))
	}
	w.cmd = exec.Command(*bin, append(all, args...)...)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if processors > 0 {
		w.cmd.Env = append(os.Environ(), fmt.Sprint("GOMAXPROCS=", processors))
	}
	w.began = time.Now()
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(w.done)
		_ = w.cmd.Wait() // what it says does not matter here
	}()
	b.workers = append(b.workers, w)
	return w, nil
}

func (w *worker) stop(sig syscall.Signal) {
	_ = w.cmd.Process.Signal(sig) // it may have ended
	<-w.done
}

func (w *worker) report() (r report) {
	b, err := os.ReadFile(filepath.Join(w.state, "status.json"))
	if err != nil || json.Unmarshal(b, &r) != nil || r.PID != w.cmd.Process.Pid {
		return report{}
	}
	return r
}

func (w *worker) until(holds func(report) bool) (report, error) {
	for end := time.Now().Add(20 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if r := w.report(); holds(r) {
			return r, nil
		}
		if time.Now().After(end) {
			return report{}, fmt.Errorf("waited for 20 minutes")
		}
	}
}

// passed is what first passes of workers took: the longest, and what they did together.
type passed struct {
	took            time.Duration
	verified, taken int64
}

// pass starts so many workers of one processor each at once, and returns what their first
// passes took. They stop then.
func (b *bench) pass(count int, key string, processors int) (p passed, err error) {
	var all []*worker
	for range count {
		w, err := b.start(key, processors)
		if err != nil {
			return p, err
		}
		all = append(all, w)
	}
	for _, w := range all {
		r, err := w.until(func(r report) bool { return r.FirstPass })
		if err != nil {
			return p, err
		}
		p.took = max(p.took, r.Updated.Sub(w.began))
		p.verified, p.taken = p.verified+r.Work.Verified, p.taken+r.Work.Taken
	}
	for _, w := range all {
		w.stop(syscall.SIGTERM)
		if err := os.RemoveAll(w.state); err != nil {
			return p, err
		}
	}
	return p, nil
}

// passes measures how a first pass is divided.
func (b *bench) passes() error {
	key, err := b.newKey()
	if err != nil {
		return err
	}
	alone, err := b.pass(2, "", 1)
	if err != nil {
		return err
	}
	row("first pass, two workers of one processor each that share nothing", "%.2f s; each verified %d manifests", alone.took.Seconds(), alone.verified/2)
	shared, err := b.pass(2, key, 1)
	if err != nil {
		return err
	}
	row("first pass, the same in a cluster", "%.2f s; %d verified together, %.2f %% of them twice", shared.took.Seconds(), shared.verified, 100*float64(shared.verified-alone.verified/2)/float64(alone.verified/2))
	taken, err := b.pass(2, key, 1)
	if err != nil {
		return err
	}
	row("first pass, the same again with new stores: all is taken", "%.2f s; %d verified", taken.took.Seconds(), taken.verified)
	share := (alone.took - taken.took).Seconds() / alone.took.Seconds()
	ideal := taken.took.Seconds() + (alone.took-taken.took).Seconds()/2
	row("dividable share, and what two workers could reach with it (Amdahl)", "%.0f %%, %.2f s; reached: %.2f of that", 100*share, ideal, ideal/shared.took.Seconds())
	if key, err = b.newKey(); err != nil {
		return err
	}
	three, err := b.pass(3, key, 0)
	if err != nil {
		return err
	}
	row("first pass, three workers in a cluster", "%.2f s; %.2f %% verified more than once", three.took.Seconds(), 100*float64(three.verified-alone.verified/2)/float64(alone.verified/2))
	return nil
}

// late measures what one who comes later takes.
func (b *bench) late() error {
	key, err := b.newKey()
	if err != nil {
		return err
	}
	if _, err := b.pass(2, key, 0); err != nil {
		return err
	}
	late, err := b.pass(1, key, 0)
	if err != nil {
		return err
	}
	bytes, messages, err := b.stream()
	if err != nil {
		return err
	}
	row("the stream of facts", "%d messages, %d bytes each", messages, bytes/max(messages, 1))
	row("a worker that comes when all is known: first pass", "%.2f s; %d facts taken, %d verified", late.took.Seconds(), late.taken, late.verified)
	return nil
}

// stream is the size of the largest stream at the server.
func (b *bench) stream() (bytes, messages uint64, err error) {
	nc, err := nats.Connect(b.nats.URL)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	for s := range js.ListStreams(context.Background()).Info() {
		if s.State.Bytes > bytes {
			bytes, messages = s.State.Bytes, s.State.Msgs
		}
	}
	return bytes, messages, nil
}

func percentile(all []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(time.Millisecond)
}
