package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Published files that somebody removes beside a running daemon are not missed
// until it publishes for another reason: each confirmation looks for them.
func TestConfirmationFindsWhatWasPublishedGone(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer s.Close()
	setTrust(t, s, inForce(keyA))
	mustCommit(t, s, world(signedBy(keyA)))
	publish(t, s)
	reader, dir := openReader(t, s.dir), filepath.Join(s.dir, publishedDir)
	was := snapshot(t, reader).Generation()
	if err := os.Remove(filepath.Join(dir, currentName)); err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(time.Now()); err != nil {
		t.Fatal(err)
	}
	is := snapshot(t, reader)
	if g := is.Generation(); g.CacheID != was.CacheID || g.Number <= was.Number || is.Stale() {
		t.Errorf("generation %v after %v, stale %v", g, was, is.Stale())
	}

	other := openStore(t, t.TempDir(), Options{})
	defer other.Close()
	setTrust(t, other, inForce(keyA))
	publish(t, other)
	link := filepath.Join(dir, currentName)
	target, err := os.Readlink(filepath.Join(other.dir, publishedDir, currentName))
	if err := errors.Join(err, os.Remove(link), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(time.Now()); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("error %v", err)
	}

	if err := os.Remove(s.pub.cur.basePath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Confirm(time.Now()); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}
