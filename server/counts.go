package server

import (
	"maps"
	"net/http"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// summary counts images and signatures by state; see [cache.Counts].
type summary struct {
	Generation   string // as of which everything is counted
	AsOf         time.Time
	Repositories int
	// Counting: the daemon has not counted everything since its start. There are no
	// counts yet.
	Counting        bool `json:",omitempty"`
	Images          int64
	Signatures      int64
	States          map[string]int64       // of images
	SignatureStates map[trust.Status]int64 // of signatures
	Attestations    map[trust.Status]int64 // how many, by status
}

// counts are those of everything that is published, with the generation as of which
// they are; nil while that is not known.
func (s *Server) counts(snap *cache.Snapshot) (*cache.Counts, cache.Generation) {
	if s.cfg.Totals == nil {
		return nil, snap.Generation()
	}
	t := s.cfg.Totals()
	switch {
	case t == nil:
		return nil, snap.Generation()
	case snap.Stale():
		return t.Unbelieved(), t.Generation
	}
	return t.Counts, t.Generation
}

func (s *Server) restSummary(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) {
		counts, generation := s.counts(snap)
		sum := &summary{Generation: generation.String(), AsOf: snap.AsOf(), Counting: counts == nil,
			States: map[string]int64{}, SignatureStates: map[trust.Status]int64{}, Attestations: map[trust.Status]int64{}}
		for _, state := range states {
			if counts == nil {
				break
			}
			n := counts.Images[state]
			sum.States[state] = n
			sum.Images += n
			if state != cache.Unsigned {
				many := counts.Signatures[trust.Status(state)]
				sum.SignatureStates[trust.Status(state)] = many
				sum.Signatures += many
			}
		}
		if counts != nil {
			maps.Copy(sum.Attestations, counts.Attestations)
		}
		return sum, snap.Repositories(func(string) error { sum.Repositories++; return nil })
	})
}
