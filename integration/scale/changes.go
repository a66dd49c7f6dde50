package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trust-worker/internal/signtest"
)

// What is measured when keys and storage change, and what is then on disk.

// late is where the late key is dropped in.
func (d *driver) late() string { return filepath.Join(d.root, "_cosign", "late.pub") }

// dropLate drops the late key in, and returns when.
func (d *driver) dropLate() (start time.Time, err error) {
	text, err := publicPEM(d.g.late)
	if err != nil {
		return start, err
	}
	staged := filepath.Join(d.root, "late.pub")
	if err := os.WriteFile(staged, text, 0o644); err != nil {
		return start, err
	}
	start = time.Now()
	return start, os.Rename(staged, d.late())
}

// key drops the late key in, and takes it out again, several times.
func (d *driver) key() error {
	var first, all, gone []float64
	work := d.status().Work.Calls
	for turn := range 5 {
		start, err := d.dropLate()
		if err != nil {
			return err
		}
		end, err := until("first trusted", time.Millisecond, func() bool { return d.trusted(d.g.lateImages[0], 0) })
		if err != nil {
			return err
		}
		first = append(first, end.Sub(start).Seconds())
		if end, err = until("all trusted", 2*time.Millisecond, func() bool {
			return !slices.ContainsFunc(d.g.lateImages, func(p place) bool { return !d.trusted(p, 0) })
		}); err != nil {
			return err
		}
		all = append(all, end.Sub(start).Seconds())
		if turn == 0 {
			time.Sleep(3 * time.Second) // the status file catches up
			d.r.add("key added: signatures verified", float64(d.status().Work.Calls-work), "", fmt.Sprint(len(d.g.lateImages)), "it made so many")
		}
		start = time.Now()
		if err := os.Remove(d.late()); err != nil {
			return err
		}
		if end, err = until("not trusted", time.Millisecond, func() bool { return !d.trusted(d.g.lateImages[0], 0) }); err != nil {
			return err
		}
		gone = append(gone, end.Sub(start).Seconds())
		time.Sleep(200 * time.Millisecond)
	}
	d.r.add("key added: rename → first trusted, new to the cache", first[0], "s", "≤ 0.5", "")
	d.r.add("key added: rename → all trusted, new to the cache", all[0], "s", "", fmt.Sprintf("%d signatures", len(d.g.lateImages)))
	d.r.add("key added again: rename → all trusted", median(all[1:]), "s", "", "median of 4; a join")
	d.r.add("key removed: unlink → not trusted", median(gone), "s", "≤ 0.2", "median of 5")
	return nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// push signs a new image in a known repository.
func (d *driver) push() error {
	st := d.storage()
	k := &signtest.Key{Private: d.g.priv[0]}
	var took []float64
	for i := range 5 {
		repo := repoName((i * 37) % d.g.repositories)
		img := st.Content(repo, fmt.Sprintf("pushed-%d", i), fmt.Sprint("pushed", i))
		start := time.Now()
		st.SignSimple(img, k, signtest.CosignOptions{})
		end, err := until("pushed signature trusted", time.Millisecond, func() bool { return d.trusted(place{repo, img.Trust()}, 0) })
		if err != nil {
			return err
		}
		took = append(took, end.Sub(start).Seconds())
	}
	d.r.add("new signature pushed → trusted", median(took), "s", "", "median of 5")
	return nil
}

// expiry signs with a signature that ends in a few seconds.
func (d *driver) expiry() error {
	st := d.storage()
	root := signtest.NewRoot(signtest.CertOptions{})
	st.TrustCert("ca:scale", "root.pem", root.Cert())
	ends := time.Now().Add(6 * time.Second).Truncate(time.Second)
	repo := repoName(0)
	img := st.Content(repo, "expiring", "expiring")
	st.SignNotation(img, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{Time: time.Now().Add(-time.Hour), Expiry: ends})
	if _, err := until("trusted before it expires", time.Millisecond, func() bool { return d.trusted(place{repo, img.Trust()}, 0) }); err != nil {
		return err
	}
	end, err := until("expired", time.Millisecond, func() bool { return !d.trusted(place{repo, img.Trust()}, 0) })
	if err != nil {
		return err
	}
	d.r.add("signature expires → not trusted", end.Sub(ends).Seconds(), "s", "at its second", "")
	return nil
}

func (d *driver) disk() error {
	published := int64(0)
	entries, err := os.ReadDir(filepath.Join(d.state, "published"))
	if err != nil {
		return err
	}
	target, err := os.Readlink(filepath.Join(d.state, "published", "CURRENT"))
	if err != nil {
		return err
	}
	current := strings.Split(target, ".") // … base, deltas, trust
	if len(current) < 3 {
		return fmt.Errorf("CURRENT is %q", target)
	}
	names := map[string]bool{}
	for i, kind := range []string{"base", "delta", "trust"} {
		for _, number := range strings.Split(current[len(current)-3+i], "-") {
			names[kind+"-"+number] = true
		}
	}
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if names[strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))] {
			published += fi.Size()
		}
	}
	d.stop()
	private := filepath.Join(d.state, "private", "cache.db")
	fi, err := os.Stat(private)
	if err != nil {
		return err
	}
	compact, err := compactedSize(private)
	if err != nil {
		return err
	}
	d.r.add("private bytes on disk per signature", float64(fi.Size())/float64(d.g.n), "B", "", "")
	d.r.add("  after compaction", float64(compact)/float64(d.g.n), "B", "≤ 600", "")
	d.r.add("published bytes on disk per signature", float64(published)/float64(d.g.n), "B", "", "")
	return nil
}
