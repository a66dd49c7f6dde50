package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fanOut measures what replicas cost the worker: as many clients that ask and fetch what
// is new, in a process of their own.
func fanOut(w *worker) error {
	for _, count := range []int{0, 1, *clients} {
		cmd, err := self("-role", "clients", "-clients", strconv.Itoa(count), w.url)
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(out)
		lines.Scan() // they have what there is
		var publishing []time.Duration
		before, start := cpu(w.cmd.Process.Pid), time.Now()
		for i := range 200 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * 100 * time.Millisecond)))
			_, took, err := w.publish("push")
			if err != nil {
				return err
			}
			publishing = append(publishing, took)
		}
		spent := time.Since(start)
		used := cpu(w.cmd.Process.Pid) - before
		in.Close()
		lines.Scan()
		row(fmt.Sprintf("worker with %d replicas", count), "%.1f %% of a processor at %.1f publications a second; a publication takes p50 %v, p99 %v; replicas fetched %s",
			100*used.Seconds()/spent.Seconds(), 200/spent.Seconds(), percentile(publishing, 50), percentile(publishing, 99), lines.Text())
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// runClients asks and fetches what is new, without keeping it, until its input ends.
func runClients(url string, count int) error {
	ctx, cancel := context.WithCancel(context.Background())
	var ready, done sync.WaitGroup
	var mu sync.Mutex
	var files, bytes int64
	for range count {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			first := sync.OnceFunc(ready.Done)
			c := &http.Client{Transport: &http.Transport{}}
			have := map[string]bool{}
			for tag := ""; ctx.Err() == nil; {
				p, next, err := ask(c, url, tag)
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				if tag = next; p == nil {
					continue
				}
				for _, f := range slices.Concat(p.Layers, []file{p.Trust}) {
					if have[f.Name] {
						continue
					}
					have[f.Name] = true
					if strings.HasPrefix(f.Name, "base-") && len(have) < 3 {
						continue // what they have
					}
					resp, err := c.Get(url + "/api/v1/publication/" + f.Name)
					if err != nil {
						continue
					}
					k, _ := io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					mu.Lock()
					files, bytes = files+1, bytes+k
					mu.Unlock()
				}
				first()
			}
		}()
	}
	ready.Wait()
	fmt.Println("ready")
	mu.Lock()
	files, bytes = 0, 0
	mu.Unlock()
	_, _ = io.Copy(io.Discard, os.Stdin)
	mu.Lock()
	fmt.Printf("%d files, %.1f MB\n", files, float64(bytes)/1e6)
	mu.Unlock()
	cancel()
	os.Exit(0) // what they wait for does not matter
	return nil
}
