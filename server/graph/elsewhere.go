package graph

import (
	"context"

	"trust-worker/server/graph/schema"
)

// What zot knows and this program does not.

// errCVE is what zot itself answers to the queries about vulnerabilities, in these
// words, while its scanner is off: its clients know it. An empty list would say
// that there are none; for null, zli does.
const errCVE = clientError("cve search is disabled")

func (query) CVEListForImage(context.Context, string, *schema.PageInput, *string, *string, *string) (*schema.CVEResultForImage, error) {
	return nil, errCVE
}

func (query) CVEDiffListForImages(context.Context, schema.ImageInput, schema.ImageInput, *schema.PageInput, *string, *string) (*schema.CVEDiffResult, error) {
	return nil, errCVE
}

func (query) ImageListForCve(context.Context, string, *schema.Filter, *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return nil, errCVE
}

func (query) ImageListWithCVEFixed(context.Context, string, string, *schema.Filter, *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return nil, errCVE
}

func (query) DerivedImageList(context.Context, string, *string, *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return noImages(), nil
}

func (query) BaseImageList(context.Context, string, *string, *schema.PageInput) (*schema.PaginatedImagesResult, error) {
	return noImages(), nil
}

func (query) StarredRepos(context.Context, *schema.PageInput) (*schema.PaginatedReposResult, error) {
	return noRepos(), nil
}

func (query) BookmarkedRepos(context.Context, *schema.PageInput) (*schema.PaginatedReposResult, error) {
	return noRepos(), nil
}

func noImages() *schema.PaginatedImagesResult {
	return &schema.PaginatedImagesResult{Page: &schema.PageInfo{}, Results: []*schema.ImageSummary{}}
}

func noRepos() *schema.PaginatedReposResult {
	return &schema.PaginatedReposResult{Page: &schema.PageInfo{}, Results: []*schema.RepoSummary{}}
}
