package mirror_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/mirror"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// following is a replica that has what its source publishes.
func following(t *testing.T) *replicaWorld {
	t.Helper()
	w := newReplicaWorld(t, nil, t.TempDir())
	w.src.changeTo(aTag)
	w.all(w.ask())
	t.Cleanup(func() { errors.Join(w.m.Close(), w.src.s.Close()) }) // what is open
	return w
}

// all takes over everything of an offer.
func (w *replicaWorld) all(o *offer) {
	w.takeTrust(o)
	w.fetch(o, true)
	if err := w.m.TakeData(o.pub); err != nil {
		w.Fatal(err)
	}
}

func (w *replicaWorld) want(published bool, c content) {
	if t, ok := w.TB.(*testing.T); ok {
		t.Helper()
	}
	got, _, err := read(w.state)
	if published && (err != nil || got != c) || !published && !errors.Is(err, cache.ErrNoCache) {
		w.Errorf("the replica reads %+v, %v; want %+v (published: %v)", got, err, c, published)
	}
}

// sees is what readers of a state directory see.
func (w *replicaWorld) sees(state string) content {
	c, _, err := read(state)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *replicaWorld) path(name string) string { return filepath.Join(w.state, "published", name) }

// The trust rules over the data that are there before it, and they do not go back.
func TestTrustComesFirst(t *testing.T) {
	w := following(t)
	first := w.offers[len(w.offers)-1]
	was := w.sees(w.state)
	w.src.changeTo(aTag)
	older := w.ask()
	w.src.changeTo(0)
	now := w.ask()
	w.takeTrust(now)
	want := was
	want.trust = w.src.n
	w.want(true, want)
	if g := w.m.State(); g.Data >= g.Generation || !g.Published || w.m.Has(now.pub) {
		t.Errorf("%+v", g)
	}
	// Data of before are data under a later trust, and come in any case.
	w.fetch(older, true)
	if err := w.m.TakeData(older.pub); err != nil {
		t.Error(err)
	}
	w.fetch(now, true)
	if err := w.m.TakeData(now.pub); err != nil || !w.m.Has(now.pub) {
		t.Error(err)
	}
	for _, o := range []*offer{older, first} {
		if err := w.m.TakeData(o.pub); err == nil {
			t.Errorf("data of %s after those of %s", o.pub.Current, now.pub.Current)
		}
		if err := w.m.TakeTrust(o.pub, o.files[o.pub.Trust.Name], mirror.Heard{Sent: mirror.Now()}); !errors.Is(err, mirror.ErrOlder) {
			t.Errorf("trust of %s after that of %s: %v", o.pub.Current, now.pub.Current, err)
		}
	}
	want = w.sees(w.src.state)
	w.want(true, want)
	// Data without their trust wait for it.
	w.src.changeTo(0)
	w.src.changeTo(aTag)
	next := w.ask()
	w.fetch(next, true)
	if err := w.m.TakeData(next.pub); err == nil {
		t.Error("data were published before their trust")
	}
	w.want(true, want)
}

// A trust file is what the source told of, or it is not taken over.
func TestAnotherTrustFile(t *testing.T) {
	w := following(t)
	w.src.changeTo(0)
	o := w.ask()
	told := *o.pub
	told.Trust.SHA256 = trust.SumOf([]byte("another"))
	was := w.sees(w.state)
	if err := w.m.TakeTrust(&told, o.files[o.pub.Trust.Name], mirror.Heard{Sent: mirror.Now()}); err == nil {
		t.Error("it was taken over")
	}
	if err := w.m.TakeTrust(o.pub, nil, mirror.Heard{Sent: mirror.Now()}); err == nil {
		t.Error("trust was taken over without its file")
	}
	if err := w.m.Confirm(o.pub, mirror.Heard{Sent: mirror.Now()}); err == nil {
		t.Error("trust was confirmed that is not here")
	}
	w.want(true, was)
}

