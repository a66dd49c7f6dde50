package main

import (
	"bytes"
	"errors"
	"fmt"
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
	st := signtest.NewStorage(dir)
	st.Batch(func() {
		for i := range 200 { // so many are not kept in the root page
			st.Image("app", fmt.Sprintf("1.%d", i))
		}
	})
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
		if damaged { // the files are torn away below the snapshot
			files, err := filepath.Glob(filepath.Join(dir, "_trust", "published", "*.db"))
			if err != nil || len(files) == 0 {
				t.Fatal("nothing published: ", err)
			}
			for _, name := range files {
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
