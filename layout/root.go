package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// Errors when opening.
var (
	// ErrName is returned for a name that no repository of this root can have.
	ErrName = errors.New("not a repository name of this root")
	// ErrReserved is the ErrName of a name that is valid and has an element that
	// an image layout uses for itself.
	ErrReserved = fmt.Errorf("%w: %q is where an image layout keeps its content, and nothing is looked for there", ErrName, reservedElement)
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
}

// Open opens the storage root; dir itself may be a symlink.
func Open(dir string, o Options) (*Root, error) {
	r := &Root{dir: dir, prefix: strings.Trim(o.Prefix, "/"), now: time.Now}
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

// reservedElement is the one valid element of a name that no repository is looked
// for below (OCI image-spec v1.1, image layout).
const reservedElement = "blobs"

// Reserved reports whether a name has an element that is reserved.
func Reserved(name string) bool { return slices.Contains(strings.Split(name, "/"), reservedElement) }

// serves reports whether a repository of that name is served from this root.
func (r *Root) serves(name string) bool {
	return ValidName(name) && (r.prefix == "" || strings.HasPrefix(name, r.prefix+"/"))
}

// Repository is one repository, open. It is safe for concurrent use; Close it.
type Repository struct {
	root  *Root
	name  string
	dir   *os.File
	blobs *os.File // blobs/sha256, or nil when there is none yet
	read  readManifests
}

// Repository opens a repository by its full name. The error wraps
// [fs.ErrNotExist] when there is no such directory, and [ErrName] when there
// cannot be. Symlinks on the way are refused, as by [Root.Walk].
func (r *Root) Repository(name string) (*Repository, error) {
	switch {
	case !r.serves(name):
		return nil, fmt.Errorf("open repository %.*q: %w", maxName, name, ErrName)
	case Reserved(name):
		return nil, fmt.Errorf("open repository %s: %w", name, ErrReserved)
	}
	dir, err := r.directory(name)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", name, err)
	}
	defer dir.Close()
	p := &Repository{root: r, name: name}
	if p.dir, err = dir.Open("."); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", name, err)
	}
	// Confined to the repository: a blobs directory that leads elsewhere is an
	// error, since another repository's blobs are not this one's.
	if p.blobs, err = openDir(dir, "blobs/sha256"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("open blobs of %s: %w", name, err), p.dir.Close())
	}
	return p, nil
}

// directory opens a directory below the root, and no symlink on the way to it.
func (r *Root) directory(name string) (*os.Root, error) {
	at := r.root
	for part := range strings.SplitSeq(name, "/") {
		// The check can be outrun by a local user, who gains nothing: os.Root
		// keeps what it follows below the parent.
		fi, err := at.Lstat(part)
		var next *os.Root
		switch {
		case err != nil:
		case !fi.IsDir():
			err = &fs.PathError{Op: "open", Path: part, Err: errors.New(notDirectory(fi.Mode()))}
		default:
			next, err = at.OpenRoot(part)
		}
		if at != r.root {
			at.Close()
		}
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

func notDirectory(m fs.FileMode) string {
	if m&fs.ModeSymlink != 0 {
		return "symlinks are not followed"
	}
	return "not a directory"
}

// openDir opens a directory, and does not wait for the writer of a FIFO that is
// in its place.
func openDir(r *os.Root, name string) (*os.File, error) {
	return r.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// Name returns the full repository name.
func (p *Repository) Name() string { return p.name }

// Close releases the repository's directories.
func (p *Repository) Close() error {
	if p.blobs == nil {
		return p.dir.Close()
	}
	return errors.Join(p.dir.Close(), p.blobs.Close())
}

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
	return p.blob(ctx, d, size, limit)
}

// blob reads a blob of the given size, or of any up to limit if size is -1.
func (p *Repository) blob(ctx context.Context, d trust.Digest, size, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b []byte
	err := fs.ErrNotExist
	if p.blobs != nil {
		b, _, err = readFile(p.blobs, d.Hex(), size, limit)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if g, gerr := p.root.globalBlob(d, size, limit); !errors.Is(gerr, fs.ErrNotExist) {
			b, err = g, gerr
		}
	}
	if err != nil {
		return nil, &trust.ReasonError{Reason: reasonOf(err), Err: fmt.Errorf("read blob %s: %w", d, err)}
	}
	if got := trust.SumOf(b); got != d {
		return nil, reasonf(trust.DigestMismatch, "blob %s: content is %s", d, got)
	}
	return b, nil
}

// looksWhole reports whether there is a blob of the given size in this repository.
// Whether its bytes are right is not known by that.
func (p *Repository) looksWhole(d trust.Digest, size int64) bool {
	if p.blobs == nil {
		return false
	}
	n, err := sizeAt(p.blobs, d.Hex())
	return err == nil && n == size
}

// HasBlob reports whether there is a blob of that name for this repository. Its bytes are
// not looked at.
func (p *Repository) HasBlob(d trust.Digest) bool {
	if p.blobs != nil {
		if _, err := sizeAt(p.blobs, d.Hex()); err == nil {
			return true
		}
	}
	dir, err := openDir(p.root.root, globalBlobs)
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = sizeAt(dir, d.Hex())
	return err == nil
}

// globalBlobs is where zot is going to keep deduplicated blobs. With local
// storage a repository has a hard link of its own, so that this is looked at
// only for blobs that it lacks.
const globalBlobs = "_blobstore/blobs/sha256"

func (r *Root) globalBlob(d trust.Digest, size, limit int64) ([]byte, error) {
	dir, err := openDir(r.root, globalBlobs)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	b, _, err := readFile(dir, d.Hex(), size, limit)
	return b, err
}
