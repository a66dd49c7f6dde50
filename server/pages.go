package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

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
	// scanPerPage is how many tags, and repositories without any, are looked
	// at for one page.
	scanPerPage = 10_000
	// lastTag comes after every tag.
	lastTag = "~"
)

var errPageFull = errors.New("page is full")

func (s *Server) restImages(w http.ResponseWriter, r *http.Request, _ identity) error {
	q := r.URL.Query()
	filter, err := parseFilter(q)
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
		p := pager{snap: snap, filter: filter, limit: limit, after: after, page: imagePage{Images: []cache.Image{}}}
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
}

func parseFilter(q url.Values) (f imageFilter, err error) {
	f.state, f.reason = q.Get("state"), trust.Reason(q.Get("reason"))
	if f.state != "" && !slices.Contains(states, f.state) {
		return f, refuse(http.StatusBadRequest, codeInvalid, "there is no such state", "choose "+strings.Join(states, ", "))
	}
	if v := q.Get("signer"); v != "" {
		if f.signer, err = trust.ParseDigest(v); err != nil {
			return f, refuse(http.StatusBadRequest, codeInvalid, "the signer's fingerprint cannot be read", err.Error())
		}
	}
	return f, nil
}

func (f *imageFilter) wants(img *cache.Image) bool {
	return (f.state == "" || img.State() == f.state) &&
		(f.reason == "" || slices.ContainsFunc(img.SignatureInfo, func(s cache.Signature) bool { return s.Reason == f.reason })) &&
		(f.signer == (trust.Digest{}) || slices.ContainsFunc(img.SignatureInfo, func(s cache.Signature) bool { return s.SignerFingerprint == f.signer }))
}

// cursor is a place in the list: after this tag of this repository.
type cursor struct{ repo, tag string }

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.repo + "\x00" + c.tag))
}

func parseCursor(s string) (cursor, error) {
	if s == "" {
		return cursor{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	repo, tag, ok := strings.Cut(string(b), "\x00")
	if err != nil || !ok {
		return cursor{}, refuse(http.StatusBadRequest, codeInvalid, "the cursor cannot be read", "give after as Next had it")
	}
	return cursor{repo, tag}, nil
}

// lists is what a pager reads of a cache.Snapshot.
type lists interface {
	HasRepository(name string) (bool, error)
	RepositoriesFrom(name string, fn func(name string) error) error
	TagsAfter(repository, tag string, fn func(tag string, d trust.Digest) error) error
	Image(repository string, d trust.Digest) (cache.Image, error)
}

// pager collects one page in the order of repositories and tags. It begins at
// the cursor: what comes before is not visited, so that all pages cost the same.
type pager struct {
	snap    lists
	filter  imageFilter
	limit   int
	after   cursor
	scanned int
	page    imagePage
}

// collect fills the page with the images of one repository, or of all for "".
func (p *pager) collect(only string) error {
	var err error
	if only == "" {
		err = p.snap.RepositoriesFrom(p.after.repo, p.repository)
	} else {
		if ok, err := p.snap.HasRepository(only); err != nil || !ok {
			return errors.Join(err, cache.ErrNotFound)
		}
		err = p.repository(only)
	}
	if errors.Is(err, errPageFull) {
		return nil
	}
	return err
}

func (p *pager) repository(repo string) error {
	after := ""
	if repo == p.after.repo {
		after = p.after.tag
	}
	began := p.scanned
	err := p.snap.TagsAfter(repo, after, func(tag string, d trust.Digest) error {
		if err := p.room(); err != nil {
			return err
		}
		p.after = cursor{repo, tag}
		img, err := p.snap.Image(repo, d)
		if errors.Is(err, cache.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		img.Tag = tag
		if p.filter.wants(&img) {
			p.page.Images = append(p.page.Images, img)
		}
		return nil
	})
	if err != nil || p.scanned > began {
		return err
	}
	// A repository without tags is looked at as well.
	if err := p.room(); err != nil {
		return err
	}
	p.after = cursor{repo, lastTag}
	return nil
}

// room counts one more look, or ends the page before it.
func (p *pager) room() error {
	if len(p.page.Images) == p.limit || p.scanned == scanPerPage {
		p.page.Next = p.after.String()
		return errPageFull
	}
	p.scanned++
	return nil
}
