package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/cache/cachepb"
)

// ErrNotFound is returned for a repository, tag or digest that the cache does
// not know.
var ErrNotFound = errors.New("not in the cache")

// ErrUnlisted is the ErrNotFound of what may well be in storage: its repository,
// or a directory above it, could not be listed. It is not known, as opposed to
// not there.
var ErrUnlisted = fmt.Errorf("%w, and its repository could not be listed", ErrNotFound)

// ErrClosed is returned by a Reader that was closed.
var ErrClosed = errors.New("reader is closed")

// Option configures a Reader.
type Option func(*Reader)

// WithMaxAge makes answers read unknown/stale once the daemon's last
// confirmation is older than d, if that is sooner than the publication's own
// lease.
func WithMaxAge(d time.Duration) Option { return func(r *Reader) { r.maxAge = d } }

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option { return func(r *Reader) { r.now = now } }

// Reader reads what a trust-worker publishes in a state directory, from any
// process. It is safe for concurrent use, never writes, and neither blocks the
// daemon nor is blocked by it. A look-up costs a readlink, which notices a new
// generation, and one or two page walks in mapped files.
type Reader struct {
	dir    string
	link   string // CURRENT
	maxAge time.Duration
	now    func() time.Time

	load sync.Mutex // held while a new generation is opened

	mu     sync.Mutex // guards what follows and every refs
	cur    *generation
	closed bool
	idle   sync.WaitGroup // closes in the background
}

// generation is one publication, open.
type generation struct {
	target string
	current
	base, delta *file // delta may be nil
	trust       *trustFile
	trustPath   string
	refs        int

	// The lease, guarded by Reader.mu: the last confirmation known, and when
	// it was looked at (monotonic).
	confirmed time.Time
	looked    time.Time
}

// confirmEvery is how often a reader looks at the confirmation: the daemon
// renews it at least every 10 s.
const confirmEvery = time.Second

// OpenReader opens the state directory of a trust-worker for reading. It does
// not fail when nothing is published yet: look-ups return ErrNoCache until
// something is.
func OpenReader(state string, options ...Option) (*Reader, error) {
	r := &Reader{dir: filepath.Join(state, publishedDir), now: time.Now}
	r.link = filepath.Join(r.dir, currentName)
	for _, o := range options {
		o(r)
	}
	if _, err := os.Stat(state); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return r, nil
}

// Close releases the files once the last Snapshot is closed.
func (r *Reader) Close() error {
	r.mu.Lock()
	g := r.cur
	r.cur, r.closed = nil, true
	if g != nil {
		r.releaseLocked(g)
	}
	r.mu.Unlock()
	r.idle.Wait()
	return nil
}

// Snapshot returns one consistent generation. Close it soon: it keeps files
// open. Its answers are as of AsOf; take a new one for each search.
func (r *Reader) Snapshot() (s *Snapshot, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverDamage(&err)
	g, err := r.acquire()
	if err != nil {
		return nil, err
	}
	s = &Snapshot{r: r, g: g, scratch: scratches.Get().(*scratch)}
	if s.base, err = g.base.take(); err == nil && g.delta != nil {
		s.delta, err = g.delta.take()
	}
	if err == nil {
		err = s.begin()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// acquire returns the generation in force with a reference taken.
func (r *Reader) acquire() (*generation, error) {
	const tries = 5 // each a publication that superseded the last while it was opened
	var last error
	for range tries {
		var buf [256]byte
		n, err := unix.Readlink(r.link, buf[:])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoCache // also when one is open: it was withdrawn
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCache, err)
		}
		if g, err := r.reuse(buf[:n]); g != nil || err != nil {
			return g, err
		}
		g, err := r.open(string(buf[:n]))
		if err == nil {
			return g, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		last = err
	}
	return nil, fmt.Errorf("%w: %w", ErrNoCache, last)
}

func (r *Reader) reuse(target []byte) (*generation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.cur != nil && r.cur.target == string(target) {
		r.cur.refs++
		return r.cur, nil
	}
	return nil, nil
}

// open opens what target names and makes it the one in force, unless that
// would go back within the same cache.
func (r *Reader) open(target string) (*generation, error) {
	r.load.Lock()
	defer r.load.Unlock()
	if g, err := r.reuse([]byte(target)); g != nil || err != nil {
		return g, err
	}
	c, err := parseCurrent(target)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	old := r.cur
	if old != nil && old.id == c.id && old.generation > c.generation {
		old.refs++
		r.mu.Unlock()
		return old, nil
	}
	r.mu.Unlock()
	g := &generation{target: target, current: c, trustPath: c.trustPath(r.dir), refs: 2} // the reader's and the caller's
	if g.trust, err = r.readTrust(g); err != nil {
		return nil, err
	}
	if err := r.openFiles(g, old); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		g.refs = 1
		r.releaseLocked(g)
		return nil, ErrClosed
	}
	r.cur = g
	if old != nil {
		r.releaseLocked(old)
	}
	return g, nil
}

func (r *Reader) readTrust(g *generation) (*trustFile, error) {
	if g.trusts == 0 {
		return nil, fmt.Errorf("%w: no trust file", ErrDamaged)
	}
	b, err := os.ReadFile(g.trustPath)
	if err != nil {
		return nil, err
	}
	var p cachepb.Trust
	name := []byte(fileName("trust", g.trusts))
	if ok, err := unsealMessage(name, b, &p); err != nil || !ok {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, g.trustPath)
	}
	return decodeTrust(&p), nil
}

// openFiles opens base and delta, sharing those of the old generation.
func (r *Reader) openFiles(g, old *generation) error {
	share := func(path string) *file {
		r.mu.Lock()
		defer r.mu.Unlock()
		if old == nil || old.id != g.id {
			return nil
		}
		for _, f := range []*file{old.base, old.delta} {
			if f != nil && f.name == path {
				f.refs++
				return f
			}
		}
		return nil
	}
	get := func(path string) (*file, error) {
		if f := share(path); f != nil {
			return f, nil
		}
		f, err := openFile(path)
		if err != nil {
			return nil, err
		}
		f.refs = 1
		return f, nil
	}
	var err error
	if g.base, err = get(g.basePath(r.dir)); err != nil {
		return err
	}
	if g.current.delta != 0 {
		if g.delta, err = get(g.deltaPath(r.dir)); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dropLocked(g.base)
			return err
		}
	}
	return nil
}

func (r *Reader) release(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.releaseLocked(g)
}

func (r *Reader) releaseLocked(g *generation) {
	if g.refs--; g.refs > 0 {
		return
	}
	r.dropLocked(g.base)
	r.dropLocked(g.delta)
}

func (r *Reader) dropLocked(f *file) {
	if f == nil {
		return
	}
	if f.refs--; f.refs == 0 {
		r.idle.Go(f.close)
	}
}

// confirmation returns when the daemon last confirmed the generation.
func (r *Reader) confirmation(g *generation) (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !g.confirmed.IsZero() && time.Since(g.looked) < confirmEvery {
		return g.confirmed, nil
	}
	fi, err := os.Stat(g.trustPath)
	if err != nil {
		return time.Time{}, err
	}
	g.confirmed, g.looked = fi.ModTime(), time.Now()
	return g.confirmed, nil
}
