package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who may not read something is told who may: the group if it may, else the user.
func TestPermissionAdvice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "private", "cache.db")
	denied := fmt.Errorf("open the cache: %w", &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission})
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	owner := userName(uint32(os.Getuid()))
	if got := permissionAdvice(denied); got != filepath.Dir(path)+" belongs to the user "+owner+": sudo -u "+owner+" trust-worker …" {
		t.Error(got)
	}
	for _, err := range []error{nil, errors.New("x"), &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}} {
		if got := permissionAdvice(err); got != "" {
			t.Errorf("%v: %s", err, got)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("giving a directory to another group needs root")
	}
	const group = 54321 // nobody is in it
	if err := errors.Join(os.Chown(filepath.Dir(path), 0, group), os.Chmod(filepath.Dir(path), 0o750)); err != nil {
		t.Fatal(err)
	}
	if got := permissionAdvice(denied); !strings.Contains(got, "the group 54321 may read") || !strings.Contains(got, "sudo usermod -aG 54321 $USER") {
		t.Error(got)
	}
	if got := permissionAdvice(&writeDenied{denied}); strings.Contains(got, "usermod") || !strings.HasSuffix(got, "--state") {
		t.Error(got)
	}
	if got := messageOf(denied); !strings.Contains(got, "usermod") {
		t.Error(got)
	}
}
