package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"trust-worker/cache"
	"trust-worker/trust"
)

// The commands that say what has to come of it, and the checks that every case
// undergoes: no crash, the expected answers and no other trust, bounded work,
// bounded reading.

func init() {
	corpusCommand("expect", "REPO:TAG absent|STATE [REASON...]", 2, -1, (*world).cmdExpect)
	corpusCommand("scan", "[work=N] [unread=DIR] [FLAG...]", 0, -1, (*world).cmdScan)
	corpusCommand("refused", "FILE REGEXP", 2, 2, (*world).cmdRefused)
	corpusCommand("get", "CODE REPO:TAG [REGEXP]", 2, 3, (*world).cmdGet)
	corpusCommand("nowhere", "FILE", 1, 1, (*world).cmdNowhere)
}

func (w *world) cmdExpect(args []string) {
	x := &expectation{state: args[1], reasons: slices.Clone(args[2:])}
	for _, r := range args[2:] {
		if trust.Reason(r).Status() == "" {
			w.fail("no such reason: %s", r)
		}
	}
	if known := w.expected[args[0]]; known != nil {
		x.ours = known.ours
	}
	slices.Sort(x.reasons)
	w.expected[args[0]] = x
	if !slices.Contains(w.order, args[0]) {
		w.order = append(w.order, args[0])
	}
	w.unseen = true
}

// cmdScan does one pass with the built program and looks at every answer.
// work is what the pass may verify beyond one for each good signature; without
// it, one for each signature. unread is the directory that the pass cannot read, and
// names as it ends with 1.
func (w *world) cmdScan(args []string) {
	w.surround()
	work, unread := int64(-1), ""
	flags := []string{"--root", w.Dir}
	for _, arg := range args {
		if n, ok := strings.CutPrefix(arg, "work="); ok {
			work = w.number(n)
		} else if name, ok := strings.CutPrefix(arg, "unread="); ok {
			unread = name
		} else {
			flags = append(flags, arg)
		}
	}
	allowance := w.readable()
	e, read := w.runCounting(append([]string{"scan", "-o", "json"}, flags...)...)
	if unread != "" && (e.code != 1 || !strings.Contains(e.stderr, "could not be read: "+unread+" (")) || unread == "" && e.code != 0 {
		w.fail("scan: exit code %d\n%s", e.code, e.stderr)
	}
	var sum struct{ Signatures, Verified, Trusted int64 }
	w.check(json.Unmarshal([]byte(e.stdout), &sum))
	if work < 0 {
		work = sum.Signatures - int64(w.worth)
	}
	// Each second signature may be tried in vain with a key that signed before it.
	if sum.Verified > work+int64(w.worth)+1+sum.Signatures/2 {
		w.t.Errorf("%d verifications; %d good signatures were new and the others may cost %d", sum.Verified, w.worth, work)
	}
	if read > allowance {
		w.t.Errorf("the pass read %d bytes, more than %d", read, allowance)
	}
	w.worth = 0
	w.seen()

	var l listed
	e = w.run("list", "--root", w.Dir, "-o", "json")
	if e.code == trust.ExitUndecided && strings.Contains(e.stderr, "could not be listed or read") {
		e.code = 0 // a case's repository is like that, of which nothing may be known
	}
	w.decode(e, &l)
	for _, problem := range w.judge(l.Images, true) {
		w.t.Error(problem)
	}
	// A process for each image would be most of what the corpus costs.
	step := (len(w.order) + 3) / 4
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		step = 1
	}
	for i := 0; i < len(w.order); i += step {
		w.sameVerdict(w.order[i], append([]string{"verify"}, flags...), i == 0)
	}
	w.order = nil
	if w.t.Failed() {
		w.fail("list:\n%s", w.run("list", "--root", w.Dir).stdout)
	}
}

func (w *world) seen() {
	w.scanned++
	w.unseen = false
}

// sameVerdict asks verify, which reads storage alone, and get if it may be.
func (w *world) sameVerdict(name string, verify []string, get bool) {
	x := w.expected[name]
	code, ok := map[string]int{"absent": trust.ExitNotFound, "unsigned": trust.ExitUnsigned, "trusted": trust.ExitTrusted,
		"unknown": trust.ExitUndecided, "pending": trust.ExitUndecided}[x.state]
	if !ok {
		code = trust.ExitNotTrusted
	}
	// What cannot be listed is no answer for get, and an error for verify.
	if e := w.run(append(slices.Clone(verify), name)...); e.code != code && (x.state != "absent" || e.code != 1) {
		w.t.Errorf("verify %s: exit code %d, want %d\n%s%s", name, e.code, code, e.stdout, e.stderr)
	}
	if get {
		if e := w.run("get", name, "--root", w.Dir); e.code != code {
			w.t.Errorf("get %s: exit code %d, want %d\n%s%s", name, e.code, code, e.stdout, e.stderr)
		}
	}
}

