package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trust-worker/changes"
)

// browser is headless Chromium, driven by its own command line.
type browser struct {
	path    string
	profile string
}

// newBrowser skips the test where there is none.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes seconds to start")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return &browser{path: path, profile: t.TempDir()}
		}
	}
	t.Skip("there is no chromium (Debian: apt-get install chromium): the status page is not tried in a browser")
	return nil
}

// run opens a page and returns what the browser prints, and the lines of the
// page's console: errors of the script, violations of the policy.
func (b *browser) run(t *testing.T, url string, args ...string) (out string, console []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--user-data-dir=" + b.profile}, append(args, url)...)
	cmd := exec.CommandContext(ctx, b.path, args...)
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, ":CONSOLE") {
			console = append(console, strings.TrimSpace(line))
		}
	}
	return stdout.String(), console
}

// dom is the page after some seconds of its own time, which pass as soon as
// nothing is on the way.
func (b *browser) dom(t *testing.T, url string, seconds int) (string, []string) {
	t.Helper()
	return b.run(t, url, fmt.Sprintf("--virtual-time-budget=%d000", seconds), "--dump-dom")
}

// between is where a test stands between a browser and w.
type between struct {
	// page is called before the n-th page is asked for, n from 1; false breaks
	// the connection off.
	page func(n int) bool
	// stream answers for the stream of changes; nil: there is none.
	stream func(http.ResponseWriter)
	header func(http.Header)
}

// serve returns the address. A stream that stays open would hold the page's time
// still, so that one is answered at most.
func (b between) serve(t *testing.T, w *world) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(must[*url.URL](t)(url.Parse(w.url)))
	proxy.ModifyResponse = func(r *http.Response) error {
		if b.header != nil {
			b.header(r.Header)
		}
		return nil
	}
	var pages, streams atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == pathAPI+"/events":
			if b.stream == nil || streams.Add(1) > 1 {
				rw.WriteHeader(http.StatusNoContent) // do not come back
				return
			}
			b.stream(rw)
			return
		case !strings.HasPrefix(r.URL.Path, "/ui/static/") && b.page != nil && !b.page(int(pages.Add(1))):
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

var live = regexp.MustCompile(`<div class="live" id="live"[^>]*>`)

// The page follows what happens: a key is dropped in between two answers, and
// the image that it signed turns trusted. Nothing is said on the console.
func TestBrowserLiveUpdate(t *testing.T) {
	const image = "platform/payments/settlement-service:2026.11.3"
	turned := regexp.MustCompile(`data-key="` + regexp.QuoteMeta(image) + `@[^"]*" data-state="trusted" class="changed"`)
	try := func(t *testing.T, seconds int, on func(w *world, drop func()) between) {
		b := newBrowser(t)
		w, spare := registry(t, nil)
		if got := rows(w.get("/ui/")); !slices.Contains(got, image+" untrusted") {
			t.Fatalf("before: %q", got)
		}
		at := on(w, func() { w.put("_cosign/spare.pub", spare.PEM()) }).serve(t, w)
		out, console := b.dom(t, at+"/ui/", seconds)
		if len(console) > 0 {
			t.Errorf("on the console: %s", strings.Join(console, "\n"))
		}
		if !turned.MatchString(out) || !strings.Contains(out, `data-state="live"`) {
			t.Errorf("the row has not turned trusted: %q %q", live.FindString(out), regexp.MustCompile(`data-key="platform[^>]*`).FindAllString(out, -1))
		}
	}
	t.Run("by asking again", func(t *testing.T) {
		try(t, 12, func(_ *world, drop func()) between {
			return between{page: func(n int) bool {
				if n == 2 {
					drop()
				}
				return true
			}}
		})
	})
	// Within 3 seconds it does not ask unless it is told.
	t.Run("by the stream of changes", func(t *testing.T) {
		try(t, 3, func(w *world, drop func()) between {
			return between{stream: func(rw http.ResponseWriter) { w.relay(rw, drop) }}
		})
	})
}

