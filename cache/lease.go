package cache

import (
	"io/fs"
	"math"
	"os"
	"time"
)

// The lease: when the daemon last confirmed what a reader has open, and how old that is.

// confirmEvery is how often a reader looks at the confirmation: the daemon
// renews it at least every 10 s.
const confirmEvery = time.Second

// ahead is how far ahead of the clock a confirmation may be: a daemon that runs renews it
// sooner.
const ahead = 10 * time.Second

// confirmation returns when the daemon last confirmed the generation, and for how
// long nothing later has been known, by a clock that nobody sets. A confirmation that is
// ahead of the clock was made before somebody set that back: it may be of any age, unless
// this process saw it come. A trust file that is another than the one that was read, for
// all its name, is none: it comes from a backup, and what it belongs to is opened with the
// next snapshot.
func (r *Reader) confirmation(g *generation) (at time.Time, age time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := func() (time.Time, time.Duration, error) {
		if g.undated {
			return g.confirmed, math.MaxInt64, nil
		}
		return g.confirmed, time.Since(g.since), nil
	}
	if !g.looked.IsZero() && time.Since(g.looked) < confirmEvery {
		return known()
	}
	fi, err := os.Stat(g.trustPath)
	if err != nil {
		return time.Time{}, 0, err
	}
	if was, err := g.trustOpen.Stat(); err != nil {
		return time.Time{}, 0, err
	} else if !os.SameFile(fi, was) {
		if r.cur == g {
			r.cur = nil
			r.releaseLocked(g) // the caller has another reference
		}
		return time.Time{}, 0, fs.ErrNotExist
	}
	g.looked = time.Now()
	if at = fi.ModTime(); !at.Equal(g.confirmed) {
		g.undated = g.confirmed.IsZero() && at.Sub(r.now()) > ahead
		g.confirmed, g.since = at, g.looked
	}
	return known()
}
