package integration

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/cache"
)

// The commands for cases that need a running daemon, its HTTP, or somebody who
// listens where nobody may call.

func init() {
	corpusCommand("serve", "[FLAG...]", 0, -1, (*world).cmdServe)
	corpusCommand("settle", "", 0, 0, (*world).cmdSettle)
	corpusCommand("later", "DURATION", 1, 1, (*world).cmdLater)
	corpusCommand("end", "SIGNAL CODE...", 2, -1, (*world).cmdEnd)
	corpusCommand("http", "CODE METHOD PATH [body=FILE] [credential=none|write] [says=REGEXP] [HEADER:VALUE...]", 3, -1, (*world).cmdHTTP)
	corpusCommand("listen", "VARIABLE", 1, 1, (*world).cmdListen)
}

// cmdServe starts the daemon and waits for the end of its first pass. Its HTTP
// listens on a port of its own.
func (w *world) cmdServe(args []string) {
	w.surround()
	c := w.program(append([]string{"serve", "--root", w.Dir, "--scan-interval", "24h", "--listen", "127.0.0.1:0"}, args...)...)
	w.daemon = start(w.t, c, filepath.Join(w.Dir, "_trust"))
	w.daemon.ready(w.t)
	at := regexp.MustCompile(`msg=listening .*at=(\S+)`).FindStringSubmatch(w.daemon.log.String())
	if at == nil {
		w.fail("the log does not tell where HTTP listens:\n%s", w.daemon.log)
	}
	w.address = at[1]
}

// cmdSettle waits until every answer is as expected, in what the daemon publishes.
func (w *world) cmdSettle([]string) {
	r, err := cache.OpenReader(filepath.Join(w.Dir, "_trust"))
	w.check(err)
	defer r.Close()
	var problems []string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("at the end: %v", problems)
		}
	}()
	eventually(w.t, "the answers are as expected", func() bool {
		problems = w.judge(w.all(r), true)
		return len(problems) == 0
	})
	w.worth = 0
	w.seen()
}

// cmdLater looks at what is published, as a reader whose clock is ahead.
func (w *world) cmdLater(args []string) {
	at := w.at(args[0])
	r, err := cache.OpenReader(filepath.Join(w.Dir, "_trust"), cache.WithClock(func() time.Time { return at }))
	w.check(err)
	defer r.Close()
	if problems := w.judge(w.all(r), true); len(problems) > 0 {
		w.fail("in %s: %s", args[0], strings.Join(problems, "\n"))
	}
	w.seen()
}

// all is what list prints, read in this process.
func (w *world) all(r *cache.Reader) (images []cache.Image) {
	snap, err := r.Snapshot()
	w.check(err)
	defer snap.Close()
	w.check(snap.Repositories(func(name string) error {
		return snap.Images(name, func(img cache.Image) error {
			images = append(images, img)
			return nil
		})
	}))
	return images
}

// cmdEnd ends the daemon by a signal and looks at the exit code, which is one of
// those named; -1 is that of a process that a signal has ended.
func (w *world) cmdEnd(args []string) {
	sig := unix.SignalNum(args[0])
	if sig == 0 {
		w.fail("no such signal: %s", args[0])
	}
	if got := w.daemon.stop(w.t, sig); !slices.Contains(args[1:], strconv.Itoa(got)) {
		w.fail("exit code %d after %s, want %s", got, args[0], strings.Join(args[1:], " or "))
	}
	w.logs = append(w.logs, w.daemon.log.String())
	w.daemon = nil
}

// cmdHTTP sends one request to the daemon. credential=write sends the token of the
// first start, without which nothing may be uploaded over TCP.
func (w *world) cmdHTTP(args []string) {
	code, err := strconv.Atoi(args[0])
	w.check(err)
	var body []byte
	headers, says, host := http.Header{}, "", ""
	for _, arg := range args[3:] {
		name, value, _ := strings.Cut(arg, "=")
		switch {
		case name == "body":
			body = w.read(value)
		case name == "says":
			says = value
		case name == "credential" && value == "write":
			token, err := os.ReadFile(filepath.Join(w.Dir, "_trust", "upload.token"))
			w.check(err)
			headers.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		case strings.Contains(arg, ":"):
			name, value, _ := strings.Cut(arg, ":")
			headers.Set(name, value)
			host = cmp.Or(headers.Get("Host"), host)
		default:
			w.fail("what is %s?", arg)
		}
	}
	req, err := http.NewRequestWithContext(w.t.Context(), args[1], "http://"+w.address+args[2], bytes.NewReader(body))
	w.check(err)
	req.Header, req.Host = headers, host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: deadline}
	resp, err := client.Do(req)
	w.check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	w.check(err)
	w.logs = append(w.logs, string(answer))
	if resp.StatusCode != code {
		w.fail("%s %s: %s\n%.2000s", args[1], args[2], resp.Status, answer)
	}
	if matched, err := regexp.Match(says, answer); err != nil || !matched {
		w.fail("%s %s says nothing like %s:\n%.2000s", args[1], args[2], says, answer)
	}
	w.scanned++
}

// cmdListen listens on a port of this machine and puts it into a variable as
// http://HOST:PORT. Who connects fails the case.
func (w *world) cmdListen(args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.check(err)
	var called atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			called.Add(1)
			_ = c.Close()
		}
	}()
	w.t.Cleanup(func() {
		// Whoever has connected is in the queue before this one.
		if c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second); err == nil {
			_ = c.Close()
		}
		eventually(w.t, "the listener answers", func() bool { return called.Load() > 0 })
		_ = l.Close()
		<-done
		if n := called.Load(); n != 1 {
			w.t.Errorf("%d connections to an address that came with a signature", n-1)
		}
	})
	w.ts.Setenv(args[0], "http://"+l.Addr().String())
}
