package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// imagePage is a page of images. Next is the cursor of the following page, empty
// at the end. A page may have fewer images than were asked for, or none, when a
// filter lets few through: Next says whether there are more.
type imagePage struct {
	Images []cache.Image
	Next   string `json:",omitempty"`
}

// The states of ?state=.
var states = []string{"trusted", "untrusted", "expired", "unknown", "pending", "unsigned"}

const (
	defaultPage = 100
	// scanPerPage is how many tags and repositories are looked at for one page.
	scanPerPage = 10_000
)

func (s *Server) restImages(w http.ResponseWriter, r *http.Request, _ identity) error {
	q := r.URL.Query()
	filter, err := parseFilter(q, s.cfg.Now())
	if err != nil {
		return err
	}
	limit, err := parseLimit(q, s.cfg.Limits.MaxPage)
	if err != nil {
		return err
	}
	after, err := parseCursor(q.Get("after"))
	if err != nil {
		return err
	}
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) {
		p := pager{snap: snap, filter: filter, limit: limit, most: scanPerPage, names: scanPerPage, after: after}
		err := p.collect(q.Get("repository"))
		return p.page, err
	})
}

func parseLimit(q url.Values, most int) (int, error) {
	v := q.Get("limit")
	if v == "" {
		return min(defaultPage, most), nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		return 0, refuse(http.StatusBadRequest, codeInvalid, "the limit cannot be used", fmt.Sprintf("choose 1 to %d", most))
	}
	return n, nil
}

// imageFilter says which images are wanted; what is empty lets all through.
type imageFilter struct {
	state  string
	reason trust.Reason // of some signature
	signer trust.Digest // by whom some signature is, as far as that is shown
	query  nameQuery
	// predicate: it has a trusted attestation of that type.
	predicate string
	// expiring: dates end some trusted signature of it by then; zero: whether or not.
	expiring time.Time
	// untagged: after the tags of a repository, also its images that no tag
	// and no index names.
	untagged bool
}

func parseFilter(q url.Values, now time.Time) (f imageFilter, err error) {
	f.reason, f.predicate = trust.Reason(q.Get("reason")), q.Get("predicate")
	if f.state, err = parseState(q.Get("state")); err != nil {
		return f, err
	}
	if v := q.Get("signer"); v != "" {
		if f.signer, err = trust.ParseDigest(v); err != nil {
			return f, refuse(http.StatusBadRequest, codeInvalid, "the signer's fingerprint cannot be read: "+err.Error(), "give a fingerprint such as sha256:…; /api/v1/signers lists them")
		}
	}
	if v := q.Get("expiring"); v != "" {
		within, err := time.ParseDuration(v)
		if err != nil || within < 0 {
			return f, refuse(http.StatusBadRequest, codeInvalid, "the time within which signatures expire cannot be read", "give it as 168h")
		}
		f.expiring = now.Add(within)
	}
	return f, nil
}

func parseState(state string) (string, error) {
	if state != "" && !slices.Contains(states, state) {
		return "", refuse(http.StatusBadRequest, codeInvalid, "there is no such state", "choose "+strings.Join(states, ", "))
	}
	return state, nil
}

// nameQuery finds images by what they are called, without reading them: REPO:TAG
// has the text somewhere, in any case, or the digest begins with it.
type nameQuery struct {
	text string // lower case; empty finds all
	hex  string // of the digest, if the text may be that
	name []byte // used again for each
}

func newNameQuery(text string) nameQuery {
	q := nameQuery{text: strings.ToLower(text)}
	hex := strings.TrimPrefix(q.text, "sha256:")
	if len(hex) >= 6 && strings.Trim(hex, "0123456789abcdef") == "" {
		q.hex = hex
	}
	return q
}

func (q *nameQuery) finds(repo, tag string, d trust.Digest) bool {
	if q.text == "" || q.hex != "" && strings.HasPrefix(d.Hex(), q.hex) {
		return true
	}
	q.name = append(append(append(q.name[:0], repo...), ':'), tag...)
	for i, c := range q.name { // names are ASCII (OCI distribution-spec, "Pulling manifests")
		if 'A' <= c && c <= 'Z' {
			q.name[i] = c + 'a' - 'A'
		}
	}
	return bytes.Contains(q.name, []byte(q.text))
}

// wants reports whether an image is wanted by what is known of it.
func (f *imageFilter) wants(img *cache.Image) bool {
	return (f.state == "" || img.State() == f.state) &&
		(f.reason == "" || img.Has(f.reason)) &&
		(f.predicate == "" || slices.ContainsFunc(img.Attestations, func(a cache.Attestation) bool { return a.PredicateType == f.predicate && a.Status == trust.Trusted })) &&
		(f.signer == (trust.Digest{}) || slices.ContainsFunc(img.SignatureInfo, func(s cache.Signature) bool { return s.SignerFingerprint == f.signer }))
}
