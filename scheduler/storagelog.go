package scheduler

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"trust-worker/internal/fair"
)

// storageLog says what is wrong with what is stored. Whoever may push can cause any
// number of its lines: each top-level name has its rate, and all together have one.
type storageLog struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	all     *rate.Limiter
	names   map[string]*rate.Limiter
	leftOut int // lines, since the last one
}

const (
	storageLinesEach  = rate.Limit(10.0 / 60) // lines a second, of one top-level name
	storageLinesBurst = 20
	storageLinesAll   = rate.Limit(2)
	storageBurstAll   = 200
	// Of so many names the rates are known; then all begin anew.
	storageNames = 10_000
)

func newStorageLog(log *slog.Logger, now func() time.Time) *storageLog {
	return &storageLog{log: log, now: now, all: rate.NewLimiter(storageLinesAll, storageBurstAll), names: map[string]*rate.Limiter{}}
}

// warn writes a line about a repository, or a directory in storage, unless there have
// been too many.
func (l *storageLog) warn(name, message string, attrs ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, top := l.now(), fair.TopLevel(name)
	of := l.names[top]
	if of == nil {
		if len(l.names) >= storageNames {
			clear(l.names)
		}
		of = rate.NewLimiter(storageLinesEach, storageLinesBurst)
		l.names[top] = of
	}
	if !of.AllowN(now, 1) || !l.all.AllowN(now, 1) {
		l.leftOut++
		return
	}
	if l.leftOut > 0 {
		l.log.Warn("lines about what is stored were left out: there were too many", "lines", l.leftOut)
		l.leftOut = 0
	}
	l.log.Warn(message, append([]any{"repository", name}, attrs...)...)
}
