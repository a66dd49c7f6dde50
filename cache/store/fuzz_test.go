package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzPublished writes anything anywhere into the published files, or in their
// place: a reader never says trusted of what is not.
func FuzzPublished(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "state")
	trusted := townsfolk(f, dir)
	files := published(f, dir)
	if bad, n := wronglyTrusted(dir, trusted); bad != "" || n < 200 || len(files) < 3 {
		f.Fatalf("%s, %d answers, files %v", bad, n, files)
	}
	for i := range files {
		b, err := os.ReadFile(filepath.Join(dir, files[i]))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), uint32(0), b[:min(len(b), 64)], false)
		f.Add(uint8(i), uint32(len(b)/2), []byte{0xff}, false)
		f.Add(uint8(i), uint32(0), b[:min(len(b), 4096)], true)
	}
	f.Fuzz(func(t *testing.T, file uint8, at uint32, content []byte, replace bool) {
		path := filepath.Join(dir, files[int(file)%len(files)])
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		written := content
		if !replace {
			at %= uint32(len(whole))
			written = slices.Concat(whole[:at], content, whole[min(len(whole), int(at)+len(content)):])
		}
		put := func(b []byte) { // under its name, in a new file: published ones never change
			err := os.WriteFile(path+".new", b, 0o640)
			if err == nil {
				err = os.Rename(path+".new", path)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		put(written)
		defer put(whole)
		if bad, _ := wronglyTrusted(dir, trusted); bad != "" {
			t.Errorf("%s reads as trusted", bad)
		}
	})
}
