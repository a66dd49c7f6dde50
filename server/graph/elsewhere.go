package graph

import (
	"context"
	"strings"
)

// What zot knows and this program does not. Lists of vulnerabilities are null,
// never empty: an empty one would say that there are none.

func (query) CVEListForImage(_ context.Context, image string, _ *PageInput, _, _, _ *string) (*CVEResultForImage, error) {
	_, tag, _ := strings.Cut(image, ":")
	return &CVEResultForImage{Tag: &tag, Page: &PageInfo{}}, nil
}

func (query) CVEDiffListForImages(_ context.Context, minuend, subtrahend ImageInput, _ *PageInput, _, _ *string) (*CVEDiffResult, error) {
	identifier := func(i ImageInput) *ImageIdentifier {
		id := &ImageIdentifier{Repo: i.Repo, Tag: i.Tag, Digest: i.Digest}
		if i.Platform != nil {
			id.Platform = &Platform{Os: i.Platform.Os, Arch: i.Platform.Arch}
		}
		return id
	}
	return &CVEDiffResult{Minuend: identifier(minuend), Subtrahend: identifier(subtrahend), Page: &PageInfo{}}, nil
}

func (query) ImageListForCve(context.Context, string, *Filter, *PageInput) (*PaginatedImagesResult, error) {
	return noImages(), nil
}

func (query) ImageListWithCVEFixed(context.Context, string, string, *Filter, *PageInput) (*PaginatedImagesResult, error) {
	return noImages(), nil
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
