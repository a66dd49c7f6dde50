package watcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"
)

// maxRounds of listing and watching in one look. A tree that still grows after
// that is looked at again after the next debounce; it must not hold up the
// notice for what is already known.
const maxRounds = 8

// Trust watches directory trees, and what leads to them, as one: a notice is
// about all of them. Its methods are safe for concurrent use.
type Trust struct {
	dirs []string
	opts Options
	open func() (*feed, error) // tests replace it before Run

	notices mailbox
	running atomic.Bool
	intake  intake
	// interest is what Run's goroutine has set out to watch; the pump's asks
	// it which events matter. nil: all.
	interest atomic.Pointer[survey]

	// Owned by Run's goroutine.
	seq     uint64
	mode    Mode
	watches *watches
}

// NewTrust returns an idle watcher of dirs, which need not exist. Relative ones
// are taken from the directory that is current when Run starts.
func NewTrust(dirs []string, opts Options) *Trust {
	return &Trust{
		dirs:    slices.Clone(dirs),
		opts:    opts.forTrust(),
		open:    openNotify,
		notices: make(mailbox, 1),
		intake:  intake{wake: make(chan struct{}, 1)},
	}
}

// C is where notices come; always the same channel, never closed. After a
// notice was received, a change that it does not cover leads to another one.
// Receive in one place only.
func (t *Trust) C() <-chan Notice { return t.notices }

// Status returns the watcher's condition.
func (t *Trust) Status() Status { return t.intake.get() }

// Reconciled records that the caller has done what n asked for, so that Status
// shows a caller that hangs.
func (t *Trust) Reconciled(n Notice) {
	t.intake.update(func(s *Status) {
		s.Reconciled = max(s.Reconciled, n.Seq)
		s.LastReconcile = time.Now()
	})
}

// Run watches until ctx ends and then returns nil. It returns an error for
// unusable options only: what goes wrong with the system is in Status. It must
// not run twice at a time.
func (t *Trust) Run(ctx context.Context) error {
	if !t.running.CompareAndSwap(false, true) {
		return errors.New("watcher: Trust runs already")
	}
	defer t.running.Store(false)
	if err := t.opts.validate(); err != nil {
		return err
	}
	dirs, err := absolute(t.dirs)
	if err != nil {
		return err
	}
	var pumps errgroup.Group
	t.watches = &watches{open: t.open, rest: t.opts.PollWithoutEvents}
	t.watches.start = func(f *feed) {
		pumps.Go(func() error { f.pump(t.event, t.intake.fault); return nil })
	}
	t.loop(ctx, dirs)
	t.watches.discard(false) // ends the pump
	t.intake.update(func(s *Status) { s.Mode, s.Reason, s.Dirs = ModeOff, "", 0 })
	return pumps.Wait()
}

func (t *Trust) loop(ctx context.Context, dirs []string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for cause := CauseStart; ctx.Err() == nil; {
		t.look(dirs, cause)
		cause = t.await(ctx, timer)
	}
}

// await returns when it is time to look: a burst of events is over, or the poll
// is due, counted from the look before. (Or ctx has ended.)
func (t *Trust) await(ctx context.Context, timer *time.Timer) Cause {
	burst := debounce{quiet: t.opts.Debounce, limit: t.opts.MaxDelay}
	poll := time.Now().Add(t.interval())
	for {
		at, cause := poll, CausePoll
		if due, ok := burst.due(); ok && due.Before(poll) {
			at, cause = due, CauseEvents
		}
		timer.Reset(time.Until(at))
		select {
		case <-ctx.Done():
			return cause
		case <-t.intake.wake:
			burst.touch(time.Now())
		case <-timer.C:
			return cause
		}
	}
}

func (t *Trust) interval() time.Duration {
	if t.mode == ModePolling {
		return t.opts.PollWithoutEvents
	}
	return t.opts.Poll
}

// look places all watches and then sends a notice: in this order, see I1.
func (t *Trust) look(dirs []string, cause Cause) {
	lost, died := t.intake.take()
	if lost || died {
		// What was lost may have been the end of a watch, so none is trusted.
		cause = CauseLost
		t.watches.discard(died)
		t.opts.Log.Warn("trust watcher: events lost, watching anew", "died", died)
	}
	old := t.watches.feed
	t.report(t.settle(dirs))

	t.seq++
	now := time.Now()
	t.intake.update(func(s *Status) { s.Notified, s.LastNotice = t.seq, now })
	t.notices.put(Notice{Seq: t.seq, Cause: cause, Rescan: cause == CauseStart || lost || died || t.watches.feed != old})
}

// settle watches what is there until nothing new turns up, and returns why
// events can't be relied on, or "".
func (t *Trust) settle(dirs []string) (reason string) {
	fresh := t.watches.feed == nil
	if err := t.watches.ensure(); err != nil {
		if errors.Is(err, errResting) {
			return t.Status().LastError
		}
		t.intake.update(func(s *Status) { s.LastError = err.Error() })
		return err.Error()
	}
	if fresh && t.seq > 0 {
		t.intake.update(func(s *Status) { s.Restarts++ })
	}
	for range maxRounds {
		s := surveyTrees(dirs, t.opts.Stop, t.opts.MaxDirs)
		s.opaque = t.watches.aliased()
		// Before the watches: their first events must find it.
		before := t.interest.Swap(s)
		added, err := t.watches.apply(s.places)
		if reason = s.reason; reason == "" && err != nil {
			reason = err.Error()
		}
		// An event that came while this survey was made was judged by the one
		// before; what that took for noise is listed once more.
		if len(added) == 0 && !s.widens(before) {
			return reason
		}
	}
	t.intake.poke()
	return reason
}

func (t *Trust) report(reason string) {
	mode := ModeEvents
	if reason != "" {
		mode = ModePolling
	}
	t.mode = mode
	if t.intake.setMode(mode, reason, t.interval(), len(t.watches.have)) {
		logMode(t.opts.Log, "trust directories", mode, reason, "interval", t.interval())
	}
}

// event is called by the pump.
func (t *Trust) event(ev fsnotify.Event) {
	if s := t.interest.Load(); s != nil && !s.concerns(ev.Name) {
		return
	}
	t.intake.event()
}

// absolute puts the current directory before relative paths. It does not clean
// them: x/.. is not nothing if x is a symbolic link.
func absolute(dirs []string) ([]string, error) {
	if len(dirs) == 0 {
		return nil, errors.New("watcher: no directory to watch")
	}
	var abs []string
	for _, dir := range dirs {
		if dir == "" {
			return nil, errors.New("watcher: a directory to watch has no name")
		}
		if !filepath.IsAbs(dir) {
			wd, err := os.Getwd()
			if err != nil {
				return nil, fmt.Errorf("find the current directory: %w", err)
			}
			dir = wd + "/" + dir
		}
		abs = append(abs, dir)
	}
	return abs, nil
}
