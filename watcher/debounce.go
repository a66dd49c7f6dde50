package watcher

import "time"

// debounce turns bursts into single moments: a burst is due when it has been
// quiet for quiet, and at the latest limit after its first event. It is pure;
// time is passed in. The zero burst is never due.
type debounce struct {
	quiet, limit time.Duration

	first, last time.Time // of the current burst; zero outside of one
}

// touch records an event at now.
func (d *debounce) touch(now time.Time) {
	if d.first.IsZero() {
		d.first = now
	}
	d.last = now
}

// due says when the current burst is due, and whether there is one. The moment
// can lie in the past.
func (d *debounce) due() (time.Time, bool) {
	if d.first.IsZero() {
		return time.Time{}, false
	}
	at, limit := d.last.Add(d.quiet), d.first.Add(d.limit)
	if limit.Before(at) {
		at = limit
	}
	return at, true
}
