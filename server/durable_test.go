package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPutSyscalls holds put to the order that its comment promises, by the system
// calls that this test makes when it is run again under strace.
func TestPutSyscalls(t *testing.T) {
	const env = "TRUST_WORKER_PUT_INTO"
	if dir := os.Getenv(env); dir != "" {
		d := &directory{path: filepath.Join(dir, "_notation")}
		check(t, d.put("truststore/x509/ca/name", "sha256:file", []byte("content")))
		check(t, d.remove("truststore/x509/ca/name/sha256:file"))
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	c := exec.Command(strace, "-f", "-y", "-qq", "-e", "trace=mkdir,mkdirat,openat,write,fsync,close,rename,renameat,renameat2,unlinkat", "-o", trace,
		os.Args[0], "-test.run", "^TestPutSyscalls$")
	c.Env = append(os.Environ(), env+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("strace cannot trace here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	b := must[[]byte](t)(os.ReadFile(trace))
	store := regexp.QuoteMeta(dir + "/_notation/truststore/x509/ca/name")
	temp := store + `/\.upload-[0-9a-f]+`
	// Each must come after the one before it.
	rest := string(b)
	for _, step := range []string{
		`mkdir(at)?\(.*"_notation|mkdir(at)?\(.*/_notation"`,
		`fsync\(\d+<` + regexp.QuoteMeta(dir) + `>`,
		`mkdirat\(.*"truststore"`, `fsync\(\d+<` + regexp.QuoteMeta(dir+"/_notation") + `>`,
		`mkdirat\(.*"name"`, `fsync\(\d+<` + regexp.QuoteMeta(dir+"/_notation/truststore/x509/ca") + `>`,
		`openat\(.*"\.upload-[0-9a-f]+", .*O_CREAT\|O_EXCL`,
		`write\(\d+<` + temp + `>, "content"`, `fsync\(\d+<` + temp + `>`, `close\(\d+<` + temp + `>`,
		`renameat2?\(.*"\.upload-[0-9a-f]+", .*"sha256:file"`, `fsync\(\d+<` + store + `>`,
		`unlinkat\(.*"sha256:file"`, `fsync\(\d+<` + store + `>`,
	} {
		at := regexp.MustCompile(step).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("%s does not come next in\n%s", step, rest)
		}
		rest = rest[at[1]:]
	}
}
