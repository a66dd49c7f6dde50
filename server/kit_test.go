package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/changes"
	"trust-worker/internal/signtest"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is the daemon's side without its loops: real directories, a real
// loader, a real cache.
type daemon struct {
	loader *truststore.Loader
	store  *store.Store
	last   atomic.Pointer[truststore.TrustStore]
	status atomic.Pointer[scheduler.Status]
	// fail, if set, is what ReloadNow returns.
	fail atomic.Pointer[error]
}

func (d *daemon) PublishNow(ctx context.Context) error { return d.ReloadNow(ctx) }

func (d *daemon) ReloadNow(ctx context.Context) error {
	if err := d.fail.Load(); err != nil {
		return *err
	}
	store, err := d.loader.Load(ctx, time.Now())
	if err != nil {
		return err
	}
	if _, err := d.store.SetTrust(store.InForce()); err != nil {
		return err
	}
	d.last.Store(store)
	return d.store.Confirm(time.Now())
}

func (d *daemon) TrustStore() *truststore.TrustStore { return d.last.Load() }

func (d *daemon) Status() scheduler.Status { return *d.status.Load() }

// world is a server on a loopback port, over a small cache.
type world struct {
	t      testing.TB
	root   string
	state  string
	d      *daemon
	reader *cache.Reader
	o      *changes.Observer
	srv    *Server
	url    string
	log    *logBuffer
	stop   func() error
	// counting: nobody has counted everything yet.
	counting atomic.Bool
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start serves a world that edit has configured. Uploads need the token, unless
// edit says otherwise.
func start(t testing.TB, edit func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state"), log: &logBuffer{}}
	check(t, os.MkdirAll(w.root, 0o755))
	cfg := Config{Listen: []string{"127.0.0.1:0"}, StateDir: w.state, Cosign: true, Notation: true,
		CosignDir: filepath.Join(w.root, "_cosign"), NotationDir: filepath.Join(w.root, "_notation"),
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Build: Build{Version: "test"}}
	cfg.Limits.WriteRate, cfg.Limits.WriteBurst = 1e6, 1e6
	if edit != nil {
		edit(&cfg)
	}
	w.d = &daemon{}
	w.d.status.Store(&scheduler.Status{FirstPass: true})
	w.d.loader = must[*truststore.Loader](t)(truststore.NewLoader(truststore.Config{CosignDir: cfg.CosignDir, NotationDir: cfg.NotationDir,
		Cosign: cfg.Cosign, Notation: cfg.Notation, Revocation: truststore.RevocationOffline}))
	w.d.store = must[*store.Store](t)(store.Open(w.state, store.Options{}))
	check(t, w.d.ReloadNow(context.Background()))
	check(t, w.d.store.Publish(context.Background()))
	check(t, w.d.store.SetWhole(true)) // as at the end of the first pass
	w.reader = must[*cache.Reader](t)(cache.OpenReader(w.state))
	cfg.Changes = changes.OpenJournal(w.state, cfg.Log)
	cfg.Changes.Keep(changes.OpenHistory(w.state, changes.DefaultDays, cfg.Log))
	w.o = changes.NewObserver(w.reader, cfg.Changes, cfg.Log, nil)
	cfg.Reader, cfg.Trust, cfg.Status = w.reader, w.d, w.d.Status
	cfg.Totals = func() *changes.Totals {
		snap, err := w.reader.Snapshot()
		if err != nil || w.counting.Load() {
			return nil
		}
		defer snap.Close()
		return &changes.Totals{Generation: snap.Generation(), Counts: must[*cache.Counts](t)(snap.Count())}
	}
	w.srv = must[*Server](t)(New(cfg))
	check(t, w.srv.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.srv.Serve(ctx) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.url = "http://" + w.srv.Addresses()[0].String()
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		check(t, w.o.Close())
		check(t, cfg.Changes.Close())
		check(t, w.reader.Close())
		check(t, w.d.store.Close())
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return w
}

// openUploads is the plain form of zot's documentation.
func openUploads(c *Config) { c.Auth.InsecureUploads = true }

func (w *world) token() string {
	w.t.Helper()
	b := must[[]byte](w.t)(os.ReadFile(filepath.Join(w.state, uploadToken)))
	return strings.TrimSpace(string(b))
}

// answer is a response, read in full.
type answer struct {
	*http.Response
	body string
}

func (w *world) do(req *http.Request) *answer {
	w.t.Helper()
	return doWith(w.t, http.DefaultClient, req)
}

func doWith(t testing.TB, c *http.Client, req *http.Request) *answer {
	t.Helper()
	resp := must[*http.Response](t)(c.Do(req))
	defer resp.Body.Close()
	return &answer{resp, string(must[[]byte](t)(io.ReadAll(resp.Body)))}
}

func (w *world) request(method, path string, body []byte, headers ...string) *http.Request {
	w.t.Helper()
	req := must[*http.Request](w.t)(http.NewRequest(method, w.url+path, bytes.NewReader(body)))
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func (w *world) call(method, path string, body []byte, headers ...string) *answer {
	w.t.Helper()
	return w.do(w.request(method, path, body, headers...))
}

func (w *world) get(path string) *answer { w.t.Helper(); return w.call("GET", path, nil) }

func (a *answer) want(t testing.TB, status int, parts ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s %s: status %d, want %d: %s", a.Request.Method, a.Request.URL, a.StatusCode, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("%s %s: %q is not in the answer: %s", a.Request.Method, a.Request.URL, part, a.body)
		}
	}
}

// problem decodes an error in zot's form.
func (a *answer) problem(t testing.TB) problem {
	t.Helper()
	var list struct{ Errors []problem }
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Errors) != 1 {
		t.Fatalf("not an error in zot's form: %v: %s", err, a.body)
	}
	return list.Errors[0]
}