// Trust that cannot be published is not published late: nothing is, until it can be. What
// has been fetched stays.
func TestTrustThatCannotBePublished(t *testing.T) {
	for name, block := range map[string]func(w *replicaWorld, o *offer) string{
		"no CURRENT":    func(w *replicaWorld, o *offer) string { return w.path("CURRENT.new") },
		"no trust file": func(w *replicaWorld, o *offer) string { return w.path(o.pub.Trust.Name + ".new") },
	} {
		t.Run(name, func(t *testing.T) {
			w := following(t)
			w.src.changeTo(0)
			o := w.ask()
			path := block(w, o)
			if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := w.m.TakeTrust(o.pub, o.files[o.pub.Trust.Name], mirror.Heard{Sent: mirror.Now()}); err == nil {
				t.Error("it was published through a directory")
			}
			w.want(false, content{})
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if missing, err := w.m.Missing(context.Background(), o.pub); err != nil || len(missing) > 0 {
				t.Errorf("%v has to be fetched again: %v", missing, err)
			}
			w.all(o)
			want := w.sees(w.src.state)
			w.want(true, want)
		})
	}
}

// damaged is a replica that was started again after its first layer was damaged, and what it
// has.
func damaged(t *testing.T) (*replicaWorld, *offer) {
	t.Helper()
	w := following(t)
	o := w.offers[len(w.offers)-1]
	name := o.pub.Layers[0].Name
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.WriteFile(w.path(name), b, 0o640), w.m.Close()); err != nil {
		t.Fatal(err)
	}
	w.open()
	return w, o
}

// A file that is damaged here is found when the process starts, and replaced while
// nothing is published.
func TestDamagedLayer(t *testing.T) {
	w, o := damaged(t)
	name := o.pub.Layers[0].Name
	missing, err := w.m.Missing(context.Background(), o.pub)
	if err != nil || len(missing) != 1 || missing[0].Name != name {
		t.Fatal(missing, err)
	}
	w.want(false, content{}) // while it comes
	if err := w.m.Confirm(o.pub, mirror.Heard{Sent: mirror.Now()}); err == nil {
		t.Error("damaged data are confirmed")
	}
	p, err := w.m.Part(context.Background(), missing[0])
	if err == nil {
		_, err = p.Write(o.files[name])
	}
	if err = errors.Join(err, p.Commit(), p.Close()); err != nil {
		t.Fatal(err)
	}
	w.want(false, content{})
	w.all(o)
	want := w.sees(w.src.state)
	w.want(true, want)
}

// Data that are found to be damaged while nothing is published do not come back with the
// next trust.
func TestDamagedLayerWhileWithdrawn(t *testing.T) {
	w, o := damaged(t)
	if err := w.m.Withdraw(); err != nil {
		t.Fatal(err)
	}
	if missing, err := w.m.Missing(context.Background(), o.pub); err != nil || len(missing) != 1 {
		t.Fatal(missing, err)
	}
	w.takeTrust(o)
	w.want(false, content{})
	w.all(o)
	w.want(true, w.sees(w.src.state))
}

// A source whose cache comes from a backup, and has gone on from there, has other files
// of the same names: they are never published together.
func TestSourceFromABackup(t *testing.T) {
	w := following(t)
	w.src.changeTo(aTag)
	w.src.s.Close()
	backup := w.src.state + ".backup"
	if err := os.CopyFS(backup, fsWithLinks{w.src.state}); err != nil {
		t.Fatal(err)
	}
	copyLink(w, w.src.state, backup)
	w.src.open()
	w.src.changeTo(0)
	w.src.changeTo(aTag - 3)
	w.all(w.ask())
	w.src.s.Close()
	if err := errors.Join(os.RemoveAll(w.src.state), os.Rename(backup, w.src.state)); err != nil {
		t.Fatal(err)
	}
	w.src.open()
	w.src.changeTo(0)
	w.src.changeTo(aTag - 1)
	w.src.changeTo(aTag - 2)
	o := w.ask()
	// Nor when the source was away in between, and the data of before were kept for it.
	w.takeTrust(o)
	if err := w.m.Withdraw(); err != nil {
		t.Fatal(err)
	}
	shared := 0
	for _, f := range o.pub.Layers {
		if here, err := os.ReadFile(w.path(f.Name)); err == nil && trust.SumOf(here) != f.SHA256 {
			shared++
		}
	}
	if shared == 0 {
		t.Fatal("no file has the name of another")
	}
	w.fetch(o, true)
	w.takeTrust(o)
	w.check()
	w.all(o)
	want := w.sees(w.src.state)
	w.want(true, want)
}

