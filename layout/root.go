package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trust-worker/trust"
)

// Errors when opening.
var (
	// ErrName is returned for a name that no repository of this root can have.
	ErrName = errors.New("not a repository name of this root")
	// ErrReplaced is returned when the directory that was opened is no longer
	// the one at its path: unmounted, mounted over, or renamed away. Nothing
	// can be concluded from what it holds; open it again.
	ErrReplaced = errors.New("storage root was replaced")
)

// Limits bound what is read. Zero fields take their defaults.
type Limits struct {
	Index       int64 // bytes of one index.json; default 64 MiB
	Manifest    int64 // bytes of one manifest; default 4 MiB
	Depth       int   // levels of indexes below index.json; default 8
	Children    int   // children of one index; default and maximum 10,000
	Descriptors int   // all descriptors of one repository together; default 400,000
}

func (l Limits) orDefault() (Limits, error) {
	if l.Index < 0 || l.Manifest < 0 || l.Depth < 0 || l.Children < 0 || l.Descriptors < 0 || l.Children > maxChildren {
		return l, fmt.Errorf("limits must not be negative, nor more than %d children: %+v", maxChildren, l)
	}
	orInt64 := func(p *int64, d int64) {
		if *p == 0 {
			*p = d
		}
	}
	or := func(p *int, d int) {
		if *p == 0 {
			*p = d
		}
	}
	orInt64(&l.Index, 64<<20)
	orInt64(&l.Manifest, 4<<20)
	or(&l.Depth, 8)
	or(&l.Children, maxChildren)
	or(&l.Descriptors, 400_000)
	return l, nil
}

// Options for [Open].
type Options struct {
	// Layout is the form that repositories have on disk; empty is [Auto].
	Layout Layout
	// Prefix is the route of a zot subPath ("a", or "/a" as zot writes it).
	// zot keeps the full name below the subPath's root directory — a/app is
	// <root>/a/app — so that the prefix only says which repositories are served
	// from here: those below it. Empty means all.
	Prefix string
	Limits Limits
}

// Root is the root directory of one storage. It is safe for concurrent use.
type Root struct {
	dir    string
	prefix string
	limits Limits
	root   *os.Root
	file   *os.File // the same directory, for fstatat
	now    func() time.Time

	layout      Layout // as it was asked for
	is          atomic.Pointer[recognised]
	recognising sync.Mutex
	asked       time.Time // recogniseFirst; under recognising
	looked      atomic.Int64
}

// Open opens the storage root; dir itself may be a symlink. The error wraps [ErrTwoLayouts]
// where the layout is to be recognised and cannot be.
func Open(dir string, o Options) (*Root, error) {
	r := &Root{dir: dir, prefix: strings.Trim(o.Prefix, "/"), now: time.Now, layout: cmp.Or(o.Layout, Auto)}
	if r.prefix != "" && !ValidName(r.prefix) {
		return nil, fmt.Errorf("prefix %q: %w", o.Prefix, ErrName)
	}
	var err error
	if r.limits, err = o.Limits.orDefault(); err != nil {
		return nil, err
	}
	if r.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("open storage root: %w", err)
	}
	if r.file, err = r.root.Open("."); err != nil {
		return nil, errors.Join(fmt.Errorf("open storage root: %w", err), r.root.Close())
	}
	r.is.Store(&recognised{layout: OCI})
	if r.layout != Auto {
		r.is.Store(&recognised{layout: r.layout})
	}
	// What cannot be read yet is told by Walk, which recognises again.
	if err := r.recognise(context.Background()); errors.Is(err, ErrTwoLayouts) {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close releases the directory. Repositories opened from r stay usable, apart
// from blobs that are only in zot's global blob store.
func (r *Root) Close() error { return errors.Join(r.file.Close(), r.root.Close()) }

// current returns ErrReplaced unless the open directory is the one at its path:
// a directory that was deleted, or unmounted lazily, lists as empty.
func (r *Root) current() error {
	at, err := os.Stat(r.dir)
	if err != nil {
		return fmt.Errorf("stat storage root: %w", err)
	}
	open, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("stat storage root: %w", err)
	}
	if !os.SameFile(at, open) {
		return fmt.Errorf("%s: %w", r.dir, ErrReplaced)
	}
	return nil
}

// maxName is what zot, like Docker, allows in a repository name.
const maxName = 255

// repositoryName is the grammar of OCI distribution-spec v1.1, "Pulling
// manifests". It leaves no room for "..", for names beginning with '_' or '.',
// for NUL, or for an absolute path.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

// ValidName reports whether name is a repository name.
func ValidName(name string) bool { return len(name) <= maxName && repositoryName.MatchString(name) }

// serves reports whether a repository of that name is served from this root.
func (r *Root) serves(name string) bool {
	return ValidName(name) && (r.prefix == "" || strings.HasPrefix(name, r.prefix+"/"))
}

