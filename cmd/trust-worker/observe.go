package main

import (
	"errors"
	"log/slog"

	"trust-worker/cache"
	"trust-worker/changes"
)

// observed is the journal of changes of the state directory, and who fills it.
type observed struct {
	journal  *changes.Journal
	observer *changes.Observer
	reader   *cache.Reader
}

// observe begins where the journal ends: the store must be open and nothing
// published yet. The observer reads as any other process does.
func (s *settings) observe(log *slog.Logger) (*observed, error) {
	reader, err := s.reader()
	if err != nil {
		return nil, err
	}
	j := changes.OpenJournal(s.state, log)
	j.Keep(changes.OpenHistory(s.state, s.historyDays, log))
	return &observed{journal: j, reader: reader, observer: changes.NewObserver(reader, j, log, nil)}, nil
}

// close tells of what was published last.
func (o *observed) close() error {
	return errors.Join(o.observer.Close(), o.journal.Close(), o.reader.Close())
}
