package scheduler

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
)

// Each change of a trust file has a line in the log, with the file's name.
func TestTrustFilesInTheLog(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	a, b := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	dir := filepath.Join(w.st.Dir, "_cosign")
	put := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put("first.pub", a.PEM())
	s := w.scheduler()
	says := func(want ...string) {
		t.Helper()
		log.Reset()
		if err := s.ReloadNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "trust file") {
				_, line, _ = strings.Cut(line, "level=")
				got = append(got, strings.TrimSpace(line))
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q, want %q", got, want)
		}
		for i := range got {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%q, want %q", got[i], want[i])
			}
		}
	}
	printA, printB := a.Fingerprint().String(), b.Fingerprint().String()
	says() // the first load: one line has the numbers
	if !strings.Contains(log.String(), `msg="trust in force" signers=1`) {
		t.Error(log.String())
	}
	put("second.pub", b.PEM())
	says(`INFO msg="trust file added" path=_cosign/second.pub signer=` + printB)
	put("copy.pub", a.PEM())
	says(`INFO msg="trust file added" path=_cosign/copy.pub signer=` + printA)
	if err := os.Remove(filepath.Join(dir, "first.pub")); err != nil {
		t.Fatal(err)
	}
	says(`INFO msg="trust file removed; another file holds what it held, maybe for other repositories or under another name" path=_cosign/first.pub signer=` + printA)
	put("second.pub", a.PEM())
	says(`INFO msg="trust file replaced" path=_cosign/second.pub signer=` + printA)
	put("second.pub", signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{}).Cert()))
	says(`WARN msg="trust file refused" path=_cosign/second.pub reason="holds a certificate; `)
	says()
	put("second.pub", b.PEM())
	says(`INFO msg="trust file mended" path=_cosign/second.pub signer=` + printB)
	put("second.pub", nil) // in the middle of a write
	says(`WARN msg="trust file refused" path=_cosign/second.pub reason="is empty; its last good content stays in force`)
	put("second.pub", b.PEM())
	says(`INFO msg="trust file mended" path=_cosign/second.pub`)
	if err := os.Remove(filepath.Join(dir, "second.pub")); err != nil {
		t.Fatal(err)
	}
	says(`INFO msg="trust file removed" path=_cosign/second.pub signer=` + printB)
	put("bad.pub", []byte("hello"))
	says(`WARN msg="trust file refused" path=_cosign/bad.pub`)
	if err := os.Remove(filepath.Join(dir, "bad.pub")); err != nil {
		t.Fatal(err)
	}
	says(`INFO msg="trust file is no longer refused" path=_cosign/bad.pub`)
}
