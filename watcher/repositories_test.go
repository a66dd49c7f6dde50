package watcher

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// storage is a registry's root with repositories, and their watcher. Its Set is
// what a walk would give.
type storage struct {
	t     *testing.T
	root  string
	p     *puppet
	repos *Repositories
	start time.Time
}

func newStorage(t *testing.T, opts Options, names ...string) *storage {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &storage{t: t, root: root, p: &puppet{}, repos: NewRepositories(opts)}
	for _, name := range names {
		s.create(name)
	}
	return s
}

func (s *storage) create(name string) {
	s.t.Helper()
	dir := filepath.Join(s.root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.push(name, "{}")
}

// push replaces index.json as zot does.
func (s *storage) push(name, content string) {
	s.t.Helper()
	dir := filepath.Join(s.root, name)
	if err := os.WriteFile(dir+"/.staging", []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(dir+"/.staging", dir+"/index.json"); err != nil {
		s.t.Fatal(err)
	}
}

// walk is the scanner's: repositories, and directories that lead to some.
func (s *storage) walk() map[string]Dir {
	dirs := map[string]Dir{}
	filepath.WalkDir(s.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if path != s.root && (strings.ContainsAny(d.Name()[:1], "._") || d.Name() == "blobs") {
			return filepath.SkipDir
		}
		name, _ := filepath.Rel(s.root, path)
		if _, err := os.Stat(path + "/index.json"); err != nil {
			name = ""
		}
		dirs[path] = Dir{Repository: name}
		return nil
	})
	return dirs
}

// run starts the watcher, with the puppet if in a bubble, until the test ends.
func (s *storage) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.repos.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// bubble runs f in synctest with the watcher on the puppet, after the first
// hints.
func (s *storage) bubble(f func()) {
	s.t.Helper()
	names := s.walk()
	opts := s.repos.opts
	synctest.Test(s.t, func(t *testing.T) {
		s.t, s.repos = t, NewRepositories(opts)
		s.repos.open = s.p.open
		s.repos.Set(names)
		defer s.run()()
		s.start = time.Now()
		s.expect(0, Hint{All: true, Walk: true})
		f()
	})
}

func (s *storage) expect(at time.Duration, want Hint) {
	s.t.Helper()
	<-s.repos.C()
	got, after := s.repos.Take(), time.Since(s.start)
	if !reflect.DeepEqual(got, want) || after != at {
		s.t.Errorf("%+v after %v, want %+v after %v", got, after, want, at)
	}
}

func (s *storage) silent(until time.Duration) {
	s.t.Helper()
	time.Sleep(until - time.Since(s.start))
	synctest.Wait()
	select {
	case <-s.repos.C():
		s.t.Errorf("%+v, want no hint", s.repos.Take())
	default:
	}
}

const ms = time.Millisecond

func TestRepositoriesEvents(t *testing.T) {
	s := newStorage(t, Options{}, "a", "a/b", "team/app")
	if err := os.MkdirAll(s.root+"/team/new", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/_cosign", "/a/blobs", "/a/.uploads", "/a/c"} {
		if err := os.Mkdir(s.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.bubble(func() {
		s.repos.mu.Lock()
		delete(s.repos.want, s.root+"/team/new") // as if it came after the walk
		delete(s.repos.want, s.root+"/a/c")
		s.repos.mu.Unlock()
		for i, c := range []struct {
			path string
			op   fsnotify.Op
			want Hint
		}{
			{"/a/index.json", fsnotify.Create, Hint{Names: []string{"a"}}},
			{"/a/b/index.json", fsnotify.Create, Hint{Names: []string{"a/b"}}},
			{"/team/app/index.json", fsnotify.Write, Hint{Names: []string{"team/app"}}},
			{"/a/blobs", fsnotify.Create, Hint{Names: []string{"a"}}},
			{"/a/.uploads", fsnotify.Create, Hint{Names: []string{"a"}}},
			{"/a/c", fsnotify.Create, Hint{Walk: true, Names: []string{"a"}}},
			{"/a/b", fsnotify.Remove, Hint{Walk: true, Names: []string{"a/b"}}},
			{"/a/b", fsnotify.Chmod, Hint{Names: []string{"a/b"}}},
			{"/team", fsnotify.Rename, Hint{Walk: true}},
			{"/team/new", fsnotify.Create, Hint{Walk: true}},
			{"/team/index.json", fsnotify.Create, Hint{Walk: true}},
			{"/_cosign", fsnotify.Create, Hint{}},
			{"/meta.db", fsnotify.Write, Hint{}},
			{"/team/app/unknown/index.json", fsnotify.Write, Hint{}},
		} {
			at := time.Duration(i+1) * time.Second
			time.Sleep(at - time.Since(s.start))
			s.p.say(s.root+c.path, c.op)
			if reflect.DeepEqual(c.want, Hint{}) {
				s.silent(at + 500*ms)
			} else {
				s.expect(at+10*ms, c.want)
			}
		}
	})
}

func TestRepositoriesDebounce(t *testing.T) {
	s := newStorage(t, Options{}, "busy", "quiet")
	s.bubble(func() {
		var pushes sync.WaitGroup
		defer pushes.Wait()
		pushes.Go(func() {
			for range 500 {
				s.p.say(s.root+"/busy/index.json", fsnotify.Create)
				time.Sleep(ms)
			}
		})
		time.Sleep(50*ms + ms/2)
		s.p.say(s.root+"/quiet/index.json", fsnotify.Create)
		s.expect(60*ms+ms/2, Hint{Names: []string{"quiet"}})
		s.expect(200*ms, Hint{Names: []string{"busy"}})
	})
}

// A directory that is new to Set is hinted once it is watched; Set without news
// says nothing.
func TestRepositoriesSet(t *testing.T) {
	s := newStorage(t, Options{}, "a", "b")
	s.bubble(func() {
		time.Sleep(time.Second)
		s.repos.Set(s.walk())
		s.silent(1500 * ms)

		s.create("c")
		s.repos.Set(s.walk())
		s.expect(1510*ms, Hint{Watched: []string{"c"}})

		s.create("team/d")
		s.repos.Set(s.walk())
		s.expect(1520*ms, Hint{Walk: true, Watched: []string{"team/d"}})
		if got, want := s.watched(), s.wanted(); !slices.Equal(got, want) {
			t.Errorf("watched %q, want %q", got, want)
		}

		// Walked when it was a directory only; what happened in it since has
		// been taken for something else.
		if err := os.Mkdir(s.root+"/team/e", 0o755); err != nil {
			t.Fatal(err)
		}
		s.repos.Set(s.walk())
		s.expect(1530*ms, Hint{Walk: true})
		s.push("team/e", "{}")
		s.repos.Set(s.walk())
		s.expect(1540*ms, Hint{Watched: []string{"team/e"}})

		if err := os.RemoveAll(s.root + "/b"); err != nil {
			t.Fatal(err)
		}
		s.repos.Set(s.walk())
		s.silent(2 * time.Second)
		if got, want := s.watched(), s.wanted(); !slices.Equal(got, want) {
			t.Errorf("watched %q, want %q", got, want)
		}

		// Another directory by the same name.
		if err := os.Rename(s.root+"/a", s.root+"/c/x"); err != nil {
			t.Fatal(err)
		}
		s.create("a")
		s.repos.Set(s.walk())
		s.expect(2010*ms, Hint{Watched: []string{"a", "c/x"}})
	})
}

func (s *storage) watched() []string { return slices.Sorted(slices.Values(s.p.current().WatchList())) }
func (s *storage) wanted() []string  { return slices.Sorted(maps.Keys(s.walk())) }

// W6: lost events mean everything, from a new source with all watches.
func TestRepositoriesOverflow(t *testing.T) {
	s := newStorage(t, Options{}, "a", "b")
	s.bubble(func() {
		time.Sleep(time.Second)
		old := s.p.current()
		for range 5 {
			old.fail(fsnotify.ErrEventOverflow)
		}
		s.expect(time.Second, Hint{All: true, Walk: true})
		if got, want := s.watched(), s.wanted(); !slices.Equal(got, want) {
			t.Errorf("watched %q, want %q", got, want)
		}
		if st := s.repos.Status(); st.Overflows == 0 || st.Mode != ModeEvents || st.Restarts == 0 {
			t.Errorf("%+v", st)
		}
	})
}

// W7: beyond the limit it stops adding, says so, hints once at everything, and
// tries again at the poll.
func TestRepositoriesLimit(t *testing.T) {
	s := newStorage(t, Options{}, "a", "b", "c")
	s.p.limit = 2
	s.bubble(func() {
		if st := s.repos.Status(); st.Mode != ModePolling || !strings.Contains(st.Reason, "no space left") || st.Dirs != 2 {
			t.Errorf("%+v", st)
		}
		if !s.p.watches(t, s.root) {
			t.Error("the root is not watched first")
		}
		s.expect(10*ms, Hint{Watched: []string{"b", "c"}}) // first looked at
		s.silent(59 * time.Second)
		s.p.set(func(p *puppet) { p.limit = 0 })
		s.expect(60*time.Second+10*ms, Hint{Watched: []string{"b", "c"}})
		if st := s.repos.Status(); st.Mode != ModeEvents {
			t.Errorf("%+v", st)
		}
		s.p.set(func(p *puppet) { p.limit = 4 })
		s.create("d")
		s.repos.Set(s.walk())
		s.expect(60*time.Second+10*ms, Hint{All: true, Walk: true})
		s.repos.Set(s.walk())
		s.expect(60*time.Second+20*ms, Hint{Watched: []string{"d"}}) // first looked at
		s.silent(90 * time.Second)
	})
}

func TestRepositoriesMaxDirs(t *testing.T) {
	s := newStorage(t, Options{MaxDirs: 2}, "a", "b", "c")
	s.bubble(func() {
		if st := s.repos.Status(); st.Mode != ModePolling || st.Reason != "more than 2 directories" || st.Dirs != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// W17.
func TestRepositoriesDeath(t *testing.T) {
	s := newStorage(t, Options{}, "a")
	s.bubble(func() {
		time.Sleep(10 * time.Second)
		s.p.current().Close()
		s.expect(10*time.Second, Hint{All: true, Walk: true})
		s.p.current().Close()
		s.expect(10*time.Second+200*ms, Hint{All: true, Walk: true})
		s.expect(10*time.Second+210*ms, Hint{Watched: []string{"a"}}) // first looked at
		if st := s.repos.Status(); st.Mode != ModePolling || st.Reason != "event source ended" {
			t.Errorf("%+v", st)
		}
		s.expect(12*time.Second+200*ms, Hint{All: true, Walk: true})
		if st := s.repos.Status(); st.Mode != ModeEvents {
			t.Errorf("%+v", st)
		}
	})
}

func TestRepositoriesRefused(t *testing.T) {
	if err := NewRepositories(Options{Poll: -1}).Run(t.Context()); err == nil {
		t.Error("a negative poll is accepted")
	}
}

// What is inside of a repository says to look at the repository, and never to walk; what leads
// to it does where something comes.
func TestInsideOfRepositories(t *testing.T) {
	s := newStorage(t, Options{}, "app")
	for _, dir := range []string{"_manifests/tags/1/current", "_manifests/revisions/sha256/aa", "bare"} {
		if err := os.MkdirAll(s.root+"/app/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.bubble(func() {
		want := s.walk()
		inside := Dir{Repository: "app", Inside: true}
		want[s.root+"/app/_manifests"] = Dir{Repository: "app"}
		for _, dir := range []string{"tags", "tags/1/current", "revisions/sha256"} {
			want[s.root+"/app/_manifests/"+dir] = inside
		}
		s.repos.Set(want)
		s.expect(10*ms, Hint{Watched: []string{"app"}})
		for i, c := range []struct {
			path string
			op   fsnotify.Op
			want Hint
		}{
			{"tags/2", fsnotify.Create, Hint{Names: []string{"app"}}},
			{"tags/1/current/link", fsnotify.Write, Hint{Names: []string{"app"}}},
			{"tags/1/current", fsnotify.Remove, Hint{Names: []string{"app"}}},
			{"revisions/sha256/aa", fsnotify.Create, Hint{Names: []string{"app"}}},
			{"revisions/sha256", fsnotify.Remove, Hint{Names: []string{"app"}}},
			{"revisions/sha256/aa/link", fsnotify.Create, Hint{}},
			{"revisions", fsnotify.Create, Hint{Walk: true, Names: []string{"app"}}},
			{"", fsnotify.Remove, Hint{Walk: true, Names: []string{"app"}}},
		} {
			at := time.Duration(i+1) * time.Second
			time.Sleep(at - time.Since(s.start))
			s.p.say(s.root+"/app/_manifests/"+c.path, c.op)
			if reflect.DeepEqual(c.want, Hint{}) {
				s.silent(at + 500*ms)
			} else {
				s.expect(at+10*ms, c.want)
			}
		}
		// The first push into a namespace makes it a repository.
		time.Sleep(9*time.Second - time.Since(s.start))
		s.p.say(s.root+"/app/bare/_manifests", fsnotify.Create)
		s.expect(9*time.Second+10*ms, Hint{Walk: true})
	})
}
