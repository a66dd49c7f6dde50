package server

import (
	"net/http"
	"time"

	"trust-worker/cache"
	"trust-worker/trust"
)

// summary counts images and signatures by state; see [cache.Counts].
type summary struct {
	Generation      string
	AsOf            time.Time
	Repositories    int
	Images          int64
	Signatures      int64
	States          map[string]int64       // of images
	SignatureStates map[trust.Status]int64 // of signatures
}

func summarize(snap *cache.Snapshot) (*summary, error) {
	counts, err := snap.Counts("")
	if err != nil {
		return nil, err
	}
	sum := &summary{Generation: snap.Generation().String(), AsOf: snap.AsOf(),
		States: map[string]int64{}, SignatureStates: map[trust.Status]int64{}}
	for _, state := range states {
		n := counts.Images[state]
		sum.States[state] = n
		sum.Images += n
		if state != cache.Unsigned {
			many := counts.Signatures[trust.Status(state)]
			sum.SignatureStates[trust.Status(state)] = many
			sum.Signatures += many
		}
	}
	return sum, snap.Repositories(func(string) error { sum.Repositories++; return nil })
}

func (s *Server) restSummary(w http.ResponseWriter, r *http.Request, _ identity) error {
	return s.fresh(w, r, func(snap *cache.Snapshot) (any, error) { return summarize(snap) })
}
