package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/mirror"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const pathPublication = pathAPI + "/publication"

// A replica is told what is published, and when it changes.
func TestPublication(t *testing.T) {
	w := start(t, openUploads)
	a := w.get(pathPublication + "?nonce=once")
	a.want(t, 200)
	var p mirror.Publication
	check(t, json.Unmarshal([]byte(a.body), &p))
	target := must[string](t)(os.Readlink(filepath.Join(w.state, "published", "CURRENT")))
	if p.Current != target || len(p.Layers) == 0 || a.Header.Get(headerNonce) != "once" {
		t.Errorf("%+v %v, CURRENT is %s", p, a.Header, target)
	}
	tag := a.Header.Get("ETag")
	still := w.call("GET", pathPublication+"?wait=10ms", nil, "If-None-Match", tag)
	still.want(t, 304)
	for _, a := range []*answer{a, still} {
		if age, err := strconv.ParseFloat(a.Header.Get(headerAge), 64); err != nil || age < 0 || age > 60 || a.Header.Get("ETag") != tag {
			t.Errorf("%v", a.Header)
		}
	}
	// Whoever waits is told of a change; so is whoever waits for less than there is.
	waiting := make(chan *answer, 1)
	go func() { waiting <- w.call("GET", pathPublication+"?wait=20s", nil, "If-None-Match", tag) }()
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 200)
	next := <-waiting
	next.want(t, 200)
	if next.Header.Get("ETag") == tag || !strings.Contains(next.body, `"Current"`) {
		t.Errorf("%v %s", next.Header, next.body)
	}
	// That nothing is published is told, too, and by whom.
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	gone := w.call("GET", pathPublication+"?wait=20s&nonce=twice", nil, "If-None-Match", next.Header.Get("ETag"))
	gone.want(t, 503)
	if !strings.Contains(gone.body, codeWithdrawn) || gone.Header.Get(headerNonce) != "twice" {
		t.Errorf("%v %s", gone.Header, gone.body)
	}
}

// The age that is told is that of the trust that is told, by the last confirmation.
func TestPublicationTellsItsAge(t *testing.T) {
	w := start(t, nil)
	snap := must[*cache.Snapshot](t)(w.reader.Snapshot())
	defer snap.Close()
	parts := strings.Split(snap.Current(), ".")
	old := time.Now().Add(-1000 * time.Second)
	check(t, os.Chtimes(filepath.Join(w.state, "published", "trust-"+parts[len(parts)-1]+".pb"), old, old))
	eventually(t, "the age is told", func() bool {
		age, err := strconv.ParseFloat(w.get(pathPublication).Header.Get(headerAge), 64)
		return err == nil && age >= 1000 && age < 1100
	})
}

// Published files can be fetched whole and in part, by whoever may read, and nothing else can.
func TestPublishedFiles(t *testing.T) {
	w := start(t, func(c *Config) { c.Auth.Reads = "credential" })
	bearer := []string{"Authorization", "Bearer " + w.token()}
	get := func(name string, header ...string) *answer {
		return w.call("GET", pathPublication+"/"+name, nil, append(header, bearer...)...)
	}
	w.get(pathPublication).want(t, 401)
	a := w.call("GET", pathPublication, nil, bearer...)
	a.want(t, 200)
	var p mirror.Publication
	check(t, json.Unmarshal([]byte(a.body), &p))
	for _, f := range append(p.Layers, p.Trust) {
		want := string(must[[]byte](t)(os.ReadFile(filepath.Join(w.state, "published", f.Name))))
		w.get(pathPublication+"/"+f.Name).want(t, 401)
		whole := get(f.Name)
		whole.want(t, 200)
		if whole.body != want || trust.SumOf([]byte(want)) != f.SHA256 || f.Size != int64(len(want)) {
			t.Errorf("%s is %d bytes, want %d: %+v", f.Name, len(whole.body), len(want), f)
		}
		tag := whole.Header.Get("ETag")
		for _, c := range []struct {
			tag    string
			status int
			body   string
		}{{tag, 206, want[20:]}, {`"other"`, 200, want}} {
			part := get(f.Name, "Range", "bytes=20-", "If-Range", c.tag)
			part.want(t, c.status)
			if part.body != c.body {
				t.Errorf("%s from 20 under %s: %d bytes", f.Name, c.tag, len(part.body))
			}
		}
	}
	check(t, os.WriteFile(filepath.Join(w.state, "published", "base-999.db"), []byte("not published"), 0o600))
	for _, name := range []string{"base-999.db", "CURRENT", "lock", "..%2fupload.token", "..%2fprivate%2fcache.db", "trust-1.pb%00"} {
		if a := get(name); a.StatusCode != 404 && a.StatusCode != 400 {
			t.Errorf("%s gives %d %.40q", name, a.StatusCode, a.body)
		}
	}
}

// Places for replicas are bounded, and health does not need one.
func TestTooManyReplicas(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits.MaxReplicas = 2 }) // half of them for one client
	tag := w.get(pathPublication).Header.Get("ETag")
	waiting := make(chan *answer, 1)
	go func() { waiting <- w.call("GET", pathPublication+"?wait=20s", nil, "If-None-Match", tag) }()
	eventually(t, "one waits", func() bool { return len(w.srv.replicas.all) == 1 })
	w.get(pathPublication).want(t, 503)
	w.get(pathLive).want(t, 200)
	check(t, w.stop()) // whoever waits is answered at the end
	(<-waiting).want(t, 304)
}

