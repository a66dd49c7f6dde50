package verifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"trust-worker/trust"
)

// The trust memory: what has to be remembered of policies that are gone, so that
// no removal, new name or damage widens trust. ruling.go says what follows from it.

// MemoryFile is the trust memory's name in the state directory. It is no part of
// the cache: nothing in this program deletes it.
const MemoryFile = "trust-memory.json"

const (
	memoryFormat  = 1
	maxMemoryFile = 64 << 10
)

// memoryDoc is what MemoryFile holds.
type memoryDoc struct {
	Format int `json:"format"`
	// OperatorPolicy: a policy that an operator wrote was in force, and the
	// default has not been given back by hand since.
	OperatorPolicy bool `json:"operatorPolicy"`
	// ZotPolicy: the document that zot writes was in force as it is written.
	// It bars the computed default, but not the setting that takes it for one.
	ZotPolicy bool `json:"zotPolicy"`
	// Defaults are the hashes of default documents that count as written by
	// the daemon: the last one, and the one before until the last is durable.
	Defaults []trust.Digest `json:"defaults"`
	// FirstRuled is when a policy under the first name last ruled, zero if
	// none did. On disk it may be older by firstRuledStep.
	FirstRuled time.Time `json:"firstRuled,omitzero"`
}

// firstRuledStep is how far FirstRuled on disk may lag behind, where no policy
// under the second name is newer than it says.
const firstRuledStep = time.Hour

func (d memoryDoc) equal(o memoryDoc) bool {
	return d.OperatorPolicy == o.OperatorPolicy && d.ZotPolicy == o.ZotPolicy && slices.Equal(d.Defaults, o.Defaults) && d.FirstRuled.Equal(o.FirstRuled)
}

// Memory is the trust memory of one state directory, or none. It is safe for
// concurrent use.
type Memory struct {
	mu   sync.Mutex
	path string // empty: nothing is kept beyond the process
	// readOnly: another process owns the file.
	readOnly bool
	note     string // what a person should know of it
	doc      memoryDoc
	saved    memoryDoc // what the file holds
	unsaved  bool      // whether the file holds saved is not known
	broken   bool      // the file cannot be read: it stays until a person's act renews it
}

// NewMemory returns a memory that lasts as long as the process.
func NewMemory() *Memory { return &Memory{} }

// OpenMemory opens the trust memory of a state directory for its owner, who holds
// the directory's lock, and makes it durably if there is none. withCache says that
// there is a cache which was made beside a memory: a memory that is missing then
// is lost. What is lost or cannot be read remembers the most: that an operator's
// policy was in force.
//
// last, if not nil, is the memory of the same process from before the state
// directory was removed or replaced: what it remembers is not forgotten.
func OpenMemory(state string, withCache bool, last *Memory) (*Memory, error) {
	m := &Memory{path: filepath.Join(state, MemoryFile)}
	err := m.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.unsaved = true
		if withCache {
			m.doc.OperatorPolicy = true
			m.note = m.path + " is missing beside a cache: an operator's trust policy counts as having been in force"
		}
	case err != nil:
		m.damaged(err)
	}
	if last != nil {
		last.mu.Lock()
		m.doc.OperatorPolicy = m.doc.OperatorPolicy || last.doc.OperatorPolicy
		m.doc.ZotPolicy = m.doc.ZotPolicy || last.doc.ZotPolicy
		if last.doc.FirstRuled.After(m.doc.FirstRuled) {
			m.doc.FirstRuled = last.doc.FirstRuled
		}
		if len(m.doc.Defaults) == 0 {
			m.doc.Defaults = last.doc.Defaults
		}
		last.mu.Unlock()
	}
	if !m.broken && (m.unsaved || !m.doc.equal(m.saved)) {
		if err := m.save(m.doc); err != nil {
			return nil, fmt.Errorf("make trust memory: %w", err)
		}
	}
	return m, nil
}

// ReadMemory reads the trust memory that another process owns: for commands that
// judge without a cache. withCache is as for [OpenMemory].
func ReadMemory(state string, withCache bool) *Memory {
	m := &Memory{path: filepath.Join(state, MemoryFile), readOnly: true}
	err := m.read()
	switch {
	case errors.Is(err, fs.ErrNotExist) && withCache:
		m.doc.OperatorPolicy = true
		m.note = m.path + " is missing beside a cache: an operator's trust policy counts as having been in force"
	case errors.Is(err, fs.ErrNotExist):
		m.note = "there is no trust memory in " + state + ": whether an operator's trust policy was in force is not known, and taken for no"
	case err != nil:
		m.damaged(err)
	}
	return m
}

func (m *Memory) damaged(err error) {
	m.doc, m.unsaved, m.broken = memoryDoc{OperatorPolicy: true}, true, true
	m.note = fmt.Sprintf("%s cannot be read (%v): an operator's trust policy counts as having been in force", m.path, plain(err))
}

// Note is what a person should know of the memory's condition, or "".
func (m *Memory) Note() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.note
}

func (m *Memory) read() error {
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMemoryFile+1))
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a later version's: what it says more is not known
	var doc memoryDoc
	if err := d.Decode(&doc); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || len(b) > maxMemoryFile {
		return errors.New("it has something after its end")
	}
	if doc.Format != memoryFormat {
		return fmt.Errorf("it has format %d, not %d", doc.Format, memoryFormat)
	}
	m.doc, m.saved = doc, doc
	return nil
}

// get returns what is remembered.
func (m *Memory) get() memoryDoc {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doc
}

// set remembers next, durably where it says more than that time has passed;
// newest is the latest change time of a policy under the second name. After an
// error the file may hold the former memory: nothing may rest on next.
func (m *Memory) set(next memoryDoc, newest time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" || m.readOnly {
		m.doc = next
		return nil
	}
	lag := m.saved
	lag.FirstRuled = next.FirstRuled
	step := next.FirstRuled.Sub(m.saved.FirstRuled)
	if !m.unsaved && next.equal(lag) && step >= 0 && step < firstRuledStep && !m.saved.FirstRuled.Before(newest) {
		m.doc = next
		return nil
	}
	if m.broken && next.equal(m.doc) {
		return nil
	}
	return m.save(next)
}

// save replaces the file: its bytes, its name, and the directory are synced.
func (m *Memory) save(next memoryDoc) error {
	next.Format = memoryFormat
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	m.unsaved = true
	if err := renameio.WriteFile(m.path, append(b, '\n'), 0o640, renameio.WithTempDir(filepath.Dir(m.path)), renameio.WithStaticPermissions(0o640)); err != nil {
		return err
	}
	if err := syncDirectory(filepath.Dir(m.path)); err != nil {
		return err
	}
	m.doc, m.saved, m.unsaved, m.broken, m.note = next, next, false, false, ""
	return nil
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
