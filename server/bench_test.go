package server

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
)

// crowd is 100,000 images, each with one trusted signature, in 1,000 repositories.
func crowd(b *testing.B, edit ...func(*Config)) *world {
	b.Helper()
	w := start(b, func(c *Config) {
		c.Limits.MaxReads = 64
		for _, f := range edit {
			f(c)
		}
	})
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/team.pub", key.PEM())
	stamp := "stamp"
	for r := range 1000 {
		batch := store.Batch{Place: fmt.Sprintf("team%03d/app", r), SetTags: true, Complete: true,
			Update: &store.PlaceUpdate{Stamp: &stamp}, Tags: map[string]trust.Digest{}}
		for i := range 100 {
			row := store.Row{Digest: digestOf(fmt.Sprint(r, "/", i)), MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Tagged: true}
			batch.Facts = append(batch.Facts, w.claims(&row, fmt.Sprint(r, "/", i), []claim{byKey(key)})...)
			batch.Rows = append(batch.Rows, row)
			batch.Tags[fmt.Sprintf("v%02d", i)] = row.Digest
		}
		_, err := w.d.store.Commit(batch)
		check(b, err)
	}
	check(b, w.d.store.Publish(b.Context()))
	return w
}

// drive sends requests over kept-alive connections and reports the median and the
// 99th percentile beside the mean.
func drive(b *testing.B, path func(i int) string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var took []time.Duration
	b.RunParallel(func(pb *testing.PB) {
		var mine []time.Duration
		for i := 0; pb.Next(); i++ {
			begin := time.Now()
			resp, err := client.Get(path(i))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
			mine = append(mine, time.Since(begin))
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, mine...)
	})
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkServer holds the queries of zot's clients and the REST API against two
// floors: an answer of the same server that reads nothing, and the look-up that
// any Go program can make without a server.
func BenchmarkServer(b *testing.B) {
	w := crowd(b)
	name := func(i int) (repo, tag string) {
		return fmt.Sprintf("team%03d/app", i*7%1000), fmt.Sprintf("v%02d", i*13%100)
	}
	ask := func(q string) string { return w.url + pathSearch + "?query=" + url.QueryEscape(q) }
	b.Run("floor/handler", func(b *testing.B) { drive(b, func(int) string { return w.url + "/livez" }) })
	b.Run("floor/library", func(b *testing.B) {
		for i := range b.N {
			snap, err := w.reader.Snapshot()
			check(b, err)
			repo, tag := name(i)
			if img, err := snap.Tag(repo, tag); err != nil || !img.SignatureInfo[0].IsTrusted {
				b.Fatal(img, err)
			}
			snap.Close()
		}
	})
	b.Run("graphql/image", func(b *testing.B) {
		drive(b, func(i int) string {
			repo, tag := name(i)
			return ask(fmt.Sprintf(`{Image(image:"%s:%s"){Manifests{Digest} IsSigned Tag SignatureInfo{Tool IsTrusted Author}}}`, repo, tag))
		})
	})
	b.Run("graphql/repository-of-100", func(b *testing.B) {
		drive(b, func(i int) string {
			repo, _ := name(i)
			return ask(fmt.Sprintf(`{ImageList(repo:"%s"){Results{`+zliImage+`}}}`, repo))
		})
	})
	b.Run("graphql/page-of-repositories", func(b *testing.B) {
		drive(b, func(i int) string {
			return ask(fmt.Sprintf(`{RepoListWithNewestImage(requestedPage:{limit:15 offset:%d}){Results{Name NewestImage{Tag IsSigned SignatureInfo{Tool IsTrusted Author}}}}}`, i*15%900))
		})
	})
	b.Run("rest/image", func(b *testing.B) {
		drive(b, func(i int) string {
			repo, tag := name(i)
			return w.url + pathAPI + "/images/" + repo + ":" + tag
		})
	})
	b.Run("rest/page-of-100", func(b *testing.B) {
		drive(b, func(i int) string {
			repo, _ := name(i)
			return w.url + pathAPI + "/images?limit=100&after=" + cursor{repo: repo}.String()
		})
	})
	b.Run("page/first", func(b *testing.B) { drive(b, func(int) string { return w.url + "/ui/" }) })
	b.Run("page/state-that-nothing-has", func(b *testing.B) { drive(b, func(int) string { return w.url + "/ui/?state=expired" }) })
	b.Run("page/search-that-finds-nothing", func(b *testing.B) { drive(b, func(int) string { return w.url + "/ui/?q=nothing" }) })
	b.Run("page/image", func(b *testing.B) {
		drive(b, func(i int) string {
			repo, tag := name(i)
			return w.url + "/ui/image/" + repo + ":" + tag
		})
	})
	b.Run("rest/check", func(b *testing.B) {
		drive(b, func(i int) string {
			r, n := i*7%1000, i*13%100
			return fmt.Sprintf("%s%s/check/team%03d/app@%s", w.url, pathAPI, r, digestOf(fmt.Sprint(r, "/", n)))
		})
	})
}

// BenchmarkGate asks the gate at 1,000 requests a second, as a proxy in front of a registry
// does, and the same server for nothing at the same rate. Requests start by the clock,
// whether others have been answered or not.
func BenchmarkGate(b *testing.B) {
	w := crowd(b, func(c *Config) {
		c.Gate = Gate{Mode: GateEnforce, Open: func(string) (*layout.Repository, error) { return nil, fs.ErrNotExist }}
	})
	at := func(status int, uri func(i int) string) func(*testing.B) {
		return func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			defer client.CloseIdleConnections()
			took := make([]time.Duration, b.N)
			var all sync.WaitGroup
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := range took {
				<-tick.C
				all.Go(func() {
					begin := time.Now()
					req, err := http.NewRequest(http.MethodGet, w.url+"/livez", nil)
					if err == nil && uri != nil {
						req.URL.Path = pathGate
						req.Header.Set(headerMethod, "GET")
						req.Header.Set(headerURI, uri(i))
					}
					resp, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode != status {
						b.Errorf("status %d", resp.StatusCode)
					}
					took[i] = time.Since(begin)
				})
			}
			all.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(0, "ns/op")
		}
	}
	b.Run("floor/handler", at(200, nil))
	b.Run("digest", at(200, func(i int) string {
		r, n := i*7%1000, i*13%100
		return fmt.Sprintf("/v2/team%03d/app/manifests/%s", r, digestOf(fmt.Sprint(r, "/", n)))
	}))
	b.Run("tag", at(200, func(i int) string { return fmt.Sprintf("/v2/team%03d/app/manifests/v%02d", i*7%1000, i*13%100) }))
	b.Run("refused", at(403, func(i int) string { return fmt.Sprintf("/v2/team%03d/app/manifests/%s", i*7%1000, digestOf("none")) }))
}
