//go:build linux

package watcher

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestScripts runs testdata/*.txt: what happens to trust directories, as
// shell-like steps, and where a caller that reads everything upon each notice
// has to end. A new case needs no Go. The steps are in steps_test.go; these
// belong to the runner:
//
//	trust DIR...       what to watch (default: _cosign _notation)
//	poll D, debounce D, stop DIR, max-dirs N      options; poll is an hour
//	                   unless given, so that only events can help
//	start              watch; steps before it are the state at start
//	converge           the caller ends in the state on disk (implied at the end)
//	mode M [TEXT]      wait until the mode is M, and its reason contains TEXT
//	count WHAT N       wait until overflows, restarts or errors are at least N
//	loop N ... end     N times, $i is the round; 10 N times under torture
//	no-probe           leave out the final proof that every directory in the
//	                   trees is watched: a file is put into each and must be seen
//
// Paths are relative to a directory that is new for each case.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if needsMounts(string(src)) && !inMountNamespace(t) {
				return
			}
			t.Parallel()
			newScript(t).run(parse(t, string(src)))
		})
	}
}

// step is one line, or a loop of them.
type step struct {
	line int
	args []string
	body []step
}

func parse(t *testing.T, src string) []step {
	t.Helper()
	if first, _, _ := strings.Cut(src, "\n"); !strings.HasPrefix(first, "# W") {
		t.Fatalf("the first line must name the pitfall, as in %q", "# W3: …")
	}
	stack := []*step{{}}
	for i, line := range strings.Split(src, "\n") {
		line, _, _ = strings.Cut(line, "#")
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		top := stack[len(stack)-1]
		switch args[0] {
		case "loop":
			stack = append(stack, &step{line: i + 1, args: args})
		case "end":
			stack = stack[:len(stack)-1]
			up := stack[len(stack)-1]
			up.body = append(up.body, *top)
		default:
			top.body = append(top.body, step{line: i + 1, args: args})
		}
	}
	if len(stack) != 1 {
		t.Fatal("loop without end")
	}
	return stack[0].body
}

// script is one running case.
type script struct {
	t     *testing.T
	dir   string
	trees []string
	opts  Options
	probe bool
	tap   *tap
	trust *Trust

	mu   sync.Mutex
	seen string        // the caller's last snapshot
	news chan struct{} // closed at the next one
}

func newScript(t *testing.T) *script {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &script{
		t: t, dir: dir, probe: true, tap: newTap(), news: make(chan struct{}),
		trees: []string{"_cosign", "_notation"},
		// Short, so that many rounds fit in a second. The exact times are
		// tested in a bubble, see trust_test.go.
		opts: Options{Debounce: 5 * time.Millisecond, MaxDelay: 50 * time.Millisecond, Poll: time.Hour},
	}
}

func (s *script) run(steps []step) {
	s.steps(steps, 0)
	if s.trust == nil {
		s.t.Fatal("the script has no start")
	}
	s.converge(0)
	if s.probe {
		s.probeAll()
	}
}

func (s *script) steps(steps []step, round int) {
	for _, st := range steps {
		args := slices.Clone(st.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$i", strconv.Itoa(round))
		}
		if args[0] == "loop" {
			n := s.number(st, args[1])
			if torture {
				n *= 10
			}
			for i := range n {
				s.steps(st.body, i)
			}
			continue
		}
		if err := s.step(st.line, args[0], args[1:]); err != nil {
			s.t.Fatalf("line %d: %s: %v", st.line, strings.Join(args, " "), err)
		}
	}
}

func (s *script) number(st step, arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		s.t.Fatalf("line %d: %v", st.line, err)
	}
	return n
}

// start watches, and plays the caller: for each notice it reads all there is.
func (s *script) start() {
	var dirs []string
	for _, d := range s.trees {
		dirs = append(dirs, s.path(d))
	}
	s.trust = NewTrust(dirs, s.opts)
	s.trust.open = s.tap.open
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.trust.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case n := <-s.trust.C():
				s.reconcile(n)
			}
		}
	})
	s.t.Cleanup(func() { cancel(); wg.Wait() })
}

func (s *script) reconcile(n Notice) {
	snapshot := s.snapshot()
	s.mu.Lock()
	s.seen = snapshot
	close(s.news)
	s.news = make(chan struct{})
	s.mu.Unlock()
	s.trust.Reconciled(n)
}

// snapshot lists the trees as the loader would see them: names, kinds,
// permissions, link targets, and contents by way of links.
func (s *script) snapshot() string {
	var b strings.Builder
	for _, tree := range s.trees {
		root := s.path(tree)
		if real, err := filepath.EvalSymlinks(root); err == nil {
			root = real
		}
		fmt.Fprintf(&b, "== %s\n", tree)
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(root, path)
			if err != nil {
				fmt.Fprintf(&b, "%s: gone\n", rel)
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			fmt.Fprintf(&b, "%s %v", rel, info.Mode())
			if target, err := os.Readlink(path); err == nil {
				fmt.Fprintf(&b, " → %s", target)
			}
			if at, err := os.Stat(path); err == nil && at.Mode().IsRegular() {
				content, err := os.ReadFile(path)
				fmt.Fprintf(&b, " %q %v", content, err)
			}
			b.WriteByte('\n')
			return nil
		})
	}
	return b.String()
}

func (s *script) converge(line int) {
	s.t.Helper()
	want := s.snapshot() // nobody but the script changes it
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		seen, news := s.seen, s.news
		s.mu.Unlock()
		if seen == want {
			return
		}
		select {
		case <-news:
		case <-deadline:
			s.t.Fatalf("line %d: no notice after the last change\nseen:\n%s\non disk:\n%s\nstatus: %+v", line, seen, want, s.trust.Status())
		}
	}
}

// probeAll puts a file into each directory of the trees, one at a time: a
// directory whose watch was lost is found out.
func (s *script) probeAll() {
	for _, tree := range s.trees {
		root, err := filepath.EvalSymlinks(s.path(tree))
		if err != nil {
			continue // ends without it
		}
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				if err := os.WriteFile(filepath.Join(path, "probe"), nil, 0o644); err != nil {
					s.t.Error(err)
				}
				s.converge(0)
			}
			return nil
		})
	}
}

func (s *script) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return s.dir + "/" + p
}

// wait polls for a condition of Status.
func (s *script) wait(what string, ok func(Status) bool) error {
	deadline := time.Now().Add(patience)
	for !ok(s.trust.Status()) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s: %+v", what, s.trust.Status())
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
