package server

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"trust-worker/cache"
	"trust-worker/preview"
	"trust-worker/server/page"
)

const (
	// rowsPerPage and scanPerView bound one view of the list: the images in it,
	// and those read to find them.
	rowsPerPage = 50
	scanPerView = 20_000
	// changesRead are the changes among which a loss of trust is looked for.
	changesRead = 200
)

func (s *Server) pageRoutes(t router) {
	redirect := func(w http.ResponseWriter, r *http.Request, _ identity) error {
		http.Redirect(w, r, page.Root, http.StatusSeeOther)
		return nil
	}
	t.handle("GET /{$}", toNone, redirect)
	t.handle("GET "+strings.TrimSuffix(page.Root, "/"), toNone, redirect)
	t.handle("GET "+page.Root+"{$}", toRead, s.overviewPage)
	t.handle("GET "+page.Root+"image/{name...}", toRead, s.imagePage)
	t.handle("GET "+page.Root+"trust", toRead, s.trustPage)
	if s.cfg.Previewed.Loader != nil {
		t.handle("GET "+page.Root+"preview", toRead, s.previewPage)
	}
	// The same for everybody: the page of an error needs them too.
	t.handle("GET "+page.Root+"static/{name}", toNone, s.pageAsset)
}

// forPeople reports whether an answer is read in a browser.
func forPeople(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, page.Root) }

func pageHeaders(w http.ResponseWriter) {
	w.Header().Set("Content-Security-Policy", page.ContentSecurityPolicy)
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
}

const mediaHTML = "text/html; charset=utf-8"

func (s *Server) writePage(w http.ResponseWriter, status int, b []byte) {
	pageHeaders(w)
	w.Header().Set("Content-Type", mediaHTML)
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client is gone
}

// failPage answers with a problem in words.
func (s *Server) failPage(w http.ResponseWriter, p *problem) {
	message := strings.ToUpper(p.Message[:1]) + p.Message[1:]
	b, err := s.pages.Error(p.status, message, p.Detail["reason"])
	if err != nil { // our own template; a failure is a programming error
		http.Error(w, message, p.status)
		return
	}
	s.writePage(w, p.status, b)
}

// freshPage answers with a page of one snapshot.
func (s *Server) freshPage(w http.ResponseWriter, r *http.Request, fn func(*cache.Snapshot) ([]byte, error)) error {
	pageHeaders(w)
	return s.freshBytes(w, r, mediaHTML, fn)
}

// replicaOf is whose replica this is, nil if it is none.
func (s *Server) replicaOf() *page.Replica {
	if s.cfg.Replica == nil {
		return nil
	}
	st := s.cfg.Replica()
	return &page.Replica{Source: st.Source, Generation: st.Generation, Data: st.Data, Behind: st.Behind}
}

func answersOf(snap *cache.Snapshot) page.Answers {
	return page.Answers{AsOf: snap.AsOf(), Lease: snap.Lease(), Stale: snap.Stale()}
}

// overviewPage shows the daemon's condition also when there are no answers.
func (s *Server) overviewPage(w http.ResponseWriter, r *http.Request, _ identity) error {
	q := r.URL.Query()
	filter := page.Filter{Query: strings.TrimSpace(q.Get("q")), State: q.Get("state"), Repo: q.Get("repo"), Expiring: q.Get("expiring")}
	wanted, err := parseFilter(url.Values{"state": {filter.State}, "expiring": {filter.Expiring}}, s.cfg.Now())
	if err != nil {
		return err
	}
	wanted.query, wanted.untagged = newNameQuery(filter.Query), true
	after, err := parseCursor(q.Get("after"))
	if err != nil {
		return err
	}
	o := page.Overview{Now: s.cfg.Now(), Daemon: s.cfg.Status(), Replica: s.replicaOf(), Store: s.cfg.Trust.TrustStore(), Filter: filter, After: after.String(),
		Changes: s.cfg.Changes.Newest(changesRead)}
	if s.cfg.Cluster != nil {
		o.Cluster = s.cfg.Cluster()
	}
	err = s.freshPage(w, r, func(snap *cache.Snapshot) ([]byte, error) {
		o.Answers = answersOf(snap)
		p := pager{snap: snap, filter: wanted, limit: rowsPerPage, most: scanPerView, names: s.cfg.Limits.MaxScan, after: after}
		if err := p.collect(filter.Repo); err != nil {
			return nil, err
		}
		o.Images, o.Next, o.Looked = p.page.Images, p.page.Next, p.read
		if counts, _ := s.counts(snap); counts != nil {
			o.Counts, o.Expiring = counts.Images, counts.EndingBy(o.Now.Add(page.ExpiringWithin))
			o.Endings = counts.NextEndings(o.Now, rowsPerPage)
		}
		return s.pages.Overview(&o)
	})
	if p := problemOf(err); err != nil && p.Code == codeNoCache {
		o.Answers = page.Answers{Problem: "Nothing is published, so nothing is trusted."}
		b, err := s.pages.Overview(&o)
		if err != nil {
			return err
		}
		w.Header().Set("Retry-After", "1")
		s.writePage(w, p.status, b)
		return nil
	}
	return err
}

func (s *Server) imagePage(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.freshPage(w, r, func(snap *cache.Snapshot) ([]byte, error) {
		img, err := s.lookUp(snap, r.PathValue("name"))
		if errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrUnlisted) && !errors.Is(err, cache.ErrPartial) {
			return nil, refuse(http.StatusNotFound, codeNameUnknown, "this image is not in storage", r.PathValue("name"))
		} else if err != nil {
			return nil, err
		}
		return s.pages.Image(&page.Image{Now: s.cfg.Now(), Answers: answersOf(snap), Daemon: s.cfg.Status(), Replica: s.replicaOf(), Store: s.cfg.Trust.TrustStore(), Image: img, StateDir: shellQuote(s.cfg.StateDir)})
	})
}

func (s *Server) trustPage(w http.ResponseWriter, r *http.Request, _ identity) error {
	after, err := strconv.Atoi(r.URL.Query().Get("after"))
	if err != nil {
		after = 0
	}
	b, err := s.pages.Trust(page.Trust{Now: s.cfg.Now(), Store: s.cfg.Trust.TrustStore(), Replica: s.replicaOf(), After: after, Asks: s.cfg.Previewed.Loader != nil})
	if err != nil {
		return err
	}
	pageHeaders(w)
	writeFresh(w, r, mediaHTML, "trust", b)
	return nil
}

// previewPage shows what the removal of a file or signer would cost.
func (s *Server) previewPage(w http.ResponseWriter, r *http.Request, _ identity) error {
	what := r.URL.Query().Get("remove")
	if what == "" {
		return refuse(http.StatusBadRequest, codeInvalid, "nothing would change", "choose a file on the page of the trust material")
	}
	a, err := s.preview(w, r, &preview.Change{Remove: []string{what}}, rowsPerPage)
	if err != nil {
		return err
	}
	b, err := s.pages.Preview(page.Preview{What: what, Answer: a})
	if err != nil {
		return err
	}
	s.writePage(w, http.StatusOK, b)
	return nil
}

// pageAsset serves a file that pages refer to by its content's version, so that
// it can be kept.
func (s *Server) pageAsset(w http.ResponseWriter, r *http.Request, _ identity) error {
	a, ok := page.FindAsset(r.PathValue("name"))
	if !ok {
		return refuse(http.StatusNotFound, codeNameUnknown, "there is nothing here", "")
	}
	pageHeaders(w)
	w.Header().Set("Content-Type", a.Type)
	if r.URL.Query().Get("v") == a.Version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(a.Content) // the client is gone
	return nil
}
