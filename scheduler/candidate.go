package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/truststore"
)

// errUndecided: what is in storage says nothing now.
var errUndecided = errors.New("it cannot be decided now")

// VerifyCandidate verifies one signature straight from storage, under trust that need not be
// in force, and stores nothing. Revocation services are not asked.
func VerifyCandidate(ctx context.Context, storage []Storage, under *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error) {
	e := newExaminer(noFacts{}, time.Now, slog.New(slog.DiscardHandler))
	return e.candidate(ctx, storage, under, c)
}

// VerifyCandidate is the function of that name in a daemon, with its quarantine: what has
// crashed it is not verified, and a crash now counts.
func (s *Scheduler) VerifyCandidate(ctx context.Context, under *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error) {
	return s.candidate(ctx, s.cfg.Storage, under, c)
}

func (e *examiner) candidate(ctx context.Context, storage []Storage, under *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error) {
	p, err := OpenRepository(storage, c.Repository)
	if err != nil {
		return nil, err
	}
	defer p.Close() // read-only
	subject, err := p.Manifest(ctx, c.Subject)
	if err != nil {
		return nil, err
	}
	signature, err := p.Manifest(ctx, c.Signature)
	if err != nil {
		return nil, err
	}
	row := store.Row{Digest: c.Subject, MediaType: c.MediaType, Size: subject.Size, Present: true,
		References: []store.Reference{{Digest: c.Signature, Carrier: signature.Carries(c.Subject)}}}
	l, err := e.look(ctx, &opened{Repository: p, name: c.Repository, in: &trustInUse{store: under, verifier: verifier.New(under, verifier.Options{})}}, &row, &row.References[0], nil)
	switch {
	case err != nil:
		return nil, err
	case l.fact == nil || len(l.problems) > 0 || l.fact.Context.Tool != c.Tool:
		return nil, errUndecided
	}
	return l.fact.Verdicts, nil
}
