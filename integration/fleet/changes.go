package main

import (
	"fmt"
	"syscall"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// changes measures how long changes take to show at three workers, two of which see no events,
// as over NFS.
func (b *bench) changes() error {
	key, err := b.newKey()
	if err != nil {
		return err
	}
	var all []*worker
	for i := range 3 {
		var args []string
		if i > 0 {
			args = []string{"--watch=false"}
		}
		w, err := b.start(key, 0, args...)
		if err != nil {
			return err
		}
		all = append(all, w)
	}
	for _, w := range all {
		if _, err := w.until(func(r report) bool {
			alike := 0
			for _, m := range r.Cluster.Members {
				if m.Alike {
					alike++
				}
			}
			return r.FirstPass && alike == 2
		}); err != nil {
			return err
		}
	}
	st := signtest.NewStorage(b.root)
	k := signtest.NewKey(signtest.P256)
	img := st.Content("fleet/app", "1", fmt.Sprint(time.Now()))
	st.SignSimple(img, k, signtest.CosignOptions{})
	if err := shows(all, img, "untrusted"); err != nil {
		return err
	}
	keys := func(rounds int) (added, removed []time.Duration, err error) {
		for i := range rounds {
			time.Sleep(time.Duration(300+37*i) * time.Millisecond) // at any time of the looks
			began := time.Now()
			st.TrustKey("fleet.pub", k)
			if err := shows(all, img, "trusted"); err != nil {
				return nil, nil, err
			}
			added = append(added, time.Since(began))
			time.Sleep(time.Duration(300+37*i) * time.Millisecond)
			began = time.Now()
			st.Untrust("_cosign/fleet.pub")
			if err := shows(all, img, "untrusted"); err != nil {
				return nil, nil, err
			}
			removed = append(removed, time.Since(began))
		}
		return added, removed, nil
	}
	const rounds = 30
	added, removed, err := keys(rounds)
	if err != nil {
		return err
	}
	row("a key added → trusted at all three, with hints", "p50 %v, at most %v", percentile(added, 50), percentile(added, 100))
	row("a key removed → not trusted at any, with hints", "p50 %v, at most %v", percentile(removed, 50), percentile(removed, 100))
	st.TrustKey("fleet.pub", k)
	if err := shows(all, img, "trusted"); err != nil {
		return err
	}
	pushes := func(of []*worker, name string, rounds int) (took []time.Duration, err error) {
		for i := range rounds {
			began := time.Now()
			img := st.Content(fmt.Sprintf("fleet/%s%d", name, i%10), fmt.Sprint(i), fmt.Sprint(name, time.Now()))
			st.SignSimple(img, k, signtest.CosignOptions{})
			if err := shows(of, img, "trusted"); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began))
		}
		return took, nil
	}
	alone, err := b.start("", 0)
	if err != nil {
		return err
	}
	if _, err := alone.until(func(r report) bool { return r.FirstPass }); err != nil {
		return err
	}
	took, err := pushes([]*worker{alone}, "alone", 100)
	if err != nil {
		return err
	}
	alone.stop(syscall.SIGTERM)
	row("an image and its signature pushed → trusted at a worker that is alone", "p50 %v, p99 %v", percentile(took, 50), percentile(took, 99))
	if took, err = pushes(all, "push", 100); err != nil {
		return err
	}
	row("an image and its signature pushed → trusted at all three", "p50 %v, p99 %v", percentile(took, 50), percentile(took, 99))
	// One of them stops while it is thought to be there.
	var stopped []time.Duration
	for i := range 5 {
		if err := all[2].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		one, err := pushes(all[:2], fmt.Sprint("stop", i, "x"), 10)
		if err != nil {
			return err
		}
		stopped = append(stopped, one...)
		if err := all[2].cmd.Process.Signal(syscall.SIGCONT); err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
	}
	row("the same while one of the three is stopped → trusted at the two others", "p50 %v, at most %v", percentile(stopped, 50), percentile(stopped, 100))
	b.nats.Kill()
	for _, w := range all {
		if _, err := w.until(func(r report) bool { return r.PID != 0 && !r.Cluster.Connected }); err != nil {
			return err
		}
	}
	st.Untrust("_cosign/fleet.pub")
	if err := shows(all, img, "untrusted"); err != nil {
		return err
	}
	if added, removed, err = keys(rounds); err != nil {
		return err
	}
	row("a key added → trusted at all three, without NATS", "p50 %v, at most %v", percentile(added, 50), percentile(added, 100))
	row("a key removed → not trusted at any, without NATS", "p50 %v, at most %v", percentile(removed, 50), percentile(removed, 100))
	return nil
}

// shows waits until an image is in a state at all workers.
func shows(all []*worker, img signtest.Image, state string) error {
	d, err := trust.ParseDigest(img.Digest.String())
	if err != nil {
		return err
	}
	for _, w := range all {
		if err := w.shows(img.Repo, d, state); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) shows(repo string, d trust.Digest, state string) error {
	r, err := cache.OpenReader(w.state)
	if err != nil {
		return err
	}
	defer r.Close()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if snap, err := r.Snapshot(); err == nil {
			a, err := snap.Image(repo, d)
			snap.Close()
			if err == nil && a.State() == state {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s never shows %s as %s", w.state, repo, state)
		}
	}
}
