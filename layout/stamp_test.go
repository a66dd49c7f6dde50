package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestStampFollowsChanges(t *testing.T) {
	r := newRepo(t, t.TempDir(), "team/app")
	r.push(image("x"), "1")
	root, err := Open(r.root, Options{})
	must(t, err)
	defer root.Close()
	stamp := func() Stamp {
		t.Helper()
		s, err := root.Stamp("team/app", time.Time{})
		must(t, err)
		return s
	}
	path := filepath.Join(r.dir, indexFile)
	content, err := os.ReadFile(path)
	must(t, err)

	last := r.contents().Stamp
	if last != stamp() || last == (Stamp{}) {
		t.Fatalf("Contents has stamp %v, the file %v", last, stamp())
	}
	for name, change := range map[string]func(){
		"renamed over, same content": func() { r.write(content) },
		"written in place":           func() { must(t, os.WriteFile(path, content, 0o644)) },
		"older than before": func() {
			r.write(content)
			must(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
		},
	} {
		time.Sleep(settle) // as long as Contents waits; the kernel's clock is real
		change()
		if now := stamp(); now == last {
			t.Errorf("%s: stamp still %v", name, now)
		} else {
			last = now
		}
		if c := r.contents(); c.Stamp != last {
			t.Errorf("%s: Contents has stamp %v, the file %v", name, c.Stamp, last)
		}
	}
}

func TestStampOfWhatIsNoFile(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	root, err := Open(r.root, Options{})
	must(t, err)
	defer root.Close()
	path := filepath.Join(r.dir, indexFile)
	if _, err := root.Stamp("none", time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for name, put := range map[string]func() error{
		"FIFO":      func() error { return unix.Mkfifo(path, 0o644) },
		"symlink":   func() error { return os.Symlink(layoutFile, path) },
		"directory": func() error { return os.Mkdir(path, 0o755) },
	} {
		must(t, os.Remove(path))
		must(t, put())
		if s, err := root.Stamp("app", time.Time{}); err == nil || s != (Stamp{}) {
			t.Errorf("%s: stamp %v, %v", name, s, err)
		}
		if _, err := r.open(Limits{}).Contents(context.Background(), nil); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// The text is what is stored and compared: all of the stamp is in it.
func TestStampText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Stamp{
			Mtime: rapid.Int64().Draw(t, "mtime"), Ctime: rapid.Int64().Draw(t, "ctime"),
			Size: rapid.Int64().Draw(t, "size"), Inode: rapid.Uint64().Draw(t, "inode"),
		}
		var got Stamp
		if _, err := fmt.Sscanf(s.String(), "%d.%d.%d.%d", &got.Mtime, &got.Ctime, &got.Size, &got.Inode); err != nil || got != s {
			t.Fatalf("%q = %v, %v", s, got, err)
		}
	})
}
