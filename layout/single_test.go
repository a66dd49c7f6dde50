package layout

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// IsRepository says of each name what a walk finds.
func TestIsRepositoryIsWhatAWalkFinds(t *testing.T) {
	base := t.TempDir()
	write := func(path string) {
		t.Helper()
		path = filepath.Join(base, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, repo := range []string{"a", "a/b", "deep/er/est", "_cosign", ".hidden", "a/blobs", "UPPER", "elsewhere"} {
		write("root/" + repo + "/index.json")
		write("root/" + repo + "/oci-layout")
	}
	write("root/half/index.json")
	write("root/other/oci-layout")
	write("outside/index.json")
	write("outside/oci-layout")
	for link, to := range map[string]string{"link": "a", "out": "../outside", "deep/link": "er"} {
		if err := os.Symlink(to, filepath.Join(base, "root", link)); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"", ".", "..", "/a", "a/", "a/../a", "../outside", "a", "a/b", "a/b/c", "a/blobs", "a/index.json", "deep", "deep/er", "deep/er/est",
		"deep/link/est", "_cosign", ".hidden", "UPPER", "half", "other", "link", "out", "none", "elsewhere", "blobs"}
	for _, prefix := range []string{"", "a"} {
		root, err := Open(filepath.Join(base, "root"), Options{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		found := map[string]bool{}
		if err := root.Walk(context.Background(), func(v Visit) error { found[v.Name] = v.IsRepository; return nil }); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, name := range names {
			got := root.IsRepository(name)
			if got != found[name] {
				t.Errorf("prefix %q: %q is a repository: %t, a walk finds %t", prefix, name, got, found[name])
			}
			if got {
				n++
			}
		}
		if want := map[string]int{"": 4, "a": 1}[prefix]; n != want {
			t.Errorf("prefix %q: %d repositories, want %d", prefix, n, want)
		}
	}
}
