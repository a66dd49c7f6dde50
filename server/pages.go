package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
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
	// scanPerPage is how many tags are looked at for one page of a filter.
	scanPerPage = 10_000
)

var errPageFull = errors.New("page is full")

func (s *Server) restImages(w http.ResponseWriter, r *http.Request, _ identity) error {
	q := r.URL.Query()
	state, repo := q.Get("state"), q.Get("repository")
	if state != "" && !strings.Contains(" "+strings.Join(states, " ")+" ", " "+state+" ") {
		return refuse(http.StatusBadRequest, codeInvalid, "there is no such state", "choose "+strings.Join(states, ", "))
	}
	limit := defaultPage
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > s.cfg.Limits.MaxPage {
			return refuse(http.StatusBadRequest, codeInvalid, "the limit cannot be used", fmt.Sprintf("choose 1 to %d", s.cfg.Limits.MaxPage))
		}
		limit = n
	}
	after, err := parseCursor(q.Get("after"))
	if err != nil {
		return err
	}
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) {
		p := pager{snap: snap, state: state, limit: limit, after: after, page: imagePage{Images: []cache.Image{}}}
		var err error
		if repo != "" {
			if ok, err := snap.HasRepository(repo); err != nil || !ok {
				return nil, errors.Join(err, cache.ErrNotFound)
			}
			err = p.repository(repo)
		} else {
			err = snap.Repositories(p.repository)
		}
		if errors.Is(err, errPageFull) {
			err = nil
		}
		return p.page, err
	})
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

// pager collects one page in the order of repositories and tags. Names before the
// cursor are passed over without being read.
type pager struct {
	snap    *cache.Snapshot
	state   string
	limit   int
	after   cursor
	scanned int
	page    imagePage
}

func (p *pager) repository(repo string) error {
	if repo < p.after.repo {
		return nil
	}
	return p.snap.Tags(repo, func(tag string, d trust.Digest) error {
		if repo == p.after.repo && tag <= p.after.tag {
			return nil
		}
		if len(p.page.Images) == p.limit || p.scanned == scanPerPage {
			p.page.Next = p.after.String()
			return errPageFull
		}
		p.scanned++
		p.after = cursor{repo, tag}
		img, err := p.snap.Image(repo, d)
		if errors.Is(err, cache.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		img.Tag = tag
		if p.state == "" || img.State() == p.state {
			p.page.Images = append(p.page.Images, img)
		}
		return nil
	})
}