// Repository is one repository, open. It is safe for concurrent use; Close it.
type Repository struct {
	root *Root
	name string
	content
	read readManifests
}

// Repository opens a repository by its full name. The error wraps
// [fs.ErrNotExist] when there is no such directory, and [ErrName] when there
// cannot be. Symlinks on the way are refused, as by [Root.Walk].
func (r *Root) Repository(name string) (*Repository, error) {
	if !r.serves(name) {
		return nil, fmt.Errorf("open repository %.*q: %w", maxName, name, ErrName)
	}
	c, err := r.form().open(name)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", name, err)
	}
	return &Repository{root: r, name: name, content: c}, nil
}

// IsRepository reports whether Walk would find a repository of that name now,
// at the cost of that one. What cannot be listed is none.
func (r *Root) IsRepository(name string) bool {
	if !r.serves(name) {
		return false
	}
	return r.form().holds(name) || r.recogniseFirst() && r.form().holds(name)
}

// Gone reports whether there is nothing that could be read of a repository, as opposed to
// something that cannot.
func (r *Root) Gone(name string) bool { return !r.serves(name) || r.form().gone(name) }

// Stamp returns the stamp of what a repository lists, by a stat of each file that it is in.
// An error wraps [fs.ErrNotExist] when there is none, and [ErrLate] when that takes longer
// than until, unless that is zero.
//
// Paths are relative to the open root and their names have been parsed; a symlink
// put on the way since the last Walk would be followed, which os.Root would
// prevent for three times the price. All that a stamp decides is whether to
// look: [Root.Repository], which does the looking, does not follow it.
func (r *Root) Stamp(name string, until time.Time) (Stamp, error) {
	if !r.serves(name) {
		return Stamp{}, fmt.Errorf("stat %.*q: %w", maxName, name, ErrName)
	}
	s, err := r.form().stamp(name, until)
	if err != nil {
		return Stamp{}, fmt.Errorf("stat what %s lists: %w", name, err)
	}
	return s, nil
}

// Listing is the path, relative to the root, of what says what a repository lists.
func (r *Root) Listing(name string) string {
	if r.Layout() == Distribution {
		return distribution{r}.path(name, manifestsDir)
	}
	return name + "/" + indexFile
}

// Looked counts the links of distribution's storage that [Root.Stamp] has looked at.
func (r *Root) Looked() int64 { return r.looked.Load() }

// Watched are the directories, relative to the root, inside of a repository in which a change
// of what it lists is an event; the first leads to the others. Links of tags are among them if
// there are no more than most. None: the repository's own directory is enough.
func (r *Root) Watched(name string, most int) []string { return r.form().watched(name, most) }

// Whole is how many bytes have to be read at once to know what a repository lists: those of
// its index.json; 0 where it is in many small files.
func (r *Root) Whole(name string) int64 {
	if !r.serves(name) {
		return 0
	}
	return r.form().whole(name)
}

// Name returns the full repository name.
func (p *Repository) Name() string { return p.name }

// Blob reads one blob whole and checks it against its digest. size is what the
// descriptor says; limit is the most the caller wants. Blobs are handed over as
// stored, never decompressed. Errors are *[trust.ReasonError]: blob-missing,
// io-error, digest-mismatch (also for a file of another size), limit-exceeded,
// malformed (a size that cannot be) — or ctx's.
func (p *Repository) Blob(ctx context.Context, d trust.Digest, size, limit int64) ([]byte, error) {
	switch {
	case size < 0:
		return nil, reasonf(trust.Malformed, "blob %s: size %d", d, size)
	case size > limit:
		return nil, reasonf(trust.LimitExceeded, "blob %s: size %d, limit %d", d, size, limit)
	}
	return p.hashed(ctx, p.layer, d, size, limit)
}

// hashed reads a blob of the given size, or of any up to limit if size is -1.
func (p *Repository) hashed(ctx context.Context, read func(d trust.Digest, size, limit int64) ([]byte, error), d trust.Digest, size, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := read(d, size, limit)
	if err != nil {
		return nil, &trust.ReasonError{Reason: reasonOf(err), Err: fmt.Errorf("read blob %s: %w", d, err)}
	}
	if got := trust.SumOf(b); got != d {
		return nil, reasonf(trust.DigestMismatch, "blob %s: content is %s", d, got)
	}
	return b, nil
}

// looksWhole reports whether there is a manifest of the given size in this repository.
// Whether its bytes are right is not known by that.
func (p *Repository) looksWhole(d trust.Digest, size int64) bool {
	n, err := p.manifestSize(d)
	return err == nil && n == size
}

// Holds reports whether this repository has a manifest of that digest. Its bytes are not
// looked at.
func (p *Repository) Holds(d trust.Digest) bool {
	_, err := p.manifestSize(d)
	return err == nil
}
