package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"trust-worker/changes"
	"trust-worker/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	id     = "0123456789abcdef"
	secret = "a secret of some length"
)

// receiver is what a webhook reaches, without a network.
type receiver struct {
	t  *testing.T
	mu sync.Mutex
	// answer gives the status of the n-th attempt; 0 is a connection that
	// fails.
	answer func(n int) int
	got    []string // "<event type> <id>" of what was accepted
	at     []time.Duration
	began  time.Time
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%s.%s", req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp"), b)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); req.Header.Get("webhook-signature") != want {
		r.t.Errorf("signature %q, want %q", req.Header.Get("webhook-signature"), want)
	}
	if got := req.Header.Get("webhook-timestamp"); got != fmt.Sprint(time.Now().Unix()) {
		r.t.Errorf("timestamp %s", got)
	}
	var e cloudEvent
	if err := json.Unmarshal(b, &e); err != nil || e.SpecVersion != "1.0" || e.ID != req.Header.Get("webhook-id") || e.Source != "/trust-worker/"+id {
		r.t.Errorf("event %s: %v", b, err)
	}
	if got := req.Header.Get("Content-Type"); got != "application/cloudevents+json; charset=utf-8" {
		r.t.Errorf("content type %s", got)
	}
	status := http.StatusNoContent
	if r.answer != nil {
		status = r.answer(len(r.at))
	}
	r.at = append(r.at, time.Since(r.began))
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	if status/100 == 2 {
		r.got = append(r.got, e.Type+" "+e.ID)
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{"Location": {"http://elsewhere.example/"}}}, nil
}

type world struct {
	t      *testing.T
	dir    string
	j      *changes.Journal
	r      *receiver
	sender *Sender
	stop   func()
}

func newWorld(t *testing.T, answer func(n int) int) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), r: &receiver{t: t, answer: answer, began: time.Now()}}
	if err := os.WriteFile(filepath.Join(w.dir, "secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.j = changes.OpenJournal(w.dir, slog.New(slog.DiscardHandler))
	w.j.Begin(id, 1, time.Now(), "")
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	w.sender, err = New([]Config{{URL: "https://receiver.example/hook?token=1234", SecretFile: filepath.Join(w.dir, "secret")}}, w.j, w.dir, w.r, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.sender.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) end() {
	w.stop()
	if err := w.j.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) add(n int) {
	for range n {
		w.j.Add(changes.Change{Kind: changes.SignatureLost, Position: changes.Position{Generation: 7}, Time: time.Now(),
			Repository: "team/app", Digest: trust.SumOf(nil)})
	}
}

func (w *world) want(st Status, got ...string) {
	w.t.Helper()
	if !slices.Equal(w.r.got, got) {
		w.t.Errorf("accepted %q, want %q", w.r.got, got)
	}
	st.Target = "https://receiver.example/hook"
	if now := w.sender.Status()[0]; now != st {
		w.t.Errorf("status %+v, want %+v", now, st)
	}
}

func lost(n int) string { return fmt.Sprintf("trust-worker.signature-lost %s-7.%d", id, n) }

// In order, once each; where it was is kept over a restart.
func TestDeliveredInOrderOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.add(2)
		synctest.Wait()
		w.want(Status{Delivered: 2}, lost(1), lost(2))
		w.stop()
		w.add(1) // while nobody delivers
		w.start()
		synctest.Wait()
		w.want(Status{Delivered: 1}, lost(1), lost(2), lost(3))
		w.end()
	})
}