// What somebody does to the files is found and made good; what is not needed any more goes.
func TestTend(t *testing.T) {
	w := following(t)
	o := w.offers[len(w.offers)-1]
	want := w.sees(w.state)
	tend := func(problem bool) {
		t.Helper()
		if err := w.m.Tend(); (err != nil) != problem {
			t.Errorf("tend: %v", err)
		}
	}
	tend(false)
	if err := os.Remove(w.path("CURRENT")); err != nil {
		t.Fatal(err)
	}
	tend(true)
	w.want(true, want)
	for _, name := range []string{o.pub.Layers[0].Name, o.pub.Trust.Name} {
		if err := os.Remove(w.path(name)); err != nil {
			t.Fatal(err)
		}
		tend(true)
		w.want(false, content{})
		w.all(o)
		w.want(true, want)
	}
	// A CURRENT that was to go, and did not, goes.
	target, err := os.Readlink(w.path("CURRENT"))
	if err := errors.Join(err, w.m.Withdraw(), os.Symlink(target, w.path("CURRENT"))); err != nil {
		t.Fatal(err)
	}
	tend(false)
	w.want(false, content{})
	w.all(o)
	w.want(true, want)
	if err := os.Rename(w.state, w.state+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := w.m.Tend(); !errors.Is(err, mirror.ErrStateGone) {
		t.Errorf("of another state directory: %v", err)
	}
}

// The time of the confirmation follows the clock: whatever sets it, a reader counts the
// lease from when the source confirmed.
func TestConfirmationFollowsTheClock(t *testing.T) {
	w := following(t)
	o := w.offers[len(w.offers)-1]
	path := w.path(o.pub.Trust.Name)
	age := func() time.Duration {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(info.ModTime()).Round(time.Minute)
	}
	confirm := func(age time.Duration) {
		if err := w.m.Confirm(o.pub, mirror.Heard{Sent: mirror.Now(), Age: age}); err != nil {
			t.Fatal(err)
		}
	}
	confirm(0)
	confirm(2 * time.Hour) // says nothing new
	if got := age(); got != 0 {
		t.Errorf("confirmed %v ago", got)
	}
	for _, off := range []time.Duration{time.Hour, -time.Hour} { // as if the clock had been set by as much
		at := time.Now().Add(off)
		if err := errors.Join(os.Chtimes(path, at, at), w.m.Tend()); err != nil {
			t.Fatal(err)
		}
		if got := age(); got != 0 {
			t.Errorf("set by %v: confirmed %v ago", off, got)
		}
	}
	// A new process cannot know how old a confirmation from the future is.
	at := time.Now().Add(time.Hour)
	if err := errors.Join(os.Chtimes(path, at, at), w.m.Close()); err != nil {
		t.Fatal(err)
	}
	w.open()
	r, err := cache.OpenReader(w.state)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stale := func() bool {
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		return snap.Stale()
	}
	if !stale() {
		t.Error("a confirmation from the future is believed")
	}
	confirm(0)
	w.eventually("the confirmation is seen", func() bool { return !stale() })
	// Trust that the source has not confirmed for longer than the lease is stale at once.
	w.src.changeTo(0)
	o = w.ask()
	if err := w.m.TakeTrust(o.pub, o.files[o.pub.Trust.Name], mirror.Heard{Sent: mirror.Now(), Age: store.DefaultLease + time.Second}); err != nil {
		t.Fatal(err)
	}
	if !stale() {
		t.Error("an old confirmation is believed")
	}
}

func (w *replicaWorld) eventually(what string, holds func() bool) {
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited for: %s", what)
		}
	}
}

