package server

import (
	"errors"
	"net/http"
	"time"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/internal/imageref"
)

// historyPage is a part of the history, oldest first. Next is where to go on; it is absent at
// the end.
type historyPage struct {
	Changes []changes.Change
	Next    string `json:",omitempty"`
}

// historyPerRequest bounds the bytes that are read for one page: one may be short or empty,
// and has a Next then.
const historyPerRequest = 16 << 20

// errFull ends a page.
var errFull = errors.New("the page is full")

func (s *Server) restHistory(w http.ResponseWriter, r *http.Request, _ identity) error {
	q, err := queryOf(r, "image", "signer", "since", "limit", "after")
	if err != nil {
		return err
	}
	limit, err := parseLimit(q, changes.MaxHeld)
	if err != nil {
		return err
	}
	from, err := changes.ParsePlace(q.Get("after"))
	if err != nil {
		return refuse(http.StatusBadRequest, codeInvalid, "after cannot be read", "give Next of the page before")
	}
	wanted := &changes.Query{}
	if since := q.Get("since"); since != "" {
		if wanted.Since, err = sinceOf(since, s.cfg.Now()); err != nil {
			return err
		}
	}
	if q.Get("image") != "" || q.Get("signer") != "" {
		if err := s.reading(w, r, func(snap *cache.Snapshot) error { return s.question(snap, wanted, q.Get("image"), q.Get("signer")) }); err != nil {
			return err
		}
	}
	page := historyPage{Changes: []changes.Change{}}
	size := 0
	at, end, err := changes.ReadHistory(r.Context(), s.cfg.StateDir, wanted, from, historyPerRequest, func(c *changes.Change, place changes.Place) error {
		page.Changes = append(page.Changes, *c)
		if size += c.Size(); len(page.Changes) == limit || size > maxPageBytes {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	if !end {
		page.Next = at.String()
	}
	return s.sendJSON(w, r, page)
}

// question fills in what the history is asked about.
func (s *Server) question(snap *cache.Snapshot, q *changes.Query, image, signer string) error {
	if image != "" {
		ref, err := imageref.Parse(image)
		if err == nil {
			ref, err = s.named(snap, image)
		}
		switch {
		case err != nil:
			return err
		case ref.Name == "":
			return refuse(http.StatusBadRequest, codeNameInvalid, "that does not name an image", "name it as REPO, REPO:TAG or REPO@sha256:…")
		}
		if err := q.About(snap, ref.Name, ref.Tag, ref.Digest); err != nil {
			return err
		}
	}
	if signer != "" && !q.By(snap, signer) {
		return refuse(http.StatusNotFound, codeNameUnknown, "no such signer is or was in force, as far as is known", "name it by fingerprint, by file or by its certificate's subject")
	}
	return nil
}

// sinceOf reads a time: a date, a time, or how long ago.
func sinceOf(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, refuse(http.StatusBadRequest, codeInvalid, "since cannot be read", "give it as 168h, as 2026-11-01 or as 2026-11-01T12:00:00Z")
	}
	return now.Add(-d), nil
}
