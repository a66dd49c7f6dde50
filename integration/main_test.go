// Package integration runs the built program as a separate process, on storage
// that the real signing tools made and on storage made here, and reads its
// answers as any other program does: through cache.OpenReader, in this process.
//
// Nothing here measures time. A test waits for something observable, with a
// deadline that only a fault reaches.
package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "trust-worker-integration-")
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
	if out, err := exec.Command("go", append(args, "../cmd/trust-worker")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	// Nothing of the caller's settings reaches the program.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "TRUST_WORKER_") || name == "STATE_DIRECTORY" {
			os.Unsetenv(name)
		}
	}
	// A process with the race detector sleeps for a second before it ends.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=10 "+os.Getenv("GORACE")))
	return m.Run()
}

// deadline is how long something that must happen may take on a machine that
// does much else. Only a fault waits for all of it.
const deadline = 90 * time.Second

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// ended is what a finished process left.
type ended struct {
	code           int
	stdout, stderr string
}

// command runs the program to its end.
func command(t *testing.T, args ...string) ended {
	t.Helper()
	return execute(t, exec.Command(binary, args...))
}

func execute(t *testing.T, c *exec.Cmd) ended {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", c, err)
	}
	e := ended{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	noCrash(t, e.stderr)
	return e
}

// noCrash fails the test when a process panicked or raced.
func noCrash(t *testing.T, stderr string) {
	t.Helper()
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:", "turn panicked"} {
		if strings.Contains(stderr, sign) {
			t.Errorf("the program crashed (%s):\n%s", sign, stderr)
		}
	}
}

// must is a command that has to succeed; its standard output is decoded into
// out unless that is nil.
func must(t *testing.T, out any, args ...string) {
	t.Helper()
	e := command(t, args...)
	if e.code != 0 {
		t.Fatalf("trust-worker %s: exit code %d\n%s", strings.Join(args, " "), e.code, e.stderr)
	}
	if out != nil {
		decode(t, e.stdout, out)
	}
}

func decode(t *testing.T, text string, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("decode: %v\n%s", err, text)
	}
}
