package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"trust-worker/changes"
)

// fileName is where the place of each receiver is kept, in the state directory.
const fileName = "webhooks.json"

// saveEvery is how often the places are written: a process that is killed tells
// again what it told since.
const saveEvery = time.Second

// Sender tells receivers of the changes in a journal.
type Sender struct {
	hooks []*hook
	path  string
	log   *slog.Logger
}

// ErrState is New's error where it is not the configuration that is wrong.
var ErrState = errors.New("cannot read how far webhooks have come")

// New checks the configuration. A receiver that is new begins with the next
// change. transport is how they are reached; nil means the default.
func New(receivers []Config, j *changes.Journal, state string, transport http.RoundTripper, log *slog.Logger) (*Sender, error) {
	s := &Sender{path: filepath.Join(state, fileName), log: log}
	places := map[string]changes.Position{}
	if b, err := os.ReadFile(s.path); err == nil {
		if err := json.Unmarshal(b, &places); err != nil {
			log.Warn("the places of webhooks cannot be read; they begin with the next change", "path", s.path, "error", err)
			places = nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, c := range receivers {
		at, ok := places[key(c)]
		if !ok {
			at = j.Last()
		}
		h, err := newHook(c, j, transport, at, log)
		if err != nil {
			return nil, err
		}
		s.hooks = append(s.hooks, h)
	}
	return s, nil
}

// key names a receiver in the file, without what its URL may hold.
func key(c Config) string {
	sum := sha256.Sum256([]byte(c.URL))
	return hex.EncodeToString(sum[:8])
}

// Run delivers until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	if len(s.hooks) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range s.hooks {
		g.Go(func() error { h.run(ctx); return nil })
	}
	g.Go(func() error {
		ticker := time.NewTicker(saveEvery)
		defer ticker.Stop()
		var saved map[string]changes.Position
		failing := false
		for {
			var err error
			if saved, err = s.save(saved); err != nil && !failing {
				s.log.Warn("cannot keep the places of webhooks; will retry", "path", s.path, "error", err)
			}
			failing = err != nil
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
	err := g.Wait()
	_, saveErr := s.save(nil)
	return errors.Join(err, saveErr)
}

// save writes the places if they are not those that were saved.
func (s *Sender) save(saved map[string]changes.Position) (map[string]changes.Position, error) {
	places := map[string]changes.Position{}
	for _, h := range s.hooks {
		places[key(h.cfg)] = h.position()
	}
	if maps.Equal(places, saved) {
		return saved, nil
	}
	b, err := json.Marshal(places)
	if err == nil {
		err = renameio.WriteFile(s.path, append(b, '\n'), 0o640, renameio.WithTempDir(filepath.Dir(s.path)))
	}
	if err != nil {
		return saved, err
	}
	return places, nil
}

// Status tells how each receiver does.
func (s *Sender) Status() []Status {
	var out []Status
	for _, h := range s.hooks {
		out = append(out, h.status())
	}
	return out
}
