package changes

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// MaxHeld is how many changes a journal holds, in memory and in its file (which
// may have as many again that are about to be dropped): about 1 MB.
const MaxHeld = 2_000

// FileName is the journal's file in the state directory.
const FileName = "changes.jsonl"

// Journal holds the newest changes. There is one writer, an Observer; the other
// methods are safe for concurrent use.
type Journal struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	head header
	// held are the changes, by number without a gap; those up to dropped are
	// not held any more.
	held    []Change
	dropped Position
	file    journalFile
	history *History      // nil: none is kept
	news    chan struct{} // closed when something is added
}

// header is the first line of the file.
type header struct {
	Format  int
	CacheID string
	// Since is the first generation of which every change is held.
	Since uint64
	// Told is the generation up to which everything has been told, At (Unix
	// seconds) the time up to which what dates did has been.
	Told uint64
	At   int64
}

const fileFormat = 1

// OpenJournal opens the journal of a state directory. One that is not there or
// cannot be read begins anew.
func OpenJournal(state string, log *slog.Logger) *Journal {
	j := &Journal{path: filepath.Join(state, FileName), log: log, news: make(chan struct{})}
	head, held, err := readFile(j.path)
	if err != nil {
		log.Warn("the journal of changes begins anew", "path", j.path, "error", err)
	}
	j.head, j.held = head, held
	if n := len(held); n > 0 {
		j.dropped = Position{CacheID: head.CacheID, Number: held[0].Position.Number - 1}
		j.trim()
	}
	return j
}

// Close closes the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.history != nil {
		if err := j.history.close(); err != nil {
			return errors.Join(err, j.file.close())
		}
	}
	return j.file.close()
}

// told returns the cache id and the generation up to which all is told, and the
// time up to which what dates did is.
func (j *Journal) told() (id string, generation uint64, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.head.At != 0 {
		at = time.Unix(j.head.At, 0)
	}
	return j.head.CacheID, j.head.Told, at
}

// Begin starts a sequence at a generation of a cache; it and Add are for the one
// writer. If there was another one
// the first change is a Reset that says why.
func (j *Journal) Begin(id string, generation uint64, at time.Time, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fresh := j.head.CacheID == ""
	last := j.lastLocked().Number
	if j.head.CacheID != id {
		last = 0
	}
	j.head = header{Format: fileFormat, CacheID: id, Since: generation, Told: generation, At: at.Unix()}
	j.held, j.dropped = nil, Position{CacheID: id, Number: last}
	j.file.rewrite = true
	if fresh {
		j.saveLocked()
		return
	}
	j.addLocked([]Change{{Position: Position{Generation: generation}, Time: at, Kind: Reset, Detail: why}})
}

// Add appends changes, whose positions need only the generation.
func (j *Journal) Add(list ...Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLocked(list)
}

func (j *Journal) addLocked(list []Change) {
	number := j.lastLocked().Number
	for _, c := range list {
		number++
		c.Position.CacheID, c.Position.Number = j.head.CacheID, number
		j.held = append(j.held, c)
	}
	if j.history != nil {
		j.history.add(j.held)
	}
	j.trim()
	j.saveLocked()
	close(j.news)
	j.news = make(chan struct{})
}

// tell notes that everything up to a generation and a time has been told.
func (j *Journal) tell(generation uint64, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.head.Told != generation || j.head.At != at.Unix() {
		j.head.Told, j.head.At = generation, at.Unix()
		j.saveLocked()
	}
}

// trim drops what is too much.
func (j *Journal) trim() {
	n := len(j.held) - MaxHeld
	if n <= 0 {
		return
	}
	j.dropped = j.held[n-1].Position
	j.head.Since = max(j.head.Since, j.dropped.Generation+1)
	j.held = slices.Clone(j.held[n:])
}

// saveLocked brings the file up to date. What cannot be written is kept in
// memory and written with the next change.
func (j *Journal) saveLocked() {
	failing := j.file.failed
	if err := j.file.save(j.path, j.head, j.held); err != nil && !failing {
		j.log.Warn("cannot write the journal of changes; will retry", "path", j.path, "error", err)
	}
}

// Last is the position of the newest change, or where the journal began.
func (j *Journal) Last() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lastLocked()
}

func (j *Journal) lastLocked() Position {
	if n := len(j.held); n > 0 {
		return j.held[n-1].Position
	}
	return Position{CacheID: j.head.CacheID, Generation: j.head.Told, Number: j.dropped.Number}
}

// Newest returns the last n changes, oldest first.
func (j *Journal) Newest(n int) []Change {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.held[max(0, len(j.held)-n):])
}

// After returns the changes after a position (the zero Position is before the
// first of all), oldest first and n at most, and a
// channel that is closed when there are more. ok is false if the position is
// not held: nothing is returned then, and whoever follows has to read
// everything again and go on from Last.
func (j *Journal) After(p Position, n int) (list []Change, more <-chan struct{}, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, ok := j.findLocked(p)
	if !ok {
		return nil, j.news, false
	}
	return slices.Clone(j.held[i:min(len(j.held), i+n)]), j.news, true
}

// Missed returns how many changes after a position are not held any more.
func (j *Journal) Missed(p Position) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p.CacheID != j.head.CacheID || p.Number >= j.dropped.Number {
		return 0
	}
	return j.dropped.Number - p.Number
}

// findLocked returns the index of the first change after p.
func (j *Journal) findLocked(p Position) (int, bool) {
	if p == (Position{}) {
		return 0, j.dropped.Number == 0
	}
	if p.CacheID != j.head.CacheID || p.CacheID == "" {
		return 0, false
	}
	if p.Number == 0 {
		i := slices.IndexFunc(j.held, func(c Change) bool { return c.Position.Generation >= p.Generation })
		if i < 0 {
			i = len(j.held)
		}
		return i, p.Generation >= j.head.Since
	}
	last := j.lastLocked()
	switch {
	case p == last:
		return len(j.held), true
	case p.Number == j.dropped.Number:
		return 0, j.dropped.Generation == 0 || p == j.dropped
	case p.Number < j.dropped.Number || p.Number > last.Number:
		return 0, false
	}
	i := int(p.Number - j.dropped.Number)
	return i, j.held[i-1].Position == p
}
