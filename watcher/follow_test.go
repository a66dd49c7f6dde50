package watcher

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// scanner follows hints as the real one would, and collects what it knows.
type scanner struct {
	*storage
	mu    sync.Mutex
	index map[string]string // repository → content of index.json
}

func (s *scanner) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.repos.C():
		}
		h := s.repos.Take()
		s.mu.Lock()
		if h.Walk || h.All {
			dirs := s.walk()
			s.repos.Set(dirs)
			maps.DeleteFunc(s.index, func(name, _ string) bool { return dirs[filepath.Join(s.root, name)].Repository != name })
			for _, dir := range dirs {
				name := dir.Repository
				if _, known := s.index[name]; name != "" && (!known || h.All) {
					s.scan(name)
				}
			}
		}
		for _, name := range append(h.Names, h.Watched...) {
			s.scan(name)
		}
		s.mu.Unlock()
	}
}

func (s *scanner) scan(name string) {
	content, err := os.ReadFile(filepath.Join(s.root, name, "index.json"))
	if err != nil {
		delete(s.index, name)
		return
	}
	s.index[name] = string(content)
}

func (s *scanner) converge() {
	s.t.Helper()
	want := map[string]string{}
	for dir, is := range s.walk() {
		if name := is.Repository; name != "" {
			content, _ := os.ReadFile(dir + "/index.json")
			want[name] = string(content)
		}
	}
	var got map[string]string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(ms) {
		s.mu.Lock()
		got = maps.Clone(s.index)
		s.mu.Unlock()
		if maps.Equal(got, want) {
			return
		}
	}
	s.t.Fatalf("scanner knows %v\non disk %v\n%+v", got, want, s.repos.Status())
}

// With the real thing, hints alone bring a scanner to what is on disk, for all
// that a registry does.
func TestRepositoriesFollowed(t *testing.T) {
	rounds := 15
	if torture {
		rounds = 500
	}
	s := &scanner{storage: newStorage(t, Options{Poll: time.Hour}, "a", "a/b", "team/app"), index: map[string]string{}}
	s.repos.Set(s.walk())
	stop := s.run()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.follow(ctx) })
	defer func() { cancel(); stop(); wg.Wait() }()
	s.converge()
	for i := range rounds {
		text := fmt.Sprint("round ", i)
		s.push("a", text)
		s.push("a/b", text)
		s.converge()
		s.create(fmt.Sprintf("new/deep/r%d", i)) // walked before index.json is there, or after
		s.create(fmt.Sprintf("a/n%d", i))
		s.converge()
		s.push(fmt.Sprintf("a/n%d", i), text)
		s.converge()
		for _, name := range []string{"new", fmt.Sprintf("a/n%d", i), "team/app"} {
			if err := os.RemoveAll(filepath.Join(s.root, name)); err != nil {
				t.Fatal(err)
			}
		}
		s.create("team/app") // again, likely with the same inode number
		s.push("team/app", text)
		s.converge()
		s.push("team/app", text+" again")
		s.converge()
		if err := os.Rename(s.root+"/team", s.root+"/crew"); err != nil {
			t.Fatal(err)
		}
		s.converge()
		s.push("crew/app", text)
		s.converge()
		if err := os.Rename(s.root+"/crew", s.root+"/team"); err != nil {
			t.Fatal(err)
		}
		s.converge()
	}
}
