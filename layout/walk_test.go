package layout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// visits walks and writes one line a visit: "dir" for a namespace, "dir =" for
// a repository, "dir ! why" for one refused, "dir ? " for one unlisted.
func visits(t *testing.T, dir string, o Options) (lines []string) {
	t.Helper()
	r, err := Open(dir, o)
	must(t, err)
	defer r.Close()
	must(t, r.Walk(context.Background(), func(v Visit) error {
		lines = append(lines, line(v))
		if v.IsRepository {
			p, err := r.Repository(v.Name)
			if err != nil {
				t.Errorf("repository %s: %v", v.Name, err)
				return nil
			}
			must(t, p.Close())
		}
		return nil
	}))
	return lines
}

func line(v Visit) string {
	switch {
	case v.Refused != "":
		return v.Dir + " ! " + v.Refused
	case v.Err != nil:
		return v.Dir + " ?"
	case v.IsRepository:
		return v.Dir + " ="
	}
	return v.Dir
}

func TestWalk(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a/b", "a", "a-b", "team/x/deep", "_trust/no", "a/.sync/no", "lost+found/no", "Team/no", "b.c__d/e-f"} {
		newRepo(t, root, name)
	}
	outside := t.TempDir()
	newRepo(t, outside, "stolen")
	newRepo(t, outside, "z")
	must(t, os.MkdirAll(filepath.Join(root, "half", "way"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "half", indexFile), []byte(`{}`), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "a", "blobs", "inner"), 0o755))
	for link, target := range map[string]string{
		"escape":     filepath.Join(outside, "stolen"),
		"escape-rel": "../" + filepath.Base(outside) + "/z",
		"inner":      "team/x",
		"team/loop":  "..",
		"self":       "self",
		"dangling":   "nowhere",
		"to-file":    "file",
	} {
		must(t, os.Symlink(target, filepath.Join(root, link)))
	}
	want := []string{
		".",
		"Team ! not a repository name",
		"a =", "a/b =", "a-b =",
		"b.c__d", "b.c__d/e-f =",
		"escape ! symlink", "escape-rel ! symlink",
		"half", "half/way",
		"inner ! symlink",
		"lost+found ! not a repository name",
		"self ! symlink",
		"team", "team/loop ! symlink", "team/x", "team/x/deep =",
	}
	got := visits(t, root, Options{})
	// Lexical by component: "a/b" comes before "a-b".
	slices.SortFunc(want, func(a, b string) int {
		return slices.Compare(strings.Split(strings.Fields(a)[0], "/"), strings.Split(strings.Fields(b)[0], "/"))
	})
	if !slices.Equal(got, want) {
		t.Errorf("visits\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	r, err := Open(root, Options{})
	must(t, err)
	defer r.Close()
	for _, name := range []string{"escape", "escape-rel", "inner/deep", "team/loop/a", "self"} {
		if p, err := r.Repository(name); err == nil || p != nil {
			t.Errorf("opened %s", name)
		}
	}
	if _, err := r.Repository("a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing repository: %v", err)
	}
}

func TestWalkSubPath(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "a/x", "a/y/z", "ab/x", "b/a/x"} {
		newRepo(t, root, name)
	}
	for _, prefix := range []string{"a", "/a", "a/"} {
		want := []string{".", "a", "a/x =", "a/y", "a/y/z ="}
		if got := visits(t, root, Options{Prefix: prefix}); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	want := []string{".", "b", "b/a", "b/a/x ="}
	if got := visits(t, root, Options{Prefix: "b/a"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r, err := Open(root, Options{Prefix: "a"})
	must(t, err)
	defer r.Close()
	for _, name := range []string{"a", "ab/x", "b/a/x"} {
		if _, err := r.Stamp(name, time.Time{}); !errors.Is(err, ErrName) {
			t.Errorf("stamp of %s: %v", name, err)
		}
	}
}

func TestWalkStops(t *testing.T) {
	root := t.TempDir()
	newRepo(t, root, "a")
	newRepo(t, root, "b")
	r, err := Open(root, Options{})
	must(t, err)
	defer r.Close()
	stop, n := errors.New("stop"), 0
	err = r.Walk(context.Background(), func(v Visit) error {
		if n++; v.Name == "a" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 2 {
		t.Errorf("error %v after %d visits", err, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = r.Walk(ctx, func(Visit) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// threats.md W12: a root that went away is not a root without repositories.
func TestWalkOfReplacedRoot(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, dir string){
		"deleted": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
		"renamed": func(t *testing.T, dir string) { must(t, os.Rename(dir, dir+".old")) },
		"replaced": func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Mkdir(dir, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			newRepo(t, dir, "a")
			r, err := Open(dir, Options{})
			must(t, err)
			defer r.Close()
			replace(t, dir)
			var got []Visit
			err = r.Walk(context.Background(), func(v Visit) error { got = append(got, v); return nil })
			if err == nil || len(got) != 1 || got[0].Dir != "." || got[0].Err == nil {
				t.Errorf("error %v, visits %+v", err, got)
			}
			if name == "replaced" && !errors.Is(err, ErrReplaced) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestWalkOfVanishingDirectory(t *testing.T) {
	root := t.TempDir()
	newRepo(t, root, "a")
	newRepo(t, root, "b")
	r, err := Open(root, Options{})
	must(t, err)
	defer r.Close()
	var got []string
	must(t, r.Walk(context.Background(), func(v Visit) error {
		if got = append(got, line(v)); v.Name == "a" {
			must(t, os.RemoveAll(filepath.Join(root, "b")))
		}
		return nil
	}))
	if want := []string{".", "a ="}; !slices.Equal(got, want) {
		t.Errorf("visits %q, want %q", got, want)
	}
}

func TestRepositoryNames(t *testing.T) {
	good := []string{"a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "a0.b1/c-d", strings.Repeat("a", 255)}
	bad := []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "_a", "a/_b", ".a", "a.", "a..b", "a___b", "-a", "a-",
		"A", "é", "a b", "a\x00", "a\n", "a\\b", strings.Repeat("a", 256), strings.Repeat("a/", 1<<19) + "a",
	}
	r, err := Open(t.TempDir(), Options{})
	must(t, err)
	defer r.Close()
	for _, name := range good {
		if _, err := r.Repository(name); !ValidName(name) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.50q: valid %t, %v", name, ValidName(name), err)
		}
	}
	for _, name := range bad {
		_, err := r.Repository(name)
		_, serr := r.Stamp(name, time.Time{})
		if ValidName(name) || !errors.Is(err, ErrName) || !errors.Is(serr, ErrName) || len(err.Error()) > 2000 {
			t.Errorf("%.50q: valid %t, %.300v, %.300v", name, ValidName(name), err, serr)
		}
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []Options{
		{Prefix: "../x"}, {Prefix: "a//b"}, {Limits: Limits{Index: -1}}, {Limits: Limits{Children: maxChildren + 1}}, {Limits: Limits{Depth: -1}},
	} {
		if r, err := Open(dir, o); err == nil || r != nil {
			t.Errorf("Open accepts %+v", o)
		}
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for _, d := range []string{filepath.Join(dir, "none"), file, ""} {
		if _, err := Open(d, Options{}); err == nil {
			t.Errorf("Open(%q) succeeds", d)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	r, err := Open(link, Options{})
	must(t, err)
	must(t, r.Walk(context.Background(), func(Visit) error { return nil }))
	must(t, r.Close())
}
