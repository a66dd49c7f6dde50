package scheduler

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/watcher"
)

// distributed is a world in distribution's layout, with a watcher that is only told.
func distributed(t *testing.T) (*world, *Scheduler, *watcher.Repositories) {
	t.Helper()
	w := newWorld(t)
	w.st.Distribution = true
	repositories := watcher.NewRepositories(watcher.Options{})
	w.edit = func(c *Config) { c.Repositories = repositories }
	return w, w.scheduler(), repositories
}

// A walk because directories came or went looks at no link of what was there before: whoever
// makes many names does not have everybody's storage looked at each time.
func TestAListingLooksAtNoLinks(t *testing.T) {
	w, s, _ := distributed(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	for _, repo := range []string{"a", "b", "c"} {
		w.st.SignSimple(w.st.Image(repo, "1"), k, simple)
	}
	if err := s.Scan(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	before := s.lookedAt()
	w.st.Image("new", "1")
	if _, err := s.walkAs(t.Context(), listRepositories); err != nil {
		t.Fatal(err)
	}
	if n := s.lookedAt() - before; n != 0 {
		t.Errorf("%d links were looked at", n)
	}
	if n := s.agenda.size(); n != 1 {
		t.Errorf("%d repositories are owed a scan, want the new one", n)
	}
	pass := s.Status().LastPass
	if err := s.walk(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if n := s.lookedAt() - before; n == 0 || !s.Status().LastPass.After(pass) {
		t.Errorf("a pass looked at %d links, and was at %v after %v", n, s.Status().LastPass, pass)
	}
}

// The link of a tag that comes later is watched once a pass has seen it.
func TestANewTagIsWatched(t *testing.T) {
	w, s, _ := distributed(t)
	img := w.st.Image("app", "1")
	w.st.Image("other", "1")
	s.cfg.ScanInterval = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	becomes := func(tag string) {
		t.Helper()
		dir := filepath.Join(w.st.Repository("app"), "_manifests/tags", tag, "current")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			s.walking.Lock()
			d, ok := s.watching[dir]
			above := s.watching[w.st.Dir].Above
			s.walking.Unlock()
			if ok && above && d == (watcher.Dir{Repository: "app", Inside: true}) {
				return
			}
		}
		t.Errorf("the tag %s is never watched", tag)
	}
	becomes("1")
	w.st.Tag(img, "prod")
	becomes("prod")
}

// Directories that only lead somewhere, which anybody can make by the ten thousand, use up
// nothing of what is watched inside of repositories.
func TestNamespacesTakeNoInsideWatches(t *testing.T) {
	w, s, _ := distributed(t)
	w.st.Image("team/app", "1")
	if err := s.walk(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	l := &listing{found: map[string]bool{"team/app": false}, dirs: map[string]watcher.Dir{}}
	for n := range insideWatched + 1 {
		l.dirs[fmt.Sprintf("/evil/%d", n)] = watcher.Dir{}
	}
	s.watchInside(l, nil, nil)
	for _, dir := range []string{"_manifests/tags", "_manifests/revisions/sha256", "_manifests/tags/1/current"} {
		if d, ok := l.dirs[filepath.Join(w.st.Repository("team/app"), dir)]; !ok || !d.Inside {
			t.Errorf("%s is not watched", dir)
		}
	}
}
