package integration

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"trust-worker/cache"
)

var roots = []string{"cosign2", "cosign3", "notation"}

// Without any network the answers are the same: nothing asks anybody.
func TestScanWithoutNetwork(t *testing.T) {
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v: %s", err, out)
	}
	for _, root := range roots {
		t.Run(root, func(t *testing.T) {
			dir := copyRoot(t, root)
			_, want := scanAndList(t, dir)
			e := execute(t, exec.Command("unshare", "-rn", binary, "scan", "--root", dir))
			if e.code != 0 {
				t.Fatalf("scan without network: exit code %d\n%s", e.code, e.stderr)
			}
			if got, want := settledAll(mustList(t, dir)), settledAll(want); !reflect.DeepEqual(got, want) {
				t.Errorf("answers without network differ:\n%+v\n%+v", got, want)
			}
		})
	}
}

func settledAll(images []cache.Image) []cache.Image {
	out := make([]cache.Image, len(images))
	for i, img := range images {
		out[i] = settled(img)
	}
	return out
}

var systemCall = regexp.MustCompile(`\b(connect|execve|execveat|sendto|sendmsg)\(`)

// One execve, the program's own, and no connect: what a pusher writes reaches no
// plugin, no helper and no address. In the mode offline that goes for revocation
// services too, which some of these signatures name; in the mode online the one
// that certificates by the trusted root name is dialled, and nothing else.
func TestScanConnectsToNobodyAndRunsNothing(t *testing.T) {
	trace := func(t *testing.T, args ...string) []string {
		file := filepath.Join(t.TempDir(), "trace")
		e := execute(t, exec.Command("strace", append([]string{"-f", "-qq", "-e", "trace=connect,execve,execveat,sendto,sendmsg", "-o", file}, args...)...))
		if e.code != 0 {
			t.Fatalf("%v under strace: exit code %d\n%s", args, e.code, e.stderr)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var calls []string
		for s := bufio.NewScanner(f); s.Scan(); {
			if systemCall.MatchString(s.Text()) {
				calls = append(calls, s.Text())
			}
		}
		return calls
	}
	if out, err := exec.Command("strace", "-f", "true").CombinedOutput(); err != nil {
		t.Skipf("no strace here: %v: %s", err, out)
	}
	// The probe: what is looked for can be seen.
	if calls := trace(t, "sh", "-c", "true & ls / >&2; wait"); len(calls) < 2 {
		t.Fatalf("strace does not show the calls of children: %v", calls)
	}
	for _, root := range append(slices.Clone(roots), "keyless") {
		t.Run(root, func(t *testing.T) {
			dir := copyRoot(t, root)
			if root == "keyless" {
				dir = copyKeyless(t, "full.json", keylessNames["workflow"])
			}
			calls := trace(t, binary, "scan", "--root", dir, "--revocation", "offline")
			if len(calls) != 1 || !strings.Contains(calls[0], "execve(") {
				t.Errorf("calls, of which the first alone is expected:\n%s", strings.Join(calls, "\n"))
			}
			if err := os.RemoveAll(filepath.Join(dir, "_trust")); err != nil {
				t.Fatal(err)
			}
			asked := 0
			for _, call := range trace(t, binary, "scan", "--root", dir)[1:] {
				if asked++; root != "notation" || !strings.Contains(call, "connect(") ||
					!strings.Contains(call, `sin_port=htons(1), sin_addr=inet_addr("127.0.0.1")`) {
					t.Errorf("in the mode online: %s", call)
				}
			}
			if (asked > 0) != (root == "notation") {
				t.Errorf("%d calls in the mode online", asked)
			}
			if n := len(index(mustList(t, dir))); n < 50 {
				t.Errorf("only %d images were scanned", n)
			}
		})
	}
}

// Nothing is written outside the state and trust directories, not even for a
// moment on its way there: what passes through a directory that everybody can
// write to may be a token, or somebody else's link.
func TestNothingInTheTemporaryDirectory(t *testing.T) {
	s := newSample(t)
	dir := filepath.Join(filepath.Dir(s.Dir), "temporary") // of one file system with the state
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Skipf("no inotify here: %v", err)
	}
	defer w.Close()
	if err := w.Add(dir); err != nil {
		t.Fatal(err)
	}
	cmd := serveCommand(s.Dir, "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	d := start(t, cmd, filepath.Join(s.Dir, "_trust"))
	d.ready(t)
	d.status(t, "written", func(*report) bool { return true })
	if _, err := os.Stat(filepath.Join(d.state, "upload.token")); err != nil {
		t.Errorf("no token was made: %v", err)
	}
	if code := d.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// What comes after all that has been, by the kernel's order.
	last := filepath.Join(dir, "last")
	if err := os.WriteFile(last, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-w.Events:
			if e.Name == last {
				return
			}
			t.Errorf("in the temporary directory: %s", e)
		case err := <-w.Errors:
			t.Fatal(err)
		case <-time.After(deadline):
			t.Fatal("the watcher does not see what happens")
		}
	}
}

func mustList(t *testing.T, dir string) []cache.Image {
	t.Helper()
	var l listed
	must(t, &l, "list", "--root", dir, "-o", "json")
	return l.Images
}
