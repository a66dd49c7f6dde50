package layout

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

func TestBlobIsCappedAndHashed(t *testing.T) {
	const limit = 1 << 20
	content := []byte("some signature")
	d, size := trust.SumOf(content), int64(len(content))
	tests := []struct {
		name  string
		size  int64
		store func(t *testing.T, r *repo, path string)
		want  trust.Reason
	}{
		{"as described", size, func(t *testing.T, r *repo, _ string) { r.blob(content) }, ""},
		{"hard link", size, func(t *testing.T, r *repo, path string) {
			other := newRepo(t, r.root, "other")
			must(t, os.Link(other.path(other.blob(content)), path))
		}, ""},
		{"only in the global store", size, func(t *testing.T, r *repo, _ string) {
			dir := filepath.Join(r.root, globalBlobs)
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, d.Hex()), content, 0o644))
		}, ""},
		{"missing", size, func(*testing.T, *repo, string) {}, trust.BlobMissing},
		{"no blobs at all", size, func(t *testing.T, r *repo, _ string) {
			must(t, os.RemoveAll(filepath.Join(r.dir, "blobs")))
		}, trust.BlobMissing},
		{"in another repository", size, func(t *testing.T, r *repo, _ string) {
			newRepo(t, r.root, "other").blob(content)
		}, trust.BlobMissing},
		{"a byte flipped", size, func(t *testing.T, r *repo, path string) {
			must(t, os.WriteFile(path, bytes.Replace(content, []byte("s"), []byte("z"), 1), 0o644))
		}, trust.DigestMismatch},
		{"a wrong one in the global store", size, func(t *testing.T, r *repo, _ string) {
			dir := filepath.Join(r.root, globalBlobs)
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, d.Hex()), bytes.ToUpper(content), 0o644))
		}, trust.DigestMismatch},
		{"empty, as deduplicating leaves it", size, func(t *testing.T, r *repo, path string) { must(t, os.WriteFile(path, nil, 0o644)) }, trust.DigestMismatch},
		{"cut", size, func(t *testing.T, r *repo, path string) { must(t, os.WriteFile(path, content[:5], 0o644)) }, trust.DigestMismatch},
		{"descriptor too small", size - 1, func(t *testing.T, r *repo, _ string) { r.blob(content) }, trust.DigestMismatch},
		{"descriptor too large", size + 1, func(t *testing.T, r *repo, _ string) { r.blob(content) }, trust.DigestMismatch},
		{"descriptor beyond the limit", limit + 1, func(t *testing.T, r *repo, _ string) { r.blob(content) }, trust.LimitExceeded},
		{"descriptor huge", 9e18, func(t *testing.T, r *repo, _ string) { r.blob(content) }, trust.LimitExceeded},
		{"descriptor negative", -1, func(t *testing.T, r *repo, _ string) { r.blob(content) }, trust.Malformed},
		{"descriptor says 1 of 10 GiB", 1, func(t *testing.T, r *repo, path string) { sparse(t, path, 10<<30) }, trust.LimitExceeded},
		{"FIFO", size, func(t *testing.T, r *repo, path string) { must(t, unix.Mkfifo(path, 0o644)) }, trust.IOError},
		{"directory", size, func(t *testing.T, r *repo, path string) { must(t, os.Mkdir(path, 0o755)) }, trust.IOError},
		{"symlink that leads out", size, func(t *testing.T, r *repo, path string) {
			out := filepath.Join(t.TempDir(), "x")
			must(t, os.WriteFile(out, content, 0o644))
			must(t, os.Symlink(out, path))
		}, trust.IOError},
		{"symlink to the very content", size, func(t *testing.T, r *repo, path string) {
			must(t, os.WriteFile(path+"x", content, 0o644))
			must(t, os.Symlink(d.Hex()+"x", path))
		}, trust.IOError},
		{"symlink to a device", size, func(t *testing.T, r *repo, path string) { must(t, os.Symlink("/dev/zero", path)) }, trust.IOError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t, t.TempDir(), "app")
			tt.store(t, r, r.path(d))
			b, err := r.open(Limits{}).Blob(context.Background(), d, tt.size, limit)
			if tt.want == "" {
				must(t, err)
				if !bytes.Equal(b, content) {
					t.Errorf("read %q", b)
				}
				return
			}
			if got := reasonIn(t, err); got != tt.want || b != nil {
				t.Errorf("read %q, %v; want %s", b, err, tt.want)
			}
		})
	}
}

