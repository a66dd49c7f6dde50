package layout

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// unprivileged runs f where file permissions count, also when the tests are run
// by root: as another user on a thread of its own, which ends with f.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread is of no more use
		if err := unix.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// reachable lets other users into a directory that t.TempDir made.
func reachable(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
}

// What cannot be listed is unknown, not gone; the rest goes on.
func TestWalkOfUnlistableDirectory(t *testing.T) {
	root := t.TempDir()
	reachable(t, root)
	for _, name := range []string{"a", "b/c", "d"} {
		newRepo(t, root, name)
	}
	must(t, os.Chmod(filepath.Join(root, "b"), 0))
	t.Cleanup(func() { must(t, os.Chmod(filepath.Join(root, "b"), 0o755)) })
	unprivileged(t, func() {
		want := []string{".", "a =", "b ?", "d ="}
		if got := visits(t, root, Options{}); !slices.Equal(got, want) {
			t.Errorf("visits %q, want %q", got, want)
		}
	})
}

func TestUnreadableBlobCostsItself(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	reachable(t, r.root)
	locked, fine := r.push(image("locked"), "locked"), r.push(image("fine"), "fine")
	lone := r.push(image("lone"))
	must(t, os.Chmod(r.path(locked), 0))
	must(t, os.Chmod(r.path(lone), 0))
	unprivileged(t, func() {
		root, err := Open(r.root, Options{})
		must(t, err)
		defer root.Close()
		p, err := root.Repository("app")
		must(t, err)
		defer p.Close()
		c, err := p.Contents(context.Background(), nil)
		must(t, err)
		checkContents(t, c)
		if c.Images[locked].Unreadable != trust.IOError || c.Images[fine].Unreadable != "" || c.Images[lone].Unreadable != trust.IOError {
			t.Errorf("images %+v", c.Images)
		}
		if !c.Incomplete || c.Opened != 3 || len(c.Learned) != 1 || len(problems(c, lone)) != 1 {
			t.Errorf("contents %+v", c)
		}
	})
}
