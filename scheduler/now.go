package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// VerifyNow verifies one image straight from storage and decides, without a daemon or a
// cache. Its answer is the one that the daemon gives when it has verified everything.
// The image is named by tag, or by digest when tag is empty. The error wraps fs.ErrNotExist when
// there is no such repository, cache.ErrNotFound when it has no such image.
// checker is asked about revocation in the mode online. VerifyNow runs it (the caller
// must not), and waits for its answers or their deadline.
func VerifyNow(ctx context.Context, storage []Storage, loaded *truststore.TrustStore, checker *revocation.Checker, repository, tag string, d trust.Digest) (img cache.Image, err error) {
	if checker == nil {
		return verifyNow(ctx, storage, loaded, nil, repository, tag, d)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return checker.Run(ctx) })
	img, err = verifyNow(ctx, storage, loaded, checker, repository, tag, d)
	cancel()
	return img, errors.Join(err, g.Wait())
}

func verifyNow(ctx context.Context, storage []Storage, loaded *truststore.TrustStore, checker *revocation.Checker, repository, tag string, d trust.Digest) (cache.Image, error) {
	p, err := OpenRepository(storage, repository)
	if err != nil {
		return cache.Image{}, err
	}
	defer p.Close() // read-only
	c, err := p.Contents(ctx, nil)
	if err != nil {
		return cache.Image{}, err
	}
	if tag != "" {
		var ok bool
		if d, ok = c.Tags[tag]; !ok {
			return cache.Image{}, fmt.Errorf("tag %s: %w", tag, cache.ErrNotFound)
		}
	}
	rows := map[trust.Digest]*store.Row{}
	for _, row := range rowsOf(c) {
		rows[row.Digest] = &row
	}
	row := rows[d]
	if row == nil && c.Has(d) { // no image, and not signed
		row = &store.Row{Digest: d, Present: true, Other: true}
	}
	if row == nil || !row.Present {
		return cache.Image{}, fmt.Errorf("digest %s: %w", d, cache.ErrNotFound)
	}
	n := &now{examiner: newExaminer(noFacts{}, time.Now, slog.New(slog.DiscardHandler)), revocation: checker, at: time.Now(),
		opened: opened{Repository: p, name: repository, in: &trustInUse{store: loaded, verifier: verifier.New(loaded, verifier.Options{Revocation: checker})}}}
	img := cache.Image{RepoName: repository, Tag: tag, Digest: d, MediaType: row.MediaType, AsOf: n.at.UTC()}
	if row.Foreign != "" {
		cache.NotJudged(&img, row.Foreign)
		img.Manifests = []cache.Manifest{img.Manifest("")}
		return img, nil
	}
	budget := cache.NewBudget()
	l, attestations, err := n.signatures(ctx, row, budget)
	if err != nil {
		return cache.Image{}, err
	}
	l.Into(&img)
	for _, a := range attestations {
		img.AddAttestation(budget, cache.NewAttestation(a.manifest, a.layer, &a.verdict, &a.Decision))
	}
	cache.NotRead(&img, row.Unreadable)
	if len(row.Children) == 0 {
		img.Manifests = []cache.Manifest{img.Manifest("")}
	}
	seen := map[trust.Digest]cache.Manifest{} // an index may list a child often
	for _, child := range row.Children {
		m, again := seen[child.Digest]
		if row := rows[child.Digest]; !again {
			l := cache.NewListing(budget)
			if row != nil && row.Present {
				if l, _, err = n.signatures(ctx, row, budget); err != nil {
					return cache.Image{}, err
				}
			}
			one := cache.Image{Digest: child.Digest}
			if l.Into(&one); child.Foreign != "" {
				cache.NotJudged(&one, child.Foreign)
			}
			if row != nil {
				cache.NotRead(&one, row.Unreadable)
			}
			m = one.Manifest("")
			seen[child.Digest] = m
		}
		m.Platform = child.Platform
		img.Manifests = append(img.Manifests, m)
	}
	return img, nil
}

// now is one VerifyNow in progress.
type now struct {
	examiner
	opened
	revocation *revocation.Checker // or nil
	at         time.Time
}

