package mirror

import (
	"math"
	"time"
)

// Instant is a moment by both clocks of this machine: the one that people set, and one
// that nobody does. On Linux that one goes on while the machine sleeps.
type Instant struct {
	Wall time.Time
	Mono time.Duration
}

// Now is the present moment.
func Now() Instant { return Instant{Wall: time.Now().Round(0), Mono: sinceBoot()} }

// since is how long ago a moment was, at least by one of the clocks: neither a clock that
// is set back nor one that stands still makes it less.
func (now Instant) since(then Instant) time.Duration {
	return max(0, now.Mono-then.Mono, now.Wall.Sub(then.Wall))
}

// Heard is a confirmation as it was heard: a request was sent, and the answer to it
// stated how long before the source had last confirmed what it publishes. The age is
// the source's own business: no clock of two machines is ever compared.
type Heard struct {
	Sent Instant
	Age  time.Duration
}

// age is how old the confirmation is, at most.
func (h Heard) age(now Instant) time.Duration {
	since := now.since(h.Sent)
	if h.Age > math.MaxInt64-since {
		return math.MaxInt64
	}
	return since + h.Age
}

// at is when the confirmation was, by the clock that people set, as it is set now.
func (h Heard) at(now Instant) time.Time {
	at := now.Wall.Add(-h.age(now))
	if long := time.Unix(0, 0); at.Before(long) {
		return long
	}
	return at
}
