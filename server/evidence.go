package server

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"trust-worker/layout"
	"trust-worker/trust"
)

// What the gate reads in storage itself: manifests that are no images are not in the cache.
// Each look is bounded in bytes (package layout) and in time, and what is found out is
// remembered: whoever may push and pull must not keep the daemon reading.

const (
	// evidencePlaces bound the looks at once, evidencePerPlace those in one repository.
	evidencePlaces   = 8
	evidencePerPlace = 2
	evidenceWaiting  = 16
	evidenceTime     = 2 * time.Second
	// evidenceKnown is how many manifests are remembered, companionsKnown how many tags.
	evidenceKnown   = 50_000
	companionsKnown = 100_000
)

// evidence tells signatures and attestations from images, by what is stored.
type evidence struct {
	open   func(repository string) (*layout.Repository, layout.Stamp, error)
	places *shares // by repository: nobody's storage keeps another's waiting
	known  *lru.Cache[sight, bool]

	mu         sync.Mutex
	companions *lru.Cache[string, *layout.Companions] // by repository
	tags       int
}

// sight is what is remembered of a manifest: it holds wherever the manifest is.
type sight struct {
	digest trust.Digest
	index  bool // whether it is an index, not evidence
}

func newEvidence(open func(string) (*layout.Repository, layout.Stamp, error)) *evidence {
	e := &evidence{open: open, places: newShares(evidencePlaces, evidencePerPlace)}
	e.known, _ = lru.New[sight, bool](evidenceKnown) // errors are for sizes below one
	e.companions, _ = lru.NewWithEvict(companionsKnown, func(_ string, c *layout.Companions) { e.tags -= c.Len() + 1 })
	return e
}

// errBusy is returned when too many ask about one repository at once.
var errBusy = errors.New("too many requests look at this repository's storage")

// look runs fn on a repository, in its turn and its time.
func (e *evidence) look(ctx context.Context, repository string, fn func(context.Context, *layout.Repository, layout.Stamp) error) error {
	ctx, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	leave := e.places.take(ctx, repository, evidenceWaiting)
	if leave == nil {
		return errBusy
	}
	defer leave()
	p, stamp, err := e.open(repository)
	if err != nil {
		return err
	}
	defer p.Close()
	return fn(ctx, p, stamp)
}

// is reports whether a manifest is a signature or an attestation and nothing else or, if it
// is what a referrers tag names, an index. What is not in the repository is an error that
// wraps fs.ErrNotExist.
func (e *evidence) is(ctx context.Context, repository string, d trust.Digest, referrers bool) (is bool, err error) {
	err = e.look(ctx, repository, func(ctx context.Context, p *layout.Repository, _ layout.Stamp) error {
		if !p.HasBlob(d) {
			return fs.ErrNotExist
		}
		for _, index := range []bool{false, true}[:map[bool]int{false: 1, true: 2}[referrers]] {
			ask, key := p.Evidence, sight{d, index}
			if index {
				ask = p.IsIndex
			}
			found, ok := e.known.Get(key)
			if !ok {
				var err error
				if found, err = ask(ctx, d); err != nil {
					return err
				}
				e.known.Add(key, found)
			}
			is = is || found
		}
		return nil
	})
	return is && err == nil, err
}

// resolve returns what a tag such as sha256-<hex>.sig names, the zero digest if there is no
// such tag, and whether it is a referrers tag.
func (e *evidence) resolve(ctx context.Context, repository, tag string) (d trust.Digest, referrers bool, err error) {
	err = e.look(ctx, repository, func(ctx context.Context, p *layout.Repository, stamp layout.Stamp) error {
		c := e.remembered(repository, stamp)
		if c == nil {
			var err error
			if c, err = p.Companions(ctx); err != nil {
				return err
			}
			e.remember(repository, c)
		}
		d, referrers, _ = c.Resolve(tag)
		return nil
	})
	return d, referrers, err
}

func (e *evidence) remembered(repository string, stamp layout.Stamp) *layout.Companions {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.companions.Get(repository); ok && c.Stamp == stamp && stamp != (layout.Stamp{}) {
		return c
	}
	return nil
}

func (e *evidence) remember(repository string, c *layout.Companions) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.companions.Remove(repository)
	e.companions.Add(repository, c)
	for e.tags += c.Len() + 1; e.tags > companionsKnown && e.companions.Len() > 1; {
		e.companions.RemoveOldest()
	}
}
