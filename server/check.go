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

// checked is what every gate answers with: whether an image is trusted now, and if not, why.
type checked struct {
	State      string
	Reason     trust.Reason `json:",omitempty"`
	RepoName   string
	Digest     string
	AsOf       *time.Time
	Generation string `json:",omitempty"`
	// Lacking is the predicate type that was asked for and of which there is no trusted
	// attestation.
	Lacking string `json:",omitempty"`

	// status is 200 only if the image is trusted now; 403 when it is decided that it is
	// not, 404 when it is not known, 503 when nothing has been decided.
	status int
}

// judge judges one image of a repository of this storage. Whatever asks whether an image
// may be used asks this.
func judge(snap *cache.Snapshot, repository string, d trust.Digest, foreign string) (c checked, err error) {
	c = checked{State: string(trust.Unknown), RepoName: repository, Digest: cmp.Or(foreign, d.String())}
	asOf := snap.AsOf()
	c.AsOf, c.Generation = &asOf, snap.Generation().String()
	img, err := snap.ImageWithin(repository, d, cache.BudgetOf(0)) // its state is that of all
	switch {
	case err != nil:
		return c, c.undecided(err)
	case img.State() == string(trust.Trusted):
		c.status = http.StatusOK
	case img.State() == string(trust.Unknown), img.State() == string(trust.Pending):
		c.status = http.StatusServiceUnavailable
	default:
		c.status = http.StatusForbidden
	}
	c.State, c.Reason = img.State(), img.Reason()
	return c, nil
}

// attested demands a trusted attestation of each predicate type, of an image that is trusted.
func (c *checked) attested(snap *cache.Snapshot, repository string, d trust.Digest, predicates []string) error {
	if c.status != http.StatusOK || len(predicates) == 0 {
		return nil
	}
	lacking, undecided, err := snap.Attested(repository, d, predicates)
	switch {
	case err != nil:
		c.status = http.StatusServiceUnavailable
		return err
	case lacking != "" && undecided:
		c.status = http.StatusServiceUnavailable
	case lacking != "":
		c.status = http.StatusForbidden
	}
	c.Lacking = lacking
	return nil
}

// undecided says what an error of reading means for who asks; one that means nothing is
// returned.
func (c *checked) undecided(err error) error {
	c.status = http.StatusServiceUnavailable
	switch {
	case errors.Is(err, cache.ErrUnlisted):
		c.Reason = trust.IOError
	case errors.Is(err, cache.ErrPartial):
		c.State, c.Reason = string(trust.Pending), trust.New
	case errors.Is(err, cache.ErrNotFound):
		c.status = http.StatusNotFound
	case problemOf(err).Code == codeNoCache:
		c.Reason = trust.NoCache
	default:
		return err
	}
	return nil
}

// restCheck is a gate for whoever asks by digest.
func (s *Server) restCheck(w http.ResponseWriter, r *http.Request, _ identity) error {
	ref, err := imageref.Parse(r.PathValue("name"))
	if err != nil || ref.Name == "" || ref.Digest == (trust.Digest{}) {
		return refuse(http.StatusBadRequest, codeInvalid, "the gate wants a digest", "ask for /api/v1/check/REPO@sha256:…; a tag can move between the check and the pull")
	}
	q, err := queryOfMany(r, "predicate")
	if err != nil {
		return err
	}
	c := checked{State: string(trust.Unknown), RepoName: ref.Name, Digest: cmp.Or(ref.Foreign, ref.Digest.String())}
	err = s.readingOf(s.checks, w, r, func(snap *cache.Snapshot) error {
		named, err := s.named(snap, r.PathValue("name"))
		if err != nil {
			return err
		}
		if c, err = judge(snap, named.Name, ref.Digest, ref.Foreign); err != nil {
			return err
		}
		return c.attested(snap, named.Name, ref.Digest, q["predicate"])
	})
	if err != nil {
		if err := c.undecided(err); err != nil {
			return err
		}
	}
	writeJSON(w, c.status, c)
	return nil
}
