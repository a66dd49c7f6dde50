package changes_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"trust-worker/changes"
)

// A program that acts on trust that is lost, in another process than the
// daemon's: the journal in the state directory is all it needs.
func ExampleFollow() {
	state, err := os.MkdirTemp("", "state-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err = changes.Follow(ctx, state, 0, func(c changes.Change) error {
		switch {
		case c.Kind == changes.Reset:
			fmt.Println("read everything again, then go on from", c.Position)
		case c.Kind.Lost():
			fmt.Println(c.Kind, c.Repository, c.Digest, c.Reason, c.Link)
		}
		return nil
	})
	fmt.Println("followed:", err)
	// Output: followed: <nil>
}
