package scheduler

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// layoutOfWorlds is that of the storage of each world, oci or distribution. The decisions
// are the same over both.
var layoutOfWorlds = flag.String("layout", string(layout.OCI), "layout of the storage of the tests")

// world is storage with a cache, and a scheduler over both for each pass.
type world struct {
	t     *testing.T
	st    *signtest.Storage
	state string
	store *store.Store
	last  *Scheduler
	opts  store.Options
	edit  func(*Config)
	// asks makes the mode online, with the checker that it returns; one for each
	// process.
	asks   func() *revocation.Checker
	memory *truststore.Memory
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, memory: truststore.NewMemory(), st: signtest.NewStorage(filepath.Join(dir, "registry")), state: filepath.Join(dir, "state")}
	w.st.Distribution = *layoutOfWorlds == string(layout.Distribution)
	if err := os.Mkdir(w.state, 0o750); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// bytesOfItsOwn skips a test of what distinguishes the bytes of one repository from those of
// another.
func (w *world) bytesOfItsOwn() {
	if w.st.Distribution {
		w.t.Skip("in distribution's storage all repositories have the same bytes, and nothing describes them")
	}
}

func (w *world) close() {
	if w.store == nil {
		return
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	w.store = nil
	report, err := store.Check(context.Background(), w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, problem := range report.Problems {
		if !strings.HasPrefix(problem, "nothing is published") { // it ended before that
			w.t.Errorf("check: %s", problem)
		}
	}
}

// scheduler makes a scheduler as a new process would.
func (w *world) scheduler() *Scheduler {
	w.t.Helper()
	if w.store == nil {
		store, err := store.Open(w.state, w.opts)
		if err != nil {
			w.t.Fatal(err)
		}
		w.store = store
	}
	root, err := layout.Open(w.st.Dir, layout.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { root.Close() })
	mode := truststore.RevocationOffline
	if w.asks != nil {
		mode = truststore.RevocationOnline
	}
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(w.st.Dir, "_cosign"),
		NotationDir: filepath.Join(w.st.Dir, "_notation"), Cosign: true, Notation: true, Revocation: mode, Memory: w.memory})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := Config{Storage: []Storage{{Root: root, Dir: w.st.Dir}}, Loader: loader, Store: w.store}
	if w.asks != nil {
		cfg.Revocation = w.asks()
	}
	if w.edit != nil {
		w.edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s.scanTime = time.Hour // on a busy machine a small one may take long
	w.last = s
	return s
}

// scan does a pass and returns the work that it took.
func (w *world) scan() Work {
	w.t.Helper()
	s := w.scheduler()
	if err := s.Scan(context.Background(), true); err != nil {
		w.t.Fatal(err)
	}
	work := s.Work()
	if work.Errors+work.Panics > 0 {
		w.t.Errorf("%+v", work)
	}
	w.recount()
	return work
}

// recount holds the counters to the answers: after each pass of every test.
func (w *world) recount() {
	w.t.Helper()
	r, err := w.reader()
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	defer snap.Close()
	kept, err := snap.Count()
	if err != nil {
		w.t.Fatal(err)
	}
	images, signatures := map[string]int64{}, map[trust.Status]int64{}
	err = snap.Repositories(func(repo string) error {
		listed := map[trust.Digest]bool{}
		err := snap.Images(repo, func(img cache.Image) error {
			if !listed[img.Digest] {
				images[img.State()]++
			}
			listed[img.Digest] = true
			return nil
		})
		if err != nil {
			return err
		}
		return snap.Each(repo, func(img cache.Image) error {
			for _, sig := range img.SignatureInfo {
				signatures[sig.Status]++
			}
			return nil
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if !maps.Equal(images, kept.Images) || !maps.Equal(signatures, kept.Signatures) {
		w.t.Errorf("kept %v %v, a recount finds %v %v", kept.Images, kept.Signatures, images, signatures)
	}
}

// reader reads what the world publishes, by the clock that its schedulers have.
func (w *world) reader() (*cache.Reader, error) {
	c := Config{Now: time.Now}
	if w.edit != nil {
		w.edit(&c)
	}
	return cache.OpenReader(w.state, cache.WithClock(c.Now))
}

// image answers as another process would see it.
func (w *world) image(img signtest.Image) cache.Image {
	w.t.Helper()
	a, err := w.get(img)
	if err != nil {
		w.t.Fatalf("%s@%s: %v", img.Repo, img.Digest, err)
	}
	return a
}

func (w *world) get(img signtest.Image) (cache.Image, error) {
	r, err := w.reader()
	if err != nil {
		return cache.Image{}, err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return cache.Image{}, err
	}
	defer snap.Close()
	return snap.Image(img.Repo, img.Trust())
}

// want compares the states of an image's signatures, in order of their
// manifests' digests and layers.
func (w *world) want(img signtest.Image, state string) {
	w.t.Helper()
	a := w.image(img)
	if a.State() != state {
		w.t.Errorf("%s is %s, want %s: %+v", img.Repo, a.State(), state, a.SignatureInfo)
	}
}

func (w *world) reason(img signtest.Image, reason trust.Reason) {
	w.t.Helper()
	a := w.image(img)
	for _, sig := range a.SignatureInfo {
		if sig.Reason == reason {
			return
		}
	}
	w.t.Errorf("%s has no reason %s: %+v", img.Repo, reason, a.SignatureInfo)
}

// eventually polls a condition until a generous deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// run starts a daemon; stop ends it and holds it to a clean end.
func (w *world) run() (stop func()) {
	w.t.Helper()
	s := w.scheduler()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("run: %v", err)
		}
	}
	w.t.Cleanup(stop)
	<-s.FirstPass()
	return stop
}

// reload loads the trust directories, and returns once their content is published and
// the workers verify under it.
func reload(ctx context.Context, s *Scheduler) error {
	return cmp.Or(s.ReloadNow(ctx), s.followTrust())
}
