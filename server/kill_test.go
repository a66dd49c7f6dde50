package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// TestKillUpload kills a server that is being uploaded to, at a random moment, and
// holds what it leaves to H3: every upload that was answered 200 is there, and
// every file that a load would read is complete. make torture takes more turns.
func TestKillUpload(t *testing.T) {
	const env = "TRUST_WORKER_SERVE_INTO"
	if dir := os.Getenv(env); dir != "" {
		w := start(t, func(c *Config) { openUploads(c); c.CosignDir = filepath.Join(dir, "_cosign") })
		fmt.Println("url " + w.url)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		return
	}
	turns := 3
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		turns = 300
	}
	var keys [][]byte
	for range 50 {
		keys = append(keys, signtest.NewKey(signtest.P256).PEM())
	}
	accepted := 0
	for range turns {
		accepted += killOnce(t, env, keys)
	}
	t.Logf("%d servers killed, %d uploads accepted before, none lost", turns, accepted)
}

// killOnce returns how many uploads were accepted.
func killOnce(t *testing.T, env string, keys [][]byte) (accepted int) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0], "-test.run", "^TestKillUpload$")
	c.Env = append(os.Environ(), env+"="+dir, "TMPDIR="+dir)
	in := must[io.WriteCloser](t)(c.StdinPipe())
	out := must[io.ReadCloser](t)(c.StdoutPipe())
	check(t, c.Start())
	defer func() { _ = in.Close(); _ = c.Wait() }()
	line := must[string](t)(bufio.NewReader(out).ReadString('\n'))
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "url ")
	if !ok {
		t.Fatalf("the server says %q", line)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	killed := time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, func() { _ = c.Process.Kill() })
	defer killed.Stop()
	for _, key := range keys {
		resp, err := client.Post(url+pathCosign, "", bytes.NewReader(key))
		if err != nil {
			break
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
		accepted++
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	at := filepath.Join(dir, "_cosign")
	for _, key := range keys[:accepted] {
		if b, err := os.ReadFile(filepath.Join(at, trust.SumOf(key).String())); err != nil || !bytes.Equal(b, key) {
			t.Errorf("an accepted upload is lost: %v", err)
		}
	}
	entries, _ := os.ReadDir(at)
	for _, e := range entries {
		b := must[[]byte](t)(os.ReadFile(filepath.Join(at, e.Name())))
		if !strings.HasPrefix(e.Name(), ".") && trust.SumOf(b).String() != e.Name() {
			t.Errorf("%s is half written: %q", e.Name(), b)
		}
	}
	return accepted
}
