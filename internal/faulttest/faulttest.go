package faulttest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Changing are the system calls by which Go programs and bbolt change files:
// between two of them nothing on disk differs.
var Changing = []string{"openat", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "rename", "renameat", "renameat2",
	"symlinkat", "unlinkat", "mkdirat", "utimensat", "flock", "fchmodat"}

// Reading are those by which they read.
var Reading = []string{"openat", "read", "pread64", "getdents64", "readlinkat", "newfstatat", "fstat", "statx"}

// Point is one system call of a run: the nth of its name on its thread.
type Point struct {
	Call string
	Nth  int
	// Line is what strace shows of it.
	Line string
}

func (p Point) String() string { return fmt.Sprintf("%s #%d", p.Call, p.Nth) }

// Fault is what happens at a point.
type Fault struct {
	Point
	// Kill ends the process with SIGKILL before the call is made. Otherwise
	// the call fails with Errno, Times times in a row (at least once).
	Kill  bool
	Errno string
	Times int
}

func (f Fault) String() string {
	if f.Kill {
		return "killed at " + f.Point.String()
	}
	return fmt.Sprintf("%s × %d at %s", f.Errno, max(f.Times, 1), f.Point)
}

// Need skips the test where strace cannot be used.
func Need(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-o", os.DevNull, "-e", "inject=openat:error=EIO:when=60000..60001", "true").CombinedOutput(); err != nil {
		t.Skipf("no strace that can inject faults: %v: %s", err, out)
	}
}

// Command is argv under strace with the fault.
func Command(f Fault, argv ...string) *exec.Cmd {
	inject := "inject=" + f.Call + ":"
	if f.Kill {
		inject += fmt.Sprintf("signal=KILL:when=%d", f.Nth)
	} else {
		inject += fmt.Sprintf("error=%s:when=%d..%d", f.Errno, f.Nth, f.Nth+max(f.Times, 1)-1)
	}
	args := []string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + f.Call, "-e", inject, "--"}
	if !f.Kill { // quicker; but strace gives no signal from there
		args = append([]string{"--seccomp-bpf"}, args...)
	}
	return exec.Command("strace", append(args, argv...)...)
}

// Watching is argv under strace, which writes the calls into trace.
func Watching(trace string, calls []string, argv ...string) *exec.Cmd {
	return exec.Command("strace", append([]string{"-f", "-qq", "--seccomp-bpf", "-y", "-s", "0", "-e", "trace=" + strings.Join(calls, ","), "-o", trace, "--"}, argv...)...)
}

// Both calls that come back while no other thread is heard, and those that are
// cut in two lines, of which the first counts.
var callLine = regexp.MustCompile(`^(\d+) +([a-z0-9]+)\(`)

// Points reads a trace and returns the calls that concern files below dir.
func Points(t testing.TB, trace, dir string) []Point {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // read-only
	type counted struct{ thread, call string }
	counts := map[counted]int{}
	var points []Point
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		m := callLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		c := counted{m[1], m[2]}
		counts[c]++
		if strings.Contains(s.Text(), filepath.Clean(dir)) {
			points = append(points, Point{Call: m[2], Nth: counts[c], Line: s.Text()})
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return points
}