// A receiver that is down is tried again, at longer and longer intervals, for
// as long as it takes, and nothing overtakes.
func TestRetriedForAsLongAsItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(n int) int {
			return []int{0, 503, 500, 429, 0, 408, 0, 0, 0, 0, 0, 0, 204, 204}[min(n, 13)]
		})
		w.add(2)
		time.Sleep(time.Minute)
		synctest.Wait()
		st := w.sender.Status()[0]
		if st.Behind != 2 || st.Retries < 4 || st.Problem == "" || st.Delivered != 0 {
			t.Errorf("status %+v", st)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		w.want(Status{Delivered: 2, Retries: 12}, lost(1), lost(2))
		for i := 1; i < 12; i++ {
			pause := w.r.at[i] - w.r.at[i-1]
			nominal := min(firstPause<<(i-1), longestPause)
			if pause < nominal*4/5 || pause > nominal*6/5 {
				t.Errorf("pause %d was %s, about %s is wanted", i, pause, nominal)
			}
		}
		w.end()
	})
}

// An event that is refused for good does not hold up the others; a redirect is
// a refusal and leads nowhere.
func TestRefusedIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(n int) int {
			switch {
			case n < maxRefusals-1:
				return 400
			case n < maxRefusals:
				return 307
			}
			return 200
		})
		w.add(2)
		time.Sleep(time.Hour)
		synctest.Wait()
		w.want(Status{Delivered: 1, Refused: 1, Retries: maxRefusals - 1}, lost(2))
		w.end()
	})
}

// What a receiver is too far behind for is counted, and it is told to read
// everything again.
func TestTooFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		w := newWorld(t, func(int) int { return map[bool]int{true: 200}[up] })
		w.add(1)
		synctest.Wait()
		w.add(changes.MaxHeld + 9)
		w.r.mu.Lock()
		up = true
		w.r.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		st := w.sender.Status()[0]
		if st.Dropped != 10 || st.Behind != 0 || st.Delivered != 1 {
			t.Errorf("status %+v", st)
		}
		if want := []string{fmt.Sprintf("trust-worker.reset %s-7.%d-reset", id, changes.MaxHeld+10)}; !slices.Equal(w.r.got, want) {
			t.Errorf("accepted %q", w.r.got)
		}
		w.add(1)
		synctest.Wait()
		if n := len(w.r.got); n != 2 {
			t.Errorf("%d accepted", n)
		}
		w.end()
	})
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "0123456789abcdef\n")
	whsec := file("whsec", "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 24)))
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{"https://h/x", good}, ""}, {Config{"http://h:80", whsec}, ""},
		{Config{"ftp://h", good}, "http or https"}, {Config{"/x", good}, "http or https"}, {Config{"https://", good}, "http or https"},
		{Config{"https://u:pass@h", good}, "no user"}, {Config{"https://h", ""}, "secretFile is missing"},
		{Config{"https://h", file("short", "0123")}, "16 to"}, {Config{"https://h", file("long", strings.Repeat("x", 5000))}, "16 to"},
		{Config{"https://h", file("bad", "whsec_!")}, "not base64"}, {Config{"https://h", dir + "/none"}, "no such file"},
	} {
		err := c.cfg.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "pass@")) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	if b, err := (Config{SecretFile: whsec}).secret(); err != nil || string(b) != strings.Repeat("k", 24) {
		t.Errorf("%q, %v", b, err)
	}
}

// The test vector of the Standard Webhooks specification's reference libraries.
func TestSignature(t *testing.T) {
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("signature %s", got)
	}
}

// Over a real connection, with the default transport.
func TestOverHTTP(t *testing.T) {
	got := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- r.Header.Get("webhook-id") }))
	defer s.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	j := changes.OpenJournal(dir, slog.New(slog.DiscardHandler))
	sender, err := New([]Config{{URL: s.URL, SecretFile: filepath.Join(dir, "secret")}}, j, dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sender.Run(ctx) }()
	j.Begin(id, 1, time.Now(), "") // after the sender has begun to wait
	j.Add(changes.Change{Kind: changes.SignerAdded, Position: changes.Position{Generation: 2}})
	if got := <-got; got != id+"-2.1" {
		t.Errorf("event %s", got)
	}
	cancel()
	if err := errors.Join(<-done, j.Close()); err != nil {
		t.Error(err)
	}
}
