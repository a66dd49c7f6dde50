package server

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// clients counts something for each client, within a bound on their number.
type clients struct {
	limit rate.Limit
	burst int

	mu   sync.Mutex
	seen map[string]*rate.Limiter
}

// maxClients is how many are told apart. When more come, those who have not
// used anything up are forgotten, then all: a flood of addresses must not take
// memory.
const maxClients = 4096

func newClients(limit rate.Limit, burst int) *clients {
	return &clients{limit: limit, burst: burst, seen: map[string]*rate.Limiter{}}
}

func (c *clients) limiter(client string, now time.Time) *rate.Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.seen[client]; l != nil {
		return l
	}
	if len(c.seen) >= maxClients {
		for name, l := range c.seen {
			if l.TokensAt(now) >= float64(c.burst) {
				delete(c.seen, name)
			}
		}
		if len(c.seen) >= maxClients {
			clear(c.seen)
		}
	}
	l := rate.NewLimiter(c.limit, c.burst)
	c.seen[client] = l
	return l
}

// allow takes one; false: there is none left.
func (c *clients) allow(client string, now time.Time) bool {
	return c.limiter(client, now).AllowN(now, 1)
}

// ready reports whether there is one left, and takes none.
func (c *clients) ready(client string, now time.Time) bool {
	return c.limiter(client, now).TokensAt(now) >= 1
}
