package server

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/imageref"
	"trust-worker/trust"
)

// gate is what the gate answers.
type gate struct {
	State      string
	Reason     trust.Reason `json:",omitempty"`
	RepoName   string
	Digest     string
	AsOf       *time.Time
	Generation string `json:",omitempty"`
}

// restCheck is a gate for proxies and admission: 200 only if the image is trusted
// now; 403 when it is decided that it is not; 404 when it is not known; 503 when
// nothing has been decided. The body says why.
func (s *Server) restCheck(w http.ResponseWriter, r *http.Request, _ identity) error {
	ref, err := imageref.Parse(r.PathValue("name"))
	if err != nil || ref.Name == "" || ref.Digest == (trust.Digest{}) {
		return refuse(http.StatusBadRequest, codeInvalid, "the gate wants a digest", "ask for /api/v1/check/REPO@sha256:…; a tag can move between the check and the pull")
	}
	g := gate{State: "unknown", RepoName: ref.Name, Digest: cmp.Or(ref.Foreign, ref.Digest.String())}
	err = s.readingOf(s.checks, w, r, func(snap *cache.Snapshot) error {
		asOf := snap.AsOf()
		g.AsOf, g.Generation = &asOf, snap.Generation().String()
		named, err := s.named(snap, r.PathValue("name"))
		if err != nil {
			return err
		}
		g.RepoName = named.Name
		img, err := snap.ImageWithin(named.Name, ref.Digest, cache.BudgetOf(0)) // its state is that of all
		if err != nil {
			return err
		}
		g.State, g.Reason = img.State(), img.Reason()
		return nil
	})
	status := http.StatusOK
	switch {
	case errors.Is(err, cache.ErrUnlisted):
		g.Reason, status = trust.IOError, http.StatusServiceUnavailable
	case errors.Is(err, cache.ErrPartial):
		g.State, g.Reason, status = string(trust.Pending), trust.New, http.StatusServiceUnavailable
	case errors.Is(err, cache.ErrNotFound):
		status = http.StatusNotFound
	case err != nil:
		if p := problemOf(err); p.Code == codeNoCache {
			g.Reason, status = trust.NoCache, http.StatusServiceUnavailable
			break
		}
		return err
	case g.State == string(trust.Trusted):
	case g.State == string(trust.Unknown), g.State == string(trust.Pending):
		status = http.StatusServiceUnavailable
	default:
		status = http.StatusForbidden
	}
	writeJSON(w, status, g)
	return nil
}
