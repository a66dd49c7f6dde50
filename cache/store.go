package cache

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Buckets of the private store. Numbers are 8 bytes big endian, places are
// repositories by number.
var (
	privMeta     = []byte("meta")     // name → number
	privSigners  = []byte("signers")  // id (4) → Signer
	privPolicies = []byte("policies") // id (4) → hash (32)
	privAuthors  = []byte("authors")  // id (4) → text
	privAuthorID = []byte("authorid") // SHA-256 of text → id (4)
	privPlaces   = []byte("places")   // name → Place
	privPlaceIDs = []byte("placeids") // place → name
	privRows     = []byte("rows")     // place, digest → Row
	privTags     = []byte("tags")     // place, tag → digest
	privDigests  = []byte("digests")  // digest, place → 1
	privKinds    = []byte("kinds")    // digest → Kind
	privFacts    = []byte("facts")    // subject, signature[, context (16)] → Fact
	privIndex    = []byte("index")    // hint (9), fact → 1
	privFactIDs  = []byte("factids")  // fact → fact key
	privOrphans  = []byte("orphans")  // fact key → Unix seconds since it has no place
	privDue      = []byte("due")      // Unix seconds, place, subject → 1
	privMarks    = []byte("marks")    // the scheduler's name → 1: work that is done
	privChanged  = []byte("changed")  // kind (1), published key → sequence

	privateBuckets = [][]byte{privMeta, privSigners, privPolicies, privAuthors, privAuthorID, privPlaces, privPlaceIDs,
		privRows, privTags, privDigests, privKinds, privFacts, privIndex, privFactIDs, privOrphans, privDue, privMarks, privChanged}
)

// Names in the bucket meta.
const (
	metaFormat     = "format"
	metaID         = "id"
	metaGeneration = "generation"
	metaTrust      = "trust"    // the trust generation: counts changes of the set of signers
	metaSequence   = "sequence" // counts commits
	metaFolding    = "folding"  // 1: a base is being made from untracked changes
	metaFull       = "full"     // 1: changes are no longer tracked; the next publication is a base
)

// privateFormat is raised when the private store changes; another is rebuilt.
const privateFormat = 1

// DefaultLease is how long a publication is believed without confirmation.
const DefaultLease = 5 * time.Minute

// retention is how long a superseded published file stays: a reader that has
// read CURRENT has this long to open what it names.
const retention = 30 * time.Second

// LockedError is returned by Open when another process holds the state.
type LockedError struct {
	State string
	PID   int // 0 when unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("state directory %s is in use by another trust-worker", e.State)
	}
	return fmt.Sprintf("state directory %s is in use by trust-worker with pid %d; to make it look again use: kill -USR1 %d", e.State, e.PID, e.PID)
}

