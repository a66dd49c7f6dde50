package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"trust-worker/cache"
)

// Reading the answers, as any other process does.

// answers fills in the settings and opens the cache.
func (s *settings) answers(cmd *cobra.Command) (*cache.Reader, error) {
	if err := s.complete(cmd, false); err != nil {
		return nil, err
	}
	return s.reader()
}

// reader opens the cache as any other process would.
func (s *settings) reader() (*cache.Reader, error) {
	r, err := cache.OpenReader(s.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noStateError(s.state)
	}
	return r, err
}

// noStateError names a state directory that is not there.
type noStateError string

func (e noStateError) Error() string {
	return fmt.Sprintf("no state directory %s: is the daemon running on this root? (start it with: trust-worker serve --root …, or a replica with: trust-worker follow URL --state …)", string(e))
}

func (noStateError) Is(err error) bool { return err == fs.ErrNotExist }
