package truststore

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
	"syscall"
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
	maxMemoryFile = 1 << 20
)

// memoryDoc is what MemoryFile holds. Every member is written, and has to be there.
type memoryDoc struct {
	Format int `json:"format"`
	// OperatorPolicy: a policy that an operator wrote was in force, and the
	// default has not been given back by hand since.
	OperatorPolicy bool `json:"operatorPolicy"`
	// OperatorFile is the hash of the operator's policy that last ruled. It stays
	// the operator's whatever the default comes to be.
	OperatorFile trust.Digest `json:"operatorFile"`
	// ZotPolicy: the document that zot writes was in force as it is written.
	// It bars the computed default, but not the setting that takes it for one.
	ZotPolicy bool `json:"zotPolicy"`
	// Defaults are the hashes of default documents that count as written by
	// the daemon: the last one, and the one before until the last is durable.
	Defaults []trust.Digest `json:"defaults"`
	// FirstRuled is when a policy under the first name last ruled, zero if
	// none did; on disk it may be older by firstRuledStep. Shadowed is the hash of
	// what stood under the second name then, ShadowedWritten when that was written.
	FirstRuled      time.Time    `json:"firstRuled"`
	Shadowed        trust.Digest `json:"shadowed"`
	ShadowedWritten time.Time    `json:"shadowedWritten"`
	// Scopes narrow who may sign where, as they were last in force, and ScopesFile is
	// the configuration that they came from.
	Scopes     []trust.Narrowing `json:"scopes"`
	ScopesFile string            `json:"scopesFile"`
	// LostAt is when it was found that a former memory is lost, zero if none was:
	// a default that was there by then is nobody's explicit act.
	LostAt time.Time `json:"lostAt"`
}

// memoryMembers are the names of memoryDoc's members.
var memoryMembers = []string{"format", "operatorPolicy", "operatorFile", "zotPolicy", "defaults", "firstRuled", "shadowed", "shadowedWritten", "scopes", "scopesFile", "lostAt"}

// firstRuledStep is how far FirstRuled on disk may lag behind.
const firstRuledStep = time.Hour

// equal leaves FirstRuled aside, which moves with the clock.
func (d memoryDoc) equal(o memoryDoc) bool {
	return d.OperatorPolicy == o.OperatorPolicy && d.OperatorFile == o.OperatorFile && d.ZotPolicy == o.ZotPolicy &&
		slices.Equal(d.Defaults, o.Defaults) && d.FirstRuled.IsZero() == o.FirstRuled.IsZero() && d.Shadowed == o.Shadowed && d.ShadowedWritten.Equal(o.ShadowedWritten) && d.LostAt.Equal(o.LostAt) &&
		slices.Equal(d.Scopes, o.Scopes) && d.ScopesFile == o.ScopesFile
}

// Memory is the trust memory of one state directory, or none. It is safe for
// concurrent use.
type Memory struct {
	path string // empty: nothing is kept beyond the process
	// readOnly: another process owns the file.
	readOnly bool

	saving sync.Mutex // held while the file is written; taken before mu
	mu     sync.Mutex // guards what follows; nothing long is done under it
	note   string     // what a person should know of it
	fresh  bool       // there was none, and nothing says that there should be
	doc    memoryDoc
	saved  memoryDoc // what the file holds
	// unsaved: whether the file holds saved is not known. broken: it cannot be
	// read, and stays until a person's act renews it.
	unsaved, broken bool
	// narrowed: scopes may have been in force, and which is not known.
	narrowed bool
}

// NewMemory returns a memory that lasts as long as the process.
func NewMemory() *Memory { return &Memory{} }