// A source whose clock is an hour ahead, or behind, has readers of its replica see what
// they would beside it, and the lease is counted as it was.
func TestSourceWithAnotherClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		state := t.TempDir()
		s, err := store.Open(filepath.Join(state, "source"), store.Options{Now: func() time.Time { return time.Now().Add(off) }})
		if err != nil {
			t.Fatal(err)
		}
		w := &replicaWorld{TB: t, state: filepath.Join(state, "replica"), src: &source{t: t, state: filepath.Join(state, "source"), s: s, n: 1, was: map[cache.Generation][]content{}}}
		w.src.trust()
		w.open()
		w.all(w.ask())
		r, err := cache.OpenReader(w.state)
		if err != nil {
			t.Fatal(err)
		}
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if age := snap.Age(); snap.Stale() || age > time.Minute {
			t.Errorf("%v: confirmed %v ago, stale %v", off, age, snap.Stale())
		}
		// Nor are dates that the source knows to be over to come for a reader.
		if off > 0 && snap.Now().Before(time.Now().Add(off-time.Minute)) {
			t.Errorf("the source's clock is %v ahead, its replica's readers are at %v", off, snap.Now())
		}
		snap.Close()
		if err := errors.Join(r.Close(), w.m.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A state directory is a worker's or a replica's, and one process's.
func TestOpen(t *testing.T) {
	w := following(t)
	log := slog.New(slog.DiscardHandler)
	for state, part := range map[string]string{w.src.state: "worker's own", w.state: "in use"} {
		if m, err := mirror.Open(state, "https://worker.example", log); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v %v", m, err)
		}
	}
	if _, err := store.Open(w.state, store.Options{}); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Errorf("a worker on a replica's directory: %v", err)
	}
	if got := mirror.Replica(w.state); got != "https://worker.example" {
		t.Errorf("a replica of %q", got)
	}
	// What cannot be read is begun anew.
	w.m.Close()
	if err := errors.Join(os.Remove(w.path("CURRENT")), os.Symlink("6.of.another.version", w.path("CURRENT"))); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.want(false, content{})
	w.all(w.ask())
	want := w.sees(w.src.state)
	w.want(true, want)
}

// A large layer is told of when it is hashed; the trust is told at once.
func TestLargeLayers(t *testing.T) {
	w := following(t)
	base := filepath.Join(w.src.state, "published", w.ask().pub.Layers[0].Name)
	if err := os.Truncate(base, 40<<20); err != nil {
		t.Fatal(err)
	}
	s := mirror.NewSource(w.src.state, slog.New(slog.DiscardHandler))
	p, err := tell(s, w.src.state)
	if err != nil || len(p.Layers) != 0 || p.Trust.Size == 0 {
		t.Fatalf("%+v %v", p, err)
	}
	if _, _, err := s.Open(filepath.Base(base)); err == nil {
		t.Error("a file is sent that was not told of")
	}
	w.eventually("it is told", func() bool {
		if !s.Idle() {
			return false
		}
		p, err = tell(s, w.src.state)
		return err == nil && len(p.Layers) > 0
	})
	f, told, err := s.Open(filepath.Base(base))
	if err != nil || told != p.Layers[0] || told.Size != 40<<20 {
		t.Fatalf("%+v %v", told, err)
	}
	f.Close()
}

// A source from a backup may come to the same numbers as before: what the replica has is
// told by its layers.
func TestBackupThatComesToTheSameNumbers(t *testing.T) {
	w := following(t)
	backup := w.src.state + ".backup"
	if err := os.CopyFS(backup, fsWithLinks{w.src.state}); err != nil { // of a file system: nothing is stopped for it
		t.Fatal(err)
	}
	copyLink(w, w.src.state, backup)
	w.src.changeTo(aTag)
	w.src.changeTo(0)
	w.src.changeTo(aTag - 1)
	was := w.ask()
	w.all(was)
	if err := errors.Join(w.src.s.Close(), os.RemoveAll(w.src.state), os.Rename(backup, w.src.state)); err != nil {
		t.Fatal(err)
	}
	w.src.open()
	w.src.changeTo(0)
	w.src.changeTo(aTag - 2)
	w.src.restore = true
	is := w.ask()
	number := func(o *offer) string { return strings.Split(o.pub.Current, ".")[3] }
	if number(is) != number(was) {
		t.Fatalf("%s is not of the number of %s", is.pub.Current, was.pub.Current)
	}
	w.takeTrust(is)
	if w.m.Has(is.pub) {
		t.Error("the replica says that it has what it has not")
	}
	w.fetch(is, true)
	if err := w.m.TakeData(is.pub); err != nil || !w.m.Has(is.pub) {
		t.Error(err)
	}
	want := w.sees(w.src.state)
	w.want(true, want)
}

