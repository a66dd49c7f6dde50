//go:build linux

package watcher

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRandomOperations lets chance write scripts: whatever is done to the trees
// and to what leads to them, with or without a pause, the caller ends in what
// is on disk and every directory is watched. A failure names its seed; the
// interleaving with the watcher is not repeated by it, the operations are.
func TestRandomOperations(t *testing.T) {
	t.Parallel()
	runs := 15
	if torture {
		runs = 500
	}
	base := uint64(1)
	if torture {
		base = uint64(time.Now().UnixNano())
	}
	for i := range runs {
		seed := base + uint64(i)
		t.Run(fmt.Sprint("seed-", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			s := newScript(t)
			s.trees = []string{"way/to/_cosign", "way/to/_notation"}
			s.opts.Debounce = time.Duration(1+r.IntN(5)) * time.Millisecond
			s.start()
			var done []string
			defer func() {
				if t.Failed() {
					t.Logf("operations: %q", done)
				}
			}()
			for range 60 {
				cmd, args := randomStep(r)
				// Many can't be done at that moment; that's fine.
				if err := s.step(0, cmd, args); err == nil {
					done = append(done, fmt.Sprint(cmd, args))
				}
				if r.IntN(8) == 0 {
					s.converge(0)
				}
			}
			s.converge(0)
			s.probeAll()
			s.settled()
		})
	}
}

// Few names, so that they meet: the same path is a file, a directory and a link
// in turn.
var randomPaths = []string{
	"way", "way/to", "way/to/_cosign", "way/to/_notation", "way/to/_notation/x", "way/to/_notation/x/ca",
	"way/to/_notation/x/ca-old", "way/to/_cosign/..data", "way/to/_cosign/..1", "way/to/_cosign/..2",
	"away", "away/x", "away/x/ca", "to",
}

func randomStep(r *rand.Rand) (string, []string) {
	path := func() string { return randomPaths[r.IntN(len(randomPaths))] }
	switch r.IntN(10) {
	case 0, 1, 2:
		return "mkdir", []string{"-p", path()}
	case 3, 4, 5:
		return "write", []string{filepath.Join(path(), "key"), fmt.Sprint(r.IntN(1000))}
	case 6:
		return "rm", []string{"-r", path()}
	case 7:
		return "mv", []string{path(), path()}
	case 8:
		// Into a watched tree: what a link to elsewhere leads to is not loaded,
		// and changes there are not reported.
		target := path()
		for !strings.HasPrefix(target, "way/to/_") {
			target = path()
		}
		if rel, err := filepath.Rel("way/to", target); err == nil && r.IntN(2) == 0 {
			return "ln", []string{"-s", rel, path()}
		}
		return "ln", []string{"-s", "$WORK/" + target, path()}
	}
	return "write", []string{path(), "in the way"}
}

// settled waits until what is watched is what there is, and no more: watches
// on directories that were moved away would be a leak.
func (s *script) settled() {
	s.t.Helper()
	var dirs []string
	for _, d := range s.trees {
		dirs = append(dirs, s.path(d))
	}
	want := len(surveyTrees(dirs, "", 4096).places)
	if err := s.wait(fmt.Sprint(want, " directories"), func(st Status) bool { return st.Dirs == want }); err != nil {
		s.t.Error(err)
	}
	s.tap.mu.Lock()
	got := len(s.tap.live.WatchList())
	s.tap.mu.Unlock()
	if got != want {
		s.t.Errorf("%d watches for %d directories: %q", got, want, s.tap.live.WatchList())
	}
}
