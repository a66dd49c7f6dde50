package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"trust-worker/internal/signtest"
)

// systemFiles are what a Go program opens by itself on Linux, besides its
// storage: to read, and never because of anything that somebody has pushed.
var systemFiles = []string{
	"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", // runtime: the size of huge pages
	"/sys/devices/system/cpu/online",                     // the C library: how many processors
	"/proc/self/maps",                                    // the C library: where the stack is
	"/proc/self/mountinfo",                               // runtime: where the cgroup is
	"/proc/self/cgroup",                                  // runtime: the cgroup's CPU limit
	"/sys/fs/cgroup/cpu.max",                             // the same, cgroup v2
	"/sys/fs/cgroup/cpu/cpu.cfs_quota_us",                // the same, cgroup v1
	"/sys/fs/cgroup/cpu/cpu.cfs_period_us",
	"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
	"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us",
	"/etc/localtime",                         // package time
	"/etc/ld.so.cache", "/etc/ld.so.preload", // the C library's, when it is linked
}

// More of them: what /etc/localtime leads to, and the C library itself.
var systemTrees = regexp.MustCompile(`^/usr/share/zoneinfo/|^(/usr)?/lib(64)?/.*\.so(\.\d+)*$`)

// itself is how the kernel shows a process its own files in /proc.
var itself = regexp.MustCompile(`^/proc/\d+/`)

