package changes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"trust-worker/trust"
)

// The history: the changes of the journal, kept by days for whoever asks later when
// something ceased to be trusted, and why. A day is a file of one change a line, named by its
// date (UTC), in the directory history of the state directory.
//
// The journal is the record: what the history lacks after a crash or a full disk is taken
// from it, as far as it goes back.

const (
	// HistoryName is the directory in the state directory.
	HistoryName = "history"
	// DefaultDays is for how many days changes are kept.
	DefaultDays = 90
	// MaxHistory and maxDay bound the bytes of all days, and of one. Of a day that has more,
	// the rest is not kept, and a Reset says so.
	MaxHistory = 256 << 20
	maxDay     = MaxHistory / 4

	daySuffix = ".jsonl"
	dayLayout = "2006-01-02"
)

// History is written by a Journal. Make it with OpenHistory and give it to Journal.Keep.
type History struct {
	dir    string
	days   int
	most   int64 // bytes of all days
	mostOf int64 // of one
	log    *slog.Logger

	day     string // that is written
	f       *os.File
	size    int64
	full    bool     // nothing more of the day is kept
	last    Position // of the last change that is in it
	behind  bool     // the last write failed
	flagged bool     // and that was logged
}

// OpenHistory opens the history of a state directory, to keep so many days of changes; 0
// keeps none, and removes what there is.
func OpenHistory(state string, days int, log *slog.Logger) *History {
	return &History{dir: filepath.Join(state, HistoryName), days: days, most: MaxHistory, mostOf: maxDay, log: log}
}

// Keep has the journal write what it tells to a history as well, from now on and what the
// history lacks of what is held. Close it with the journal.
func (j *Journal) Keep(h *History) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.history = h
	h.begin(j.held)
}

// begin finds out what there is, and adds what is held and not in it.
func (h *History) begin(held []Change) {
	days, err := listDays(h.dir)
	if err != nil {
		h.failed(err)
		return
	}
	for _, day := range slices.Backward(days) { // of one day the only line may have been cut off
		if h.last, err = lastOf(filepath.Join(h.dir, day+daySuffix)); err != nil {
			h.failed(err)
		}
		if h.last != (Position{}) {
			break
		}
	}
	h.prune(time.Now())
	h.add(held)
}

// add writes the changes that are newer than what there is. What cannot be written is
// written with the next ones, from what the journal holds.
func (h *History) add(held []Change) {
	if h.days <= 0 {
		return
	}
	for i := range held {
		// Numbers begin again if the journal is lost, generations never do.
		p := held[i].Position
		if p.CacheID == h.last.CacheID && (p.Generation < h.last.Generation || p.Generation == h.last.Generation && p.Number <= h.last.Number) {
			continue
		}
		if err := h.write(&held[i]); err != nil {
			h.failed(err)
			return
		}
	}
	h.behind, h.flagged = false, false
}

func (h *History) failed(err error) {
	if h.behind = true; !h.flagged {
		h.log.Warn("cannot write the history of changes; will retry", "path", h.dir, "error", err)
	}
	h.flagged = true
}

func (h *History) write(c *Change) error {
	if day := c.Time.UTC().Format(dayLayout); day != h.day || h.f == nil {
		if err := h.open(day); err != nil {
			return err
		}
		h.prune(c.Time)
	}
	if h.full {
		h.last = c.Position
		return nil
	}
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if h.size+int64(len(line)) > h.mostOf {
		line, err = json.Marshal(&Change{Position: c.Position, Time: c.Time, Kind: Reset, Detail: fmt.Sprintf("the rest of this day is not kept: it has more than %d MiB of changes", h.mostOf>>20)})
		if err != nil {
			return err
		}
		h.full = true
	}
	n, err := h.f.WriteAt(append(line, '\n'), h.size)
	if err != nil {
		return errors.Join(err, h.f.Truncate(h.size))
	}
	h.size, h.last = h.size+int64(n), c.Position
	return nil
}

// open opens the file of a day to write at its end; a line that was cut off goes.
func (h *History) open(day string) error {
	if err := h.close(); err != nil {
		return err
	}
	if err := os.MkdirAll(h.dir, 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(h.dir, day+daySuffix), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	size, tail, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	h.f, h.day, h.size = f, day, size
	h.full = size+maxLine > h.mostOf && tail.Kind == Reset
	return nil
}

func (h *History) close() error {
	if h.f == nil {
		return nil
	}
	f := h.f
	h.f = nil
	return f.Close()
}

// prune removes the days that are over, and the oldest ones that are too much.
func (h *History) prune(now time.Time) {
	days, err := listDays(h.dir)
	if err != nil {
		return // told when something is written
	}
	first := now.UTC().AddDate(0, 0, -h.days).Format(dayLayout)
	total := int64(0)
	for _, day := range slices.Backward(days) {
		path := filepath.Join(h.dir, day+daySuffix)
		if fi, err := os.Stat(path); err == nil {
			total += fi.Size()
		}
		if day > first && total <= h.most || day == h.day && h.f != nil {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.log.Warn("cannot remove old history", "path", path, "error", err)
		}
	}
}

// listDays returns the days that there are, the oldest first.
func listDays(dir string) (days []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		day, ok := strings.CutSuffix(e.Name(), daySuffix)
		if _, perr := time.Parse(dayLayout, day); ok && perr == nil {
			days = append(days, day)
		}
	}
	slices.Sort(days)
	return days, err
}

