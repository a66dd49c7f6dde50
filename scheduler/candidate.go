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
	p, err := openIn(storage, c.Repository)
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
	e := newExaminer(noFacts{}, time.Now, slog.New(slog.DiscardHandler))
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
