package main

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"trust-worker/internal/signtest"
)

func numCPU() int { return runtime.GOMAXPROCS(0) }

// readAll is the floor of the first pass: every file is read once.
func (d *driver) readAll() (time.Duration, int64, error) {
	var files atomic.Int64
	var g errgroup.Group
	g.SetLimit(numCPU())
	start := time.Now()
	for _, part := range d.parts() {
		g.Go(func() error {
			return filepath.WalkDir(filepath.Join(d.root, part), func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				files.Add(1)
				_, err = os.ReadFile(path)
				return err
			})
		})
	}
	err := g.Wait()
	return time.Since(start), files.Load(), err
}

// storage pushes into what was made.
func (d *driver) storage() *signtest.Storage {
	st := signtest.NewStorage(d.root)
	st.Distribution = d.g.distribution
	return st
}

// parts are directories below the root that hold all of storage.
func (d *driver) parts() (parts []string) {
	if d.g.distribution {
		for n := range 256 {
			parts = append(parts, fmt.Sprintf("docker/registry/v2/blobs/sha256/%02x", n))
		}
	}
	for r := range d.g.repositories {
		if d.g.distribution {
			parts = append(parts, "docker/registry/v2/repositories/"+repoName(r))
			continue
		}
		parts = append(parts, repoName(r))
	}
	return parts
}

// bareWalk is the floor of a pass with nothing changed: where repositories are, and a stat of
// each file by which a change shows.
func (d *driver) bareWalk() error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Name() == "index.json":
			_, err = os.Stat(path)
			return err
		case e.Name() == "_manifests":
			for in, link := range map[string]string{"/tags": "current/link", "/revisions/sha256": "link"} {
				list, err := os.ReadDir(path + in)
				if err != nil {
					return err
				}
				for _, e := range list {
					if _, err := os.Stat(filepath.Join(path+in, e.Name(), link)); err != nil {
						return err
					}
				}
			}
			return fs.SkipDir
		case e.IsDir() && (e.Name() == "blobs" || e.Name() == "_layers" || e.Name() == "_uploads"):
			return fs.SkipDir
		}
		return nil
	})
}

// benchVerify is the floor of one verification, with all processors at work.
func benchVerify() time.Duration {
	k, err := derive(0)
	if err != nil {
		panic(err) // a constant
	}
	hash := sha256.Sum256([]byte("floor"))
	sig, err := k.Sign(nil, hash[:], nil)
	if err != nil {
		sig, err = ecdsa.SignASN1(nil, k, hash[:])
	}
	if err != nil {
		panic(err) // a constant
	}
	const turns = 5000
	var all sync.WaitGroup
	start := time.Now()
	for range numCPU() {
		all.Go(func() {
			for range turns {
				ecdsa.VerifyASN1(&k.PublicKey, hash[:], sig)
			}
		})
	}
	all.Wait()
	return time.Since(start) / turns
}

// lookUps asks ten thousand times a second, each time with a snapshot of its
// own, while something is published about ten times a second: about three times for each
// image that is pushed with a signature.
func (d *driver) lookUps() error {
	const perSecond = 10_000
	st := d.storage()
	k := &signtest.Key{Private: d.g.priv[1]}
	stop := make(chan struct{})
	var pushes errgroup.Group
	before := d.generation()
	pushes.Go(func() error {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return nil
			case <-tick.C:
			}
			repo := repoName((i * 31) % d.g.repositories)
			img := st.Content(repo, fmt.Sprintf("load-%d", i), fmt.Sprint("load", i))
			st.SignSimple(img, k, signtest.CosignOptions{})
		}
	})
	base, err := d.openBase()
	if err != nil {
		return err
	}
	defer base.Close()
	tx, err := base.Begin(false)
	if err != nil {
		return err
	}
	defer tx.Rollback() // it reads
	images, buf := tx.Bucket([]byte("images")), make([]byte, 256)
	ask := []func(p place) error{ // in turn
		func(p place) error {
			snap, err := d.reader.Snapshot()
			if err == nil {
				_, err = snap.Image(p.repo, p.digest)
				snap.Close()
			}
			return err
		},
		func(p place) error {
			snap, err := d.reader.Snapshot()
			if err == nil {
				_, err = snap.IsTrusted(p.repo, p.digest)
				snap.Close()
			}
			return err
		},
		func(p place) error {
			_, err := unix.Readlink(filepath.Join(d.state, "published", "CURRENT"), buf)
			images.Get(append(append([]byte(p.repo), 0), p.digest[:]...))
			return err
		},
	}
	took := make([][]time.Duration, len(ask))
	n, missed := 0, 0
	begin := time.Now()
	for ; time.Since(begin) < d.lookups; n++ {
		due := begin.Add(time.Duration(n) * time.Second / perSecond)
		for time.Now().Before(due) {
			runtime.Gosched()
		}
		p, which := d.g.lateImages[n%len(d.g.lateImages)], n%len(ask)
		start := time.Now()
		if err := ask[which](p); err != nil {
			missed++
		}
		took[which] = append(took[which], time.Since(start))
	}
	elapsed := time.Since(begin).Seconds()
	close(stop)
	if err := pushes.Wait(); err != nil {
		return err
	}
	generations := float64(d.generation()-before) / elapsed
	at := func(which int, q float64) float64 {
		slices.Sort(took[which])
		return float64(took[which][int(q*float64(len(took[which])-1))].Nanoseconds()) / 1000
	}
	note := fmt.Sprintf("%.0f look-ups/s, %.1f publications/s, %d failed", float64(n)/elapsed, generations, missed)
	for which, what := range []string{"look-up in another process", "is it trusted? asked in another process",
		"  floor: a readlink of CURRENT and one bbolt look-up in the published base, at the same time"} {
		target50, target99 := "≤ 5", "≤ 50"
		if which == 2 {
			target50, target99 = "", ""
		}
		d.r.add(what+", p50", at(which, 0.5), "µs", target50, note)
		d.r.add(what+", p99", at(which, 0.99), "µs", target99, "")
		note = ""
	}
	return nil
}

// openBase opens the published base, as of now.
func (d *driver) openBase() (*bbolt.DB, error) {
	bases, err := filepath.Glob(filepath.Join(d.state, "published", "base-*.db"))
	if err != nil || len(bases) == 0 {
		return nil, errors.Join(err, errors.New("no base is published"))
	}
	return bbolt.Open(bases[len(bases)-1], 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
}

func (d *driver) generation() uint64 {
	snap, err := d.reader.Snapshot()
	if err != nil {
		return 0
	}
	defer snap.Close()
	return snap.Generation().Number
}

// compactedSize is the private store's size as bbolt compacts it.
func compactedSize(path string) (int64, error) {
	src, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer src.Close()
	tmp := path + ".compacted"
	defer os.Remove(tmp)
	dst, err := bbolt.Open(tmp, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		return 0, err
	}
	if err := bbolt.Compact(dst, src, 16<<20); err != nil {
		return 0, err
	}
	if err := dst.Close(); err != nil {
		return 0, err
	}
	fi, err := os.Stat(tmp)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
