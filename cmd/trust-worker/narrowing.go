package main

import (
	"errors"
	"log/slog"
	"path/filepath"

	"trust-worker/cache"
	"trust-worker/trust"
)

// trustWorker.scopes at work: they are remembered before they are in force.

// publishedNarrowed reports whether scopes were in force in what was published last, or may
// have been: it is there and cannot be read.
func (s *settings) publishedNarrowed() bool {
	r, err := cache.OpenReader(s.state)
	if err != nil {
		return !errors.Is(err, cache.ErrNoCache)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		return !errors.Is(err, cache.ErrNoCache)
	}
	defer snap.Close()
	return len(snap.InForce().Terms().Scopes) > 0
}

// narrow remembers the scopes before they are in force, and says what they no longer
// narrow. It refuses a configuration that has lost them.
func (s *settings) narrow(scopes []trust.Narrowing, log *slog.Logger) error {
	file := s.config
	if abs, err := filepath.Abs(file); err == nil && file != "" {
		file = abs
	}
	lost, err := s.memory.Narrow(scopes, scopes != nil, file)
	for _, what := range lost {
		log.Warn("the configuration narrows less: " + what)
	}
	for _, n := range scopes {
		log.Info("the configuration narrows who may sign", "scope", narrowingText(n))
	}
	return err
}
