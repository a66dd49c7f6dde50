package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/scheduler"
	"trust-worker/server"
	"trust-worker/verifier/truststore"
)

// idle is a daemon that has nothing to do.
type idle struct{}

func (idle) ReloadNow(context.Context) error    { return nil }
func (idle) PublishNow(context.Context) error   { return nil }
func (idle) TrustStore() *truststore.TrustStore { return nil }
func (idle) Status() scheduler.Status           { return scheduler.Status{} }

// A server over the cache of a state directory. The daemon gives it a scheduler.
func Example() {
	state, err := os.MkdirTemp("", "state-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)
	reader, err := cache.OpenReader(state)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reader.Close()
	journal := changes.OpenJournal(state, slog.New(slog.DiscardHandler))
	defer journal.Close()
	srv, err := server.New(server.Config{
		Listen: []string{"127.0.0.1:0"}, Reader: reader, Trust: idle{}, Status: idle{}.Status, StateDir: state,
		Changes: journal,
		Cosign:  true, CosignDir: state + "/_cosign", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := srv.Listen(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a daemon ends it with a signal
	fmt.Println(srv.Addresses()[0].Network(), srv.Serve(ctx))
	// Output: tcp <nil>
}