// files lists everything below the trust directories with its content.
func (w *world) files() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(w.root, path)
		out[rel] = string(b)
		return err
	})
	check(w.t, err)
	return out
}

// put writes a trust file as an operator would, and has it loaded.
func (w *world) put(name string, content []byte) {
	w.t.Helper()
	path := filepath.Join(w.root, name)
	check(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(w.t, os.WriteFile(path, content, 0o644))
	check(w.t, w.d.ReloadNow(context.Background()))
}

// A fact about an image, without cryptography: the server decides nothing.
type claim struct {
	tool    trust.Tool
	signer  trust.Signer
	reason  trust.Reason // instead of a signer
	author  string
	until   int64
	verdict int // further layers without a key, before this one
	// predicate, if not empty, makes it an attestation.
	predicate string
}

func digestOf(s string) trust.Digest { return trust.SumOf([]byte(s)) }

// image commits one repository with one tagged image and its signatures.
func (w *world) image(repo, tag string, claims ...claim) trust.Digest {
	w.t.Helper()
	d := digestOf(repo + ":" + tag)
	row := store.Row{Digest: d, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 100, Present: true, Tagged: true}
	facts := w.claims(&row, repo+":"+tag, claims)
	w.commit(repo, map[string]trust.Digest{tag: d}, []store.Row{row}, facts)
	return d
}

func (w *world) claims(row *store.Row, name string, claims []claim) (facts []store.Fact) {
	for i, c := range claims {
		sig := digestOf(fmt.Sprintf("signature %d of %s", i, name))
		// As the tools attach them.
		carrier := map[trust.Tool]trust.Carrier{trust.Cosign: trust.CosignTag, trust.Notation: trust.NotationReferrer}[c.tool]
		if c.predicate != "" {
			carrier = trust.Attestations
		}
		row.References = append(row.References, store.Reference{Digest: sig, Carrier: carrier})
		f := store.Fact{Subject: row.Digest, Signature: sig, Context: store.Context{Tool: c.tool}, Epoch: trust.MinEpoch, Trust: w.d.store.TrustGeneration(),
			Attachment: c.predicate != ""}
		if c.tool == trust.Notation {
			f.Context.MediaType = row.MediaType
			f.Context.Policy, _ = w.d.TrustStore().InForce().Policy("any", trust.Notation)
		}
		format := map[trust.Tool]trust.Format{trust.Cosign: trust.SimpleSigning, trust.Notation: trust.JWS}[c.tool]
		for range c.verdict {
			f.Verdicts = append(f.Verdicts, trust.Verdict{Format: format, VerifiedAt: 1_700_000_000, Epoch: trust.MinEpoch, Reason: trust.NoTrustedKey})
		}
		v := trust.Verdict{Format: format, VerifiedAt: 1_700_000_000, Epoch: trust.MinEpoch, Reason: c.reason, Author: c.author, Policy: f.Context.Policy, Predicate: c.predicate}
		if c.reason == "" {
			v.Grounds = []trust.Ground{{Signers: []trust.SignerID{c.signer.ID()}, Until: c.until, Limit: trust.SignatureExpired}}
		}
		f.Verdicts = append(f.Verdicts, v)
		facts = append(facts, f)
	}
	return facts
}

func (w *world) commit(repo string, tags map[string]trust.Digest, rows []store.Row, facts []store.Fact) {
	w.t.Helper()
	stamp, newest := "stamp", ""
	for tag := range tags { // written last: the first by name, so that an order by names shows
		if newest == "" || tag < newest {
			newest = tag
		}
	}
	_, err := w.d.store.Commit(store.Batch{Place: repo, SetTags: true, Complete: true, Tags: tags,
		Update: &store.PlaceUpdate{Stamp: &stamp, Newest: &newest}, Rows: rows, Facts: facts})
	check(w.t, err)
	check(w.t, w.d.store.Publish(context.Background()))
}

// status is what another process reads.
func (w *world) status(repo, tag string) trust.Status {
	w.t.Helper()
	snap := must[*cache.Snapshot](w.t)(w.reader.Snapshot())
	defer snap.Close()
	img := must[cache.Image](w.t)(snap.Tag(repo, tag))
	return img.SignatureInfo[0].Status
}

func (w *world) generation() string {
	w.t.Helper()
	snap := must[*cache.Snapshot](w.t)(w.reader.Snapshot())
	defer snap.Close()
	return snap.Generation().String()
}

func byKey(k *signtest.Key) claim { return claim{tool: trust.Cosign, signer: k.Signer()} }

var errTest = errors.New("test")

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c := must[net.Conn](t)(net.Dial("tcp", address))
	t.Cleanup(func() { _ = c.Close() })
	check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}
