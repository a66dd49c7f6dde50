package changes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// followEvery is how often a follower looks at the file: one stat.
const followEvery = 100 * time.Millisecond

// Follow calls fn with the changes in the journal of a state directory, the last
// n that are held first and then each as it comes, until ctx ends or fn fails.
// It is for other processes than the daemon's, which may not be running: the
// file is waited for. Changes that were dropped before they could be read are
// told as a Reset.
func Follow(ctx context.Context, state string, n int, fn func(Change) error) error {
	t := &tail{path: filepath.Join(state, FileName)}
	defer t.close()
	first := true
	timer := time.NewTicker(followEvery)
	defer timer.Stop()
	for {
		list, err := t.look()
		if err != nil {
			return err
		}
		if first && t.f != nil {
			first, list = false, list[max(0, len(list)-n):]
		}
		for _, c := range list {
			if err := fn(c); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

// tail reads what is added to a journal's file.
type tail struct {
	path string
	f    *os.File
	at   int64    // read so far
	last Position // of the last change returned
}

func (t *tail) close() {
	if t.f != nil {
		t.f.Close() // read-only
	}
}

// look returns what has come since the last look.
func (t *tail) look() ([]Change, error) {
	now, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // not yet, or removed: the daemon writes a new one
	}
	if err != nil {
		return nil, err
	}
	var list []Change
	if t.f != nil {
		open, err := t.f.Stat()
		if err != nil {
			return nil, err
		}
		list, err = t.rest()
		if list = t.inOrder(list); err != nil || os.SameFile(now, open) {
			return list, err
		}
	}
	more, err := t.open()
	if i := slices.IndexFunc(more, func(c Change) bool { return c.Position == t.last }); i >= 0 {
		more = more[i+1:] // the rest has been returned
	}
	return append(list, t.inOrder(more)...), err
}

// open begins with the file that is there now, and returns what is in it.
func (t *tail) open() ([]Change, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t.close()
	t.f, t.at = f, headerSize
	return t.rest()
}

// inOrder puts a Reset where changes are missing, and notes the last.
func (t *tail) inOrder(list []Change) (out []Change) {
	for _, c := range list {
		p := c.Position
		follows := p.CacheID == t.last.CacheID && p.Number == t.last.Number+1
		if t.last != (Position{}) && c.Kind != Reset && !follows {
			gap := Change{Position: p, Time: c.Time, Kind: Reset, Detail: "changes were dropped before they could be read"}
			gap.Position.Number--
			out = append(out, gap)
		}
		t.last = c.Position
		out = append(out, c)
	}
	return out
}

// rest reads the whole lines that have come.
func (t *tail) rest() ([]Change, error) {
	fi, err := t.f.Stat()
	if err != nil || fi.Size() <= t.at {
		return nil, err
	}
	b := make([]byte, min(fi.Size()-t.at, 3*MaxHeld*maxLine))
	n, err := t.f.ReadAt(b, t.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var list []Change
	for line := range bytes.Lines(b[:n]) {
		if line[len(line)-1] != '\n' {
			break
		}
		var c Change
		if err := json.Unmarshal(line, &c); err != nil {
			return list, err
		}
		t.at += int64(len(line))
		list = append(list, c)
	}
	return list, nil
}
