package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"trust-worker/cache"
)

// search is zot's GraphQL endpoint: GET with the query in the parameter of that
// name, as its client and its web interface send it, or POST of JSON.
func (s *Server) search(w http.ResponseWriter, r *http.Request, _ identity) error {
	params, err := s.searchParams(w, r)
	if err != nil {
		return err
	}
	var resp *graphql.Response
	var b []byte
	var end func()
	err = s.reading(w, r, func(snap *cache.Snapshot) (err error) {
		resp = s.graph.Do(r.Context(), snap, params)
		if b, err = encode(resp); err == nil {
			end, err = s.sending.begin(r, len(b))
		}
		return err
	})
	if err != nil {
		return err
	}
	defer end()
	status := http.StatusOK
	if len(resp.Errors) > 0 && len(resp.Data) == 0 {
		status = http.StatusUnprocessableEntity // the query itself is wrong
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client is gone
	return nil
}

func (s *Server) searchParams(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, error) {
	params := &graphql.RawParams{}
	bad := func(reason string) error {
		return refuse(http.StatusBadRequest, codeInvalid, "this is not a GraphQL request", reason)
	}
	if r.Method != http.MethodPost {
		q := r.URL.Query()
		params.Query, params.OperationName = q.Get("query"), q.Get("operationName")
		if v := q.Get("variables"); v != "" {
			if err := decodeNumbers([]byte(v), &params.Variables); err != nil {
				return nil, bad("variables is not a JSON object")
			}
		}
	} else {
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
			return nil, refuse(http.StatusUnsupportedMediaType, codeUnsupported, "send application/json", "")
		}
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.Limits.MaxQueryBytes))
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		} else if err != nil {
			return nil, bad("the body did not come in full")
		}
		if err := decodeNumbers(b, params); err != nil {
			return nil, bad("the body is not JSON with query, operationName and variables")
		}
	}
	if params.Query == "" {
		return nil, bad("there is no query")
	}
	return params, nil
}

func decodeNumbers(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

// reading runs fn on one snapshot, in a slot of those that bound how many searches
// run at once. fn must not write the answer: a client that is slow to take it
// would keep the slot and the snapshot's files.
func (s *Server) reading(w http.ResponseWriter, r *http.Request, fn func(*cache.Snapshot) error) error {
	return s.readingOf(s.reads, w, r, fn)
}

// readingOf is reading within other shares.
func (s *Server) readingOf(places *shares, w http.ResponseWriter, r *http.Request, fn func(*cache.Snapshot) error) error {
	return s.readingFor(places, clientOf(r), w, r, fn)
}

// readingFor is readingOf in the share of whom or what is named.
func (s *Server) readingFor(places *shares, whose string, w http.ResponseWriter, r *http.Request, fn func(*cache.Snapshot) error) error {
	ctx, cancel := context.WithTimeout(r.Context(), longestWait)
	defer cancel()
	leave := places.take(ctx, whose, maxWaiting)
	if leave == nil {
		w.Header().Set("Retry-After", "1")
		return refuse(http.StatusServiceUnavailable, codeTooMany, "too many searches at once", "ask again, or ask for less at a time")
	}
	defer leave()
	snap, err := s.cfg.Reader.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	w.Header().Set(headerGeneration, snap.Generation().String())
	return fn(snap)
}

// maxWaiting is how many reads of one client wait for their turn, and longestWait how
// long each does.
const (
	maxWaiting  = 64
	longestWait = 5 * time.Second
)

// extension is an entry of the list that zot's client reads before it searches
// (OCI distribution-spec, extensions).
type extension struct {
	Name        string   `json:"name"`
	URL         string   `json:"url"`
	Description string   `json:"description"`
	Endpoints   []string `json:"endpoints"`
}

func (s *Server) discover(w http.ResponseWriter, _ *http.Request, _ identity) error {
	endpoints := []string{}
	if s.cfg.Notation {
		endpoints = append(endpoints, pathNotation)
	}
	if s.cfg.Cosign {
		endpoints = append(endpoints, pathCosign)
	}
	writeJSON(w, http.StatusOK, map[string][]extension{"extensions": {{Name: "_zot", URL: "https://zotregistry.dev",
		Description: "zot's image trust and search extensions, as trust-worker serves them", Endpoints: append(endpoints, pathSearch)}}})
	return nil
}
