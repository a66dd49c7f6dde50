package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/cache/internal/format"
)

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

	identities identities

	load sync.Mutex // held while a new generation is opened

	mu     sync.Mutex // guards what follows and every refs
	cur    *generation
	closed bool
	// closing counts the files that are being closed in the background; done
	// is told when there are none. (Snapshots may be closed while Close waits,
	// which a WaitGroup does not allow.)
	closing int
	done    sync.Cond
}

// generation is one publication, open.
type generation struct {
	target string
	format.Current
	files     []*format.File // newest first, the base last
	trust     *format.TrustFile
	trustPath string
	trustOpen *trustFile
	refs      int

	// The lease, guarded by Reader.mu: the last confirmation known, since when
	// it is, and when it was last looked at (both monotonic); undated: it was ahead of the
	// clock when it was first seen.
	confirmed time.Time
	since     time.Time
	looked    time.Time
	undated   bool
}

// trustFile is a trust file that is open: while it is, no other file is taken for it.
type trustFile struct {
	*os.File
	refs int // generations that it is the trust of, guarded by Reader.mu
}

// OpenReader opens the state directory of a trust-worker for reading. It does
// not fail when nothing is published yet: look-ups return ErrNoCache until
// something is.
func OpenReader(state string, options ...Option) (*Reader, error) {
	r := &Reader{dir: filepath.Join(state, format.PublishedDir), now: time.Now}
	r.link = filepath.Join(r.dir, format.CurrentName)
	r.done.L = &r.mu
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
	defer r.mu.Unlock()
	g := r.cur
	r.cur, r.closed = nil, true
	if g != nil {
		r.releaseLocked(g)
	}
	for r.closing > 0 {
		r.done.Wait()
	}
	return nil
}

// Snapshot returns one consistent generation. Close it soon: it keeps files
// open. Its answers are as of AsOf; take a new one for each search.
func (r *Reader) Snapshot() (*Snapshot, error) {
	g, err := r.acquire()
	if err != nil {
		return nil, err
	}
	s := &Snapshot{r: r, g: g, scratch: scratches.Get().(*scratch)}
	if err := s.open(); err != nil {
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
		var buf [512]byte // CURRENT is shorter, with the largest numbers
		n, err := unix.Readlink(r.link, buf[:])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, format.ErrNoCache // also when one is open: it was withdrawn
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", format.ErrNoCache, &fs.PathError{Op: "read", Path: r.link, Err: err})
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
	return nil, fmt.Errorf("%w: %w", format.ErrNoCache, last)
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
	c, err := format.ParseCurrent(target)
	if err != nil {
		return nil, err
	}
	g := &generation{target: target, Current: c, trustPath: c.TrustPath(r.dir), refs: 2} // the reader's and the caller's
	if err := r.openTrust(g); err != nil {
		return nil, err
	}
	old, keep := r.newer(g)
	if keep {
		r.closeTrust(g)
		return old, nil
	}
	if old != nil {
		defer r.release(old) // held while its files are shared
	}
	if err := r.openFiles(g, old); err != nil {
		r.closeTrust(g)
		return nil, err
	}
	if !r.stillThere(g) {
		r.release(g)
		r.release(g)
		return nil, fs.ErrNotExist
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		g.refs = 1
		r.releaseLocked(g)
		return nil, ErrClosed
	}
	if old != nil && old.ID == g.ID && old.trustPath == g.trustPath {
		g.confirmed, g.since, g.undated = old.confirmed, old.since, old.undated
	}
	if r.cur != nil { // confirmation may have given it up meanwhile
		r.releaseLocked(r.cur)
	}
	r.cur = g
	return g, nil
}

// stillThere reports whether nothing has taken the place of what g is of, but for later
// generations, while its files were opened: a replica that has another cache's, or its
// source's from a backup, may have files of the same names. It removes CURRENT before it
// replaces any.
func (r *Reader) stillThere(g *generation) bool {
	_, now, err := format.ReadCurrent(r.dir)
	if err != nil || now.ID != g.ID || now.Generation < g.Generation {
		return false
	}
	if info, err := g.trustOpen.Stat(); err != nil || replaced(g.trustPath, info) {
		return false
	}
	return !slices.ContainsFunc(g.files, func(f *format.File) bool { return replaced(f.Name, f.Info) })
}

// replaced reports whether there is another file under a name.
func replaced(path string, info fs.FileInfo) bool {
	now, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist) && (err != nil || !os.SameFile(now, info))
}

func (r *Reader) close(f *format.File) {
	f.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing--; r.closing == 0 {
		r.done.Broadcast()
	}
}

// newer returns the generation in force, with a reference taken, and whether it
// is to be kept in g's place: it is of the same cache and a later one. When trust
// has been published since, for an earlier one, the cache comes from a backup and
// is in use again.
func (r *Reader) newer(g *generation) (old *generation, keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.cur
	if old != nil {
		old.refs++
	}
	later := old != nil && (old.Generation > g.Generation || old.Generation == g.Generation && old.Data > g.Data)
	if !later || old.ID != g.ID || old.trust.Published < g.trust.Published {
		return old, false
	}
	return old, true
}

// openTrust reads the trust file, unless it is that of the generation in force: most
// publications are of data alone.
func (r *Reader) openTrust(g *generation) error {
	r.mu.Lock()
	if old := r.cur; old != nil && old.ID == g.ID && old.trustPath == g.trustPath {
		if info, err := old.trustOpen.Stat(); err == nil && isFile(g.trustPath, info) {
			g.trust, g.trustOpen = old.trust, old.trustOpen
			g.trustOpen.refs++
			r.mu.Unlock()
			return nil
		}
	}
	r.mu.Unlock()
	t, f, err := format.OpenTrust(g.trustPath)
	if err == nil {
		g.trust, g.trustOpen = t, &trustFile{f, 1}
	}
	return err
}

func (r *Reader) closeTrust(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropTrustLocked(g)
}

func (r *Reader) dropTrustLocked(g *generation) {
	if g.trustOpen.refs--; g.trustOpen.refs == 0 {
		_ = g.trustOpen.Close() // it was read only
	}
}

// openFiles opens the layers, sharing those of the old generation.
func (r *Reader) openFiles(g, old *generation) (err error) {
	share := func(path string) *format.File {
		r.mu.Lock()
		defer r.mu.Unlock()
		if old == nil || old.ID != g.ID {
			return nil
		}
		for _, f := range old.files {
			if f.Name == path && isFile(path, f.Info) {
				f.Refs++
				return f
			}
		}
		return nil
	}
	get := func(path string) (*format.File, error) {
		if f := share(path); f != nil {
			return f, nil
		}
		f, err := format.OpenFile(path)
		if err != nil {
			return nil, err
		}
		f.Refs = 1
		return f, nil
	}
	for _, name := range slices.Backward(g.Names()) {
		f, err := get(filepath.Join(r.dir, name))
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dropFilesLocked(g)
			return err
		}
		g.files = append(g.files, f)
	}
	return nil
}

func (r *Reader) dropFilesLocked(g *generation) {
	for _, f := range g.files {
		r.dropLocked(f)
	}
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
	r.dropTrustLocked(g)
	r.dropFilesLocked(g)
}

func (r *Reader) dropLocked(f *format.File) {
	if f.Refs--; f.Refs == 0 {
		r.closing++
		go r.close(f)
	}
}

// isFile reports whether what has a path is the file that info is of.
func isFile(path string, info fs.FileInfo) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, info)
}
