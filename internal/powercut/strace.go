package powercut

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// modelled are the calls that become operations, or have to be looked at to
// make sense of them; refused are those that the model does not know.
var (
	modelled = []string{"open", "openat", "creat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2",
		"symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "utimensat", "lseek", "mmap"}
	refused = []string{"openat2", "truncate", "writev", "pwritev", "pwritev2", "sendfile", "splice", "copy_file_range", "fallocate", "sync_file_range",
		"link", "linkat", "mknod", "mknodat", "utime", "utimes", "futimesat", "io_uring_setup", "io_submit"}
)

// longest is the largest buffer that a trace holds in full.
const longest = 8 << 20

// Need skips the test where strace cannot be used.
func Need(t testing.TB) {
	t.Helper()
	if out, err := Command(os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("no strace that can trace: %v: %s", err, out)
	}
}

// Command is argv under strace, which writes what [Read] reads into trace.
func Command(trace string, argv ...string) *exec.Cmd {
	calls := "trace=?" + strings.Join(slices.Concat(modelled, refused), ",?")
	return exec.Command("strace", append([]string{"-f", "-qq", "--seccomp-bpf", "-y", "-xx", "-s", strconv.Itoa(longest), "-e", calls, "-e", "signal=none", "-o", trace, "--"}, argv...)...)
}

// Read reads a trace of one process and returns, in order, what it did to files
// below root and what it said on its standard output. A call counts as of its
// return; the process must not make two at once below root, unless both only read.
func Read(trace, root string) ([]Op, error) {
	f, err := os.Open(trace)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read-only
	p := &parser{root: filepath.Clean(root), begun: map[string]string{}, offsets: map[string]int64{}}
	r := bufio.NewReaderSize(f, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return p.ops, nil
		}
		if err == nil {
			err = p.line(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w: %.300s", trace, n, err, line)
		}
	}
}

type parser struct {
	root    string
	begun   map[string]string // by thread: a call that has not returned
	offsets map[string]int64  // by descriptor: where write goes; -1: not known
	ops     []Op
}

var (
	begins  = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(`)
	resumes = regexp.MustCompile(`^(\d+) +<\.\.\. ([a-z0-9_]+) resumed>`)
)

const unfinished = " <unfinished ...>"

func (p *parser) line(s string) error {
	if m := resumes.FindStringSubmatch(s); m != nil {
		start, ok := p.begun[m[1]]
		if !ok {
			return errors.New("a call resumes that did not begin")
		}
		delete(p.begun, m[1])
		s = start + s[len(m[0]):]
	} else if m := begins.FindStringSubmatch(s); m != nil && strings.HasSuffix(s, unfinished) {
		p.begun[m[1]] = strings.TrimSuffix(s, unfinished)
		return nil
	}
	m := begins.FindStringSubmatch(s)
	if m == nil || strings.HasSuffix(s, " <detached ...>") {
		return nil // an exit, a signal, a call that the process ended in
	}
	args, result, err := split(s[len(m[0]):])
	if err != nil {
		return err
	}
	if strings.HasPrefix(result, "-") || strings.HasPrefix(result, "?") {
		return nil // it changed nothing, or the process ended in it
	}
	return p.call(m[2], args, result)
}

// split returns the arguments of a call and what it returned, with all text
// decoded.
func split(s string) (args []string, result string, err error) {
	var arg strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			if i+3 >= len(s) || s[i+1] != 'x' {
				return nil, "", errors.New("text that is not in hex")
			}
			b, err := hex.DecodeString(s[i+2 : i+4])
			if err != nil {
				return nil, "", err
			}
			arg.Write(b)
			i += 3
			continue
		case c == '"':
			if quoted = !quoted; !quoted && strings.HasPrefix(s[i:], `"...`) {
				return nil, "", errors.New("a buffer that is cut short")
			}
		case quoted:
		case strings.IndexByte("<[{(", c) >= 0:
			depth++
		case strings.IndexByte(">]})", c) >= 0 && depth > 0:
			depth--
		case c == ',' && depth == 0:
			args = append(args, strings.TrimSpace(arg.String()))
			arg.Reset()
			continue
		case c == ')':
			_, result, ok := strings.Cut(s[i:], "= ")
			if !ok {
				return nil, "", errors.New("no result")
			}
			if arg.Len() > 0 {
				args = append(args, strings.TrimSpace(arg.String()))
			}
			return args, result, nil
		}
		arg.WriteByte(c)
	}
	return nil, "", errors.New("a call without an end")
}
