package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What could not be published is tried again and again, as long as the disk is
// full or what is trusted is not known: it leaves no files behind.
func TestFailedPublicationsLeaveNoFiles(t *testing.T) {
	var s *Store
	var dir string
	for name, c := range map[string]struct {
		begin func() (end func())
		try   func() error
	}{
		"delta": {func() func() {
			mustCommit(t, s, Batch{Place: "yet more", Rows: []Row{{Digest: image, Present: true}}})
			return blockCurrent(t, dir)
		}, func() error { return s.Publish(t.Context()) }},
		"fold": {func() func() { return blockCurrent(t, dir) }, func() error { return s.Fold(t.Context()) }},
		"fold anew": {func() func() { return blockCurrent(t, dir) }, func() error {
			s.RenderAnew()
			return s.Fold(t.Context())
		}},
		"base":  {func() func() { return blockCurrent(t, dir) }, func() error { return s.publishBase() }},
		"trust": {func() func() { return blockCurrent(t, dir) }, func() error { _, err := s.SetTrust(inForce(keyA, keyB)); return err }},
		"without terms": {func() func() {
			terms := s.pub.terms
			s.pub.terms = nil
			return func() { s.pub.terms = terms }
		}, func() error { return s.publishBase() }},
		"without room for a base": {func() func() {
			var blocks []string
			for n := range 8 {
				block := filepath.Join(dir, format.PublishedDir, format.FileName("base", s.Generation()+1+uint64(n))) + ".new"
				if err := errors.Join(os.Mkdir(block, 0o700), os.WriteFile(filepath.Join(block, "full"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				blocks = append(blocks, block)
			}
			return func() {
				for _, b := range blocks {
					remove(t, b)
				}
			}
		}, func() error { s.RenderAnew(); return s.Fold(t.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir = t.TempDir()
			s = openStore(t, dir, Options{fewBytes: 1})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA, keyB))
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world())
			publish(t, s)
			mustCommit(t, s, world(signedBy(keyA)), Batch{Place: "more", Rows: []Row{{Digest: image, Present: true}}})
			publish(t, s)
			r := openReader(t, dir)
			names := func() int {
				t.Helper()
				entries, err := os.ReadDir(filepath.Join(dir, format.PublishedDir))
				if err != nil {
					t.Fatal(err)
				}
				return len(entries)
			}
			end := c.begin()
			before := names()
			for range 2 {
				if err := c.try(); err == nil {
					t.Fatal("published")
				}
			}
			if n := names(); n != before {
				t.Errorf("%d files were there, now there are %d", before, n)
			}
			end()
			want(t, r, trust.Trusted, "")
			if err := s.publishBase(); err != nil {
				t.Fatal(err)
			}
			want(t, r, trust.Trusted, "")
		})
	}
}
