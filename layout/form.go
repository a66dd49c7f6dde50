package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// Layout is the form in which a registry keeps repositories on disk.
type Layout string

// The layouts.
const (
	// Auto is whichever is found at the root; [OCI] if neither is.
	Auto Layout = "auto"
	// OCI is one image layout a repository, as zot has it (OCI image-spec v1.1, image-layout).
	OCI Layout = "oci"
	// Distribution is that of CNCF distribution (registry:2, registry:3, Harbor), below
	// docker/registry/v2.
	Distribution Layout = "distribution"
)

// Layouts are all values of Layout.
var Layouts = []Layout{Auto, OCI, Distribution}

// ErrTwoLayouts is returned where the layout is to be recognised and both are there.
var ErrTwoLayouts = errors.New("the storage of a CNCF distribution registry (docker/registry/v2) and repositories in OCI image layouts are both here; say which to read: layout oci or distribution")

// ErrLate is returned when something was not done in its time.
var ErrLate = errors.New("it takes longer than its time")

// form is what differs between layouts: where repositories are.
type form interface {
	walk(ctx context.Context, visit func(Visit) error) error
	stamp(name string, until time.Time) (Stamp, error)
	whole(name string) int64
	holds(name string) bool
	gone(name string) bool
	watched(name string, most int) []string
	open(name string) (content, error)
}

// content is an open repository in one layout.
type content interface {
	// list calls found with what the repository lists, and bad with what it has to pass
	// over. Errors are found's, ctx's, or a *[trust.ReasonError].
	list(ctx context.Context, found func(entry) error, bad func(trust.Digest, trust.Reason, string)) (listed, error)
	// companion returns what a tag names that is of the form of [Companions]'s. What it needs
	// to read for that it returns too, for the next time, if it is more than the tag's.
	companion(ctx context.Context, tag string, last *Companions) (trust.Digest, *Companions, error)
	// manifest and layer read a file of exactly size bytes, or, if size is -1, of up to
	// limit. Its digest is not checked.
	manifest(d trust.Digest, size, limit int64) ([]byte, error)
	layer(d trust.Digest, size, limit int64) ([]byte, error)
	manifestSize(d trust.Digest) (int64, error)
	Close() error
}

// listed is the state of what was listed.
type listed struct {
	stamp Stamp // zero if it was changing
	// recent: parts of one push are written apart, and others may be about to come.
	recent bool
}

// recognised is what is known of a root's layout.
type recognised struct {
	layout Layout
	err    error // why it is not known
}

func (r *Root) form() form {
	switch is := r.is.Load(); {
	case is.err != nil:
		return unrecognised{is.err}
	case is.layout == Distribution:
		return distribution{r}
	}
	return imageLayouts{r}
}

// Layout returns the layout that is read at present: OCI or Distribution.
func (r *Root) Layout() Layout { return r.is.Load().layout }

// recognise settles the layout. A root may be empty when it is opened: the first push into
// it shows what it is. No push makes one of the other: no name in an image layout's storage
// begins with '_', as those do by which distribution's is recognised, and distribution
// writes below docker/registry/v2 alone. What was recognised as distribution's stays so.
func (r *Root) recognise(ctx context.Context) error {
	if r.layout != Auto || r.Layout() == Distribution {
		return nil
	}
	r.recognising.Lock()
	defer r.recognising.Unlock()
	layout, err := r.look(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.is.Store(&recognised{layout, err})
	return err
}

// recogniseFirst is recognise for whoever asks for a repository that is not there: it may be
// the first that was pushed. That is found out once a second.
func (r *Root) recogniseFirst() bool {
	const pause = time.Second
	if r.layout != Auto || r.Layout() == Distribution || !r.recognising.TryLock() {
		return false
	}
	late := r.now().Sub(r.asked) >= pause
	if late {
		r.asked = r.now()
	}
	r.recognising.Unlock()
	return late && r.recognise(context.Background()) == nil && r.Layout() == Distribution
}

// look finds out what there is.
func (r *Root) look(ctx context.Context) (Layout, error) {
	base, err := r.list(distributionRepositories)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errIrregular) {
		return OCI, nil
	}
	if err != nil {
		return OCI, err
	}
	is, err := r.isDistribution(ctx, distributionRepositories+"/", base)
	if err != nil || !is {
		return OCI, err
	}
	found := errors.New("an image layout")
	err = imageLayouts{r}.walk(ctx, func(v Visit) error {
		if v.IsRepository && !strings.HasPrefix(v.Dir, distributionBase+"/") {
			return found
		}
		return nil
	})
	switch {
	case errors.Is(err, found):
		return OCI, fmt.Errorf("%s: %w", r.dir, ErrTwoLayouts)
	case err != nil:
		return OCI, err
	}
	return Distribution, nil
}

// isDistribution looks for a directory that only distribution makes.
func (r *Root) isDistribution(ctx context.Context, dir string, list []fs.DirEntry) (bool, error) {
	if slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		return e.IsDir() && slices.Contains([]string{"_layers", "_manifests", "_uploads"}, e.Name())
	}) {
		return true, nil
	}
	if isLayout(list) {
		return false, nil // what is below it is zot's
	}
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if !e.IsDir() || !repositoryName.MatchString(e.Name()) {
			continue
		}
		below, err := r.list(dir + e.Name())
		if err != nil {
			continue // it is not by this one that it can be told
		}
		if is, err := r.isDistribution(ctx, dir+e.Name()+"/", below); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// unrecognised is the form of a root whose layout could not be found out: nothing is known of
// what it holds, and nothing is gone.
type unrecognised struct{ err error }

func (u unrecognised) walk(_ context.Context, visit func(Visit) error) error {
	return unlisted(u.err, visit)
}
func (u unrecognised) stamp(string, time.Time) (Stamp, error) { return Stamp{}, u.err }
func (u unrecognised) whole(string) int64                     { return 0 }
func (u unrecognised) holds(string) bool                      { return false }
func (u unrecognised) gone(string) bool                       { return false }
func (u unrecognised) watched(string, int) []string           { return nil }
func (u unrecognised) open(string) (content, error)           { return nil, u.err }
