//go:build linux

package watcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// step runs one line of a script.
func (s *script) step(line int, cmd string, args []string) error {
	if f, ok := settings[cmd]; ok {
		return f(s, args)
	}
	if f, ok := operations[cmd]; ok {
		return f(s, args)
	}
	if s.trust == nil {
		return errors.New("unknown, or comes before start")
	}
	switch cmd {
	case "converge":
		s.converge(line)
		return nil
	case "mode":
		return s.wait("mode "+args[0], func(st Status) bool {
			return st.Mode == Mode(args[0]) && strings.Contains(st.Reason, strings.Join(args[1:], " "))
		})
	case "count":
		n, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return err
		}
		return s.wait(args[0], func(st Status) bool {
			got, ok := map[string]uint64{"overflows": st.Overflows, "restarts": st.Restarts, "errors": st.Errors}[args[0]]
			return ok && got >= n
		})
	}
	return errors.New("unknown step")
}

// settings come before start.
var settings = map[string]func(*script, []string) error{
	"trust":    func(s *script, a []string) error { s.trees = a; return nil },
	"stop":     func(s *script, a []string) error { s.opts.Stop = s.path(a[0]); return nil },
	"no-probe": func(s *script, a []string) error { s.probe = false; return nil },
	"start":    func(s *script, a []string) error { s.start(); return nil },
	"debounce": func(s *script, a []string) (err error) { s.opts.Debounce, err = time.ParseDuration(a[0]); return err },
	"poll": func(s *script, a []string) (err error) {
		s.opts.Poll, err = time.ParseDuration(a[0])
		s.opts.PollWithoutEvents = s.opts.Poll
		return err
	},
	"max-dirs": func(s *script, a []string) (err error) { s.opts.MaxDirs, err = strconv.Atoi(a[0]); return err },
}

