//go:build unix

package watcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// newTree returns a real path with the given directories in it.
func newTree(t *testing.T, dirs ...string) string {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

// below lists the places at or below dir that are watched as a whole.
func (s *survey) below(dir string) (paths []string) {
	for _, p := range s.places {
		if p.whole && within(p.path, dir) {
			rel, _ := filepath.Rel(dir, p.path)
			paths = append(paths, rel)
		}
	}
	return paths
}

// I7: what took a directory's place between two calls is not opened, or these
// would wait for a writer, or list another tree.
func TestSubdirectoriesOpensDirectoriesOnly(t *testing.T) {
	base := newTree(t, "real/sub")
	if err := syscall.Mkfifo(base+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", base+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "link", "absent"} {
		if names, err := subdirectories(base+"/"+name, 10); !gone(err) || names != nil {
			t.Errorf("%s: %q, %v; want an error that means gone", name, names, err)
		}
	}
	if names, err := subdirectories(base+"/real", 10); err != nil || !slices.Equal(names, []string{"sub"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// Breadth first, so that a limit leaves out the deepest; links are not followed
// below the root; lost+found is left alone.
func TestSurveyOrder(t *testing.T) {
	base := newTree(t, "keys/b/x/deep", "keys/a/y", "keys/..data_1", "keys/lost+found", "outside/dir")
	for _, l := range [][2]string{{"../outside", "keys/out"}, {".", "keys/loop"}, {"..data_1", "keys/..data"}, {"keys", "link"}} {
		if err := os.Symlink(l[0], base+"/"+l[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{".", "..data_1", "a", "b", "a/y", "b/x", "b/x/deep"}
	for _, root := range []string{"/keys", "/link", "/./keys/", "/keys/../link"} {
		s := surveyTrees([]string{base + root}, base, 100)
		if got := s.below(base + "/keys"); !slices.Equal(got, want) || s.reason != "" {
			t.Errorf("%s: %q (%s), want %q", root, got, s.reason, want)
		}
	}
	s := surveyTrees([]string{base + "/keys"}, base, 5)
	if got := s.below(base + "/keys"); !slices.Equal(got, want[:4]) || s.reason != "more than 5 directories" {
		t.Errorf("limited: %q, %q", got, s.reason)
	}
}

// A directory of very many directories is not held in memory: the limit stops
// the listing itself.
func TestSurveyWide(t *testing.T) {
	base := newTree(t)
	for i := range 1300 {
		if err := os.Mkdir(fmt.Sprint(base, "/", i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names, err := subdirectories(base, 100)
	if err != nil || len(names) > 100+1024 {
		t.Errorf("%d names, %v", len(names), err)
	}
	if s := surveyTrees([]string{base}, base, 50); len(s.places) != 50 || s.reason != "more than 50 directories" {
		t.Errorf("%d places, %q", len(s.places), s.reason)
	}
}

// Several trust directories may lie in each other; each place is there once.
func TestSurveyNested(t *testing.T) {
	base := newTree(t, "a/b/c")
	s := surveyTrees([]string{base + "/a/b", base + "/a", base + "/a/b/c/absent"}, base, 100)
	if got, want := s.below(base), []string{"a/b", "a", "a/b/c"}; len(got) != 3 || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("%q, want %q", got, want)
	}
	if p := s.byPath[base]; p == nil || p.whole || !p.names["a"] {
		t.Errorf("%+v", p)
	}
}

func TestWhichPathsConcernATree(t *testing.T) {
	base := newTree(t, "registry/_cosign/sub", "registry/app")
	s := surveyTrees([]string{base + "/registry/_cosign", base + "/registry/_notation"}, "", 100)
	for path, want := range map[string]bool{
		"/registry":                   true,
		"/registry/_cosign":           true,
		"/registry/_notation":         true, // does not exist
		"/registry/_cosign/key":       true,
		"/registry/_cosign/sub/key":   true,
		"/registry/_cosign/sub/x/key": true, // not known: in doubt, yes
		"/registry/_cosign-old":       false,
		"/registry/app":               false,
		"/registry/meta.db":           false,
		"/other":                      false,
	} {
		if got := s.concerns(base + path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// What may not be looked at shows; as root everything may.
func TestSurveyForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may look at everything")
	}
	base := newTree(t, "keys/sub")
	for _, dir := range []string{"/keys/sub", "/keys"} {
		if err := os.Chmod(base+dir, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(base+dir, 0o755) })
		if s := surveyTrees([]string{base + "/keys"}, base, 100); s.reason == "" {
			t.Errorf("%s is forbidden, and nothing is said", dir)
		}
	}
}

// W8: a file system that is known for not reporting events.
func TestEventlessFileSystem(t *testing.T) {
	const dir = "/proc/sys/fs/inotify"
	if _, err := os.Stat(dir); err != nil {
		t.Skip(err)
	}
	s := surveyTrees([]string{dir}, "", 100)
	if want := dir + " is on a kernel file system, which does not report all changes"; s.reason != want {
		t.Errorf("%q, want %q", s.reason, want)
	}
	s = surveyTrees([]string{"/proc/absent/keys"}, "", 100)
	if s.reason == "" {
		t.Error("events are expected of the directory in which an absent one would appear")
	}
	if s = surveyTrees([]string{t.TempDir()}, "", 100); s.reason != "" && !slices.Contains([]string{"FUSE", "9P"}, eventless(os.TempDir())) {
		t.Errorf("temporary directory: %s", s.reason)
	}
}

func TestSurveyStopsAtTheGivenDirectory(t *testing.T) {
	base := newTree(t, "registry/_cosign")
	if err := os.Symlink("registry", base+"/link"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range surveyTrees([]string{base + "/registry/_cosign"}, base+"/link", 100).places {
		got = append(got, p.path)
	}
	if want := []string{base + "/registry", base + "/registry/_cosign"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A directory that was removed and made again is another one, also if it has
// the same inode number, which is what most file systems give it.
func TestIdentity(t *testing.T) {
	base := newTree(t, "keys", "other")
	dir := base + "/keys"
	first, err := identify(dir, os.Lstat)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := identify(dir, os.Lstat); err != nil || !first.same(again) {
		t.Errorf("not the same as itself: %v", err)
	}
	if other, err := identify(base+"/other", os.Lstat); err != nil || first.same(other) {
		t.Errorf("the same as another: %v", err)
	}
	if first.born == 0 {
		t.Skip("no time of birth here")
	}
	time.Sleep(20 * time.Millisecond) // such times have the resolution of the kernel's tick
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if second, err := identify(dir, os.Lstat); err != nil || first.same(second) {
		t.Errorf("the same after it was made again: %v", err)
	}
	if err := os.WriteFile(base+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identify(base+"/file", os.Lstat); err == nil {
		t.Error("a file has an identity")
	}
}
