package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
)

// Buckets of the private store. Numbers are 8 bytes big endian, places are
// repositories by number.
var (
	privMeta     = []byte("meta")     // name → number
	privSigners  = []byte("signers")  // signer (16) → Signer: in force, or left
	privAuthors  = []byte("authors")  // author (16) → text
	privPlaces   = []byte("places")   // name → Place
	privPlaceIDs = []byte("placeids") // place → name
	privRows     = []byte("rows")     // place, digest → Row
	privTags     = []byte("tags")     // place, tag → digest
	privDigests  = []byte("digests")  // digest, place → the repository's name
	privKinds    = []byte("kinds")    // place, digest → Kind
	privFacts    = []byte("facts")    // subject, signature[, context (16)] → Fact
	privIndex    = []byte("index")    // hint (9), fact → 1
	privFactIDs  = []byte("factids")  // fact → fact key
	privOrphans  = []byte("orphans")  // fact key → Unix seconds since it has no place
	privDue      = []byte("due")      // Unix seconds, place, subject → 1: a retry
	privMarks    = []byte("marks")    // the scheduler's checkpoints, by name → 1
	privChanged  = []byte("changed")  // sequence, bucket (1), published key → nothing: to be published

	privateBuckets = [][]byte{privMeta, privSigners, privAuthors, privPlaces, privPlaceIDs,
		privRows, privTags, privDigests, privKinds, privFacts, privIndex, privFactIDs, privOrphans, privDue, privMarks, privChanged}
)

// Names in the bucket meta.
const (
	metaFormat     = "format"
	metaID         = "id"
	metaGeneration = "generation" // what CURRENT named at the last commit, or as changes were forgotten
	metaTrust      = "trust"      // the trust generation: counts changes of the set of signers
	metaInForce    = "inforce"    // format.SignersSum of the signers in force
	metaPolicies   = "policies"   // format.PoliciesSum of the statements in force
	metaSequence   = "sequence"   // counts commits
	metaSlow       = "slow"       // Unix seconds of the last slow pass that came to its end
	metaWhole      = "whole"      // 1: storage was read to its end
	metaFull       = "full"       // the sequence up to which only a new base publishes everything
	metaUnfiled    = "unfiled"    // facts that are not in the index for want of room
)

// privateFormat is raised when the private store changes; another is rebuilt.
const privateFormat = 9

// DefaultLease is how long a publication is believed without confirmation.
const DefaultLease = 5 * time.Minute

// retention is how long a superseded published file stays: a reader that has
// read CURRENT has this long to open what it names.
const retention = 30 * time.Second

// Options configure a Store.
type Options struct {
	// Lease is written into each publication: how long readers believe it
	// without confirmation. 0 means DefaultLease, negative means for ever
	// (a one-shot scan).
	Lease time.Duration
	// MaxFiled bounds the candidate rows of one repository; 0 means 100,000.
	MaxFiled int64
	Log      *slog.Logger
	// Anew sets the private store aside that is there, damaged or not.
	Anew bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Begin, if not nil, is called by Open once it holds the lock of the state
	// directory and before it makes anything in it.
	Begin func() error
	// InTransaction, if not nil, is called within each write transaction. Tests
	// of other packages hold the store with it.
	InTransaction func()
	// ShareSteps, if not 0, is how many steps CommitSome takes of one batch in a
	// transaction, whatever the time.
	ShareSteps int

	// fewBytes and compactAbove are the constants of these names; tests lower
	// them to have a small cache do what a large one does.
	fewBytes, compactAbove int64
	partKeys               int
	retention              time.Duration
}

// Store is the writer's side: the private database and what is published from
// it. There is one per state directory at a time, held by a file lock.
// Methods are safe for concurrent use.
type Store struct {
	dir     string
	opts    Options
	lock    *os.File
	db      *bbolt.DB
	rebuilt string

	// abandoned is set when bbolt has panicked: its locks may be held for
	// ever, and closing would wait for them.
	abandoned atomic.Bool

	// write is held over a write transaction. It is never waited for while pub.mu is
	// held.
	write           sync.Mutex
	trustGeneration atomic.Uint64
	// record serialises RecordTrust and guards recordUnsure: whether the last
	// one may be in the store though it failed. whole serialises SetWhole. Both
	// are taken before write.
	record, whole sync.Mutex
	recordUnsure  bool

	// named are the texts of authors and identities that facts name, while Prune finds
	// out which: those that it has come by, and those that were named meanwhile. write
	// guards it.
	named map[format.AuthorKey]bool

	pub publisher

	failUpdate func() error // tests: what a write transaction ends with
}

