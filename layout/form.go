package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

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

func (r *Root) form() form {
	if r.distribution.Load() {
		return distribution{r}
	}
	return imageLayouts{r}
}

// Layout returns the layout that is read at present: OCI or Distribution.
func (r *Root) Layout() Layout {
	if r.distribution.Load() {
		return Distribution
	}
	return OCI
}

// recognise settles the layout. A root may be empty when it is opened: the first push into
// it shows what it is. No push makes one of the other: no name in an image layout's storage
// begins with '_', as those do by which distribution's is recognised, and distribution
// writes below docker/registry/v2 alone.
func (r *Root) recognise(ctx context.Context) error {
	if r.layout != Auto {
		r.distribution.Store(r.layout == Distribution)
		return nil
	}
	base, err := r.list(distributionRepositories)
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.distribution.Load() {
		r.distribution.Store(err == nil)
		return nil
	}
	if err != nil {
		return err
	}
	is, err := r.isDistribution(ctx, distributionRepositories+"/", base)
	if err != nil || !is {
		return err
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
		return fmt.Errorf("%s: %w", r.dir, ErrTwoLayouts)
	case err != nil:
		return err
	}
	r.distribution.Store(true)
	return nil
}

// isDistribution looks for a directory that only distribution makes.
func (r *Root) isDistribution(ctx context.Context, dir string, list []fs.DirEntry) (bool, error) {
	if slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		return e.IsDir() && slices.Contains([]string{"_layers", "_manifests", "_uploads"}, e.Name())
	}) {
		return true, nil
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
