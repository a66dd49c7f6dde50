package graph

import "context"

// What zot knows and this program does not.

// errCVE is what zot itself answers to the queries about vulnerabilities, in these
// words, while its scanner is off: its clients know it. An empty list would say
// that there are none; for null, zli does.
const errCVE = clientError("cve search is disabled")

func (query) CVEListForImage(context.Context, string, *PageInput, *string, *string, *string) (*CVEResultForImage, error) {
	return nil, errCVE
}

func (query) CVEDiffListForImages(context.Context, ImageInput, ImageInput, *PageInput, *string, *string) (*CVEDiffResult, error) {
	return nil, errCVE
}

func (query) ImageListForCve(context.Context, string, *Filter, *PageInput) (*PaginatedImagesResult, error) {
	return nil, errCVE
}

func (query) ImageListWithCVEFixed(context.Context, string, string, *Filter, *PageInput) (*PaginatedImagesResult, error) {
	return nil, errCVE
}

func (query) DerivedImageList(context.Context, string, *string, *PageInput) (*PaginatedImagesResult, error) {
	return noImages(), nil
}

func (query) BaseImageList(context.Context, string, *string, *PageInput) (*PaginatedImagesResult, error) {
	return noImages(), nil
}

func (query) StarredRepos(context.Context, *PageInput) (*PaginatedReposResult, error) {
	return noRepos(), nil
}

func (query) BookmarkedRepos(context.Context, *PageInput) (*PaginatedReposResult, error) {
	return noRepos(), nil
}

func noImages() *PaginatedImagesResult {
	return &PaginatedImagesResult{Page: &PageInfo{}, Results: []*ImageSummary{}}
}

func noRepos() *PaginatedReposResult {
	return &PaginatedReposResult{Page: &PageInfo{}, Results: []*RepoSummary{}}
}
