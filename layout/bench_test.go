package layout

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/trust"
)

// against runs work, and reports how many times as long it takes as least, which
// does the least that could be done by plain means: best of each, since other
// programs run as well.
func against(b *testing.B, work, least func()) {
	b.Helper()
	b.ReportAllocs()
	timed := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	best, floor := time.Duration(1<<62), time.Duration(1<<62)
	for b.Loop() {
		best = min(best, timed(work))
	}
	b.StopTimer()
	for range 10 {
		floor = min(floor, timed(least))
	}
	b.ReportMetric(float64(best)/float64(floor), "×floor")
	b.ReportMetric(float64(best), "best-ns")
}

func benchRoot(b *testing.B, dir string) *Root {
	b.Helper()
	r, err := Open(dir, Options{})
	must(b, err)
	b.Cleanup(func() { must(b, r.Close()) })
	return r
}

func manyRepositories(b *testing.B, n int) (dir string, names []string) {
	b.Helper()
	dir = b.TempDir()
	for i := range n {
		names = append(names, fmt.Sprintf("team%d/app%d", i%20, i))
		newRepo(b, dir, names[i])
	}
	return dir, names
}

// BenchmarkWalk against one stat of each index.json, which a walk cannot do
// without knowing the names.
func BenchmarkWalk(b *testing.B) {
	dir, names := manyRepositories(b, 2000)
	r := benchRoot(b, dir)
	against(b, func() {
		n := 0
		must(b, r.Walk(context.Background(), func(v Visit) error {
			if v.IsRepository {
				n++
			}
			return nil
		}))
		if n != len(names) {
			b.Fatalf("%d repositories", n)
		}
	}, func() { statAll(b, dir, names) })
}

func statAll(b *testing.B, dir string, names []string) {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name, indexFile)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStamp is the pass in which nothing has changed, per 2,000 repositories.
func BenchmarkStamp(b *testing.B) {
	dir, names := manyRepositories(b, 2000)
	r := benchRoot(b, dir)
	against(b, func() {
		for _, name := range names {
			if _, err := r.Stamp(name, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	}, func() { statAll(b, dir, names) })
}

// signedRepository holds n signed images: two manifests each.
func signedRepository(b *testing.B, n int) *repo {
	r := newRepo(b, b.TempDir(), "app")
	for i := range n {
		im := image(fmt.Sprint(i))
		d := r.blob(im)
		sig := simple(fmt.Sprint("sig", i))
		r.blob(sig)
		r.list = append(r.list, r.describe(im, fmt.Sprintf("v%d", i)), r.describe(sig, sigTag(d)))
	}
	r.index()
	time.Sleep(settle)
	return r
}

// BenchmarkContents against os.ReadFile of what has to be read: index.json, and
// the manifests unless they are known.
func BenchmarkContents(b *testing.B) {
	r := signedRepository(b, 1000)
	p := r.open(Limits{})
	first, err := p.Contents(context.Background(), nil)
	must(b, err)
	readAll := func(manifests bool) func() {
		return func() {
			if _, err := os.ReadFile(filepath.Join(r.dir, indexFile)); err != nil {
				b.Fatal(err)
			}
			for d := range first.Learned {
				if _, err := os.ReadFile(r.path(d)); manifests && err != nil {
					b.Fatal(err)
				}
				if !manifests {
					break
				}
			}
		}
	}
	run := func(name string, known func(trust.Digest) (Kind, bool), opened int, least func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			against(b, func() {
				c, err := p.Contents(context.Background(), known)
				if err != nil || len(c.Signatures) != 1000 || c.Opened != opened {
					b.Fatal(err, len(c.Signatures), c.Opened)
				}
			}, least)
		})
	}
	run("unknown", nil, 2000, readAll(true))
	run("known", func(d trust.Digest) (Kind, bool) { k, ok := first.Learned[d]; return k, ok }, 0, readAll(false))
}

// BenchmarkContents100k is one index.json of 100,000 descriptors, all known.
func BenchmarkContents100k(b *testing.B) {
	r := newRepo(b, b.TempDir(), "app")
	for i := range 50_000 {
		d := trust.SumOf([]byte(fmt.Sprint(i)))
		r.list = append(r.list,
			with(descriptor(manifestTypes[0], fmt.Sprint(i)), object{"annotations": object{"org.opencontainers.image.ref.name": fmt.Sprint("v", i)}}),
			with(descriptor(manifestTypes[0], fmt.Sprint("sig", i)), object{"annotations": object{"org.opencontainers.image.ref.name": sigTag(d)}}))
	}
	r.index()
	time.Sleep(settle)
	p := r.open(Limits{})
	against(b, func() {
		c, err := p.Contents(context.Background(), func(trust.Digest) (Kind, bool) { return Kind{Class: ImageManifest, Size: 4}, true })
		if err != nil || len(c.Signatures) != 50_000 {
			b.Fatal(err)
		}
	}, func() {
		if _, err := os.ReadFile(filepath.Join(r.dir, indexFile)); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkManifest against os.ReadFile of the same file.
func BenchmarkManifest(b *testing.B) {
	r := newRepo(b, b.TempDir(), "app")
	d := r.push(image("x"), "1")
	p := r.open(Limits{})
	against(b, func() {
		if _, err := p.Manifest(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}, func() {
		if _, err := os.ReadFile(r.path(d)); err != nil {
			b.Fatal(err)
		}
	})
}
