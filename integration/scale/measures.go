package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trust-worker/cache"
)

// What is measured, in the order of [driver.all].

func (d *driver) firstPass() (err error) {
	before := ownProcessorTime()
	floorRead, files, err := d.readAll()
	if err != nil {
		return err
	}
	floorReadTime := ownProcessorTime() - before
	verify := benchVerify()
	floor := floorRead.Seconds() + float64(d.g.n)*verify.Seconds()/float64(numCPU())
	floorTime := floorReadTime.Seconds() + float64(d.g.n)*verify.Seconds()
	var byLibraries, librariesTime time.Duration
	if !d.g.distribution {
		if byLibraries, librariesTime, err = d.libraries(); err != nil {
			return err
		}
	}
	start, err := d.start()
	if err != nil {
		return err
	}
	if d.reader, err = cache.OpenReader(d.state); err != nil {
		return err
	}
	var largest int64
	end, err := until("first pass", 20*time.Millisecond, func() bool {
		largest = max(largest, bytesIn(d.state))
		return d.status().FirstPass
	})
	if err != nil {
		return err
	}
	took := end.Sub(start).Seconds()
	used, err := processorTime(d.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s := d.status()
	d.r.add("first pass", took, "s", "", fmt.Sprintf("%d verifications by cosign", s.Work.Calls))
	d.r.add("  floor: read all files once + bare verifications", floor, "s", "", fmt.Sprintf("%d files in %.2f s, %.0f µs a verification", files, floorRead.Seconds(), float64(verify.Nanoseconds())/1000))
	d.r.add("  ratio", took/floor, "×", target(d.g.signers), "")
	if byLibraries > 0 {
		d.r.add("  what the libraries take", byLibraries.Seconds(), "s", "", "cosign, encoding/json, recovery and bbolt, on the same bytes, and nothing else")
		d.r.add("  compared with that", took/byLibraries.Seconds(), "×", "", "")
	}
	d.r.add("first pass, processor time", used.Seconds(), "s", "", "")
	d.r.add("  floor: read all files once + bare verifications, processor time", floorTime, "s", "", "")
	d.r.add("  ratio, processor time", used.Seconds()/floorTime, "×", target(d.g.signers), "")
	if librariesTime > 0 {
		d.r.add("  what the libraries take, processor time", librariesTime.Seconds(), "s", "", "")
		d.r.add("  compared with that, processor time", used.Seconds()/librariesTime.Seconds(), "×", "", "")
	}
	d.r.add("largest state directory during the first pass", float64(largest)/float64(d.g.n), "B", "", "bytes on disk for each signature")
	return d.count()
}

func target(signers int) string {
	if signers == 1 {
		return "≤ 2"
	}
	return "≤ 3"
}

func ownProcessorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // of arguments that are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processorTime is what a process has used, in user and system mode.
func processorTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third on
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil // USER_HZ
}

