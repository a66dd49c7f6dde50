package watcher

import (
	"log/slog"
	"sync"
	"time"
)

// Mode says what notices rest on.
type Mode string

const (
	// ModeOff: Run has not looked yet, or has returned.
	ModeOff Mode = "off"
	// ModeEvents: every directory is watched on a file system that reports
	// events.
	ModeEvents Mode = "events"
	// ModePolling: at least one directory is not, for Status.Reason; changes
	// are certain to be found by the poll alone. Watches that can be placed
	// stay in place.
	ModePolling Mode = "polling"
)

// Status is a watcher's condition at one moment. Counters count from the start
// of the process. LastReconcile more than 3 × Interval old means that either
// the watcher or its caller has stopped working.
type Status struct {
	Mode     Mode
	Reason   string        // why the mode is polling; empty in the others
	Interval time.Duration // the poll in force
	Dirs     int           // directories watched

	Events    uint64 // that concerned a watched tree or repository
	Looks     uint64 // each ends in a notice (Trust) or a check of all watches (Repositories)
	Overflows uint64 // of the kernel's event queue: events were lost
	Restarts  uint64 // of the event source, after overflows, errors and deaths
	Errors    uint64 // reported by the event source, overflows excluded

	LastError  string // the last of Errors, or a failure to start the source
	LastEvent  time.Time
	LastNotice time.Time

	// Notified is the last notice's Seq, Reconciled the highest that the caller
	// reported back; they differ while it works, or when it hangs. Of Trust only.
	Notified, Reconciled uint64
	LastReconcile        time.Time
}

// ledger is a Status that several goroutines write to.
type ledger struct {
	mu sync.Mutex
	s  Status
}

func (l *ledger) update(f func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.s)
}

func (l *ledger) get() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.s
	if s.Mode == "" {
		s.Mode = ModeOff
	}
	return s
}

// setMode records the outcome of a look and says whether mode or reason changed.
func (l *ledger) setMode(mode Mode, reason string, interval time.Duration, dirs int) (changed bool) {
	l.update(func(s *Status) {
		changed = s.Mode != mode || s.Reason != reason
		s.Mode, s.Reason, s.Interval, s.Dirs = mode, reason, interval, dirs
		s.Looks++
	})
	return changed
}

// logMode tells how something is followed; why, where that is by polling.
func logMode(log *slog.Logger, what string, mode Mode, reason string, args ...any) {
	if reason != "" {
		args = append(args, "reason", reason)
	}
	log.Info("following "+what, append([]any{"by", mode}, args...)...)
}
