package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
)

// A list that cannot be read to its end is an error in every format: half of a
// list says that the other half is not there.
func TestListReportsDamage(t *testing.T) {
	dir := t.TempDir()
	signtest.NewStorage(dir).Image("app", "1.0")
	scan := newRootCommand()
	scan.SetArgs([]string{"scan", "--root", dir, "--log-level", "error"})
	scan.SetOut(&bytes.Buffer{})
	if err := scan.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := cache.OpenReader(filepath.Join(dir, "_trust"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for _, damaged := range []bool{false, true} {
		if damaged { // the file is torn away below the snapshot
			bases, err := filepath.Glob(filepath.Join(dir, "_trust", "published", "base*"))
			if err != nil || len(bases) == 0 {
				t.Fatal("no base: ", err)
			}
			for _, name := range bases {
				if err := os.Truncate(name, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, format := range []string{"text", "json", "yaml"} {
			var b bytes.Buffer
			err := listImages(&b, &output{format: format}, snap, "")
			if errors.Is(err, cache.ErrDamaged) != damaged || strings.Contains(b.String(), "1.0") == damaged {
				t.Errorf("%s, damaged %v: %v\n%s", format, damaged, err, b.String())
			}
		}
	}
}
