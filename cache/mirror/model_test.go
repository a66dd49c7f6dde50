package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trust-worker/cache"
	"trust-worker/cache/mirror"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// Whatever a source publishes, in whatever order and however far what it told is taken
// over, and whenever the process is killed: what the replica's readers see is the
// data of one generation of the source under its trust of that or a later one, neither
// goes back, and in the end the replica is what the source is.
func TestAReplicaIsWhatTheSourceWas(t *testing.T) {
	above := t.TempDir()
	rapid.Check(t, func(t *rapid.T) { newReplicaWorld(t, t, above).play() })
}

// content is what a reader sees: a number for each repository, which its tag has had, and
// one for the trust.
type content struct {
	repositories [3]int
	trust        int
}

func digestFor(repository, n int) trust.Digest {
	return trust.SumOf(fmt.Appendf(nil, "%d/%d", repository, n))
}

// read is what a state directory's readers see.
func read(state string) (c content, g cache.Generation, err error) {
	r, err := cache.OpenReader(state)
	if err != nil {
		return c, g, err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return c, g, err
	}
	defer snap.Close()
	if _, err := fmt.Sscanf(snap.InForce().Terms().Materials[0].File, "_cosign/%d.pub", &c.trust); err != nil {
		return c, g, err
	}
	for i := range c.repositories {
		d, err := snap.Resolve(fmt.Sprint("r", i), "t")
		if errors.Is(err, cache.ErrNotFound) {
			continue
		}
		if err != nil {
			return c, g, err
		}
		for n := 1; d != digestFor(i, n); n++ {
			if n > 1000 {
				return c, g, fmt.Errorf("r%d:t is %s", i, d)
			}
		}
		for n := 1; n < 1000; n++ {
			if d == digestFor(i, n) {
				c.repositories[i] = n
			}
		}
	}
	return c, snap.Generation(), nil
}

// source is a worker's state directory.
type source struct {
	t       rapid.TB
	draw    *rapid.T
	state   string
	backup  string
	s       *store.Store
	n       int
	was     map[cache.Generation][]content // what it has published; restored ones have several
	restore bool                           // it was restored
}

func (s *source) open() {
	var err error
	if s.s, err = store.Open(s.state, store.Options{}); err != nil {
		s.t.Fatal(err)
	}
}

// change publishes something else.
func (s *source) change() { s.changeTo(rapid.IntRange(0, 9).Draw(s.draw, "change")) }

const aTag = 9 // what changeTo is told for a tag that moves

func (s *source) changeTo(what int) {
	s.n++
	switch what {
	case 0, 1, 2:
		s.trust()
	case 3:
		if err := s.s.Fold(context.Background()); err != nil {
			s.t.Fatal(err)
		}
	case 4:
		s.s.RenderAnew()
		if err := s.s.Fold(context.Background()); err != nil {
			s.t.Fatal(err)
		}
	default:
		i := what % 3
		d := digestFor(i, s.n)
		stamp := fmt.Sprint(s.n)
		_, err := s.s.Commit(store.Batch{Place: fmt.Sprint("r", i), SetTags: true, Complete: true, Tags: map[string]trust.Digest{"t": d}, Update: &store.PlaceUpdate{Stamp: &stamp},
			Rows: []store.Row{{Digest: d, MediaType: "m", Present: true, Tagged: true}}})
		if err == nil {
			err = s.s.Publish(context.Background())
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.note()
}

func (s *source) trust() {
	f := trust.NewInForce(trust.Terms{Cosign: true, Materials: []trust.Material{{File: fmt.Sprintf("_cosign/%d.pub", s.n),
		Signer: trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf(fmt.Append(nil, s.n))}}}})
	_, err := s.s.SetTrust(f)
	if err == nil {
		err = s.s.Confirm(time.Now())
	}
	if err == nil {
		err = s.s.Publish(context.Background())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// note remembers what is published.
func (s *source) note() {
	c, g, err := read(s.state)
	if err != nil {
		s.t.Fatal(err)
	}
	s.was[g] = append(s.was[g], c)
}

// again is what else a source goes through: its cache is lost, or comes from a backup.
func (s *source) again() {
	s.n++
	if err := s.s.Close(); err != nil {
		s.t.Fatal(err)
	}
	switch what := rapid.IntRange(0, 3).Draw(s.draw, "again"); {
	case what == 0:
		if err := os.RemoveAll(filepath.Join(s.state, "private")); err != nil {
			s.t.Fatal(err)
		}
	case what == 1 && s.backup != "":
		s.restore = true
		if err := errors.Join(os.RemoveAll(s.state), os.CopyFS(s.state, fsWithLinks{s.backup})); err != nil {
			s.t.Fatal(err)
		}
		copyLink(s.t, s.backup, s.state)
	case what == 2:
		s.backup = s.state + fmt.Sprint(".backup", s.n)
		if err := os.CopyFS(s.backup, fsWithLinks{s.state}); err != nil {
			s.t.Fatal(err)
		}
		copyLink(s.t, s.state, s.backup)
	}
	s.open()
	s.trust()
	s.note()
}

// fsWithLinks leaves out CURRENT, which is a link.
type fsWithLinks struct{ dir string }

func (f fsWithLinks) Open(name string) (fs.File, error) { return os.DirFS(f.dir).Open(name) }

func (f fsWithLinks) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(os.DirFS(f.dir), name)
	var out []fs.DirEntry
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			out = append(out, e)
		}
	}
	return out, err
}

