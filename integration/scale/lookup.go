package main

import (
	"crypto/ecdsa"
	"crypto/sha256"
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
	for r := range d.g.repositories {
		g.Go(func() error {
			return filepath.WalkDir(filepath.Join(d.root, repoName(r)), func(path string, e fs.DirEntry, err error) error {
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
// own, while something is published ten times a second.
func (d *driver) lookUps() error {
	const perSecond = 10_000
	st := signtest.NewStorage(d.root)
	k := &signtest.Key{Private: d.g.priv[1]}
	stop := make(chan struct{})
	var pushes errgroup.Group
	before := d.generation()
	pushes.Go(func() error {
		tick := time.NewTicker(100 * time.Millisecond)
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
	var took []time.Duration
	missed := 0
	begin := time.Now()
	for i := 0; time.Since(begin) < d.lookups; i++ {
		due := begin.Add(time.Duration(i) * time.Second / perSecond)
		for time.Now().Before(due) {
			runtime.Gosched()
		}
		p := d.g.lateImages[i%len(d.g.lateImages)]
		start := time.Now()
		snap, err := d.reader.Snapshot()
		if err == nil {
			_, err = snap.Image(p.repo, p.digest)
			snap.Close()
		}
		took = append(took, time.Since(start))
		if err != nil {
			missed++
		}
	}
	elapsed := time.Since(begin).Seconds()
	close(stop)
	if err := pushes.Wait(); err != nil {
		return err
	}
	generations := float64(d.generation()-before) / elapsed
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1000 }
	note := fmt.Sprintf("%.0f look-ups/s, %.1f publications/s, %d failed", float64(len(took))/elapsed, generations, missed)
	d.r.add("look-up in another process, p50", at(0.5), "µs", "≤ 5", note)
	d.r.add("look-up in another process, p99", at(0.99), "µs", "≤ 50", "")
	d.r.add("  floor: one bbolt look-up in the published base, p50", d.floorLookup(), "µs", "", "")
	d.r.add("  floor: one readlink of CURRENT, p50", d.floorReadlink(), "µs", "", "")
	return nil
}

func (d *driver) generation() uint64 {
	snap, err := d.reader.Snapshot()
	if err != nil {
		return 0
	}
	defer snap.Close()
	return snap.Generation().Number
}

// floorLookup is a bare bbolt Get of the same keys in one open transaction.
func (d *driver) floorLookup() float64 {
	bases, err := filepath.Glob(filepath.Join(d.state, "published", "base-*.db"))
	if err != nil || len(bases) == 0 {
		return 0
	}
	db, err := bbolt.Open(bases[len(bases)-1], 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0
	}
	defer db.Close()
	var took []time.Duration
	db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("images"))
		for range 40 {
			for _, p := range d.g.lateImages {
				key := append(append([]byte(p.repo), 0), p.digest[:]...)
				start := time.Now()
				b.Get(key)
				took = append(took, time.Since(start))
			}
		}
		return nil
	})
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}

// floorReadlink is the system call by which a look-up learns of a new generation.
func (d *driver) floorReadlink() float64 {
	current := filepath.Join(d.state, "published", "CURRENT")
	var took []time.Duration
	buf := make([]byte, 256)
	for range 20_000 {
		start := time.Now()
		_, err := unix.Readlink(current, buf)
		if took = append(took, time.Since(start)); err != nil {
			return 0
		}
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
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