// signatures decides about all that is said to sign the image, and about its attestations.
func (n *now) signatures(ctx context.Context, row *store.Row, budget *cache.Budget) (_ *cache.Listing, attestations []decided, err error) {
	looks := make([]looked, len(row.References))
	// The first round asks, the second finds the answers; a signature that rests
	// on a countersignature may ask twice.
	for round := range 3 {
		waits := false
		for k := range row.References {
			ref, l := &row.References[k], &looks[k]
			if !n.in.inForce().Enabled(ref.Carrier.Tool()) || round > 0 && !l.waits() {
				continue
			}
			if len(ref.Problems) > 0 {
				l.problems = ref.Problems
				continue
			}
			var err error
			if *l, err = n.look(ctx, &n.opened, row, ref, nil); err != nil {
				return nil, nil, err
			}
			waits = waits || l.waits()
		}
		if n.revocation == nil || !waits {
			break
		}
		n.revocation.Settle(ctx)
	}
	n.at = time.Now() // answers of revocation services begin when they are made
	out, quorum := cache.NewListing(budget), n.in.inForce().Quorum(n.name)
	var signatures []decided
	kinds := map[string]*trust.Quorum{} // each predicate type has its own
	for k := range row.References {
		ref := &row.References[k]
		tool := ref.Carrier.Tool()
		if !n.in.inForce().Enabled(tool) {
			continue
		}
		if looks[k].attests(ref) {
			attestations = append(attestations, n.decide(tool, ref, looks[k])...)
		} else {
			signatures = append(signatures, n.decide(tool, ref, looks[k])...)
		}
	}
	if quorum != nil {
		for i := range signatures {
			quorum.Add(&signatures[i].Decision)
		}
		for i := range attestations {
			a := &attestations[i]
			if kinds[a.verdict.Predicate] == nil {
				kinds[a.verdict.Predicate] = n.in.inForce().Quorum(n.name)
			}
			kinds[a.verdict.Predicate].Add(&a.Decision)
		}
	}
	for i := range signatures {
		d := &signatures[i]
		quorum.Judge(&d.Decision)
		sig := cache.NewSignature(d.tool, d.manifest, d.layer, d.verdict.Format, d.verdict.VerifiedAt, d.Decision)
		out.Add(&sig)
	}
	for i := range attestations {
		kinds[attestations[i].verdict.Predicate].Judge(&attestations[i].Decision)
	}
	return out, attestations, nil
}

// attests reports whether what was looked at is an attestation, not a signature.
func (l *looked) attests(ref *store.Reference) bool {
	return ref.Carrier == trust.Attestations || l.fact != nil && l.fact.Attachment
}

// waits reports whether revocation services may still tell more.
func (l *looked) waits() bool {
	return unasked(l.problems) || l.retry && len(l.problems) == 0
}

// decided is the answer about one layer of a signature, before it is known how many
// others there are.
type decided struct {
	trust.Decision
	tool     trust.Tool
	manifest trust.Digest
	layer    int
	verdict  trust.Verdict
}

// decide joins what a look gave with what is in force.
func (n *now) decide(tool trust.Tool, ref *store.Reference, l looked) []decided {
	by := (*trust.InForce).Decide
	if l.attests(ref) {
		by = (*trust.InForce).DecideAttestation
	}
	verdicts := []trust.Verdict{{}}
	if l.fact != nil && len(l.fact.Verdicts) > 0 {
		verdicts = l.fact.Verdicts
	}
	var out []decided
	for i := range verdicts {
		v := &verdicts[i]
		d := by(n.in.inForce(), n.name, tool, v, n.at)
		if v.Reason == "" && !v.Matched() {
			d = by(n.in.inForce(), n.name, tool, nil, n.at)
		}
		for _, problem := range l.problems {
			if problem.Layer < 0 || problem.Layer == i {
				d = trust.Decision{Status: problem.Reason.Status(), Reason: problem.Reason}
			}
		}
		out = append(out, decided{d, tool, ref.Digest, i, *v})
	}
	return out
}
