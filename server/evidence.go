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
	// evidencePlaces bound the looks at once, evidencePerPlace those in one repository;
	// what has more bytes than evidenceSmall is looked at in places of its own, largePlaces.
	evidencePlaces   = 8
	evidencePerPlace = 2
	largePlaces      = 2
	evidenceWaiting  = 16
	evidenceSmall    = 2 << 20
	evidenceTime     = 2 * time.Second
	// evidenceKnown is how many manifests are remembered, companionsKnown how many tags.
	evidenceKnown   = 50_000
	companionsKnown = 100_000
)

// evidence tells signatures and attestations from images, by what is stored.
type evidence struct {
	open   func(repository string) (*layout.Repository, error)
	places *shares // by repository: nobody's storage keeps another's waiting
	large  *shares // the same, for what takes long to read
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

func newEvidence(open func(string) (*layout.Repository, error)) *evidence {
	e := &evidence{open: open, places: newShares(evidencePlaces, evidencePerPlace), large: newShares(largePlaces, 1)}
	e.known, _ = lru.New[sight, bool](evidenceKnown) // errors are for sizes below one
	e.companions, _ = lru.NewWithEvict(companionsKnown, func(_ string, c *layout.Companions) { e.tags -= c.Len() + 1 })
	return e
}

// errBusy is returned when too many ask about one repository at once.
var errBusy = errors.New("too many requests look at this repository's storage")

// look runs fn on a repository, in its turn and its time.
func (e *evidence) look(ctx context.Context, places *shares, repository string, fn func(context.Context, *layout.Repository) error) error {
	ctx, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	leave := places.take(ctx, repository, evidenceWaiting)
	if leave == nil {
		return errBusy
	}
	defer leave()
	p, err := e.open(repository)
	if err != nil {
		return err
	}
	defer p.Close()
	return fn(ctx, p)
}

// is reports whether a manifest is a signature or an attestation and nothing else or, if it
// is what a referrers tag names, an index. What is not in the repository is an error that
// wraps fs.ErrNotExist.
func (e *evidence) is(ctx context.Context, repository string, d trust.Digest, referrers bool) (bool, error) {
	is, err := e.sees(ctx, e.places, repository, sight{digest: d}, func(ctx context.Context, p *layout.Repository) (bool, error) {
		return p.Evidence(ctx, d, evidenceSmall)
	})
	if errors.Is(err, layout.ErrLarge) {
		is, err = e.sees(ctx, e.large, repository, sight{digest: d}, func(ctx context.Context, p *layout.Repository) (bool, error) {
			return p.Evidence(ctx, d, layout.MaxEvidence)
		})
	}
	if is || err != nil || !referrers {
		return is && err == nil, err
	}
	return e.sees(ctx, e.places, repository, sight{d, true}, func(ctx context.Context, p *layout.Repository) (bool, error) {
		return p.IsReferrers(ctx, d)
	})
}

// sees asks what is not remembered of a manifest that is in the repository.
func (e *evidence) sees(ctx context.Context, places *shares, repository string, what sight, ask func(context.Context, *layout.Repository) (bool, error)) (found bool, err error) {
	err = e.look(ctx, places, repository, func(ctx context.Context, p *layout.Repository) error {
		if !p.Holds(what.digest) {
			return fs.ErrNotExist
		}
		var ok bool
		if found, ok = e.known.Get(what); ok {
			return nil
		}
		if found, err = ask(ctx, p); err == nil {
			e.known.Add(what, found)
		}
		return err
	})
	return found && err == nil, err
}

// resolve returns what a tag such as sha256-<hex>.sig names, the zero digest if there is no
// such tag, and whether it is a referrers tag.
func (e *evidence) resolve(ctx context.Context, repository, tag string) (d trust.Digest, referrers bool, err error) {
	err = e.look(ctx, e.places, repository, func(ctx context.Context, p *layout.Repository) error {
		last := e.remembered(repository)
		var next *layout.Companions
		if d, referrers, next, err = p.Companion(ctx, tag, last); err == nil && next != nil && next != last {
			e.remember(repository, next)
		}
		return err
	})
	return d, referrers, err
}

func (e *evidence) remembered(repository string) *layout.Companions {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, _ := e.companions.Get(repository)
	return c
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
