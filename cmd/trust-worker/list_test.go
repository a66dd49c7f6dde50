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
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
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
			err := (&imageFilter{}).listImages(&b, &output{format: format}, snap, "")
			if errors.Is(err, cache.ErrDamaged) != damaged || strings.Contains(b.String(), "1.0") == damaged {
				t.Errorf("%s, damaged %v: %v\n%s", format, damaged, err, b.String())
			}
		}
	}
}

// Before storage has been read to its end, what is not in the cache is not decided,
// and a list says that there may be more.
func TestPartialCacheIsNotDecided(t *testing.T) {
	dir := t.TempDir()
	store, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, err = store.SetTrust(trust.NewInForce(trust.Terms{Cosign: true}))
	if err := errors.Join(err, store.Publish(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, whole := range []bool{false, true} {
		if err := store.SetWhole(whole); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			args           []string
			partial, whole int
			says           string
		}{
			{[]string{"get", "nowhere:1"}, trust.ExitUndecided, trust.ExitNotFound, "nowhere:1: pending (new): not in the cache yet"},
			{[]string{"get", digestOfNothing}, trust.ExitUndecided, trust.ExitNotFound, "pending (new)"},
			{[]string{"list", "nowhere"}, trust.ExitUndecided, trust.ExitNotFound, "pending (new)"},
			{[]string{"list"}, trust.ExitUndecided, 0, "first pass over storage is not over"},
		} {
			c, out := newRootCommand(), &bytes.Buffer{}
			c.SetArgs(append(tt.args, "--state", dir))
			c.SetOut(out)
			err := c.ExecuteContext(t.Context())
			want := tt.partial
			if whole {
				want = tt.whole
			}
			if codeOf(err) != want || !whole && !strings.Contains(messageOf(err), tt.says) {
				t.Errorf("%v, whole %v: exit code %d, want %d: %q", tt.args, whole, codeOf(err), want, messageOf(err))
			}
		}
	}
}

const digestOfNothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