// operations are what an operator, his tools, or fate do.
var operations = map[string]func(*script, []string) error{
	// mkdir [-p] DIR
	"mkdir": func(s *script, a []string) error {
		if a[0] == "-p" {
			return os.MkdirAll(s.path(a[1]), 0o755)
		}
		return os.Mkdir(s.path(a[0]), 0o755)
	},
	// write FILE TEXT: create or truncate, as cp and zot do
	"write": func(s *script, a []string) error {
		return os.WriteFile(s.path(a[0]), []byte(strings.Join(a[1:], " ")), 0o644)
	},
	// append FILE TEXT
	"append": func(s *script, a []string) error {
		f, err := os.OpenFile(s.path(a[0]), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(a[1])
		return errors.Join(err, f.Close())
	},
	// slowwrite FILE TEXT: one byte each 10 ms
	"slowwrite": func(s *script, a []string) error {
		f, err := os.Create(s.path(a[0]))
		if err != nil {
			return err
		}
		for i := range a[1] {
			time.Sleep(10 * time.Millisecond)
			if _, err := f.WriteString(a[1][i : i+1]); err != nil {
				return err
			}
		}
		return f.Close()
	},
	// mv OLD NEW: rename, NEW is not a directory to move into
	"mv": func(s *script, a []string) error { return os.Rename(s.path(a[0]), s.path(a[1])) },
	// rm [-r] PATH
	"rm": func(s *script, a []string) error {
		if a[0] == "-r" {
			return os.RemoveAll(s.path(a[1]))
		}
		return os.Remove(s.path(a[0]))
	},
	// ln [-s] TARGET NAME: with -s, TARGET is taken as it is
	"ln": func(s *script, a []string) error {
		if a[0] == "-s" {
			return os.Symlink(strings.ReplaceAll(a[1], "$WORK", s.dir), s.path(a[2]))
		}
		return os.Link(s.path(a[0]), s.path(a[1]))
	},
	// cp -r DIR NEW
	"cp": func(s *script, a []string) error { return os.CopyFS(s.path(a[2]), os.DirFS(s.path(a[1]))) },
	// chmod OCTAL PATH
	"chmod": func(s *script, a []string) error {
		mode, err := strconv.ParseUint(a[0], 8, 32)
		if err != nil {
			return err
		}
		return os.Chmod(s.path(a[1]), os.FileMode(mode))
	},
	"mkfifo": func(s *script, a []string) error { return syscall.Mkfifo(s.path(a[0]), 0o644) },
	// publish MOUNT REVISION TEXT: a Kubernetes volume's update
	"publish": func(s *script, a []string) error { return s.publish(s.path(a[0]), a[1], a[2]) },
	// storm N DIR: N changes of attributes that the kernel can't merge
	"storm": func(s *script, a []string) error {
		n, err := strconv.Atoi(a[0])
		for i := 0; i < n && err == nil; i++ {
			err = os.Chmod(filepath.Join(s.path(a[1]), []string{"a", "b"}[i%2]), os.FileMode(0o600+i/2%2*0o44))
		}
		return err
	},

	// What the event source does, see tap.
	"limit": func(s *script, a []string) error {
		n, err := strconv.Atoi(a[0])
		s.tap.set(func(t *tap) { t.limit = n })
		return err
	},
	"refuse": func(s *script, a []string) error { s.tap.set(func(t *tap) { t.refuse = a[0] == "on" }); return nil },
	"deaf":   func(s *script, a []string) error { s.tap.set(func(t *tap) { t.deaf = a[0] == "on" }); return nil },
	"kill":   func(s *script, a []string) error { s.tap.kill(); return nil },
	"stall":  func(s *script, a []string) error { s.tap.stall(); return nil },
	"resume": func(s *script, a []string) error { s.tap.resume(); return nil },
	// overflow: as the kernel would report it
	"overflow": func(s *script, a []string) error {
		s.trust.intake.fault(fsnotify.ErrEventOverflow)
		return nil
	},

	// Only in a mount namespace, see inMountNamespace.
	"mount": func(s *script, a []string) error { return s.mount("tmpfs", a[0], "tmpfs", 0) },
	"bind":  func(s *script, a []string) error { return s.mount(s.path(a[0]), a[1], "", syscall.MS_BIND) },
	"umount": func(s *script, a []string) error {
		return syscall.Unmount(s.path(a[0]), syscall.MNT_DETACH)
	},
}

func (s *script) mount(from, to, kind string, flags uintptr) error {
	// TempDir can't remove a mount point; that it is no longer one is no error.
	s.t.Cleanup(func() { syscall.Unmount(s.path(to), syscall.MNT_DETACH) })
	return syscall.Mount(from, s.path(to), kind, flags, "")
}

// publish does what the kubelet's AtomicWriter does: a new directory, a link to
// it that replaces ..data by a rename, links for the files, the old directory
// removed.
func (s *script) publish(mount, revision, text string) error {
	old, _ := os.Readlink(filepath.Join(mount, "..data"))
	dir := "..rev_" + revision
	if err := os.Mkdir(filepath.Join(mount, dir), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(mount, dir, "key.pub"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Symlink(dir, filepath.Join(mount, "..data_tmp")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")); err != nil {
		return err
	}
	if err := os.Symlink("..data/key.pub", filepath.Join(mount, "key.pub")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(mount, old))
}

func needsMounts(src string) bool {
	for line := range strings.Lines(src) {
		if cmd, _, _ := strings.Cut(strings.TrimSpace(line), " "); cmd == "mount" || cmd == "bind" {
			return true
		}
	}
	return false
}

// inMountNamespace says whether this process may mount. If not, it runs the
// test in a child that may: user and mount namespaces of its own, so that
// nothing is left behind whatever happens.
func inMountNamespace(t *testing.T) bool {
	const mark = "WATCHER_TEST_MOUNTS"
	if os.Getenv(mark) != "" {
		return true
	}
	t.Parallel()
	var pattern []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+part+"$")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run="+strings.Join(pattern, "/"), "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Skipf("no mount namespace here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), fmt.Sprintf("--- PASS: %s", t.Name())) {
		t.Fatalf("did not run:\n%s", out)
	}
	return false
}