// OpenMemory opens the trust memory of a state directory for its owner, who holds
// the directory's lock, and makes it durably if there is none. withCache says that
// there is a cache which was made beside a memory: a memory that is missing then
// is lost. What is lost or cannot be read remembers the most: that an operator's
// policy was in force, and that no default that is there is an explicit act.
//
// last, if not nil, is the memory of the same process from before the state
// directory was removed or replaced: what it remembers is not forgotten.
func OpenMemory(state string, withCache bool, last *Memory) (*Memory, error) {
	m := &Memory{path: filepath.Join(state, MemoryFile)}
	m.open(withCache)
	m.fresh = m.fresh && last == nil
	if last != nil {
		was := last.get()
		m.doc.OperatorPolicy = m.doc.OperatorPolicy || was.OperatorPolicy
		m.doc.ZotPolicy = m.doc.ZotPolicy || was.ZotPolicy
		if was.FirstRuled.After(m.doc.FirstRuled) {
			m.doc.FirstRuled, m.doc.Shadowed, m.doc.ShadowedWritten = was.FirstRuled, was.Shadowed, was.ShadowedWritten
		}
		if m.doc.OperatorFile == (trust.Digest{}) {
			m.doc.OperatorFile = was.OperatorFile
		}
		if len(m.doc.Defaults) == 0 {
			m.doc.Defaults = was.Defaults
		}
		if len(m.doc.Scopes) == 0 {
			m.doc.Scopes, m.doc.ScopesFile = was.Scopes, was.ScopesFile
		}
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
	m.open(withCache)
	return m
}

// open reads the file, or says what it means that this is not possible.
func (m *Memory) open(withCache bool) {
	switch err := m.read(); {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		m.lost(fmt.Sprintf("cannot be read (%v)", plain(err)))
		m.broken = true
		m.narrowed = true
	case withCache:
		m.lost("is missing beside a cache")
	default:
		m.unsaved, m.fresh = true, true
	}
}

func (m *Memory) lost(why string) {
	m.doc, m.unsaved = memoryDoc{OperatorPolicy: true, LostAt: time.Now().Add(clockGrain)}, true
	m.note = fmt.Sprintf("%s %s: an operator's trust policy counts as having been in force", m.path, why)
}

// Note is what a person should know of the memory's condition, or "".
func (m *Memory) Note() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh {
		return filepath.Dir(m.path) + " has no record of an earlier trust policy, as at a first start; if a policy has been lost, restore it"
	}
	return m.note
}

// Fresh reports whether there was no memory, and nothing says that there should be.
func (m *Memory) Fresh() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fresh
}

