package scheduler

import (
	"context"
	"fmt"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// Looks that read stored bytes, hash them and verify nothing.

// reread reads a signature manifest and its layers again, verifies nothing, and says
// what is wrong with them. The error is that of ctx.
func (e *examiner) reread(ctx context.Context, p *opened, ref *store.Reference) (trust.Reason, error) {
	m, err := p.Manifest(ctx, ref.Digest)
	if err != nil {
		e.counters.reread.Add(1)
		return reasonOf(err), ctx.Err()
	}
	return e.readLayers(ctx, p, ref, m)
}

// readLayers is reread of the layers of a manifest that has just been read.
func (e *examiner) readLayers(ctx context.Context, p *opened, ref *store.Reference, m *layout.Manifest) (_ trust.Reason, err error) {
	e.counters.reread.Add(1)
	limits, seen := verifier.LimitsOf(ref.Carrier), map[string]bool{}
	for i := 0; err == nil && i < min(len(m.Layers), trust.MaxLayers); i++ {
		l := m.Layers[i]
		key := fmt.Sprint(l.MediaType, " ", l.Digest, " ", l.Size)
		// What is malformed or too large has been read as that already.
		if d, bad := trust.ParseDigest(l.Digest.String()); bad == nil && !seen[key] && limits.Take(l.Size) {
			seen[key] = true
			_, err = p.Blob(ctx, d, l.Size, limits.Layer)
		}
	}
	if err != nil {
		return reasonOf(err), ctx.Err()
	}
	return "", nil
}

// imageReason reads the image manifest of a row and says what is wrong with its
// bytes, "" if nothing is. The error is that of ctx.
func (e *examiner) imageReason(ctx context.Context, p *opened, row *store.Row) (trust.Reason, error) {
	if _, err := p.Manifest(ctx, row.Digest); err != nil {
		return reasonOf(err), ctx.Err()
	}
	return "", nil
}
