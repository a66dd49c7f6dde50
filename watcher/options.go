package watcher

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Options is how a watcher behaves. The zero value is the documented default;
// negative values, and a MaxDelay below Debounce, are refused by Run.
type Options struct {
	// Debounce is how long it must be quiet after an event before the notice.
	// Default 50 ms for Trust, 10 ms for each repository in Repositories.
	Debounce time.Duration

	// MaxDelay bounds what Debounce can postpone, from the first event of a
	// burst: a storm does not delay a notice for ever.
	// Default 500 ms for Trust, 200 ms for Repositories.
	MaxDelay time.Duration

	// Poll is the longest time between two looks while events work. It finds
	// what events do not report, and in Repositories is how often a watch that
	// was refused is tried again. Default 60 s.
	Poll time.Duration

	// PollWithoutEvents replaces Poll while events can't be relied on; a dead
	// event source is replaced no more often than this. Default 2 s. In
	// Repositories it does not shorten Poll, since its caller's own scan is
	// what finds changes there.
	PollWithoutEvents time.Duration

	// MaxDirs bounds the directories watched. Beyond it the watcher polls, and
	// says so. Default 4096 for Trust, 65536 for Repositories.
	MaxDirs int

	// Stop is the highest directory watched above a trust directory, usually
	// the registry's root: what happens above it is left to Poll. Default none,
	// that is up to "/", which only costs one filtered watch per level. Not
	// used by Repositories.
	Stop string

	// Log gets changes of mode, lost events and replaced sources, never one
	// line per event. Default none.
	Log *slog.Logger
}

func (o Options) forTrust() Options {
	return o.withDefaults(Options{Debounce: 50 * time.Millisecond, MaxDelay: 500 * time.Millisecond, MaxDirs: 4096})
}

func (o Options) forRepositories() Options {
	return o.withDefaults(Options{Debounce: 10 * time.Millisecond, MaxDelay: 200 * time.Millisecond, MaxDirs: 65536})
}

func (o Options) withDefaults(d Options) Options {
	if o.Debounce == 0 {
		o.Debounce = d.Debounce
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = max(d.MaxDelay, o.Debounce)
	}
	if o.Poll == 0 {
		o.Poll = 60 * time.Second
	}
	if o.PollWithoutEvents == 0 {
		o.PollWithoutEvents = min(2*time.Second, o.Poll)
	}
	if o.MaxDirs == 0 {
		o.MaxDirs = d.MaxDirs
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Debounce", int64(o.Debounce)}, {"MaxDelay", int64(o.MaxDelay)}, {"Poll", int64(o.Poll)},
		{"PollWithoutEvents", int64(o.PollWithoutEvents)}, {"MaxDirs", int64(o.MaxDirs)},
	} {
		if f.value < 0 {
			return fmt.Errorf("watcher: %s is negative", f.name)
		}
	}
	if o.MaxDelay < o.Debounce {
		return fmt.Errorf("watcher: MaxDelay (%v) is shorter than Debounce (%v)", o.MaxDelay, o.Debounce)
	}
	if o.Stop != "" && !filepath.IsAbs(o.Stop) {
		return fmt.Errorf("watcher: Stop %q is not an absolute path", o.Stop)
	}
	return nil
}
