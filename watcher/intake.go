package watcher

import (
	"errors"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// intake is what a pump's goroutine hands to the goroutine of Run: that
// something happened, that something went wrong, and both for Status. It holds
// no events, so that it doesn't grow with them.
type intake struct {
	ledger

	wake chan struct{} // capacity 1: at least one thing happened

	mu         sync.Mutex
	lost, died bool // since the last take
}

func (in *intake) poke() {
	select {
	case in.wake <- struct{}{}:
	default: // the last one is still to be seen
	}
}

func (in *intake) event() {
	in.update(func(s *Status) { s.Events++; s.LastEvent = time.Now() })
	in.poke()
}

// fault records an error of the event source. Each means that events may have
// been lost: an overflow says so, the others give no reason to believe that
// they were not.
func (in *intake) fault(err error) {
	in.update(func(s *Status) {
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			s.Overflows++
			return
		}
		s.Errors++
		s.LastError = err.Error()
	})
	in.mu.Lock()
	in.lost = true
	in.died = in.died || errors.Is(err, errDied)
	in.mu.Unlock()
	in.poke()
}

// take says whether events may have been lost since it was last asked, and
// whether the event source ended.
func (in *intake) take() (lost, died bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	lost, died = in.lost, in.died
	in.lost, in.died = false, false
	return lost, died
}

func (in *intake) troubled() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.lost
}