func (m *Memory) read() error {
	f, err := os.OpenFile(m.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errors.Join(err, errors.New("it is not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxMemoryFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxMemoryFile {
		return errors.New("it is too large")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	for _, name := range memoryMembers {
		if _, ok := members[name]; !ok {
			return fmt.Errorf("it lacks %s", name)
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a later version's: what it says more is not known
	var doc memoryDoc
	if err := d.Decode(&doc); err != nil {
		return err
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

// ErrNotNarrowed: the configuration no longer says who may sign where, and did. Leaving
// the setting out would trust more; writing it, even as [], is the act that does.
var ErrNotNarrowed = errors.New("the configuration has no trustWorker.scopes")

// Narrow remembers the scopes of a configuration, durably before they are in force.
// written says that the configuration has the setting, if only as an empty list. Of what
// was in force and is no longer, lost says one sentence for each prefix.
func (m *Memory) Narrow(scopes []trust.Narrowing, written bool, file string) (lost []string, err error) {
	was := m.get()
	if !written {
		switch {
		case len(was.Scopes) > 0:
			return nil, fmt.Errorf("%w, and %s narrowed who may sign: restore the setting, or write scopes: [] if nothing is to be narrowed any more", ErrNotNarrowed, was.ScopesFile)
		case m.Narrowing() != "":
			return nil, fmt.Errorf("%w, and %s was lost or cannot be read, so that narrowing may have been in force: write trustWorker.scopes, if only as []", ErrNotNarrowed, m.path)
		}
		return nil, nil
	}
	for _, old := range was.Scopes {
		now := trust.Narrowing{Prefix: old.Prefix}
		for _, n := range scopes {
			if n.Prefix == old.Prefix {
				now.Alone, now.Require = now.Alone || n.Alone, max(now.Require, n.Require)
			}
		}
		if old.Alone && !now.Alone {
			lost = append(lost, fmt.Sprintf("%s no longer stands alone: keys and identities from above it count again", showPrefix(old.Prefix)))
		}
		if old.Require > max(1, now.Require) {
			lost = append(lost, fmt.Sprintf("%s now requires %d of the %d signers that it required", showPrefix(old.Prefix), max(1, now.Require), old.Require))
		}
	}
	next := was
	next.Scopes, next.ScopesFile = slices.Clone(scopes), file
	if len(scopes) == 0 {
		next.ScopesFile = ""
	}
	if m.Narrowing() == m.path && m.path != "" { // a person's act renews a file that cannot be read
		m.saving.Lock()
		err = m.save(next)
		m.saving.Unlock()
	} else {
		err = m.set(was, next)
	}
	if err != nil {
		return nil, fmt.Errorf("remember trustWorker.scopes: %w", err)
	}
	m.mu.Lock()
	m.narrowed = false
	m.mu.Unlock()
	return lost, nil
}

// NarrowedOnce has a memory that was lost beside a cache remember that scopes were in
// force, which the cache's last publication shows.
func (m *Memory) NarrowedOnce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.doc.Scopes) == 0 && !m.doc.LostAt.IsZero() {
		m.narrowed = true
	}
}

// Scopes returns those that were last in force.
func (m *Memory) Scopes() []trust.Narrowing { return slices.Clone(m.get().Scopes) }

// Narrowing returns the file whose scopes were last in force, or may have been, "" if
// none were.
func (m *Memory) Narrowing() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.doc.Scopes) == 0 && m.narrowed {
		return m.path
	}
	return m.doc.ScopesFile
}

func showPrefix(prefix string) string {
	if prefix == "" {
		return "the whole storage"
	}
	return prefix
}

// errMemoryChanged: somebody else has set the memory since it was got.
var errMemoryChanged = errors.New("the trust memory has changed meanwhile")

// set remembers next in place of was, durably where it says more than that time has
// passed. After an error the file may hold the former memory: nothing may rest on
// next.
func (m *Memory) set(was, next memoryDoc) error {
	if durable, err := m.keep(was, next); durable || err != nil {
		return err
	}
	m.saving.Lock()
	defer m.saving.Unlock()
	if durable, err := m.keep(was, next); durable || err != nil { // somebody else's turn is over
		return err
	}
	return m.save(next)
}

// lags reports whether the file is behind by what only time makes different.
func (m *Memory) lags() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.path != "" && !m.readOnly && !m.unsaved && m.doc.FirstRuled.Sub(m.saved.FirstRuled).Abs() >= firstRuledStep
}

// catchUp writes that.
func (m *Memory) catchUp() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if !m.lags() {
		return nil
	}
	return m.save(m.get())
}

// keep remembers next without the file where that is enough.
func (m *Memory) keep(was, next memoryDoc) (enough bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.doc.equal(was) {
		return false, errMemoryChanged
	}
	switch {
	case m.path == "" || m.readOnly:
	case m.broken && next.equal(m.doc):
	case !m.unsaved && next.equal(m.saved): // only time has passed: see lags
	default:
		return false, nil
	}
	m.doc = next
	return true, nil
}

// save replaces the file: its bytes, its name, and the directory are synced. saving is
// held, or nobody else has the memory yet.
func (m *Memory) save(next memoryDoc) error {
	next.Format = memoryFormat
	if next.Defaults == nil {
		next.Defaults = []trust.Digest{}
	}
	if next.Scopes == nil {
		next.Scopes = []trust.Narrowing{}
	}
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.unsaved = true
	m.mu.Unlock()
	dir := filepath.Dir(m.path)
	if err := renameio.WriteFile(m.path, append(b, '\n'), 0o640, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o640)); err != nil {
		return err
	}
	if err := syncDirectory(dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
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