// relay passes the stream of changes on until it has told of a signature, having
// called act when it was ready.
func (w *world) relay(rw http.ResponseWriter, act func()) {
	look := func() { check(w.t, w.o.Look(context.Background())) }
	look() // what has been until now is not told
	resp, err := http.Get(w.url + pathAPI + "/events")
	check(w.t, err)
	defer resp.Body.Close()
	rw.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	last := false
	for lines.Scan() {
		line := lines.Text()
		_, _ = io.WriteString(rw, line+"\n")
		check(w.t, http.NewResponseController(rw).Flush())
		last = last || line == "event: "+string(changes.SignatureTrusted)
		switch {
		case line == "" && last:
			return
		case line == "event: ready":
			act()
			look()
		}
	}
}

// A page whose server has gone does not look like one that is up to date.
func TestBrowserLostServer(t *testing.T) {
	b := newBrowser(t)
	w, _ := registry(t, nil)
	at := between{page: func(n int) bool { return n < 2 }}.serve(t, w)
	out, _ := b.dom(t, at+"/ui/trust", 12)
	if !strings.Contains(out, "No answer since") || !regexp.MustCompile(`<html[^>]*class="lost"`).MatchString(out) {
		t.Errorf("it looks alive: %s", live.FindString(out))
	}
}

// Without its script the page is whole, and offers nothing that needs one.
func TestBrowserWithoutScript(t *testing.T) {
	b := newBrowser(t)
	w, _ := registry(t, nil)
	at := between{header: func(h http.Header) {
		if p := h.Get("Content-Security-Policy"); p != "" {
			h.Set("Content-Security-Policy", strings.ReplaceAll(p, "script-src 'self'", "script-src 'none'"))
		}
	}}.serve(t, w)
	out, console := b.dom(t, at+"/ui/?state=untrusted", 1)
	// That the console says so shows that violations would be seen above.
	if len(console) == 0 || !strings.Contains(console[0], "Content Security Policy") {
		t.Errorf("the script was not kept from running: %q", console)
	}
	if m := live.FindString(out); !strings.Contains(m, "hidden") {
		t.Errorf("there is a switch that does nothing: %s", m)
	}
	if n := strings.Count(out, `data-state="untrusted"`); n != 4 || !strings.Contains(out, `<form class="search" action="/ui/"`) {
		t.Errorf("%d rows, want 4", n)
	}
}

func TestBrowserImagePage(t *testing.T) {
	b := newBrowser(t)
	w, _ := registry(t, nil)
	out, console := b.dom(t, between{}.serve(t, w)+"/ui/image/library/web:1.1", 12)
	if len(console) > 0 {
		t.Errorf("on the console: %s", strings.Join(console, "\n"))
	}
	if !strings.Contains(out, `data-state="live"`) || !strings.Contains(out, "2 signatures") {
		t.Errorf("the page is not whole: %s", live.FindString(out))
	}
}

// Screenshots for the documentation: make screenshots.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("TRUST_WORKER_SCREENSHOTS")
	if dir == "" {
		t.Skip("TRUST_WORKER_SCREENSHOTS does not name a directory for them")
	}
	b := newBrowser(t)
	w, spare := registry(t, nil)
	look := func() { check(t, w.o.Look(t.Context())) }
	look()
	w.put("_cosign/spare.pub", spare.PEM())
	look()
	check(t, os.Remove(filepath.Join(w.root, "_cosign", "spare.pub")))
	check(t, w.d.ReloadNow(t.Context()))
	look()
	at := between{}.serve(t, w)
	dark := "--blink-settings=preferredColorScheme=0"
	for _, shot := range []struct {
		name, path, size string
		args             []string
	}{
		{"status-page", "/ui/", "1200,1260", nil},
		{"status-page-dark", "/ui/", "1200,1260", []string{dark}},
		{"status-page-narrow", "/ui/?q=library", "390,1180", nil},
		{"image-page", "/ui/image/library/web:1.1", "1200,1000", nil},
		{"trust-page", "/ui/trust", "1200,620", nil},
	} {
		file := filepath.Join(t.TempDir(), "shot.png")
		b.run(t, at+shot.path, append(shot.args, "--virtual-time-budget=1000", "--window-size="+shot.size, "--screenshot="+file)...)
		check(t, shrink(filepath.Join(dir, shot.name+".png"), file))
	}
}