// A client that takes nothing is dropped, and gives its place back.
func TestAClientThatTakesNothingIsDropped(t *testing.T) {
	ended := make(chan error, 1)
	file := filepath.Join(t.TempDir(), "large")
	check(t, os.WriteFile(file, nil, 0o600))
	check(t, os.Truncate(file, 64<<20)) // more than what is on the way at once
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stall := map[string]time.Duration{"/nobody": 50 * time.Millisecond, "/": time.Minute}[r.URL.Path]
		f := must[*os.File](t)(os.Open(file))
		defer f.Close()
		_, err := io.Copy(&pacedWriter{w, http.NewResponseController(w), stall, time.Now().Add(time.Minute)}, io.LimitReader(f, 64<<20))
		ended <- err
	}))
	defer srv.Close()
	c := must[net.Conn](t)(net.Dial("tcp", srv.Listener.Addr().String()))
	defer c.Close()
	fmt.Fprint(c, "GET /nobody HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-ended; err == nil {
		t.Error("64 MiB were taken by nobody")
	}
	resp := must[*http.Response](t)(http.Get(srv.URL))
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 64<<20 || err != nil {
		t.Errorf("who takes it gets %d bytes: %v", n, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A replica's server has no trust directories: what is about them is not there.
func TestServerOfAReplica(t *testing.T) {
	w := start(t, func(c *Config) { aReplica(c); c.Gate.Mode = GateEnforce })
	d := w.image("team/app", "1.0")
	for _, path := range []string{pathAPI + "/signers", pathAPI + "/refused", pathCosign, pathNotation} {
		w.get(path).want(t, 404)
	}
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 404)
	if _, err := os.Stat(filepath.Join(w.state, uploadToken)); err == nil {
		t.Error("there is a token for uploads that nobody takes")
	}
	w.get(pathAPI+"/images/team/app:1.0").want(t, 200)
	for _, path := range []string{"/ui/", "/ui/trust"} {
		a := w.get(path)
		a.want(t, 200)
		if !strings.Contains(a.body, "https://worker.example") {
			t.Errorf("%s does not say whose replica it is", path)
		}
	}
	w.get(pathReady).want(t, 200)
	ask := func(reference string) *answer {
		return w.call("GET", pathGate, nil, headerURI, "/v2/team/app/manifests/"+reference, headerMethod, "GET")
	}
	for reference, reason := range map[string]string{"1.0": cache.Unsigned, "2.0": reasonUnknown, "sha256-" + d.Hex() + ".sig": reasonUnknown, trust.SumOf([]byte("a signature")).String(): reasonUnknown} {
		a := ask(reference)
		a.want(t, 403)
		if got := a.Header.Get(headerReason); got != reason {
			t.Errorf("%s: %s, want %s", reference, got, reason)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// What is told is of the files that are read, also where other files come under the same
// names: those of a replica whose source comes from a backup.
func TestPublicationOfOtherFilesOfTheSameNames(t *testing.T) {
	w := start(t, openUploads)
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 200)
	told := func() (a *answer, p mirror.Publication) {
		a = w.get(pathPublication)
		a.want(t, 200)
		check(t, json.Unmarshal([]byte(a.body), &p))
		return a, p
	}
	before, p := told()
	dir := filepath.Join(w.state, "published")
	trustFile := filepath.Join(dir, p.Trust.Name)
	b := must[[]byte](t)(os.ReadFile(trustFile))
	for _, err := range []error{os.Remove(filepath.Join(dir, "CURRENT")), os.WriteFile(trustFile+".new", b, 0o640), os.Rename(trustFile+".new", trustFile)} {
		check(t, err)
	}
	layer := filepath.Join(dir, p.Layers[0].Name)
	b = append(must[[]byte](t)(os.ReadFile(layer)), make([]byte, 4096)...) // a file of the same answers
	for _, err := range []error{os.WriteFile(layer+".new", b, 0o640), os.Rename(layer+".new", layer), os.Symlink(p.Current, filepath.Join(dir, "CURRENT"))} {
		check(t, err)
	}
	eventually(t, "the other files are told of", func() bool {
		a := w.get(pathPublication)
		var now mirror.Publication
		check(t, json.Unmarshal([]byte(a.body), &now))
		return a.StatusCode == 200 && a.Header.Get("ETag") != before.Header.Get("ETag") && now.Current == p.Current && now.Layers[0].SHA256 == trust.SumOf(b)
	})
	whole := w.get(pathPublication + "/" + p.Layers[0].Name)
	whole.want(t, 200)
	if whole.body != string(b) {
		t.Error("another file is sent than was told of")
	}
}

// However many ask one after the other, one looks for them.
func TestOneLooks(t *testing.T) {
	w := start(t, nil)
	for range 200 {
		w.get(pathPublication).want(t, 200)
	}
	tag := w.get(pathPublication).Header.Get("ETag")
	waiting := make(chan *answer, 1)
	go func() { waiting <- w.call("GET", pathPublication+"?wait=100ms", nil, "If-None-Match", tag) }()
	eventually(t, "it waits", func() bool { return len(w.srv.replicas.all) == 1 })
	var b strings.Builder
	check(t, pprof.Lookup("goroutine").WriteTo(&b, 2))
	if n := strings.Count(b.String(), "(*publications).look("); n != 1 {
		t.Errorf("%d goroutines look", n)
	}
	(<-waiting).want(t, 304)
}
