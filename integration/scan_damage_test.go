package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
)

// usedPages are the pages of a private cache that hold something, by number.
func usedPages(t *testing.T, path string) (pages []int, size int64) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		for n := 0; ; n++ {
			p, err := tx.Page(n)
			if err != nil || p == nil {
				return err
			}
			if p.Type != "free" {
				pages = append(pages, n)
			}
			n += p.OverflowCount
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages, int64(db.Info().PageSize)
}

// Whoever opens the cache for writing sets damage of any page aside, whatever moment
// it shows at, says so in one line, and goes on with right answers: every used page in
// turn under make torture, some of them otherwise.
func TestAnyDamagedPageHeals(t *testing.T) {
	t.Parallel()
	s := newSample(t)
	s.Batch(func() {
		for i := range 120 {
			s.SignSimple(s.Image(fmt.Sprintf("many/r%d", i%12), fmt.Sprint("t", i)), s.team, signtest.CosignOptions{})
		}
	})
	good := t.TempDir()
	must(t, nil, "scan", "--root", s.Dir, "--state", good)
	for i := range 2 { // and something that is new since
		s.SignSimple(s.Image(fmt.Sprintf("many/r%d", i), "new"), s.team, signtest.CosignOptions{})
	}
	whole := t.TempDir()
	must(t, nil, "scan", "--root", s.Dir, "--state", whole)
	want := timeless(open(t, whole).all())

	pages, size := usedPages(t, filepath.Join(good, "private", "cache.db"))
	rnd := rand.New(rand.NewPCG(1, 2))
	commands := []string{"scan", "serve", "rebuild"}
	type damage struct {
		page    int
		kind    string
		command string
	}
	var all []damage
	for _, page := range pages {
		for _, kind := range []string{"zero", "random"} {
			for _, c := range commands {
				all = append(all, damage{page, kind, c})
			}
		}
	}
	if !torture {
		rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:24]
	}
	healed := 0
	for _, d := range all {
		state := filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(state, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		// CopyFS follows no links: CURRENT is one.
		current, err := os.Readlink(filepath.Join(good, "published", "CURRENT"))
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(state, "published", "CURRENT")) // if it was copied
		if err := os.Symlink(current, filepath.Join(state, "published", "CURRENT")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		if d.kind == "random" {
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		}
		f, err := os.OpenFile(filepath.Join(state, "private", "cache.db"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, int64(d.page)*size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		said := ""
		switch d.command {
		case "serve":
			daemon := start(t, serveCommand(s.Dir, "--state", state), state)
			daemon.ready(t)
			eventually(t, fmt.Sprintf("%+v: the answers are right", d), func() bool {
				r := open(t, state)
				snap, err := r.Snapshot()
				if err != nil {
					return false // it has just been set aside
				}
				snap.Close()
				return reflect.DeepEqual(timeless(r.all()), want)
			})
			daemon.stop(t, syscall.SIGTERM)
			said = daemon.log.String()
		default:
			args := []string{"scan", "--root", s.Dir, "--state", state}
			if d.command == "rebuild" {
				args = append([]string{"cache", "rebuild"}, args[1:]...)
			}
			e := command(t, args...)
			if said = e.stderr; e.code != 0 {
				t.Errorf("%+v: exit code %d: %s", d, e.code, e.stderr)
			}
		}
		if got := timeless(open(t, state).all()); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %d answers, want %d; %s", d, len(got), len(want), said)
		}
		lines := strings.Count(said, "set aside; it is rebuilt")
		if healed += min(lines, 1); lines > 1 || d.command == "rebuild" && lines != 1 {
			t.Errorf("%+v: said %d times:\n%s", d, lines, said)
		}
		// A daemon that is stopped soon may not have read the page; whoever does heals it.
		unread := d.command == "serve" && lines == 0
		if e := command(t, "scan", "--root", s.Dir, "--state", state); e.code != 0 || strings.Contains(e.stderr, "set aside") && !unread {
			t.Errorf("%+v: the next scan: exit code %d: %s", d, e.code, e.stderr)
		}
		if got := timeless(open(t, state).all()); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: after the next scan: %d answers, want %d", d, len(got), len(want))
		}
	}
	if healed == 0 {
		t.Error("no damage was met")
	}
	t.Logf("%d damages of %d used pages, %d set aside, every answer right", len(all), len(pages), healed)
}

// timeless leaves out of answers when they were made.
func timeless(images map[string]cache.Image) map[string]cache.Image {
	all := maps.Clone(images)
	strip := func(in []cache.Signature) []cache.Signature {
		out := slices.Clone(in)
		for i := range out {
			out[i].VerifiedAt = nil
		}
		return out
	}
	for name, img := range all {
		img.AsOf, img.SignatureInfo, img.Manifests = time.Time{}, strip(img.SignatureInfo), slices.Clone(img.Manifests)
		for i := range img.Manifests {
			img.Manifests[i].SignatureInfo = strip(img.Manifests[i].SignatureInfo)
		}
		all[name] = img
	}
	return all
}
