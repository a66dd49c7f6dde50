package graph

import (
	"context"
	"errors"
	"slices"
	"strings"

	"trust-worker/cache"
	"trust-worker/server/graph/schema"
	"trust-worker/trust"
)

// Resolver answers the queries at the root; everything below is data.
type Resolver struct{}

// Query returns the resolver of the queries.
func (r *Resolver) Query() schema.QueryResolver { return query{} }

type query struct{}

func (query) Image(ctx context.Context, image string) (*schema.ImageSummary, error) {
	return within(ctx, func(r *request) (*schema.ImageSummary, error) {
		img, err := r.find(image)
		if err != nil {
			return nil, err
		}
		return summaryOf(img), nil
	})
}

func (query) ImageList(ctx context.Context, repo string, p *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return within(ctx, func(r *request) (*schema.PaginatedImagesResult, error) {
		refs, err := r.tags(repo)
		if err != nil {
			return nil, err
		}
		return r.images(refs, p)
	})
}

func (query) ImageListForDigest(ctx context.Context, id string, p *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return within(ctx, func(r *request) (*schema.PaginatedImagesResult, error) {
		refs, err := r.withDigest(id)
		if err != nil {
			return nil, err
		}
		out, err := r.images(refs, p)
		if err != nil {
			return nil, err
		}
		for _, img := range out.Results { // of an index only what matches, as in zot
			if !matches(*img.Digest, id) {
				img.Manifests = slices.DeleteFunc(img.Manifests, func(m *schema.ManifestSummary) bool { return !matches(*m.Digest, id) })
			}
		}
		return out, nil
	})
}

func (r *request) images(refs []ref, p *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	results, info, err := r.summaries(refs, p)
	if err != nil {
		return nil, err
	}
	return &schema.PaginatedImagesResult{Page: info, Results: results}, nil
}

func (query) RepoListWithNewestImage(ctx context.Context, p *schema.PageInput) (*schema.PaginatedReposResult, error) {
	return within(ctx, func(r *request) (*schema.PaginatedReposResult, error) {
		names, err := r.repositories()
		if err != nil {
			return nil, err
		}
		results, info, err := r.repos(names, p)
		if err != nil {
			return nil, err
		}
		return &schema.PaginatedReposResult{Page: info, Results: results}, nil
	})
}

// repos answers with a page of repositories.
func (r *request) repos(names []string, p *schema.PageInput) ([]*schema.RepoSummary, *schema.PageInfo, error) {
	names, info, err := page(names, p, func(s string) string { return s })
	if err != nil {
		return nil, nil, err
	}
	out := make([]*schema.RepoSummary, 0, len(names))
	for _, name := range names {
		refs, err := r.tags(name)
		if err != nil {
			return nil, nil, err
		}
		newest, err := r.newest(name, refs)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, repoOf(name, newest))
	}
	return out, info, nil
}

// newest is the image that was written last, nil if there is none. When an image was
// built, which is what zot goes by, is not known here.
func (r *request) newest(repo string, refs []ref) (*cache.Image, error) {
	tag, err := r.snap.Newest(repo)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(refs, func(x ref) bool { return x.tag == tag })
	if i < 0 {
		return nil, nil
	}
	img, err := r.image(refs[i])
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	return img, err
}

func (query) ExpandedRepoInfo(ctx context.Context, repo string) (*schema.RepoInfo, error) {
	return within(ctx, func(r *request) (*schema.RepoInfo, error) {
		if ok, err := r.snap.HasRepository(repo); err != nil {
			return nil, err
		} else if !ok {
			return nil, r.snap.Missing(repo)
		}
		refs, err := r.tags(repo)
		if err != nil {
			return nil, err
		}
		newest, err := r.newest(repo, refs)
		if err != nil {
			return nil, err
		}
		images, _, err := r.summaries(refs, nil)
		if err != nil {
			return nil, err
		}
		return &schema.RepoInfo{Images: images, Summary: repoOf(repo, newest)}, nil
	})
}

func (query) Referrers(ctx context.Context, repo, digest string, _ []string) ([]*schema.Referrer, error) {
	return within(ctx, func(r *request) ([]*schema.Referrer, error) {
		d, err := trust.ParseDigest(digest)
		if err != nil {
			return nil, clientError("the digest is not of the form sha256: and 64 hex digits")
		}
		// What refers to it but its signatures is not known here, and zot counts no
		// signature among the referrers.
		if _, err := r.image(ref{repo: repo, digest: d}); err != nil && !errors.Is(err, cache.ErrNotFound) {
			return nil, err
		}
		return []*schema.Referrer{}, nil
	})
}

// GlobalSearch searches as zot: by digest, for tags of one repository when there
// is a colon, else for repositories.
func (query) GlobalSearch(ctx context.Context, text string, f *schema.Filter, p *schema.PageInput) (*schema.GlobalSearchResult, error) {
	return within(ctx, func(r *request) (*schema.GlobalSearchResult, error) {
		out := &schema.GlobalSearchResult{Images: []*schema.ImageSummary{}, Repos: []*schema.RepoSummary{}, Layers: []*schema.LayerSummary{}}
		text = strings.ToLower(strings.Trim(strings.TrimSpace(text), "/"))
		var err error
		if !strings.ContainsAny(text, ":@") {
			var names []string
			if names, err = r.searchRepos(text, f); err == nil {
				out.Repos, out.Page, err = r.repos(names, p)
			}
			return out, err
		}
		var refs []ref
		if refs, err = r.searchTags(text); err == nil {
			if refs, err = r.filter(refs, f); err == nil {
				out.Images, out.Page, err = r.summaries(refs, p)
			}
		}
		return out, err
	})
}

func (query) TrustImage(ctx context.Context, image string) (*schema.TrustImage, error) {
	return within(ctx, func(r *request) (*schema.TrustImage, error) {
		img, err := r.find(image)
		if err != nil {
			return nil, err
		}
		return trustOf(img, r.snap.Generation().String()), nil
	})
}

func (query) TrustPublication(ctx context.Context) (*schema.TrustPublication, error) {
	return within(ctx, func(r *request) (*schema.TrustPublication, error) {
		return &schema.TrustPublication{Generation: r.snap.Generation().String(), AsOf: r.snap.AsOf(), Stale: r.snap.Stale()}, nil
	})
}
