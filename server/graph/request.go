package graph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/server/graph/schema"
	"trust-worker/trust"
)

type requestKey struct{}

// request is one request's snapshot and what is left of its budget.
type request struct {
	snap   *cache.Snapshot
	limits Limits
	names  []string // hosts by which this storage is known

	mu            sync.Mutex // a snapshot is for one goroutine at a time (G1)
	scanned, made int
	bytes         int // that the images made take
}

// within runs fn on ctx's request, alone.
func within[T any](ctx context.Context, fn func(r *request) (T, error)) (T, error) {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		var zero T
		return zero, errors.New("no snapshot in the context")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		var zero T
		return zero, err
	}
	return fn(r)
}

// look takes one record from the budget.
func (r *request) look() error {
	if r.scanned++; r.scanned > r.limits.Scan {
		return clientError(fmt.Sprintf("more than %d records would have to be looked at: ask for one repository, or use /api/v1/images, which has pages", r.limits.Scan))
	}
	return nil
}

// ref is a tag and what it names.
type ref struct {
	repo, tag string
	digest    trust.Digest
}

func (r *request) image(x ref) (*cache.Image, error) {
	if r.made++; r.made > r.limits.Images {
		return nil, clientError(fmt.Sprintf("the answer has more than %d images: ask for a page (requestedPage: {limit, offset})", r.limits.Images))
	}
	img, err := r.within(x, cache.BudgetOf(max(fewBytes, min(cache.MaxAnswer, maxBytes-r.bytes))))
	r.bytes += img.Size()
	return img, err
}

// maxBytes is about what the signatures of one answer take as JSON. When it is used
// up, each further image still lists a few, those that are trusted first.
const (
	maxBytes = 4 << 20
	fewBytes = 2 << 10
)

// peek is image for a look at what will not be part of the answer.
func (r *request) peek(x ref) (*cache.Image, error) { return r.within(x, cache.BudgetOf(fewBytes)) }

func (r *request) within(x ref, b *cache.Budget) (*cache.Image, error) {
	img, err := r.snap.ImageWithin(x.repo, x.digest, b)
	img.Tag = x.tag
	// What is left out has been decided all the same.
	r.scanned += (len(img.SignatureInfo) + img.SignaturesOmitted + len(img.Attestations) + img.AttestationsOmitted) / 100
	return &img, err
}

// tags lists a repository's tags, or those of all if repo is empty.
func (r *request) tags(repo string) (refs []ref, err error) {
	one := func(repo string) error {
		return r.snap.Tags(repo, func(tag string, d trust.Digest) error {
			refs = append(refs, ref{repo, tag, d})
			return r.look()
		})
	}
	if repo != "" {
		return refs, one(repo)
	}
	repos, err := r.repositories()
	for _, repo := range repos {
		if err == nil {
			err = one(repo)
		}
	}
	return refs, err
}

func (r *request) repositories() (names []string, err error) {
	err = r.snap.Repositories(func(name string) error {
		names = append(names, name)
		return r.look()
	})
	return names, err
}

// page sorts and cuts. Times and downloads are not known here, so everything but
// the descending order is the order by name, which all comes in.
func page[T any](all []T, p *schema.PageInput, name func(T) string) ([]T, *schema.PageInfo, error) {
	offset, limit := 0, 0
	if p != nil {
		if p.SortBy != nil && *p.SortBy == schema.SortCriteriaAlphabeticDsc {
			slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(name(b), name(a)) })
		}
		offset, limit = deref(p.Offset), deref(p.Limit)
	}
	if offset < 0 || limit < 0 {
		return nil, nil, clientError("limit and offset must not be negative")
	}
	total := len(all)
	all = all[min(offset, total):]
	if limit > 0 {
		all = all[:min(limit, len(all))]
	}
	return all, &schema.PageInfo{TotalCount: total, ItemCount: len(all)}, nil
}

func refName(x ref) string { return x.repo + ":" + x.tag }

// summaries answers with a page of tags.
func (r *request) summaries(refs []ref, p *schema.PageInput) ([]*schema.ImageSummary, *schema.PageInfo, error) {
	refs, info, err := page(refs, p, refName)
	if err != nil {
		return nil, nil, err
	}
	out := make([]*schema.ImageSummary, 0, len(refs))
	for _, x := range refs {
		img, err := r.image(x)
		if errors.Is(err, cache.ErrNotFound) {
			continue // a tag of something that is not an image
		}
		if err != nil {
			return nil, nil, err
		}
		out = append(out, summaryOf(img))
	}
	info.ItemCount = len(out)
	return out, info, nil
}

// find answers for REPO:TAG, REPO@DIGEST or REPO:TAG@DIGEST.
func (r *request) find(name string) (*cache.Image, error) {
	x, err := imageref.Parse(name)
	if err != nil {
		return nil, clientError("the digest is not of the form sha256: and 64 hex digits, or the tag is empty")
	}
	x, err = x.In(r.names, r.snap.HasRepository)
	var host *imageref.HostError
	var bad *imageref.NameError
	switch {
	case errors.As(err, &host):
		return nil, clientError(err.Error())
	case err != nil && !errors.As(err, &bad):
		return nil, err
	case err != nil || x.Name == "" || x.Tag == "" && x.Digest == (trust.Digest{}):
		return nil, clientError("name the image as repository:tag or repository@digest")
	case x.Digest != (trust.Digest{}):
		return r.image(ref{repo: x.Name, digest: x.Digest})
	}
	d, err := r.snap.Resolve(x.Name, x.Tag)
	if err != nil {
		return nil, err
	}
	return r.image(ref{repo: x.Name, tag: x.Tag, digest: d})
}

// withDigest returns the tags whose image, or a child of it, has a digest that
// contains part.
func (r *request) withDigest(part string) ([]ref, error) {
	part = strings.ToLower(strings.TrimSpace(part))
	if part == "" {
		return nil, nil
	}
	all, err := r.candidates(part)
	if err != nil {
		return nil, err
	}
	var found []ref
	for _, x := range all {
		match := matches(x.digest.String(), part)
		if !match {
			if err := r.look(); err != nil {
				return nil, err
			}
			img, err := r.peek(x)
			if err != nil && !errors.Is(err, cache.ErrNotFound) {
				return nil, err
			}
			match = err == nil && slices.ContainsFunc(img.Manifests, func(m cache.Manifest) bool { return matches(m.DigestText(), part) })
		}
		if match {
			found = append(found, x)
		}
	}
	return found, nil
}

// matches reports whether a digest contains the part that is searched for.
func matches(digest, part string) bool {
	return strings.Contains(digest, strings.ToLower(strings.TrimSpace(part)))
}

// candidates are the tags that withDigest looks at: for a whole digest those of
// the repositories that hold it, which the cache can look up.
func (r *request) candidates(part string) (all []ref, err error) {
	d, err := trust.ParseDigest(part)
	if err != nil {
		d, err = trust.ParseHex(part)
	}
	if err != nil {
		return r.tags("")
	}
	images, err := r.snap.Digest(d)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	for _, img := range images {
		if err != nil {
			return nil, err
		}
		var tags []ref
		tags, err = r.tags(img.RepoName)
		all = append(all, tags...)
	}
	return all, err
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