// traceCorpus starts one daemon on everything that the cases have left below dir:
// their registries in one, and the keys of all of them. Under strace
// it connects to nobody, runs nothing and opens nothing but its storage.
func traceCorpus(t *testing.T, dir string) {
	probe := filepath.Join(t.TempDir(), "probe")
	if out, err := exec.Command("strace", "-D", "-f", "--seccomp-bpf", "-y", "-o", probe, "true").CombinedOutput(); err != nil {
		t.Skipf("no strace here: %v: %s", err, out)
	}
	program, err := plainBinary()
	if err != nil {
		t.Fatal(err)
	}
	registries, err := filepath.Glob(filepath.Join(dir, "script-*", "registry"))
	if err != nil || len(registries) == 0 {
		t.Fatalf("no case has left anything: %v", err)
	}
	main := signtest.NewStorage(filepath.Join(dir, "main"))
	s := shared()
	main.TrustKey("T.pub", s.key)
	main.TrustCert("ca:T", "T.pem", s.authority.Cert())
	main.SignSimple(main.Image("main", "valid"), s.key, signtest.CosignOptions{})
	for i, registry := range registries {
		collectTrust(t, registry, main.Dir, fmt.Sprintf("s%d-", i))
		if err := os.Rename(registry, filepath.Join(main.Dir, fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	// A private key in the place of a public one, named as cosign names it.
	secret := signtest.NewKey(signtest.P256)
	write(t, filepath.Join(main.Dir, "_cosign", "cosign.key"), secret.PrivatePEM())
	trace, state := filepath.Join(t.TempDir(), "trace"), filepath.Join(t.TempDir(), "state")
	c := exec.Command("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "512", "-e", "signal=none", "-o", trace,
		"-e", "trace=open,openat,openat2,creat,connect,execve,execveat,sendto,sendmsg,sendmmsg",
		program, "serve", "--root", main.Dir, "--state", state, "--scan-interval", "24h", "--log-level", "debug")
	c.Dir = state + "-nowhere" // a relative name would be an error
	write(t, filepath.Join(c.Dir, "empty"), nil)
	d := start(t, c, state)
	d.ready(t)
	// Everybody's good images are trusted, the case's own mischief beside them.
	r := open(t, state)
	r.becomes("main", "valid", "trusted")
	for i := range registries {
		for _, form := range []string{"simple", "bundle"} {
			r.becomes(fmt.Sprintf("s%d/beside", i), form, "trusted")
		}
	}
	// And it goes on living: a push, a key.
	later := signtest.NewKey(signtest.P256)
	main.SignSimple(main.Image("main", "later"), later, signtest.CosignOptions{})
	main.TrustKey("later.pub", later)
	r.becomes("main", "later", "trusted")
	refused := d.status(t, "cosign.key is refused by name", func(r *report) bool {
		return slices.ContainsFunc(r.Refused, func(f struct{ Path, Reason string }) bool {
			return strings.HasSuffix(f.Path, "cosign.key") && strings.Contains(f.Reason, "PRIVATE")
		})
	})
	if code := d.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}

	lines := secretLines(secret.PrivatePEM())
	found, err := filesWith(state, lines)
	if err != nil || len(found) > 0 {
		t.Errorf("the private key came to %v (%v)", found, err)
	}
	for _, line := range lines {
		if d.log.contains(string(line)) {
			t.Error("the private key came into the log")
		}
	}
	judgeTrace(t, trace, program, []string{main.Dir, state, program, filepath.Dir(state) + "/."})
	t.Logf("%d registries, %d files refused, work %+v", len(registries), len(refused.Refused), refused.Work)
}

// collectTrust copies the keys and certificates of one registry's trust
// directories into another's, under names of their own.
func collectTrust(t *testing.T, from, to, prefix string) {
	t.Helper()
	copyFile := func(name, target string) {
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			return
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, target, b)
	}
	keys, _ := filepath.Glob(filepath.Join(from, "_cosign", "*"))
	for _, name := range keys {
		copyFile(name, filepath.Join(to, "_cosign", prefix+filepath.Base(name)))
	}
	certificates, _ := filepath.Glob(filepath.Join(from, "_notation", "truststore", "x509", "*", "*", "*"))
	for _, name := range certificates {
		rel, err := filepath.Rel(from, filepath.Dir(name))
		if err != nil {
			t.Fatal(err)
		}
		copyFile(name, filepath.Join(to, rel, prefix+filepath.Base(name)))
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

var (
	tracedOpen = regexp.MustCompile(`\b(?:open|creat|openat|openat2)\((?:(\w+)<([^>]*)>, )?"([^"]*)"(\.\.\.)?`)
	// trustedResponder is the one address that may be asked, and only because T's
	// own certificate names it, in N6.
	trustedResponder = regexp.MustCompile(`\bconnect\(.*sin_port=htons\(1\), sin_addr=inet_addr\("127.0.0.1"\)`)
	openedFile       = regexp.MustCompile(`= \d+<([^>]*)>$`)
)

// judgeTrace reads what strace has written. allowed are the files and directories
// that may be opened, tried or not; one that ends in "/." only itself: the directory
// above the state directory is synced, so that its name outlives a power cut.
func judgeTrace(t *testing.T, trace, program string, allowed []string) {
	t.Helper()
	// -D: strace is no parent of the program and may end after it.
	eventually(t, "strace has seen the end", func() bool {
		b, err := os.ReadFile(trace)
		return err == nil && strings.Contains(string(b), "execve(") && !alive(t, trace)
	})
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	opens, programs, outside := 0, 0, map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		switch m := tracedOpen.FindStringSubmatch(line); {
		case m != nil:
			opens++
			name := m[3]
			if !filepath.IsAbs(name) {
				name = filepath.Join(m[2], name)
			}
			if real := openedFile.FindStringSubmatch(line); real != nil {
				name = real[1] // where the kernel ended up, by whatever links
			}
			if m[4] != "" || !isAllowed(filepath.Clean(name), allowed) {
				outside[name] = line
			}
		case strings.Contains(line, "execve(") && strings.Contains(line, program) && programs == 0:
			programs++
		case trustedResponder.MatchString(line):
		case systemCall.MatchString(line) || strings.Contains(line, "sendmmsg("):
			t.Errorf("a call that is none of its business: %s", line)
		}
	}
	for name, line := range outside {
		t.Errorf("opens %s:\n%s", name, line)
	}
	if opens < 1000 || programs != 1 {
		t.Errorf("strace has seen %d opens and %d programs: too few to say anything", opens, programs)
	}
	t.Logf("%d opens", opens)
}

// alive reports whether some process still has the file open.
func alive(t *testing.T, file string) bool {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == file {
			return true
		}
	}
	return false
}

func isAllowed(name string, allowed []string) bool {
	for _, dir := range allowed {
		if name+"/." == dir || name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	name = itself.ReplaceAllString(name, "/proc/self/")
	return slices.Contains(systemFiles, name) || systemTrees.MatchString(name)
}
