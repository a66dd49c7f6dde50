package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// smallDisk runs a daemon whose state directory is a file system of its own,
// with room for size bytes. Only the daemon's processes see it by its name; the
// test goes through one of them.
type smallDisk struct {
	t *testing.T
	*sample
	d     *daemon
	state string
	r     reader
}

func onSmallDisk(t *testing.T, size int) *smallDisk {
	t.Helper()
	k := &smallDisk{t: t, sample: newSample(t)}
	k.start(size, func(state string) []string {
		return []string{"serve", "--root", k.Dir, "--state", state, "--scan-interval", "200ms", "--lease", "6s"}
	})
	k.d.ready(t)
	return k
}

// start starts a process with a state directory on a file system of so many bytes.
func (k *smallDisk) start(size int, args func(state string) []string) {
	t := k.t
	t.Helper()
	mount := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(mount, 0o750); err != nil {
		t.Fatal(err)
	}
	in := func(args ...string) *exec.Cmd {
		script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=0750 none "$0" && exec "$@"`, size)
		return exec.Command("unshare", append([]string{"-rm", "--propagation", "private", "sh", "-c", script, mount}, args...)...)
	}
	if out, err := in("true").CombinedOutput(); err != nil {
		t.Skipf("no small disk here, since nothing can be mounted: %v: %s", err, out)
	}
	k.d = start(t, in(append([]string{binary}, args(mount)...)...), mount)
	k.state = filepath.Join("/proc", fmt.Sprint(k.d.cmd.Process.Pid), "root", mount)
	eventually(t, "it is mounted", func() bool { _, err := os.Stat(filepath.Join(k.state, "lock")); return err == nil })
	k.r = open(t, k.state)
}

// fill leaves room for so many pages.
func (k *smallDisk) fill(pages int) {
	k.t.Helper()
	page := bytes.Repeat([]byte{1}, 4096)
	f, err := os.Create(k.filler())
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for ; err == nil; n++ {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		k.t.Fatalf("fill the disk: %v after %d pages", err, n)
	}
	if err := f.Truncate(int64(max(n-1-pages, 0)) * 4096); err != nil {
		k.t.Fatal(err)
	}
}

func (k *smallDisk) filler() string { return filepath.Join(k.state, "filler") }

func (k *smallDisk) free() {
	k.t.Helper()
	if err := os.Remove(k.filler()); err != nil {
		k.t.Fatal(err)
	}
}

// reads is an image's state as now published, "no-cache" when nothing is.
func (k *smallDisk) reads(tag string) string {
	k.t.Helper()
	snap, err := k.r.Snapshot()
	if errors.Is(err, cache.ErrNoCache) {
		return string(trust.NoCache)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	defer snap.Close()
	img, err := snap.Tag("app", tag)
	if errors.Is(err, cache.ErrNotFound) {
		return "absent"
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return img.State()
}

func (k *smallDisk) becomes(tag string, states ...string) {
	k.t.Helper()
	last := ""
	defer func() {
		if k.t.Failed() {
			b, err := os.ReadFile(filepath.Join(k.state, "status.json"))
			k.t.Logf("app:%s reads %s: %+v\n%s %v", tag, last, k.r.image("app", tag).SignatureInfo, b, err)
		}
	}()
	eventually(k.t, "app:"+tag+" reads "+strings.Join(states, " or "), func() bool {
		if last = k.reads(tag); k.d.ended() {
			k.t.Fatal("the daemon ended")
		}
		for _, s := range states {
			if s == last {
				return true
			}
		}
		return false
	})
}

// The disk is full at every moment of a push, of a key that comes and of one
// that is removed: the removed key's answers stop being trusted all the same,
// nothing else is lost for good, and it all comes right without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	k := onSmallDisk(t, 4<<20)
	turns := 4
	if torture {
		turns = 40
	}
	fresh := signtest.NewKey(signtest.P256)
	withdrawn, refused := 0, 0
	for turn := range turns {
		room := turn * 5 % 13 // pages: from none to enough for some of the files
		k.becomes("1", "trusted")
		k.becomes("2", "trusted")
		k.fill(room)
		push := k.Image("app", fmt.Sprint("pushed", turn))
		k.SignSimple(push, fresh, signtest.CosignOptions{})
		if turn%3 == 0 { // a key that comes takes nothing away
			k.TrustKey("fresh.pub", fresh)
			if state := k.reads("1"); state != "trusted" {
				t.Errorf("turn %d: app:1 reads %s when a key comes", turn, state)
			}
		}
		k.Untrust("_cosign/team.pub")
		k.becomes("1", "untrusted", string(trust.NoCache))
		for range 50 { // and stays so, whatever is tried again
			switch state := k.reads("1"); state {
			case string(trust.NoCache):
				withdrawn++
			case "trusted":
				t.Fatalf("WRONGLY TRUSTED: turn %d: app:1 after its key was removed on a full disk", turn)
			}
		}
		if k.d.log.contains("no space left") {
			refused++
		}
		k.free()
		k.becomes("1", "untrusted")
		k.becomes("2", "trusted")
		k.TrustKey("fresh.pub", fresh)
		k.becomes(fmt.Sprint("pushed", turn), "trusted")
		k.Untrust("_cosign/fresh.pub")
		k.becomes(fmt.Sprint("pushed", turn), "untrusted")
		k.TrustKey("team.pub", k.team)
	}
	k.becomes("1", "trusted")
	if withdrawn == 0 || refused == 0 {
		t.Errorf("the disk was never too full: %d answers without a cache, %d turns with an error", withdrawn, refused)
	}
	t.Logf("%d turns, %d answers withdrawn, 0 wrongly trusted", turns, withdrawn)
}

// A state directory that may only be read is refused with its name; what was
// published there is read all the same.
func TestReadOnlyStateDirectory(t *testing.T) {
	s := newSample(t)
	state := filepath.Join(t.TempDir(), "state")
	must(t, nil, "scan", "--root", s.Dir, "--state", state)
	script := `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`
	in := func(args ...string) *exec.Cmd {
		return exec.Command("unshare", append([]string{"-rm", "--propagation", "private", "sh", "-c", script, state}, args...)...)
	}
	if out, err := in("true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v: %s", err, out)
	}
	for _, c := range []string{"serve", "scan"} {
		e := execute(t, in(binary, c, "--root", s.Dir, "--state", state))
		if e.code != 1 || !strings.Contains(e.stderr, state) || !strings.Contains(e.stderr, "read-only") {
			t.Errorf("%s: exit code %d, %q; want 1 and why", c, e.code, e.stderr)
		}
	}
	if e := execute(t, in(binary, "get", "app:1", "--state", state)); e.code != 0 {
		t.Errorf("get ends with %d: %s", e.code, e.stderr)
	}
}

// A reader that is stopped and one that dies with the files open hold up nobody.
func TestStuckAndCrashedReaders(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	for range 3 {
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			c := exec.Command(binary, "get", "app:never", "--root", s.Dir, "--wait", "1h")
			c.Stdout, c.Stderr = io.Discard, io.Discard
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() }) // it may have ended
			eventually(t, "the reader has the published files mapped", func() bool {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.Process.Pid))
				return err == nil && bytes.Contains(b, []byte("published/base-"))
			})
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		// A snapshot that is never closed is a stuck reader as well.
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(snap.Close)
		s.Untrust("_cosign/team.pub")
		r.becomes("app", "1", "untrusted")
		s.TrustKey("team.pub", s.team)
		r.becomes("app", "1", "trusted")
		if img, err := snap.Tag("app", "1"); err != nil || img.State() != "trusted" {
			t.Errorf("the open snapshot changed: %v %s", err, img.State())
		}
	}
	if code := d.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
