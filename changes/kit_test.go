package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(name string) trust.Signer {
	return trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key " + name))}
}

func digest(name string) trust.Digest { return trust.SumOf([]byte(name)) }

// world is a cache that is written to and an observer of it, with a clock of
// their own.
type world struct {
	t       *testing.T
	dir     string
	store   *store.Store
	reader  *cache.Reader
	journal *Journal
	o       *Observer
	now     time.Time
	last    Position
	log     bytes.Buffer // of the observer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Unix(1_800_000_000, 0)}
	w.store = must(store.Open(w.dir, store.Options{Lease: -1}))(t)
	w.reader = must(cache.OpenReader(w.dir))(t)
	w.observe()
	t.Cleanup(func() {
		w.o.close()
		check(t, errors.Join(w.journal.Close(), w.reader.Close(), w.store.Close()))
	})
	return w
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// observe begins as a new process does.
func (w *world) observe() {
	w.journal = OpenJournal(w.dir, slog.New(slog.DiscardHandler))
	w.o = NewObserver(w.reader, w.journal, slog.New(slog.NewTextHandler(&w.log, nil)), func() time.Time { return w.now })
}

// restart ends the observer, in order or not, and begins another.
func (w *world) restart(inOrder bool) {
	w.t.Helper()
	if inOrder {
		check(w.t, w.o.Close())
	} else {
		w.o.close()
	}
	check(w.t, w.journal.Close())
	w.observe()
}

func (w *world) trust(signers ...trust.Signer) {
	w.t.Helper()
	terms := trust.Terms{Cosign: true, Notation: true}
	for _, s := range signers {
		terms.Materials = append(terms.Materials, trust.Material{Signer: s})
	}
	_, err := w.store.SetTrust(trust.NewInForce(terms))
	check(w.t, err)
	check(w.t, w.store.Publish(context.Background()))
}

// image is one image of a repository with one cosign signature for each signer.
type image struct {
	name    string
	signers []trust.Signer
	until   time.Time
}

// put makes a repository hold these images and nothing else.
func (w *world) put(repository string, images ...image) {
	w.t.Helper()
	b := store.Batch{Place: repository, SetTags: true, Complete: true, Tags: map[string]trust.Digest{}}
	for _, img := range images {
		d := digest(repository + img.name)
		b.Tags[img.name] = d
		row := store.Row{Digest: d, MediaType: "m", Present: true, Tagged: true}
		for _, s := range img.signers {
			sig := digest(fmt.Sprint(img.name, s, img.until))
			row.References = append(row.References, store.Reference{Digest: sig, Carrier: 1})
			g := trust.Ground{Signers: []trust.SignerID{s.ID()}}
			if !img.until.IsZero() {
				g.Until, g.Limit = img.until.Unix(), trust.SignatureExpired
			}
			b.Facts = append(b.Facts, store.Fact{Subject: d, Signature: sig, Context: store.Context{Tool: trust.Cosign}, Epoch: trust.MinEpoch,
				Trust: w.store.TrustGeneration(), Verdicts: []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: 1, Epoch: trust.MinEpoch, Grounds: []trust.Ground{g}}}})
		}
		b.Rows = append(b.Rows, row)
	}
	_, err := w.store.Commit(b)
	check(w.t, err)
	check(w.t, w.store.Publish(context.Background()))
}

// look has the observer look, and returns what it tells.
func (w *world) look() []Change {
	w.t.Helper()
	check(w.t, w.o.Look(w.t.Context()))
	if w.last == (Position{}) {
		list := w.journal.Newest(MaxHeld)
		w.last = w.journal.Last()
		return list
	}
	list, _, ok := w.journal.After(w.last, MaxHeld)
	w.last = w.journal.Last()
	if !ok {
		return []Change{{Kind: Reset}}
	}
	return list
}

// tells holds what the observer tells to a list in short form.
func (w *world) tells(want ...string) {
	w.t.Helper()
	got := []string{}
	for _, c := range w.look() {
		got = append(got, short(&c))
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		w.t.Errorf("told\n\t%q, want\n\t%q", got, want)
	}
}

func short(c *Change) string {
	s := string(c.Kind)
	if c.Repository != "" && c.Count == 0 {
		s += fmt.Sprintf(" %s:%s %s>%s", c.Repository, c.Tag, c.Was, c.State)
	}
	if c.Reason != "" {
		s += " " + string(c.Reason)
	}
	if c.Count > 0 {
		s += fmt.Sprintf(" %d/%d", c.Count, c.Turned)
	}
	return s
}