// What is fetched and superseded before it is published goes, and what an earlier process
// left, once it is known that it is of no use.
func TestNothingIsLeftBehind(t *testing.T) {
	w := following(t)
	w.m.Retain(0)
	for range 3 {
		w.src.changeTo(4) // a new base
		o := w.ask()
		w.takeTrust(o)
		w.fetch(o, true)
		p, err := w.m.Part(context.Background(), mirror.File{Name: "base-77.db", Size: 5, SHA256: trust.SumOf([]byte("other"))})
		if err == nil && p.Have() == 0 {
			_, err = p.Write([]byte("othe"))
		}
		if err := errors.Join(err, p.Close(), w.m.Close()); err != nil {
			t.Fatal(err)
		}
		w.open()
		w.m.Retain(0)
		if err := w.m.Tend(); err != nil { // nothing was heard yet: it may be wanted
			t.Fatal(err)
		}
		if _, err := os.Stat(w.path(o.pub.Layers[0].Name)); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		w.src.changeTo(4)
		o := w.ask()
		w.takeTrust(o)
		w.fetch(o, true)
	}
	o := w.ask()
	w.all(o)
	if err := w.m.Tend(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(w.path(""))
	if err != nil || len(entries) != len(o.files)+1 {
		t.Errorf("%v are left of %s: %v", entries, o.pub.Current, err)
	}
	want := w.sees(w.src.state)
	w.want(true, want)
}

// Trust takes the place of what is being fetched.
func TestPartsGiveWay(t *testing.T) {
	w := following(t)
	w.src.changeTo(4)
	o := w.ask()
	w.takeTrust(o)
	missing, err := w.m.Missing(context.Background(), o.pub)
	if err != nil || len(missing) == 0 {
		t.Fatal(missing, err)
	}
	p, err := w.m.Part(context.Background(), missing[0])
	if err == nil {
		_, err = p.Write(o.files[missing[0].Name][:4096])
	}
	if err != nil {
		t.Fatal(err)
	}
	w.m.DropParts()
	if _, err := p.Write(o.files[missing[0].Name][4096:]); err == nil {
		t.Error("it is written on")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	w.all(o)
	want := w.sees(w.src.state)
	w.want(true, want)
}

// Where a directory is something else, nothing is written.
func TestNotADirectoryOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "library"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.Open(dir, "https://worker.example", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "not empty (it has library)") {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
	if m, err := mirror.Open(filepath.Join(dir, "not", "there"), "https://worker.example", slog.New(slog.DiscardHandler)); err == nil {
		t.Errorf("%v: a directory above is made", m)
	}
}

// A source whose trust is ahead of what is here, and whose data are behind, as another
// replica's may be: its trust rules over the data that are here.
func TestSourceThatIsAheadAndBehind(t *testing.T) {
	w := following(t)
	b := &replicaWorld{TB: t, state: w.state + ".other", src: w.src}
	b.open()
	defer b.m.Close()
	b.all(w.ask())
	w.src.changeTo(aTag)
	w.all(w.ask())
	w.src.changeTo(0)
	b.takeTrust(w.ask())
	o, err := tell(mirror.NewSource(b.state, slog.New(slog.DiscardHandler)), b.state)
	if err != nil {
		t.Fatal(err)
	}
	trustFile, err := os.ReadFile(b.path(o.Trust.Name))
	if err != nil {
		t.Fatal(err)
	}
	was := w.sees(w.state)
	if err := w.m.TakeTrust(o, trustFile, mirror.Heard{Sent: mirror.Now()}); err != nil {
		t.Fatal(err)
	}
	was.trust = w.src.n
	w.want(true, was)
	if !w.m.Has(o) {
		t.Error("older data are wanted")
	}
	if err := w.m.Confirm(o, mirror.Heard{Sent: mirror.Now()}); err != nil {
		t.Error(err)
	}
	w.all(w.ask())
	want := w.sees(w.src.state)
	w.want(true, want)
}

// However many large layers there are, all are told of in the end.
func TestSeveralLargeLayers(t *testing.T) {
	defer mirror.HashBeside(1)()
	w := newReplicaWorld(t, nil, t.TempDir())
	defer func() { errors.Join(w.m.Close(), w.src.s.Close()) }() // what is open
	w.src.changeTo(aTag)
	w.src.changeTo(aTag - 1)
	s := mirror.NewSource(w.src.state, slog.New(slog.DiscardHandler))
	w.eventually("they are told of", func() bool {
		if !s.Idle() { // as a server does
			return false
		}
		p, err := tell(s, w.src.state)
		return err == nil && len(p.Layers) > 1
	})
}