func copyLink(t rapid.TB, from, to string) {
	target, err := os.Readlink(filepath.Join(from, "published", "CURRENT"))
	if err == nil {
		err = os.Symlink(target, filepath.Join(to, "published", "CURRENT"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// offer is what a source told, with the files as they were.
type offer struct {
	pub   *mirror.Publication
	files map[string][]byte
}

type replicaWorld struct {
	rapid.TB
	draw   *rapid.T // nil where nothing is left to chance
	src    *source
	state  string
	m      *mirror.Mirror
	offers []*offer
	last   cache.Generation // that readers of the replica saw
}

func newReplicaWorld(t rapid.TB, draw *rapid.T, above string) *replicaWorld {
	dir, err := os.MkdirTemp(above, "world")
	if err != nil {
		t.Fatal(err)
	}
	w := &replicaWorld{TB: t, draw: draw, state: filepath.Join(dir, "replica"), src: &source{t: t, draw: draw, state: filepath.Join(dir, "source"), was: map[cache.Generation][]content{}}}
	w.src.open()
	w.src.n++
	w.src.trust()
	w.src.note()
	w.open()
	return w
}

func (w *replicaWorld) open() {
	var err error
	if w.m, err = mirror.Open(w.state, "https://worker.example", slog.New(slog.DiscardHandler)); err != nil {
		w.Fatal(err)
	}
}

func (w *replicaWorld) play() {
	w.ask()
	for range rapid.IntRange(5, 60).Draw(w.draw, "steps") {
		switch rapid.IntRange(0, 16).Draw(w.draw, "what") {
		case 0, 1, 2, 3:
			w.src.change()
		case 4:
			w.src.again()
		case 5, 6, 7:
			w.ask()
		case 8, 9:
			w.takeTrust(w.anOffer())
		case 10, 11:
			w.fetch(w.anOffer(), false)
		case 12:
			w.takeData(w.anOffer())
		case 13: // what a follower does that is slow
			o := w.anOffer()
			w.fetch(o, false)
			w.takeData(o)
		case 14: // killed
			if err := w.m.Close(); err != nil {
				w.Fatal(err)
			}
			w.open()
		case 15:
			if err := w.m.Withdraw(); err != nil {
				w.Fatal(err)
			}
			w.last = cache.Generation{}
		case 16:
			if err := w.m.Tend(); err != nil {
				w.Fatal(err)
			}
		}
		w.check()
	}
	o := w.ask()
	w.takeTrust(o)
	w.fetch(o, true)
	w.takeData(o)
	w.check()
	want, _, err := read(w.src.state)
	if got, g, err2 := read(w.state); err != nil || err2 != nil || got != want || g.Number != g.Data || !w.m.Has(o.pub) {
		w.Fatalf("the replica is %+v of %+v, the source %+v: %v %v", got, g, want, err, err2)
	}
	if err := errors.Join(w.m.Close(), w.src.s.Close()); err != nil {
		w.Fatal(err)
	}
}

// ask has the source tell what it publishes.
func (w *replicaWorld) ask() *offer {
	pub, err := tell(mirror.NewSource(w.src.state, slog.New(slog.DiscardHandler)), w.src.state)
	if err != nil {
		w.Fatal(err)
	}
	o := &offer{pub, map[string][]byte{}}
	for _, f := range append([]mirror.File{pub.Trust}, pub.Layers...) {
		if o.files[f.Name], err = os.ReadFile(filepath.Join(w.src.state, "published", f.Name)); err != nil {
			w.Fatal(err)
		}
	}
	w.offers = append(w.offers, o)
	return o
}

// tell has a source tell what a state directory publishes.
func tell(s *mirror.Source, state string) (*mirror.Publication, error) {
	r, err := cache.OpenReader(state)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return s.Publication(snap)
}

// anOffer is mostly the last.
func (w *replicaWorld) anOffer() *offer {
	return w.offers[max(0, len(w.offers)-1-rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 5}).Draw(w.draw, "offer"))]
}

func (w *replicaWorld) takeTrust(o *offer) {
	needed, err := w.m.NeedsTrust(o.pub)
	if err != nil {
		w.Fatal(err)
	}
	var b []byte
	if needed {
		b = o.files[o.pub.Trust.Name]
	}
	was := w.m.State()
	if err := w.m.TakeTrust(o.pub, b, mirror.Heard{Sent: mirror.Now()}); err != nil && !errors.Is(err, mirror.ErrOlder) {
		w.Fatal(err)
	}
	now := w.m.State()
	if now.CacheID == was.CacheID && now.Generation < was.Generation && !w.src.restore {
		w.Fatalf("the trust went back from %+v to %+v", was, now)
	}
	if now.CacheID != was.CacheID || was.Published && !now.Published {
		w.last = cache.Generation{} // everything was given up
	}
}

// fetch fetches what is missing of an offer, or some of it.
func (w *replicaWorld) fetch(o *offer, all bool) {
	missing, err := w.m.Missing(context.Background(), o.pub)
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range missing {
		p, err := w.m.Part(context.Background(), f)
		if err != nil {
			w.Fatal(err)
		}
		rest := o.files[f.Name][p.Have():]
		if !all && rapid.IntRange(0, 3).Draw(w.draw, "cut") == 3 {
			rest = rest[:rapid.IntRange(0, len(rest)).Draw(w.draw, "bytes")]
		}
		_, err = p.Write(rest)
		whole := p.Have() == f.Size
		was := w.m.State().Published
		if whole && err == nil {
			err = p.Commit()
		}
		if err := errors.Join(err, p.Close()); err != nil {
			w.Fatal(err)
		}
		if was && !w.m.State().Published {
			w.last = cache.Generation{}
		}
		if !whole {
			return
		}
	}
}

func (w *replicaWorld) takeData(o *offer) {
	_ = w.m.TakeData(o.pub) // refused unless it is time; check says whether rightly
}

// check looks as readers do.
func (w *replicaWorld) check() {
	got, g, err := read(w.state)
	if errors.Is(err, cache.ErrNoCache) {
		return
	}
	if err != nil {
		w.Fatal(err)
	}
	if g.CacheID == w.last.CacheID && (g.Number < w.last.Number || g.Data < w.last.Data) {
		w.Fatalf("went back from %+v to %+v", w.last, g)
	}
	w.last = g
	trusted, data := false, false
	for published, all := range w.src.was {
		if published.CacheID != g.CacheID {
			continue
		}
		for _, c := range all {
			trusted = trusted || published.Number == g.Number && c.trust == got.trust
			data = data || published.Number == g.Data && c.repositories == got.repositories
		}
	}
	if !trusted || !data || g.Data > g.Number {
		w.Fatalf("%+v of %+v was never published by the source (trust %v, data %v): %+v", got, g, trusted, data, w.src.was)
	}
}

// What is not what the source told of is never published, and nothing of it is kept.
func TestWhatIsNotWhatWasToldIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newReplicaWorld(t, t, os.TempDir())
		defer os.RemoveAll(filepath.Dir(w.state))
		w.src.change()
		o := w.ask()
		b := bytes.Clone(o.files[o.pub.Trust.Name])
		b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1
		if err := w.m.TakeTrust(o.pub, b, mirror.Heard{Sent: mirror.Now()}); err == nil {
			t.Fatal("another trust file was taken over")
		}
		w.takeTrust(o)
		missing, err := w.m.Missing(context.Background(), o.pub)
		if err != nil || len(missing) == 0 {
			t.Fatal(missing, err)
		}
		for _, f := range missing {
			p, err := w.m.Part(context.Background(), f)
			if err != nil {
				t.Fatal(err)
			}
			b := bytes.Clone(o.files[f.Name])
			b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1
			if _, err := p.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Write([]byte("more")); err == nil {
				t.Fatal("more was taken than there is")
			}
			if err := p.Commit(); err == nil {
				t.Fatal("another layer was taken over")
			}
			p.Close()
		}
		if err := w.m.TakeData(o.pub); err == nil {
			t.Fatal("data were published of which there are none")
		}
		entries, err := os.ReadDir(filepath.Join(w.state, "published"))
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "trust-") {
				t.Errorf("%s was left", e.Name())
			}
		}
		w.fetch(o, true)
		if err := errors.Join(err, w.m.TakeData(o.pub), w.m.Close(), w.src.s.Close()); err != nil {
			t.Fatal(err)
		}
	})
}
