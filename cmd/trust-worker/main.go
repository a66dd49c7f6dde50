// Command trust-worker verifies the cosign and notation signatures in an OCI
// registry's storage and keeps the answers where other processes read them.
// See the README for what it does; `trust-worker help` for how to call it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/inert"
	"trust-worker/trust"
)

func main() { os.Exit(run()) }

// Exit codes besides those of package trust.
const (
	exitError = 1
	exitUsage = 2
)

// usageError is a call that cannot be carried out as it stands.
type usageError struct{ error }

// codeError ends the program with a code and, unless quiet, a message.
type codeError struct {
	code int
	err  error // nil: the answer is on stdout already
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func run() int {
	ctx, stop := interruptible()
	defer stop()
	root := newRootCommand()
	root.SetArgs(arguments(os.Args))
	err := root.ExecuteContext(ctx)
	if message := messageOf(err); message != "" {
		fmt.Fprintln(os.Stderr, "trust-worker: "+inert.Message(message, maxMessage))
	}
	return codeOf(err)
}

// maxMessage bounds a message in bytes: it may quote what somebody gave.
const maxMessage = 4 << 10

// samePress is how close signals come that are meant as one: timeout(1) sends one
// to the process and one to its group.
const samePress = 200 * time.Millisecond

// interruptible ends the context at INT or TERM; a second one ends the process
// at once.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		for first := time.Now(); ; {
			<-signals
			if time.Since(first) > samePress {
				break
			}
		}
		fmt.Fprintln(os.Stderr, "trust-worker: second signal: stopping at once")
		os.Exit(exitError)
	}()
	return ctx, func() { signal.Stop(signals); cancel() }
}

// messageOf says what the user should read.
func messageOf(err error) string {
	var code *codeError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &code) && code.err == nil:
		return ""
	case errors.Is(err, cache.ErrFormat):
		return err.Error() + "; use the trust-worker that wrote it, or start the daemon of this version, which rebuilds it"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	if advice := permissionAdvice(err); advice != "" {
		return err.Error() + "; " + advice
	}
	return err.Error()
}

// codeOf says how the process ends; it stands beside messageOf on purpose.
func codeOf(err error) int {
	var code *codeError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, cache.ErrNotFound):
		return trust.ExitNotFound
	case errors.Is(err, cache.ErrFormat): // as no cache at all, until it is made anew
		return trust.ExitUndecided
	}
	return exitError
}
