package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"trust-worker/scheduler"
)

// watchdogTimeout is how long systemd waits for a sign of life before it
// restarts the daemon, 0 if it does not.
func watchdogTimeout(log *slog.Logger) time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not served", "error", err)
	}
	return d
}

// notifySystemd tells the service manager how the daemon does, until work ends:
// READY once another process can read answers under the trust directories as
// they are, a sentence as STATUS, STOPPING when ctx ends, and WATCHDOG each time
// the loop that confirms the published trust has come round. It is nothing
// without a service manager.
func (s *settings) notifySystemd(ctx, work context.Context, now func() condition, watchdog time.Duration, log *slog.Logger) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	failed := false
	send := func(state string) {
		_, err := daemon.SdNotify(false, state)
		if err != nil && !failed {
			log.Warn("cannot notify the service manager", "error", err)
		}
		failed = err != nil
	}
	every := time.Second
	if watchdog > 0 {
		every = min(every, watchdog/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var n notifier
	for {
		for _, state := range n.next(now(), s.readable) {
			send(state)
		}
		select {
		case <-work.Done():
			if ctx.Err() != nil { // else the cache is rebuilt, by this process
				send(daemon.SdNotifyStopping)
			}
			return nil
		case <-tick.C:
		}
	}
}

// readable says whether a process that reads the answers now believes them.
func (s *settings) readable() bool {
	r, err := s.reader()
	if err != nil {
		return false
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return false
	}
	defer snap.Close()
	return !snap.Stale()
}

// condition is what the service manager is told.
type condition struct {
	ready  bool      // answers are kept by this process
	looked time.Time // when the loop came round that keeps them confirmed
	line   string
}

func conditionOf(st scheduler.Status) condition {
	return condition{ready: !st.Confirmed.IsZero(), looked: st.Looked, line: statusLine(st)}
}

// notifier knows what the service manager was told.
type notifier struct {
	ready  bool
	looked time.Time
	status string
}

// next is what there is to tell now. The answers are readable only under the
// trust of an earlier run until the first confirmation, so both are asked for.
func (n *notifier) next(c condition, readable func() bool) (tell []string) {
	if !n.ready && c.ready && readable() {
		n.ready = true
		tell = append(tell, daemon.SdNotifyReady)
	}
	if !c.looked.Equal(n.looked) {
		n.looked = c.looked
		tell = append(tell, daemon.SdNotifyWatchdog)
	}
	if line := "STATUS=" + c.line; line != n.status {
		n.status = line
		tell = append(tell, line)
	}
	return tell
}

// statusLine is the daemon's condition in a sentence. It has no number that
// changes while all is well, and one line: a second would be another statement.
func statusLine(st scheduler.Status) string {
	switch {
	case st.Problem != "":
		return "Problem: " + strings.Join(strings.Fields(st.Problem), " ")
	case st.Confirmed.IsZero():
		return "Loading the trust directories"
	case !st.FirstPass:
		return fmt.Sprintf("First pass: %d repositories and signers to go", st.Queue)
	}
	line := fmt.Sprintf("%d repositories, %d trust files", st.Repositories, st.Loaded)
	if n := len(st.Refused); n > 0 {
		line += fmt.Sprintf(", %d refused", n)
	}
	if st.Queue > 0 {
		line += "; verifying"
	}
	return line
}