// bytesIn is the size of the files in a directory and below.
func bytesIn(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // gone meanwhile
		}
		if fi, err := e.Info(); err == nil {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// keyMeanwhile drops a key while a first pass goes on, in a state directory of its own:
// images that the pass has been at wait for no more than their verification.
func (d *driver) keyMeanwhile() (err error) {
	other := *d
	if other.state, err = os.MkdirTemp(filepath.Dir(d.state), "meanwhile-"); err != nil {
		return err
	}
	d = &other
	defer func() {
		d.stop()
		err = errors.Join(err, os.RemoveAll(d.late()), os.RemoveAll(d.state))
	}()
	if _, err = d.start(); err != nil {
		return err
	}
	if d.reader, err = cache.OpenReader(d.state); err != nil {
		return err
	}
	var scanned []place
	if _, err = until("half of storage scanned", 20*time.Millisecond, func() bool {
		scanned = d.answered(d.g.lateImages)
		return 2*len(scanned) >= len(d.g.lateImages)
	}); err != nil {
		return err
	}
	start, err := d.dropLate()
	if err != nil {
		return err
	}
	first, err := until("first trusted", 5*time.Millisecond, func() bool {
		return slices.ContainsFunc(scanned, func(p place) bool { return d.trusted(p, 0) })
	})
	if err != nil {
		return err
	}
	all, err := until("all scanned trusted", 10*time.Millisecond, func() bool {
		return !slices.ContainsFunc(scanned, func(p place) bool { return !d.trusted(p, 0) })
	})
	if err != nil {
		return err
	}
	left := len(d.g.lateImages) - len(d.answered(d.g.lateImages))
	note := fmt.Sprintf("%d signatures of images scanned before; then %d of %d were still to be scanned", len(scanned), left, len(d.g.lateImages))
	d.r.add("key added during the first pass: rename → first trusted", first.Sub(start).Seconds(), "s", "≤ 1", note)
	d.r.add("key added during the first pass: rename → all trusted that were scanned", all.Sub(start).Seconds(), "s", "", "")
	return nil
}

// answered returns the images that have answers for all their signatures.
func (d *driver) answered(of []place) (have []place) {
	snap, err := d.reader.Snapshot()
	if err != nil {
		return nil
	}
	defer snap.Close()
	for _, p := range of {
		if img, err := snap.Image(p.repo, p.digest); err == nil && len(img.SignatureInfo) == d.g.signers {
			have = append(have, p)
		}
	}
	return have
}

// count holds the answers to what was generated.
func (d *driver) count() error {
	snap, err := d.reader.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	trusted, all := 0, 0
	err = snap.Repositories(func(name string) error {
		return snap.Each(name, func(img cache.Image) error {
			for _, s := range img.SignatureInfo {
				all++
				if s.IsTrusted {
					trusted++
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if want := d.g.n - len(d.g.lateImages); all != d.g.n || trusted != want {
		return fmt.Errorf("%d of %d signatures trusted, want %d of %d", trusted, all, want, d.g.n)
	}
	return nil
}

func (d *driver) restart() error {
	d.stop()
	start, err := d.start()
	if err != nil {
		return err
	}
	confirmed, err := until("confirmed again", 2*time.Millisecond, func() bool {
		snap, err := d.reader.Snapshot()
		if err != nil {
			return false
		}
		defer snap.Close()
		return snap.AsOf().After(start)
	})
	if err != nil {
		return err
	}
	if _, err = until("first pass", 20*time.Millisecond, func() bool { return d.status().FirstPass }); err != nil {
		return err
	}
	d.r.add("restart with nothing changed: answers confirmed", confirmed.Sub(start).Seconds(), "s", "≤ 1", "")
	s := d.status()
	d.r.add("  pass over storage that follows", s.LastPass.Sub(s.Started).Seconds(), "s", "", "")
	d.r.add("  verifications", float64(s.Work.Verified), "", "0", "")
	return nil
}

func (d *driver) rescan() error {
	const floors = 10
	before, start := ownProcessorTime(), time.Now()
	for range floors {
		if err := d.bareWalk(); err != nil {
			return err
		}
	}
	floor, floorTime := time.Since(start)/floors, (ownProcessorTime()-before)/floors
	took, used, err := d.passes()
	if err != nil {
		return err
	}
	d.r.add("pass with nothing changed", took.Seconds(), "s", "", "the fastest of 5 after the first")
	what := "every index.json"
	if d.g.distribution {
		what = "every link of a tag or a manifest"
	}
	d.r.add("  floor: walk without blobs, and stat of "+what, floor.Seconds(), "s", "", "")
	d.r.add("  ratio", took.Seconds()/floor.Seconds(), "×", "", "")
	d.r.add("pass with nothing changed, processor time", used.Seconds(), "s", "", "of 10 passes, 3 s apart, less what an idle daemon uses")
	d.r.add("  floor: walk without blobs, and stat of "+what+", processor time", floorTime.Seconds(), "s", "", "")
	d.r.add("  ratio, processor time", used.Seconds()/floorTime.Seconds(), "×", "≤ 3", "")
	return nil
}

// passes restarts the daemon with a short scan interval, and returns how long the fastest
// pass took, the first ones apart, which add the watches, and the processor time of each.
func (d *driver) passes() (best, used time.Duration, err error) {
	d.stop()
	if _, err := d.start("--scan-interval", "3s"); err != nil { // status is written every 2 s
		return 0, 0, err
	}
	const first, passes = 2, 10
	var last, began int64
	var since time.Time
	_, err = until("some passes", 100*time.Millisecond, func() bool {
		s := d.status()
		if s.Work.Walks <= last {
			return false
		}
		now, err := processorTime(d.cmd.Process.Pid)
		if last = s.Work.Walks; err != nil || last <= first {
			return false
		}
		if best == 0 {
			began, used, best, since = last, now, s.PassTook, time.Now()
		}
		best = min(best, s.PassTook)
		if last < began+passes {
			return false
		}
		used = (now-used)/time.Duration(last-began) - time.Duration(d.idles*float64(time.Since(since))/float64(last-began))
		return true
	})
	if err != nil {
		return 0, 0, err
	}
	d.stop()
	if _, err = d.start(); err == nil {
		if _, err = until("first pass", 20*time.Millisecond, func() bool { return d.status().FirstPass }); err == nil {
			err = d.quiet()
		}
	}
	return best, used, err
}

// quiet waits until the daemon has done what follows a start: it counts what is published,
// and folds.
func (d *driver) quiet() error {
	var last time.Duration
	_, err := until("the daemon is idle", 2*time.Second, func() bool {
		now, err := processorTime(d.cmd.Process.Pid)
		quiet := err == nil && now-last < 100*time.Millisecond && d.status().Counts != nil // else it counts what is published
		last = now
		return quiet
	})
	return err
}

func (d *driver) idle() error {
	if err := d.quiet(); err != nil {
		return err
	}
	rss, err := procField(d.cmd.Process.Pid, "RssAnon")
	if err != nil {
		return err
	}
	d.r.add("resident anonymous memory, idle", float64(rss)/1e6, "MB", "≤ 100", "")
	const idle = 20 * time.Second
	before, err := processorTime(d.cmd.Process.Pid)
	if err != nil {
		return err
	}
	woken := wakeUps(d.cmd.Process.Pid)
	time.Sleep(idle)
	after, err := processorTime(d.cmd.Process.Pid)
	if err != nil {
		return err
	}
	d.idles = (after - before).Seconds() / idle.Seconds()
	d.r.add("processor, idle", 100*d.idles, "%", "", "of one; the trust directories are read every 10 s")
	d.r.add("wake-ups of its threads, idle", float64(wakeUps(d.cmd.Process.Pid)-woken)/idle.Seconds(), "/s", "", "")
	return nil
}

// wakeUps counts how often the threads of a process have waited for something.
func wakeUps(pid int) (n int64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // or it has ended
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				switches, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64) // the kernel writes a number
				n += switches
			}
		}
	}
	return n
}

func procField(pid int, name string) (bytes int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if key, value, ok := strings.Cut(sc.Text(), ":"); ok && key == name {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no %s", name)
}