// wholeLines returns where the last whole line of a file ends, and that line's change.
func wholeLines(f *os.File) (size int64, last Change, err error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, Change{}, err
	}
	const tail = 2 * maxLine
	begin := max(0, fi.Size()-tail)
	b := make([]byte, fi.Size()-begin)
	if _, err := f.ReadAt(b, begin); err != nil && !errors.Is(err, io.EOF) {
		return 0, Change{}, err
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if end == 0 {
		return 0, Change{}, nil // no line at all, or none that was written by this program
	}
	line := b[bytes.LastIndexByte(b[:end-1], '\n')+1 : end]
	_ = json.Unmarshal(line, &last) // what cannot be read is passed over by readers too
	return begin + int64(end), last, nil
}

func lastOf(path string) (Position, error) {
	f, err := os.Open(path)
	if err != nil {
		return Position{}, err
	}
	defer f.Close()
	_, last, err := wholeLines(f)
	return last.Position, err
}

// Query says which changes are wanted. The zero Query wants all.
type Query struct {
	// Repository, and one of its images by Digest, Tag or both (either will do). Changes
	// that stand for many images are among them if they may be about it: by its repository,
	// or by one of the signers.
	Repository string
	Tag        string
	Digest     trust.Digest
	// Signers are fingerprints: of an image those by whom it is or was trusted. Without a
	// repository only what is about them is wanted.
	Signers []trust.Digest
	Since   time.Time
}

// Wants reports whether a change is wanted.
func (q *Query) Wants(c *Change) bool {
	if c.Time.Before(q.Since) {
		return false
	}
	all := q.Repository == "" && len(q.Signers) == 0
	switch {
	case all, c.Kind == Reset, c.Kind == Withdrawn, c.Kind == Restored, c.Kind == PolicyChanged:
		return true
	case q.Repository == "" || c.Kind == SignerAdded || c.Kind == SignerRemoved:
		return slices.Contains(q.Signers, c.Signer) || c.Count > 0 && c.Signer == (trust.Digest{}) && c.Repository == ""
	case c.Count > 0 && c.Repository == "": // of many repositories
		whole := q.Tag == "" && q.Digest == (trust.Digest{}) && len(q.Signers) == 0 // any of the repository's may be among them
		return whole || c.Signer == (trust.Digest{}) || slices.Contains(q.Signers, c.Signer)
	case c.Repository != q.Repository:
		return false
	}
	whole := q.Tag == "" && q.Digest == (trust.Digest{})
	return whole || c.Count > 0 || c.Digest == q.Digest || q.Tag != "" && c.Tag == q.Tag
}

// Place is where to go on in a history; its text is DAY.OFFSET. The zero Place is the
// beginning.
type Place struct {
	day    string
	offset int64
}

func (p Place) String() string {
	if p.day == "" {
		return ""
	}
	return p.day + "." + strconv.FormatInt(p.offset, 10)
}

// ParsePlace is the inverse of String.
func ParsePlace(s string) (p Place, err error) {
	if s == "" {
		return p, nil
	}
	day, offset, ok := strings.Cut(s, ".")
	if _, err = time.Parse(dayLayout, day); err == nil {
		p.offset, err = strconv.ParseInt(offset, 10, 64)
	}
	p.day = day
	if err != nil || !ok || p.offset < 0 || p.String() != s {
		return Place{}, fmt.Errorf("not a place in the history: %.80q", s)
	}
	return p, nil
}

// ReadHistory calls fn with the wanted changes in the history of a state directory, oldest
// first, from a place on, and the place after each. It reads at most so many bytes (0: all)
// and returns where it stopped; end is set if that was the end. It is for any process, and
// needs no daemon.
func ReadHistory(ctx context.Context, state string, q *Query, from Place, most int64, fn func(*Change, Place) error) (at Place, end bool, err error) {
	dir := filepath.Join(state, HistoryName)
	days, err := listDays(dir)
	if err != nil {
		return from, false, err
	}
	at = from
	first := max(from.day, q.Since.UTC().Format(dayLayout))
	read := int64(0)
	for _, day := range days {
		if day < first && !q.Since.IsZero() || day < from.day {
			continue
		}
		begin := int64(0)
		if day == from.day {
			begin = from.offset
		}
		n, err := readDay(ctx, filepath.Join(dir, day+daySuffix), begin, most-read, most > 0, func(c *Change, offset int64) error {
			if !q.Wants(c) {
				return nil
			}
			at = Place{day, offset}
			return fn(c, at)
		})
		if err == nil && n > 0 {
			at = Place{day, begin + n}
		}
		if read += n; err != nil || most > 0 && read >= most {
			return at, false, err
		}
	}
	return at, true, nil
}

// readDay reads a day's file from an offset on. A line that is not whole yet ends it; one
// that cannot be read is passed over.
func readDay(ctx context.Context, path string, begin, most int64, bounded bool, fn func(*Change, int64) error) (read int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it was too old
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Seek(begin, io.SeekStart); err != nil {
		return 0, err
	}
	b := bufio.NewReaderSize(f, maxLine)
	for n := 0; !bounded || read < most; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return read, ctx.Err()
		}
		line, err := b.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		read += int64(len(line))
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // no line of ours
			continue
		case err != nil:
			return read, err
		}
		var c Change
		if json.Unmarshal(line, &c) != nil || c.Kind == "" {
			continue
		}
		if err := fn(&c, begin+read); err != nil {
			return read, err
		}
	}
	return read, nil
}
