package server

import (
	"net/http"
	"strings"
)

// The paths that zot has.
const (
	pathCosign   = "/v2/_zot/ext/cosign"
	pathNotation = "/v2/_zot/ext/notation"
	pathSearch   = "/v2/_zot/ext/search"
	pathDiscover = "/v2/_oci/ext/discover"
)

// handlerFunc answers a request of an established identity; an error becomes the
// answer.
type handlerFunc func(w http.ResponseWriter, r *http.Request, id identity) error

// router registers routes, each with the right that it asks for.
type router struct {
	s        *Server
	mux      *http.ServeMux
	patterns *[]string // of the routes there are
}

func (t router) handle(pattern string, need right, h handlerFunc) {
	s := t.s
	*t.patterns = append(*t.patterns, pattern)
	t.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		defer s.metrics.request(pattern)()
		id, err := s.authorize(r, need)
		if err == nil {
			err = h(w, r, id)
		} else if need == toWrite {
			s.audit(r, id, change{}, err)
		}
		if err != nil {
			if p := problemOf(err); p.status == http.StatusUnauthorized {
				s.challenge(w)
			}
			s.fail(w, r, err)
		}
	})
}

// routes registers everything. The routes of a tool that is off do not exist.
func (s *Server) routes() http.Handler {
	t := router{s: s, mux: http.NewServeMux(), patterns: &s.patterns}
	if s.cfg.Cosign {
		t.handle("POST "+pathCosign, toWrite, s.limited(s.uploadKey))
		t.handle("GET "+pathCosign, toRead, s.listKeys)
		t.handle("DELETE "+pathCosign+"/{fingerprint}", toWrite, s.limited(s.removeKey))
	}
	if s.cfg.Notation {
		t.handle("POST "+pathNotation, toWrite, s.limited(s.uploadCertificates))
		t.handle("GET "+pathNotation, toRead, s.listCertificates)
		t.handle("DELETE "+pathNotation+"/{fingerprint}", toWrite, s.limited(s.removeCertificate))
	}
	t.handle("GET "+pathSearch, toRead, s.search)
	t.handle("POST "+pathSearch, toRead, s.search)
	t.handle("GET "+pathDiscover, toRead, s.discover)
	s.restRoutes(t)
	s.gateRoutes(t)
	s.healthRoutes(t)
	s.pageRoutes(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := t.mux.Handler(r); pattern == "" {
			s.nowhere(w, r, t.mux)
			return
		}
		t.mux.ServeHTTP(w, r)
	})
}

// nowhere answers requests that no route takes, in zot's form: the mux says
// whether another method would have been.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	rec := &statusOnly{header: http.Header{}}
	mux.ServeHTTP(rec, r)
	if allow := rec.header.Get("Allow"); rec.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		s.fail(w, r, refuse(rec.status, codeUnsupported, "this cannot be done here", "choose "+allow))
		return
	}
	message, reason := "there is nothing here", ""
	if s.cfg.Replica != nil {
		reason = "this is a replica of " + s.cfg.Replica().Source + ": uploads, and what is about the trust directories, are there"
	}
	if strings.HasPrefix(r.URL.Path, "/v2/") && s.cfg.Replica == nil { // zli asks for tags, referrers and the catalogue
		message, reason = "this is the registry's own API, which the registry serves and trust-worker does not",
			"ask the registry itself (zot, for example); of zot's API these are here: "+pathSearch+", "+pathCosign+", "+pathNotation+", "+pathDiscover
	}
	s.fail(w, r, refuse(http.StatusNotFound, codeNameUnknown, message, reason))
}

// statusOnly is a ResponseWriter that keeps the status and the header.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }

// limited bounds how often one client may change something, wrong tries included.
func (s *Server) limited(h handlerFunc) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request, id identity) error {
		if !s.writes.allow(clientOf(r), s.cfg.Now()) {
			err := tooMany("changes")
			s.audit(r, id, change{}, err)
			return err
		}
		return h(w, r, id)
	}
}
