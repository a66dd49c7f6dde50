package scheduler

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"

	"trust-worker/internal/signtest"
)

// A hint finds what a pass would have found, and makes nothing of names that are
// no repository's.
func TestLookAt(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", key)
	w.st.Image("team/app", "1.0")
	w.scan()
	s := w.scheduler()
	w.st.SignSimple(w.st.Image("team/new", "1.0"), key, signtest.CosignOptions{})
	if err := os.Symlink("new", w.st.Repository("team/link")); err != nil {
		t.Fatal(err)
	}
	finished := errors.New("finished")
	err := s.run(context.Background(), func(context.Context, *errgroup.Group) {}, func(ctx context.Context, g *errgroup.Group) {
		g.Go(func() error {
			for _, name := range []string{"team/new", "team/app", "team", "team/app/index.json", "team/link", "none", "../x", "_cosign", "team/app/blobs", ""} {
				s.LookAt(name)
			}
			<-s.agenda.quiet()
			return finished
		})
	})
	if !errors.Is(err, finished) {
		t.Fatal(err)
	}
	if work := s.Work(); work.Scanned != 2 || work.Verified != 1 || work.Walks != 0 || work.Errors != 0 {
		t.Errorf("%+v", work)
	}
	places, err := w.store.Places()
	if err != nil || len(places) != 2 || places[0].Name != "team/app" || places[1].Name != "team/new" {
		t.Errorf("%v, %v", places, err)
	}
}

// What somebody has just pushed is looked at before what a walk over all of storage
// found, in a repository that is new, too.
func TestAPushIsBeforeAWalk(t *testing.T) {
	w := newWorld(t)
	w.st.Image("old", "1.0")
	w.scan()
	w.st.Image("a", "1.0")
	w.st.Image("b", "1.0")
	w.st.Image("c", "1.0")
	s := w.scheduler()
	walk := func() {
		t.Helper()
		if err := s.walk(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	next := func(want string, level priority) {
		t.Helper()
		if i, owed, _ := s.agenda.get(ordinary); i.repository != want || owed.level != level {
			t.Errorf("%s in class %d, want %s in class %d", i.repository, owed.level, want, level)
		}
	}
	walk()
	s.LookAt("c")
	next("c", fresh)
	w.st.Image("new", "1.0")
	walk()
	next("new", fresh)
	for range 2 {
		if _, owed, _ := s.agenda.get(ordinary); owed.level != bulk {
			t.Errorf("what the first walk found is in class %d", owed.level)
		}
	}
}
