package server

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// counts keeps the last summary, so that a client that polls it does not have all
// images read each time.
type counts struct {
	mu   sync.Mutex
	last *summary
	made time.Time
}

// keepCounts is how long counts of one generation are served: expiry changes
// them without a new one.
const keepCounts = 5 * time.Second

func (c *counts) get(r *http.Request, snap *cache.Snapshot, most int) (*summary, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	generation := snap.Generation().String()
	if c.last != nil && c.last.Generation == generation && time.Since(c.made) < keepCounts && !snap.Stale() {
		return c.last, nil
	}
	sum := &summary{Generation: generation, AsOf: snap.AsOf(), States: map[string]int{}}
	for _, state := range states {
		sum.States[state] = 0
	}
	err := snap.Repositories(func(repo string) error {
		sum.Repositories++
		return snap.Tags(repo, func(_ string, d trust.Digest) error {
			if sum.Tags++; sum.Tags > most {
				return refuse(http.StatusNotImplemented, codeUnsupported, "there are too many images to count",
					fmt.Sprintf("at most %d are counted in one request; list them page by page", most))
			}
			if sum.Tags%1000 == 0 && r.Context().Err() != nil {
				return r.Context().Err()
			}
			img, err := snap.Image(repo, d)
			if err == nil {
				sum.States[img.State()]++
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	c.last, c.made = sum, time.Now()
	return sum, nil
}
