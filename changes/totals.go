package changes

import "trust-worker/cache"

// Totals are the counts of everything that is published, as of a generation.
type Totals struct {
	Generation cache.Generation
	*cache.Counts
}

// Totals returns the counts as of the last look; nil while they are not known: after a
// start, until every image has been looked at once. The caller must not change them.
func (o *Observer) Totals() *Totals { return o.totals.Load() }

// count brings the totals to a generation. was and is are what changed.
func (o *Observer) count(g cache.Generation, was, is *cache.Counts) {
	if t := o.totals.Load(); t != nil {
		o.totals.Store(&Totals{g, t.Plus(1, is).Plus(-1, was)})
	}
}
