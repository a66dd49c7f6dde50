package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// zot's storage: one OCI image layout a repository (OCI image-spec v1.1, image-layout).

// indexFile and layoutFile are what makes a directory a repository.
const (
	indexFile  = "index.json"
	layoutFile = "oci-layout"
)

// reservedElement is the one valid element of a name that no repository is looked
// for below: an image layout keeps its content there.
const reservedElement = "blobs"

// ErrReserved is the ErrName of a name that is valid and has an element that
// an image layout uses for itself.
var ErrReserved = fmt.Errorf("%w: %q is where an image layout keeps its content, and nothing is looked for there", ErrName, reservedElement)

// Reserved reports whether a name has an element that is reserved in image layouts.
func Reserved(name string) bool { return slices.Contains(strings.Split(name, "/"), reservedElement) }

// imageLayouts is the form of a root whose repositories are image layouts.
type imageLayouts struct{ *Root }

func (r imageLayouts) walk(ctx context.Context, visit func(Visit) error) error {
	list, err := r.list(".")
	if err != nil {
		return unlisted(err, visit)
	}
	if err := visit(Visit{Dir: "."}); err != nil {
		return err
	}
	w := &walker{root: r.Root, is: isLayout, visit: visit, skip: func(dir string, list []fs.DirEntry, e fs.DirEntry) (string, bool) {
		switch {
		case e.Name() != reservedElement:
			return "", false
		case e.IsDir() && !isLayout(list) && r.holdsMore(dir+e.Name()):
			return RefusedReserved, false // somebody may have meant repositories
		}
		return "", true
	}}
	return w.below(ctx, "", list)
}

// isLayout reports whether a directory with these entries is an image layout.
func isLayout(list []fs.DirEntry) bool { return has(list, indexFile) && has(list, layoutFile) }

// holdsMore reports whether a directory "blobs" has something else in it than the
// directories of digest algorithms.
func (r imageLayouts) holdsMore(dir string) bool {
	list, err := r.list(dir)
	return err == nil && slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		return e.IsDir() && !slices.Contains([]string{"sha256", "sha512", "blake3"}, e.Name()) || e.Name() == indexFile
	})
}

func (r imageLayouts) stamp(name string, _ time.Time) (Stamp, error) {
	return statAt(r.file, name+"/"+indexFile)
}

func (r imageLayouts) whole(name string) int64 {
	s, _ := r.stamp(name, time.Time{}) // what cannot be told is not large
	return s.Size
}

func (r imageLayouts) gone(name string) bool {
	_, err := r.stamp(name, time.Time{})
	return errors.Is(err, fs.ErrNotExist)
}

func (r imageLayouts) holds(name string) bool {
	if Reserved(name) {
		return false
	}
	dir, err := r.directory(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	for _, file := range []string{indexFile, layoutFile} {
		if _, err := dir.Lstat(file); err != nil {
			return false
		}
	}
	return true
}

// watched is nothing: a push replaces index.json, which is an event of the repository's
// own directory.
func (r imageLayouts) watched(string, int) []string { return nil }

// imageLayout is one repository, open.
type imageLayout struct {
	root  *Root
	dir   *os.File
	blobs *os.File // blobs/sha256, or nil when there is none yet
}

func (r imageLayouts) open(name string) (content, error) {
	if Reserved(name) {
		return nil, ErrReserved
	}
	dir, err := r.directory(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	p := &imageLayout{root: r.Root}
	if p.dir, err = dir.Open("."); err != nil {
		return nil, err
	}
	// Confined to the repository: a blobs directory that leads elsewhere is an
	// error, since another repository's blobs are not this one's.
	if p.blobs, err = openDir(dir, "blobs/sha256"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("open blobs: %w", err), p.dir.Close())
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

func (p *imageLayout) Close() error {
	if p.blobs == nil {
		return p.dir.Close()
	}
	return errors.Join(p.dir.Close(), p.blobs.Close())
}

func (p *imageLayout) list(ctx context.Context, found func(entry) error, bad func(trust.Digest, trust.Reason, string)) (listed, error) {
	index, stamp, err := p.readIndex(ctx)
	if err != nil {
		return listed{}, err
	}
	return listed{stamp: stamp}, p.descriptors(ctx, index, found, bad)
}

// descriptors are those of an index.json that is valid JSON.
func (p *imageLayout) descriptors(ctx context.Context, index []byte, found func(entry) error, bad func(trust.Digest, trust.Reason, string)) error {
	n := 0
	return parseIndex(index, func(raw []byte) error {
		switch n++; {
		case n%1024 == 0 && ctx.Err() != nil:
			return ctx.Err()
		case n > p.root.limits.Descriptors:
			return tooMany(p.root.limits)
		}
		e, re := parseEntry(raw)
		if re != nil {
			bad(trust.Digest{}, re.Reason, re.Err.Error())
			return nil
		}
		return found(e)
	})
}

func tooMany(l Limits) error {
	return reasonf(trust.LimitExceeded, "more than %d descriptors", l.Descriptors)
}

func (p *imageLayout) manifest(d trust.Digest, size, limit int64) ([]byte, error) {
	return p.layer(d, size, limit)
}

func (p *imageLayout) layer(d trust.Digest, size, limit int64) (b []byte, err error) {
	err = fs.ErrNotExist
	if p.blobs != nil {
		b, _, err = readFile(p.blobs, d.Hex(), size, limit)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if g, gerr := p.root.globalBlob(d, size, limit); !errors.Is(gerr, fs.ErrNotExist) {
			b, err = g, gerr
		}
	}
	return b, err
}

func (p *imageLayout) manifestSize(d trust.Digest) (int64, error) {
	if p.blobs != nil {
		if s, err := statAt(p.blobs, d.Hex()); err == nil {
			return s.Size, nil
		}
	}
	dir, err := openDir(p.root.root, globalBlobs)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	s, err := statAt(dir, d.Hex())
	return s.Size, err
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

func (p *imageLayout) companion(ctx context.Context, tag string, last *Companions) (trust.Digest, *Companions, error) {
	now, err := statAt(p.dir, indexFile)
	if err != nil {
		return trust.Digest{}, nil, &trust.ReasonError{Reason: trust.IOError, Err: err}
	}
	if last == nil || last.stamp != now || now == (Stamp{}) {
		if last, err = p.companions(ctx); err != nil {
			return trust.Digest{}, nil, err
		}
	}
	use, subject := parseTag(tag)
	return last.tags[companion{use, subject}], last, nil
}

func (p *imageLayout) companions(ctx context.Context) (*Companions, error) {
	c := &Companions{tags: map[companion]trust.Digest{}}
	state, err := p.list(ctx, func(e entry) error {
		if e.tag == "" || e.use <= tagOrdinary {
			return nil
		}
		key := companion{e.use, e.subject}
		if first, again := c.tags[key]; again && first != e.digest || e.foreign != "" {
			c.tags[key] = trust.Digest{}
			return nil
		}
		c.tags[key] = e.digest
		return nil
	}, func(trust.Digest, trust.Reason, string) {})
	c.stamp = state.stamp
	return c, err
}