// Options configure a Store.
type Options struct {
	// Lease is written into each publication: how long readers believe it
	// without confirmation. 0 means DefaultLease, negative means for ever
	// (a one-shot scan).
	Lease time.Duration
	// Epoch is the verifier's; facts of another are looked at again.
	Epoch uint32
	// MaxFiled bounds the candidate rows of one repository; 0 means 100,000.
	MaxFiled int64
	Log      *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
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

	write sync.Mutex // held over a write transaction and the dictionary's keep
	dict  *dictionary

	pub publisher
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
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{dir: dir, opts: opts}
	for _, d := range []string{dir, filepath.Join(dir, publishedDir)} {
		if err := makeDir(d, 0o750); err != nil {
			return nil, err
		}
	}
	if err := makeDir(filepath.Join(dir, privateDir), 0o700); err != nil {
		return nil, err
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	err := s.open()
	if errors.Is(err, ErrDamaged) { // met only after opening: begin with a new one
		if err = s.setAside(err.Error()); err == nil {
			err = s.open()
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
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

// closeDB closes the database, unless that could wait for ever: then the file
// stays mapped until the process ends, which is soon or costs one file.
func (s *Store) closeDB() error {
	db := s.db
	s.db = nil
	if db == nil || s.abandoned.Swap(false) {
		return nil
	}
	return db.Close()
}

// makeDir makes dir, below a parent that has to exist: a state directory on a
// file system that is not mounted must not be made elsewhere silently.
func makeDir(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make state directory: %w (choose another with --state)", err)
	}
	return nil
}

// takeLock locks <state>/lock, which is never removed, so that a removed and
// re-created database cannot give two daemons one state directory.
func (s *Store) takeLock() error {
	path := filepath.Join(s.dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := HolderPID(s.dir)
		return errors.Join(&LockedError{State: s.dir, PID: pid}, f.Close())
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			s.opts.Log.Warn("cannot write pid to lock file", "path", path, "error", err)
		}
	}
	s.lock = f
	return nil
}

// HolderPID returns the pid written in the lock file of a state directory, or
// 0. It does not say that the process is alive; see [Alive].
func HolderPID(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// Alive reports whether a process holds the state directory's lock.
func Alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return true
	}
	return false
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

func (s *Store) privatePath() string { return filepath.Join(s.dir, privateDir, "cache.db") }
func (s *Store) markerPath() string  { return filepath.Join(s.dir, privateDir, "opening") }

// openPrivate opens the database, or sets it aside and makes another. bbolt
// can panic in a goroutine of its own while it opens a damaged file, which no
// recover catches; so the attempt is marked first, and a mark that is found
// means that the last attempt did not come back.
func (s *Store) openPrivate() error {
	path := s.privatePath()
	_, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if _, err := os.Stat(s.markerPath()); err == nil && !missing {
		if err := s.setAside("the last attempt to open it did not finish"); err != nil {
			return err
		}
		missing = true
	}
	if missing {
		if err := s.create(); err != nil {
			return err
		}
	}
	// Without its mark an attempt is only less protected: a full disk must
	// not keep the daemon from starting.
	if err := os.WriteFile(s.markerPath(), nil, 0o600); err != nil {
		s.opts.Log.Warn("cannot mark the opening of the cache", "error", err)
	}
	if err = s.tryOpen(); err == nil {
		err = s.compact()
	}
	if errors.Is(err, ErrDamaged) {
		if err := s.setAside(err.Error()); err != nil {
			return err
		}
		if err = s.create(); err == nil {
			err = s.tryOpen()
		}
	}
	if rmErr := os.Remove(s.markerPath()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		s.opts.Log.Warn("cannot remove the opening mark", "error", rmErr)
	}
	return err
}

// tryOpen opens and reads what every later operation relies on. Any failure
// that is not the operating system's is ErrDamaged.
func (s *Store) tryOpen() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic while opening: %v", ErrDamaged, p)
		}
		if err != nil && s.db != nil {
			_ = s.closeDB() // the file is about to be set aside
		}
	}()
	db, err := bbolt.Open(s.privatePath(), 0o600, &bbolt.Options{
		Timeout:         2 * time.Second,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 256 << 20, // reserves addresses, not space: fewer remaps, which wait for readers
	})
	var errno unix.Errno
	switch {
	case err == nil:
	case errors.As(err, &errno) || errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open private cache: %w", err)
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s.db = db
	return db.View(func(tx *bbolt.Tx) error {
		for _, name := range privateBuckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name)
			}
		}
		if f := getMeta(tx, metaFormat); f != privateFormat {
			return fmt.Errorf("%w: private format is %d, this program's is %d", ErrDamaged, f, privateFormat)
		}
		s.dict, err = loadDictionary(tx)
		return err
	})
}

// compactAbove is the size below which compaction is not worth it.
const compactAbove = 16 << 20