func sparse(t *testing.T, path string, size int64) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, os.Truncate(path, size))
}

func TestHugeFilesAreNotRead(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	d := r.push(image("x"), "1")
	sparse(t, r.path(d), 10<<30)
	p := r.open(Limits{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := p.Contents(context.Background(), nil)
	must(t, err)
	if c.Images[d].Unreadable != trust.LimitExceeded {
		t.Errorf("image %+v", c.Images[d])
	}
	sparse(t, filepath.Join(r.dir, indexFile), 10<<30)
	if _, err := p.Contents(context.Background(), nil); reasonIn(t, err) != trust.LimitExceeded {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes allocated", used)
	}
}

// A blobs directory that is a symlink is not followed out of the repository,
// into another one least of all.
func TestBlobsDirectoryElsewhere(t *testing.T) {
	for name, target := range map[string]string{"another repository": "../other/blobs", "outside": "/"} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, t.TempDir(), "app")
			newRepo(t, r.root, "other").blob("x")
			must(t, os.RemoveAll(filepath.Join(r.dir, "blobs")))
			must(t, os.Symlink(target, filepath.Join(r.dir, "blobs")))
			root, err := Open(r.root, Options{})
			must(t, err)
			defer root.Close()
			if p, err := root.Repository("app"); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("opened %v, %v", p, err)
			}
		})
	}
}

// A FIFO in the place of a directory makes nothing wait.
func TestFIFOInPlaceOfDirectory(t *testing.T) {
	for _, name := range []string{"app", "app/blobs", "app/blobs/sha256", "_blobstore", globalBlobs} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, t.TempDir(), "app")
			d := r.push(image("x"), "1")
			must(t, os.Remove(r.path(d)))
			path := filepath.Join(r.root, name)
			must(t, os.RemoveAll(path))
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must(t, unix.Mkfifo(path, 0o644))
			root, err := Open(r.root, Options{})
			must(t, err)
			defer root.Close()
			must(t, root.Walk(context.Background(), func(Visit) error { return nil }))
			p, err := root.Repository("app")
			if err != nil {
				return
			}
			defer p.Close()
			if _, err := p.Manifest(context.Background(), d); reasonIn(t, err) != trust.IOError {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBlobHonoursContext(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	d := r.push(image("x"), "1")
	p := r.open(Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Blob(ctx, d, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Blob: %v", err)
	}
	if _, err := p.Manifest(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("Manifest: %v", err)
	}
	if _, err := p.Contents(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Contents: %v", err)
	}
}

func TestClosedRepositoryReadsIOError(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	d := r.push(image("x"), "1")
	root, err := Open(r.root, Options{})
	must(t, err)
	p, err := root.Repository("app")
	must(t, err)
	must(t, p.Close())
	if _, err := p.Manifest(context.Background(), d); reasonIn(t, err) != trust.IOError {
		t.Errorf("Manifest: %v", err)
	}
	if _, err := p.Contents(context.Background(), nil); reasonIn(t, err) != trust.IOError {
		t.Errorf("Contents: %v", err)
	}
	must(t, root.Close())
	if _, err := root.Stamp("app", time.Time{}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stamp: %v", err)
	}
	if err := root.Walk(context.Background(), func(Visit) error { return nil }); err == nil {
		t.Error("Walk of a closed root succeeds")
	}
}

// A file that changes between the two fstats has no stamp, whatever was read.
func TestTornRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, indexFile)
	sparse(t, path, 8<<20)
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	during(t, func(i int) error { return os.Chmod(path, 0o600+os.FileMode(i%2)) }, func() {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			b, s, err := readFile(f, indexFile, -1, 8<<20)
			if errors.Is(err, errTorn) {
				if b != nil || s != (Stamp{}) {
					t.Errorf("stamp %v along with %v", s, err)
				}
				return
			}
			must(t, err)
		}
		t.Error("the file was never seen to change")
	})
}
