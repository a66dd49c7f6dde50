package main

import (
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"trust-worker/scheduler"
	"trust-worker/verifier/truststore"
)

// notified FILE: listens as the service manager does, and appends what it is
// told to the file. Programs that the script starts from now on tell it.
func cmdNotified(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "notified FILE")
	socket := ts.MkAbs(args[0] + ".sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ts.Check(err)
	file, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	done := make(chan struct{})
	ts.Defer(func() { conn.Close(); <-done; file.Close() })
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			file.WriteString(strings.TrimSpace(string(b[:n])) + "\n")
		}
	}()
	ts.Setenv("NOTIFY_SOCKET", socket)
}

// Each step is a condition, and what the service manager is to be told of it.
func TestWhatTheServiceManagerIsTold(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	const loaded = 2
	var n notifier
	for i, step := range []struct {
		status   scheduler.Status
		readable bool
		want     []string
	}{
		{scheduler.Status{}, true, []string{"STATUS=Loading the trust directories"}}, // what is readable is of an earlier run
		{scheduler.Status{Problem: "cannot publish trust:\nREADY=1 no space left", Looked: at(1)}, false,
			[]string{"WATCHDOG=1", "STATUS=Problem: cannot publish trust: READY=1 no space left"}}, // alive, not ready
		{scheduler.Status{Confirmed: at(2), Looked: at(2), Queue: 7}, false,
			[]string{"WATCHDOG=1", "STATUS=First pass: 7 repositories and signers to go"}},
		{scheduler.Status{Confirmed: at(2), Looked: at(2), Queue: 7}, true, []string{"READY=1"}},
		{scheduler.Status{Confirmed: at(2), Looked: at(2), Queue: 7}, true, nil}, // a loop that stands still is not alive
		{scheduler.Status{Confirmed: at(3), Looked: at(3), FirstPass: true, Repositories: 4, Loaded: loaded}, true,
			[]string{"WATCHDOG=1", "STATUS=4 repositories, 2 trust files"}},
		{scheduler.Status{Confirmed: at(3), Looked: at(4), FirstPass: true, Repositories: 4, Loaded: loaded, Queue: 1, Refused: make([]truststore.Refusal, 1)}, true,
			[]string{"WATCHDOG=1", "STATUS=4 repositories, 2 trust files, 1 refused; verifying"}},
		{scheduler.Status{Confirmed: at(3), Looked: at(1), FirstPass: true, Repositories: 4, Loaded: loaded}, true, // the clock was set back
			[]string{"WATCHDOG=1", "STATUS=4 repositories, 2 trust files"}},
	} {
		if got := n.next(conditionOf(step.status), func() bool { return step.readable }); !reflect.DeepEqual(got, step.want) {
			t.Errorf("step %d: told %q, want %q", i, got, step.want)
		}
	}
}
