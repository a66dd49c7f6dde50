package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"trust-worker/cache"
)

// driver runs the daemon and changes what it watches.
type driver struct {
	g                *generator
	r                *Report
	bin, root, state string
	lookups          time.Duration
	cmd              *exec.Cmd
	reader           *cache.Reader
	idles            float64 // processors that an idle daemon uses
}

// status is what of status.json is needed here.
type status struct {
	PID          int
	Started      time.Time
	FirstPass    bool
	Queue        int
	PrivateBytes int64
	PassTook     time.Duration
	LastPass     time.Time
	Confirmed    time.Time
	Counts       any // absent while it counts
	Work         struct{ Verified, Calls, Errors, Walks int64 }
}

func (d *driver) start(args ...string) (time.Time, error) {
	os.Remove(filepath.Join(d.state, "status.json")) // an old one must not be taken for news
	d.cmd = exec.Command(d.bin, append([]string{"serve", "--root", d.root, "--state", d.state, "--log-level", "error"}, args...)...)
	d.cmd.Stderr = os.Stderr
	start := time.Now()
	return start, d.cmd.Start()
}

func (d *driver) stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	d.cmd = nil
}

func (d *driver) status() (s status) {
	b, err := os.ReadFile(filepath.Join(d.state, "status.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return status{}
	}
	return s
}

const patience = 30 * time.Minute

// until polls, and returns when the condition was first seen to hold.
func until(what string, step time.Duration, ok func() bool) (time.Time, error) {
	deadline := time.Now().Add(patience)
	for {
		if ok() {
			return time.Now(), nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("not within %s: %s", patience, what)
		}
		time.Sleep(step)
	}
}

// all takes the steps in order, up to last, or all if that is "".
func (d *driver) all(last string) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"key meanwhile", d.keyMeanwhile}, {"first pass", d.firstPass}, {"restart", d.restart}, {"idle", d.idle}, {"rescan", d.rescan},
		{"key", d.key}, {"push", d.push}, {"expiry", d.expiry}, {"look-ups", d.lookUps}, {"disk", d.disk},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if step.name == last {
			break
		}
	}
	return nil
}

// trusted reports whether the signature at layer of an image is trusted.
func (d *driver) trusted(p place, layer int) bool {
	snap, err := d.reader.Snapshot()
	if err != nil {
		return false
	}
	defer snap.Close()
	img, err := snap.Image(p.repo, p.digest)
	return err == nil && layer < len(img.SignatureInfo) && img.SignatureInfo[layer].IsTrusted
}