// compact rewrites the database when more than half of it is free: copy,
// fsync, rename. It is done at start, when nobody waits for a transaction.
func (s *Store) compact() error {
	path := s.privatePath()
	fi, err := os.Stat(path)
	if err != nil || fi.Size() < compactAbove {
		return err
	}
	if free := int64(s.db.Stats().FreePageN) * int64(s.db.Info().PageSize); free < fi.Size()/2 {
		return nil
	}
	start := time.Now()
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dst, err := bbolt.Open(tmp, 0o600, &bbolt.Options{NoSync: true, Timeout: time.Second})
	if err == nil {
		err = bbolt.Compact(dst, s.db, 16<<20)
		err = errors.Join(err, dst.Sync(), dst.Close())
	}
	if err != nil {
		// A full disk must not keep the daemon from starting.
		s.opts.Log.Warn("cannot compact the private cache", "error", errors.Join(err, os.Remove(tmp)))
		return nil
	}
	if err := s.closeDB(); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(tmp, path), syncDir(filepath.Dir(path))); err != nil {
		return err
	}
	after, err := os.Stat(path)
	if err != nil {
		return err
	}
	s.opts.Log.Info("private cache compacted", "from", fi.Size(), "to", after.Size(), "took", time.Since(start))
	return s.tryOpen()
}

// create makes the database under another name first: a power failure during
// bbolt's first initialisation would leave a file that never opens again.
func (s *Store) create() error {
	path := s.privatePath()
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create private cache: %w", err)
	}
	db, err := bbolt.Open(tmp, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("create private cache: %w", err)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return errors.Join(fmt.Errorf("create private cache: %w", err), db.Close())
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range privateBuckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			putMeta(tx, metaFormat, privateFormat),
			putMeta(tx, metaID, binary.BigEndian.Uint64(id[:])),
			putMeta(tx, metaFull, 1),
		)
	})
	err = errors.Join(err, db.Sync(), db.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("create private cache: %w", err)
	}
	return nil
}

// setAside moves the database away, keeping one damaged copy for a look.
func (s *Store) setAside(why string) error {
	s.rebuilt = why
	path := s.privatePath()
	s.opts.Log.Error("private cache set aside and rebuilt", "reason", why, "kept", path+".damaged")
	if err := os.Rename(path, path+".damaged"); err != nil {
		return fmt.Errorf("set damaged cache aside: %w", err)
	}
	return nil
}

// MarkDamaged makes the next Open set the private store aside. It is for
// damage that is met while running: close, then open again.
func (s *Store) MarkDamaged() error { return os.WriteFile(s.markerPath(), nil, 0o600) }

// Close releases the lock; Run must have returned. What is published stays and
// is believed until its lease ends.
func (s *Store) Close() error {
	return errors.Join(s.closeDB(), s.lock.Close())
}

// view runs fn in a read transaction with damage turned into ErrDamaged.
func (s *Store) view(fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.abandon(&err)
	return s.db.View(fn)
}

func (s *Store) update(fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.abandon(&err)
	return s.db.Update(fn)
}

// abandon is recoverDamage for the private database.
func (s *Store) abandon(err *error) {
	if p := recover(); p != nil {
		s.abandoned.Store(true)
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// recoverDamage turns a panic below into ErrDamaged: bbolt panics on a page
// that cannot be, and a truncated mapping faults.
func recoverDamage(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

func getMeta(tx *bbolt.Tx, name string) uint64 {
	b, ok, err := unseal([]byte(name), tx.Bucket(privMeta).Get([]byte(name)))
	if !ok || err != nil || len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func putMeta(tx *bbolt.Tx, name string, n uint64) error {
	return tx.Bucket(privMeta).Put([]byte(name), seal([]byte(name), number(n)))
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// TrustGeneration counts the changes of the set of signers. A verdict without
// a ground, made under this generation, need not be made again.
func (s *Store) TrustGeneration() uint64 { return s.dict.trustGeneration() }

// ID returns the random id of this cache; a rebuilt one has another.
func (s *Store) ID() uint64 {
	var id uint64
	if err := s.view(func(tx *bbolt.Tx) error { id = getMeta(tx, metaID); return nil }); err != nil {
		return 0
	}
	return id
}