// judge compares answers with what is expected. all says that images is all there
// is: then what is expected must be there.
func (w *world) judge(images []cache.Image, all bool) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	met := map[string]bool{}
	for _, img := range images {
		for _, s := range img.SignatureInfo {
			switch {
			case s.IsTrusted != (s.Status == trust.Trusted), (s.Reason == "") != s.IsTrusted:
				problem("%s: trusted %v, status %q, reason %q", img.RepoName, s.IsTrusted, s.Status, s.Reason)
			case s.Reason != "" && s.Reason.Status() != s.Status:
				problem("%s: the reason %s is none of %s", img.RepoName, s.Reason, s.Status)
			case s.Author != "" && s.Status != trust.Trusted && s.Status != trust.Expired:
				problem("%s: %s by %q, which is not proven", img.RepoName, s.Reason, s.Author)
			}
		}
		name := img.RepoName + ":" + img.Tag
		x := w.expected[name]
		switch {
		case img.Tag == "" && img.Code() != trust.ExitTrusted:
		case x == nil:
			problem("%s@%s is %s, and nothing is expected of it", name, img.Digest, img.State())
		default:
			met[name] = true
			if got := distinct(img); img.State() != x.state || !slices.Equal(got, x.reasons) {
				problem("%s is %s %v, expected %s %v", name, img.State(), got, x.state, x.reasons)
			}
		}
	}
	for name, x := range w.expected {
		if all && !met[name] && x.state != "absent" {
			problem("%s is absent, expected %s %v", name, x.state, x.reasons)
		}
	}
	slices.Sort(problems)
	return problems
}

// distinct are the reasons of an image's signatures, sorted, each once.
func distinct(img cache.Image) (all []string) {
	for _, r := range reasons(img) {
		if r != "" {
			all = append(all, string(r))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// run runs the program in the case's environment, to its end.
func (w *world) run(args ...string) ended {
	e, _ := w.runCounting(args...)
	return e
}

// runCounting counts also the bytes that read(2) and its like gave the process;
// 0 where the kernel does not tell.
func (w *world) runCounting(args ...string) (ended, int64) {
	c := w.program(args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	w.check(c.Start())
	var read int64
	for unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", c.Process.Pid)); err == nil {
		_, err = fmt.Sscanf(string(b), "rchar: %d", &read)
		w.check(err)
	}
	_ = c.Wait() // the exit code is looked at
	e := ended{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	w.logs = append(w.logs, e.stdout, e.stderr)
	noCrash(w.t, e.stderr)
	return e, read
}

func (w *world) program(args ...string) *exec.Cmd {
	c := exec.Command(w.binary, args...)
	c.Dir = w.work
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "XDG_CONFIG_HOME", "TUF_ROOT", "SIGSTORE_ROOT_FILE"} {
		if v := w.ts.Getenv(name); v != "" {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	return c
}

func (w *world) decode(e ended, out any) {
	if e.code != 0 {
		w.fail("exit code %d\n%s", e.code, e.stderr)
	}
	w.check(json.Unmarshal([]byte(e.stdout), out))
}

// readable is how much one pass may read: what there is, twice, and once more for a scan
// that took long and was begun again; without what is larger than any manifest may be,
// and with a little for what every process reads.
func (w *world) readable() int64 {
	const largest = 4 << 20
	sum := int64(256 << 10)
	w.check(filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Size() <= largest || d.Name() == "index.json" && info.Size() <= 64<<20) {
			sum += 3 * info.Size()
		}
		return err
	}))
	return sum
}

// cmdRefused looks for a file of the trust directories among those that keys
// shows as refused, with a reason like this.
func (w *world) cmdRefused(args []string) {
	var keys struct {
		Loaded  []struct{ Path string }
		Refused []struct{ Path, Reason string }
	}
	w.decode(w.run("keys", "--root", w.Dir, "-o", "json"), &keys)
	pattern, err := regexp.Compile(args[1])
	w.check(err)
	for _, r := range keys.Refused {
		if strings.HasSuffix(r.Path, args[0]) && pattern.MatchString(r.Reason) {
			return
		}
	}
	w.fail("%s is not refused because of %s:\n%+v", args[0], args[1], keys)
}

// cmdGet is what any other program is told about one image.
func (w *world) cmdGet(args []string) {
	e := w.run("get", args[1], "--root", w.Dir, "-o", "json")
	if code := w.number(args[0]); int64(e.code) != code {
		w.fail("get %s: exit code %d\n%s%s", args[1], e.code, e.stdout, e.stderr)
	}
	if len(args) == 3 {
		matched, err := regexp.MatchString(args[2], e.stdout+e.stderr)
		w.check(err)
		if !matched {
			w.fail("get %s says nothing like %s:\n%s%s", args[1], args[2], e.stdout, e.stderr)
		}
	}
	w.scanned++
}

// cmdNowhere looks for the secret in a file: it must have come neither to the
// state directory nor to anything that a process has written to its outputs.
func (w *world) cmdNowhere(args []string) {
	lines := secretLines(w.read(args[0]))
	if len(lines) == 0 {
		w.fail("%s holds no secret", args[0])
	}
	found, err := filesWith(filepath.Join(w.Dir, "_trust"), lines)
	w.check(err)
	logs := w.logs
	if w.daemon != nil {
		logs = append(slices.Clone(logs), w.daemon.log.String())
	}
	for i, text := range logs {
		for _, line := range lines {
			if strings.Contains(text, string(line)) {
				found = append(found, fmt.Sprintf("output %d", i))
			}
		}
	}
	if len(found) > 0 {
		w.fail("%s came to %v", args[0], found)
	}
	if len(logs) == 0 || w.scanned == 0 {
		w.fail("no process has seen the secret yet")
	}
}
