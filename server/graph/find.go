package graph

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"trust-worker/cache"
	"trust-worker/server/graph/schema"
)

// searchRepos finds repositories whose name contains text, the best matches
// first: the name itself, a name that ends with it, one that begins with it.
func (r *request) searchRepos(text string, f *schema.Filter) ([]string, error) {
	all, err := r.repositories()
	if err != nil {
		return nil, err
	}
	rank := func(name string) int {
		switch {
		case name == text:
			return 0
		case strings.HasSuffix(name, "/"+text):
			return 1
		case strings.HasPrefix(name, text):
			return 2
		}
		return 3
	}
	var found []string
	for _, name := range all {
		if !strings.Contains(name, text) {
			continue
		}
		if f != nil {
			refs, err := r.tags(name)
			if err != nil {
				return nil, err
			}
			if refs, err = r.filter(refs, f); err != nil {
				return nil, err
			} else if len(refs) == 0 {
				continue
			}
		}
		found = append(found, name)
	}
	slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return found, nil
}

// searchTags finds the tags of one repository that contain what follows the
// colon, or the images with a digest.
func (r *request) searchTags(text string) ([]ref, error) {
	if strings.HasPrefix(text, "sha256:") {
		return r.withDigest(text)
	}
	if repo, digest, ok := strings.Cut(text, "@"); ok {
		repo, _, _ = strings.Cut(repo, ":") // a tag beside the digest decides nothing
		refs, err := r.withDigest(digest)
		return slices.DeleteFunc(refs, func(x ref) bool { return x.repo != repo }), err
	}
	repo, tag, _ := strings.Cut(text, ":")
	if repo == "" {
		return nil, nil
	}
	refs, err := r.tags(repo)
	return slices.DeleteFunc(refs, func(x ref) bool { return !strings.Contains(strings.ToLower(x.tag), tag) }), err
}

// filter keeps the tags that f asks for. Nobody bookmarks or stars here.
func (r *request) filter(refs []ref, f *schema.Filter) ([]ref, error) {
	if f == nil {
		return refs, nil
	}
	systems, archs := words(f.Os), words(f.Arch)
	if deref(f.IsBookmarked) || deref(f.IsStarred) {
		return nil, nil
	}
	if len(systems) == 0 && len(archs) == 0 && f.HasToBeSigned == nil {
		return refs, nil
	}
	var kept []ref
	for _, x := range refs {
		if err := r.look(); err != nil {
			return nil, err
		}
		img, err := r.peek(x)
		if errors.Is(err, cache.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		if f.HasToBeSigned != nil && *f.HasToBeSigned && !img.IsSigned || !runsOn(img, systems, archs) {
			continue
		}
		kept = append(kept, x)
	}
	return kept, nil
}

// words are the list's words that are not empty, in lower case.
func words(list []*string) (out []string) {
	for _, s := range list {
		if w := strings.ToLower(deref(s)); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// runsOn reports whether an image is for one of the systems and architectures. What a
// manifest is for stands in an index alone, or in the config, which is not read: one
// that is not known is not left out, as zot's filters could not find it otherwise.
func runsOn(img *cache.Image, systems, archs []string) bool {
	if len(systems) == 0 && len(archs) == 0 {
		return true
	}
	return slices.ContainsFunc(img.Manifests, func(m cache.Manifest) bool {
		p := platformOf(strings.ToLower(m.Platform))
		return p == nil || (len(systems) == 0 || slices.Contains(systems, *p.Os)) &&
			(len(archs) == 0 || slices.Contains(archs, *p.Arch))
	})
}
