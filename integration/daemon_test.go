package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/trust"
)

// daemon is a trust-worker serving in a process of its own.
type daemon struct {
	cmd    *exec.Cmd
	state  string
	log    *logBuffer
	exited chan struct{}
}

// serve starts a daemon on root and waits until its first pass is over. The next
// is a day off: what shows of storage, the watcher saw.
func serve(t *testing.T, root string, args ...string) *daemon {
	t.Helper()
	d := start(t, exec.Command(binary, append([]string{"serve", "--root", root, "--scan-interval", "24h"}, args...)...), filepath.Join(root, "_trust"))
	d.ready(t)
	return d
}

// start starts a daemon by a command whose process becomes it.
func start(t *testing.T, cmd *exec.Cmd, state string) *daemon {
	t.Helper()
	d := &daemon{cmd: cmd, state: state, log: &logBuffer{}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.exited)
		_ = cmd.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() {
		d.kill()
		if log := d.log.String(); !runtimeHit(log) {
			noCrash(t, log)
		}
		if t.Failed() {
			t.Logf("log of pid %d:\n%s", cmd.Process.Pid, d.log)
		}
	})
	return d
}

func (d *daemon) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the first pass is over", func() bool { return d.ended() || d.log.contains("first pass is over") })
	if d.ended() {
		t.Fatalf("the daemon ended with exit code %d", d.cmd.ProcessState.ExitCode())
	}
}

func (d *daemon) ended() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// kill ends the process as a power cut would, with no chance to tidy up.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.exited
}

// stop sends a signal that ends the daemon and returns its exit code.
func (d *daemon) stop(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	d.signal(t, sig)
	eventually(t, "the daemon ends at "+sig.String(), d.ended)
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// report is the part of status.json that tests look at.
type report struct {
	PID       int
	FirstPass bool
	Problem   string
	Refused   []struct{ Path, Reason string }
	Work      struct{ Walks, Verified, Calls, Errors int64 }
}

// status waits for a report of this process that cond accepts: the daemon
// writes one every two seconds.
func (d *daemon) status(t *testing.T, what string, cond func(*report) bool) *report {
	t.Helper()
	var r report
	eventually(t, "status.json: "+what, func() bool {
		b, err := os.ReadFile(filepath.Join(d.state, "status.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		r = report{}
		if err != nil || json.Unmarshal(b, &r) != nil {
			t.Fatalf("status.json: %v\n%s", err, b)
		}
		return r.PID == d.cmd.Process.Pid && cond(&r)
	})
	return &r
}

// logBuffer collects what a process writes while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
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

func (l *logBuffer) contains(s string) bool { return strings.Contains(l.String(), s) }

// reader reads a state directory as another program does.
type reader struct {
	t *testing.T
	*cache.Reader
}

func open(t *testing.T, state string, options ...cache.Option) reader {
	t.Helper()
	r, err := cache.OpenReader(state, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return reader{t, r}
}

// image is the answer about one tag, a zero one when the cache has none.
func (r reader) image(repository, tag string) cache.Image {
	r.t.Helper()
	snap, err := r.Snapshot()
	if err != nil {
		r.t.Fatalf("read the cache: %v", err)
	}
	defer snap.Close()
	img, err := snap.Tag(repository, tag)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		r.t.Fatalf("read %s:%s: %v", repository, tag, err)
	}
	return img
}

// state is the image's state in a word, "absent" when the cache has none.
func (r reader) state(repository, tag string) string {
	r.t.Helper()
	img := r.image(repository, tag)
	if img.RepoName == "" {
		return "absent"
	}
	return img.State()
}

// becomes waits until the image has the state.
func (r reader) becomes(repository, tag, state string) {
	r.t.Helper()
	last := ""
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s:%s reads %s", repository, tag, last)
		}
	}()
	eventually(r.t, repository+":"+tag+" reads "+state, func() bool {
		last = r.state(repository, tag)
		return last == state
	})
}

// all is every answer, without what changes from one confirmation to the next.
func (r reader) all() map[string]cache.Image {
	r.t.Helper()
	snap, err := r.Snapshot()
	if err != nil {
		r.t.Fatal(err)
	}
	defer snap.Close()
	images := map[string]cache.Image{}
	err = snap.Repositories(func(name string) error {
		return snap.Images(name, func(img cache.Image) error {
			images[name+":"+img.Tag+"@"+img.Digest.String()] = settled(img)
			return nil
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return images
}

// settled is an answer without the times at which it was made.
func settled(img cache.Image) cache.Image {
	clear := func(in []cache.Signature) []cache.Signature {
		out := make([]cache.Signature, len(in))
		for i, s := range in {
			s.VerifiedAt, s.Since = nil, nil
			out[i] = s
		}
		return out
	}
	img.AsOf = time.Time{}
	img.SignatureInfo = clear(img.SignatureInfo)
	manifests := make([]cache.Manifest, len(img.Manifests))
	for i, m := range img.Manifests {
		m.SignatureInfo = clear(m.SignatureInfo)
		manifests[i] = m
	}
	img.Manifests = manifests
	return img
}

// reasons are the reasons of an image's signatures, in order.
func reasons(img cache.Image) []trust.Reason {
	var all []trust.Reason
	for _, s := range img.SignatureInfo {
		all = append(all, s.Reason)
	}
	return all
}

// signatureOf describes the manifest of an image's first signature.
func signatureOf(t *testing.T, r reader, repository, tag string) ocispec.Descriptor {
	t.Helper()
	img := r.image(repository, tag)
	if len(img.SignatureInfo) == 0 {
		t.Fatalf("%s:%s has no signature", repository, tag)
	}
	return ocispec.Descriptor{Digest: digest.Digest(img.SignatureInfo[0].Digest.String())}
}