// Open takes the lock of the state directory and opens its private store,
// making it when there is none. A store that is damaged or of another format
// is set aside and made anew; Rebuilt then says why.
func Open(dir string, opts Options) (*Store, error) {
	if opts.Lease == 0 {
		opts.Lease = DefaultLease
	}
	if opts.MaxFiled == 0 {
		opts.MaxFiled = 100_000
	}
	if opts.partKeys == 0 {
		opts.partKeys = partKeys
	}
	if opts.fewBytes == 0 {
		opts.fewBytes = fewBytes
	}
	if opts.compactAbove == 0 {
		opts.compactAbove = compactAbove
	}
	if opts.retention == 0 {
		opts.retention = retention
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{dir: dir, opts: opts}
	if _, err := os.Lstat(filepath.Join(dir, format.ReplicaName)); err == nil {
		return nil, replicaError(dir)
	}
	for _, d := range []string{dir, filepath.Join(dir, format.PublishedDir)} {
		if err := makeDir(d, 0o750); err != nil {
			return nil, err
		}
	}
	if err := makeDir(filepath.Join(dir, format.PrivateDir), 0o700); err != nil {
		return nil, err
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, format.ReplicaName)); err == nil { // it has just come
		return nil, errors.Join(replicaError(dir), s.lock.Close())
	}
	var err error
	if opts.Begin != nil {
		err = opts.Begin()
	}
	if err == nil {
		err = s.syncDirs()
	}
	if err == nil {
		err = s.open()
	}
	if errors.Is(err, format.ErrDamaged) { // met only after opening: begin with a new one
		if err = s.setAside(slog.LevelError, err.Error()); err == nil {
			err = s.open()
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func replicaError(dir string) error {
	return fmt.Errorf("state directory %s is a replica's (it has %s): give a worker another", dir, format.ReplicaName)
}

// open opens the private store and starts from what is published. On an error
// nothing is left open.
func (s *Store) open() error {
	if err := s.openPrivate(); err != nil {
		return err
	}
	if err := s.openPublished(); err != nil {
		return errors.Join(err, s.closeDB())
	}
	return nil
}

// makeDir makes dir, below a parent that has to exist: a state directory on a
// file system that is not mounted must not be made elsewhere silently.
func makeDir(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// syncDirs makes the directories last: without their names a power cut takes all
// that is in them. Also when they were there: whoever made them may have been
// killed before this. The one above may be somebody else's, and unreadable.
func (s *Store) syncDirs() error {
	if err := format.SyncDir(s.dir); err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	if err := format.SyncDir(filepath.Dir(filepath.Clean(s.dir))); err != nil {
		s.opts.Log.Warn("cannot sync the directory above the state directory", "error", err)
	}
	return nil
}

func (s *Store) takeLock() error {
	lock, noted, err := format.Lock(s.dir)
	if errors.Is(err, format.ErrLocked) {
		return &LockedError{State: s.dir, PID: format.Holder(s.dir)}
	}
	if noted != nil {
		s.opts.Log.Warn("cannot write pid to lock file", "error", noted)
	}
	s.lock = lock
	return err
}

// ErrStateGone is returned by a Store whose state directory was removed or
// replaced since it was opened: another process may have taken the new one. It is
// of no use any more; close it and open another.
var ErrStateGone = errors.New("state directory was removed or replaced while it was in use")

// owned returns ErrStateGone unless the lock held is that of the state directory
// and there is a place to publish in.
func (s *Store) owned() error {
	holds, err := format.Holds(s.lock, s.dir)
	if err == nil && holds {
		_, err = os.Stat(s.publishedPath())
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && !holds {
		return fmt.Errorf("%w: %s", ErrStateGone, s.dir)
	}
	return err
}

// Sequence counts commits: it is that of the last one.
func (s *Store) Sequence() (seq uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error { seq = getMeta(tx, metaSequence); return nil })
	return seq, err
}

// SlowPass returns when the last slow pass over storage began that came to its end,
// zero if none did.
func (s *Store) SlowPass() (at time.Time, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if n := getMeta(tx, metaSlow); n != 0 {
			at = time.Unix(int64(n), 0)
		}
		return nil
	})
	return at, err
}

// NoteSlowPass notes that one has come to its end which began at that time.
func (s *Store) NoteSlowPass(began time.Time) error {
	s.write.Lock()
	defer s.write.Unlock()
	return s.update(func(tx *bbolt.Tx) error { return putMeta(tx, metaSlow, uint64(began.Unix())) })
}

// Rebuilt says why the private store was made anew, or "".
func (s *Store) Rebuilt() string { return s.rebuilt }

// PrivateSize returns the private database's size on disk in bytes.
func (s *Store) PrivateSize() int64 {
	fi, err := os.Stat(s.privatePath())
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (s *Store) privatePath() string { return filepath.Join(s.dir, format.PrivateDir, "cache.db") }

// PrivatePath is where a file of the daemon's own lies that is no part of the cache.
func (s *Store) PrivatePath(name string) string { return filepath.Join(s.dir, format.PrivateDir, name) }

func (s *Store) markerPath() string { return filepath.Join(s.dir, format.PrivateDir, "opening") }

// Close releases the lock; Run must have returned. What is published stays and
// is believed until its lease ends.
func (s *Store) Close() error {
	return errors.Join(s.closeDB(), s.lock.Close())
}

// getMeta returns a number, 0 if there is none. Damage panics, as it does in bbolt:
// view and update make an error of either.
func getMeta(tx *bbolt.Tx, name string) uint64 {
	b, ok, err := format.Unseal([]byte(name), tx.Bucket(privMeta).Get([]byte(name)))
	switch {
	case err != nil:
		panic(err)
	case !ok || len(b) != 8:
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func putMeta(tx *bbolt.Tx, name string, n uint64) error {
	return tx.Bucket(privMeta).Put([]byte(name), format.Seal([]byte(name), format.Number(n)))
}

// TrustGeneration counts the changes of the set of signers. A verdict without
// a ground, made under this generation, need not be made again.
func (s *Store) TrustGeneration() uint64 { return s.trustGeneration.Load() }

// readTrustState reads what is remembered of the trust in force.
func (s *Store) readTrustState(tx *bbolt.Tx) (err error) {
	s.trustGeneration.Store(getMeta(tx, metaTrust))
	s.pub.signers, err = readSigners(tx)
	return err
}

// ID returns the random id of this cache; a rebuilt one has another.
func (s *Store) ID() uint64 {
	var id uint64
	if err := s.view(func(tx *bbolt.Tx) error { id = getMeta(tx, metaID); return nil }); err != nil {
		return 0
	}
	return id
}
