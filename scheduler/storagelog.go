package scheduler

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"trust-worker/internal/fair"
)

// What stands in storage, and is said once.
const (
	notRead     = "repository cannot be read; its answers read unknown"
	notListed   = "directory in storage cannot be listed; what is below it is not known"
	partsUnread = "manifests or tags that a repository lists cannot be read; they may be signatures, which then do not count"
	notSHA256   = "manifests are named by another digest algorithm than SHA-256; they read unknown (unsupported-digest)"
	noImage     = "a repository holds signatures and no image; a signature counts only in the repository of its image (see COSIGN_REPOSITORY in docs/operations.md)"
)

// storageLog says what is wrong with what is stored. Whoever may push can cause any
// number of its lines: each top-level name has its rate, and all together have one.
type storageLog struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	all     *rate.Limiter
	names   map[string]*rate.Limiter
	said    map[string]string // of what stands: its state, by message and name
	leftOut int               // lines, since that was said
}

const (
	storageLinesEach  = rate.Limit(10.0 / 60) // lines a second, of one top-level name
	storageLinesBurst = 20
	storageLinesAll   = rate.Limit(2)
	storageBurstAll   = 200
	// Of so many names the rates are known, and of so many what was said; then all
	// begin anew.
	storageNames = 10_000
)

func newStorageLog(log *slog.Logger, now func() time.Time) *storageLog {
	return &storageLog{log: log, now: now, all: rate.NewLimiter(storageLinesAll, storageBurstAll), names: map[string]*rate.Limiter{}, said: map[string]string{}}
}

// warn writes a line about a repository, or a directory in storage, unless there have
// been too many. It reports whether it did.
func (l *storageLog) warn(name, message string, attrs ...any) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(name, message, attrs)
}

// standing is warn about what stays so: once for each state of it. A line that was
// left out is written when it is said again.
func (l *storageLog) standing(name, state, message string, attrs ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := message + "\x00" + name
	if l.said[key] == state {
		return
	}
	if len(l.said) >= storageNames {
		clear(l.said)
	}
	if l.write(name, message, attrs) {
		l.said[key] = state
	}
}

// over says that something no longer stands.
func (l *storageLog) over(name, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.said, message+"\x00"+name)
}

// flush says how many lines have been left out.
func (l *storageLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leftOut > 0 {
		l.log.Warn("lines about what is stored were left out: there were too many", "lines", l.leftOut)
		l.leftOut = 0
	}
}

// write needs mu.
func (l *storageLog) write(name, message string, attrs []any) bool {
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
		return false
	}
	l.log.Warn(message, append([]any{"repository", name}, attrs...)...)
	return true
}
