package replica_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/changes"
	"trust-worker/cluster/replica"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// A worker's store with a server over it, and replicas of it.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
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

// noTrust stands for the trust directories, about which a replica asks nothing.
type noTrust struct{}

func (noTrust) ReloadNow(context.Context) error    { return nil }
func (noTrust) TrustStore() *truststore.TrustStore { return nil }

// worker publishes images r/app:n, each signed by key A.
type worker struct {
	t     testing.TB
	state string
	s     *store.Store
	url   string
	stop  func()
	edit  func(*server.Config)
}

var keyA, keyB = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("A"))}, trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("B"))}

func newWorker(t testing.TB, lease time.Duration, edit func(*server.Config)) *worker {
	t.Helper()
	w := &worker{t: t, state: filepath.Join(t.TempDir(), "source"), edit: edit}
	w.s = must(store.Open(w.state, store.Options{Lease: lease}))(t)
	w.trust(keyA)
	check(t, w.s.SetWhole(true))
	t.Cleanup(func() { check(t, w.s.Close()) })
	w.serve("127.0.0.1:0")
	return w
}

// serve serves HTTP on an address until stop is called.
func (w *worker) serve(address string) {
	w.t.Helper()
	reader := must(cache.OpenReader(w.state))(w.t)
	log := slog.New(slog.DiscardHandler)
	cfg := server.Config{Listen: []string{address}, Reader: reader, Trust: noTrust{}, Changes: changes.OpenJournal(w.state, log),
		Status: func() scheduler.Status { return scheduler.Status{FirstPass: true} }, StateDir: w.state, Log: log}
	if w.edit != nil {
		w.edit(&cfg)
	}
	srv := must(server.New(cfg))(w.t)
	check(w.t, srv.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		check(w.t, <-done, cfg.Changes.Close(), reader.Close())
	})
	w.t.Cleanup(w.stop)
	w.url = "http://" + srv.Addresses()[0].String()
}

func (w *worker) trust(signers ...trust.Signer) {
	w.t.Helper()
	terms := trust.Terms{Cosign: true}
	for i, s := range signers {
		terms.Materials = append(terms.Materials, trust.Material{Signer: s, File: fmt.Sprintf("_cosign/%d.pub", i), Author: "author"})
	}
	_, err := w.s.SetTrust(trust.NewInForce(terms))
	check(w.t, err, w.s.Confirm(time.Now()), w.s.Publish(context.Background()))
}

func image(n int) trust.Digest { return trust.SumOf(fmt.Appendf(nil, "image %d", n)) }

// push publishes one more image of a repository.
func (w *worker) push(n int) {
	w.t.Helper()
	d, sig := image(n), trust.SumOf(fmt.Appendf(nil, "signature %d", n))
	stamp := "stamp"
	_, err := w.s.Commit(store.Batch{Place: fmt.Sprintf("r/%d", n), SetTags: true, Complete: true, Tags: map[string]trust.Digest{"1": d}, Update: &store.PlaceUpdate{Stamp: &stamp},
		Rows: []store.Row{{Digest: d, MediaType: "m", Present: true, Tagged: true, References: []store.Reference{{Digest: sig, Carrier: 1}}}},
		Facts: []store.Fact{{Subject: d, Signature: sig, Context: store.Context{Tool: trust.Cosign}, Verdicts: []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: 1, Epoch: trust.MinEpoch,
			Grounds: []trust.Ground{{Signers: []trust.SignerID{keyA.ID()}}}}}}}})
	check(w.t, err, w.s.Publish(context.Background()))
}

// follower is a replica that runs.
type follower struct {
	*replica.Follower
	t      testing.TB
	state  string
	log    *logBuffer
	reader *cache.Reader
	stop   func()
}

func follow(t testing.TB, source replica.Source) *follower {
	t.Helper()
	return followIn(t, filepath.Join(t.TempDir(), "replica"), source)
}

func followIn(t testing.TB, state string, source replica.Source) *follower {
	t.Helper()
	f := &follower{t: t, state: state, log: &logBuffer{}}
	f.Follower = must(replica.New(replica.Config{Source: source, State: state, Log: slog.New(slog.NewTextHandler(f.log, nil))}))(t)
	f.reader = must(cache.OpenReader(state))(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		check(t, <-done, f.Close(), f.reader.Close())
	})
	t.Cleanup(f.stop)
	return f
}

// status is what a reader of the replica sees of an image.
func (f *follower) status(n int) string {
	snap, err := f.reader.Snapshot()
	if err != nil {
		return err.Error()
	}
	defer snap.Close()
	img, err := snap.Image(fmt.Sprintf("r/%d", n), image(n))
	if err != nil {
		return err.Error()
	}
	if img.State() == string(trust.Unknown) {
		return fmt.Sprintf("%s/%s", img.State(), img.Reason())
	}
	return img.State()
}

func (f *follower) becomes(n int, status string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("image %d is %s", n, status), func() bool { return f.status(n) == status })
}

func (f *follower) eventually(what string, holds func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited for: %s; status %+v, log:\n%s", what, f.Status(), f.log)
		}
	}
}

// between is a proxy before a worker that does to requests and answers what a test says.
func between(t testing.TB, w *worker, request func(*http.Request), answer func(*http.Response) error) string {
	t.Helper()
	target := must(url.Parse(w.url))(t)
	tr := &http.Transport{}
	srv := httptest.NewServer(&httputil.ReverseProxy{Transport: tr, ModifyResponse: answer, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if request != nil {
				request(r.Out)
			}
		}})
	t.Cleanup(func() { srv.Close(); tr.CloseIdleConnections() })
	return srv.URL
}
