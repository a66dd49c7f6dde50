package server

import (
	"net/http"
	"regexp"
	"slices"

	"trust-worker/layout"
)

// passage is what a proxy asks to let through: a request to the registry API, by its method
// and its URI as the registry would get it.
type passage struct {
	repository string // "" for /v2/ itself
	reference  string // of a manifest: a tag or a digest
	read       bool   // GET or HEAD
	manifest   bool   // of a manifest, which is judged if it is read
	upload     bool
}

// registryPath are the paths of the registry API that a gate knows (OCI distribution-spec
// v1.1, "Endpoints"), in the one spelling that every registry reads in the same way: no
// escapes, no empty, dot or trailing elements. A name may hold the words of the API, so that
// the last ones count: that is how registries read it.
var registryPath = regexp.MustCompile(`^/v2/(?:([a-z0-9._/-]+)/(?:` +
	`(manifests)/([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|[a-z0-9]+:[0-9a-f]+)|` +
	`blobs/[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+|` +
	`(blobs/uploads)/[A-Za-z0-9._~=-]*|` +
	`tags/list|` +
	`referrers/[a-z0-9]+:[0-9a-f]+))?$`)

// A manifest is read by its path alone; ns is what containerd tells a mirror.
var (
	manifestQuery = regexp.MustCompile(`^(?:\?(?:ns=[A-Za-z0-9._:-]*)?)?$`)
	anyQuery      = regexp.MustCompile(`^(?:\?[!-~]*)?$`)
)

// parsePassage reads a method and a URI; ok is false for what a gate does not know.
func parsePassage(method, uri string) (p passage, ok bool) {
	path, query := uri, ""
	for i := range len(uri) {
		if uri[i] == '?' {
			path, query = uri[:i], uri[i:]
			break
		}
	}
	m := registryPath.FindStringSubmatch(path)
	if m == nil || m[1] != "" && !layout.ValidName(m[1]) {
		return passage{}, false
	}
	p = passage{repository: m[1], manifest: m[2] != "", reference: m[3], upload: m[4] != "", read: method == http.MethodGet || method == http.MethodHead}
	if p.manifest && !manifestQuery.MatchString(query) || !anyQuery.MatchString(query) {
		return passage{}, false
	}
	return p, p.read || slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, method)
}

// open reports whether the passage is open to everybody, unjudged.
func (p *passage) open() bool { return !p.manifest && (p.read || p.upload) }
