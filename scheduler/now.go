package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"trust-worker/cache"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// VerifyNow verifies one image straight from storage and decides, without a
// daemon or a cache: the answer that a settled cache gives. The image is named
// by tag, or by digest when tag is empty. The error wraps fs.ErrNotExist when
// there is no such repository, cache.ErrNotFound when it has no such image.
func VerifyNow(ctx context.Context, storage []Storage, store *verifier.TrustStore, repository, tag string, d trust.Digest) (cache.Image, error) {
	s := &Scheduler{cfg: Config{Storage: storage}, now: time.Now, log: slog.New(slog.DiscardHandler), verify: verifyOne}
	p, err := s.open(repository)
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
	rows := map[trust.Digest]*cache.Row{}
	for _, row := range rowsOf(c) {
		rows[row.Digest] = &row
	}
	row := rows[d]
	if row == nil || !row.Present {
		return cache.Image{}, fmt.Errorf("digest %s: %w", d, cache.ErrNotFound)
	}
	n := &now{s: s, p: p, repository: repository, at: time.Now(),
		in: &trustInUse{store: store, verifier: verifier.New(store, verifier.Options{})}}
	img := cache.Image{RepoName: repository, Tag: tag, Digest: d, MediaType: row.MediaType, AsOf: n.at.UTC()}
	if img.SignatureInfo, err = n.signatures(ctx, row); err != nil {
		return cache.Image{}, err
	}
	img.IsSigned = len(img.SignatureInfo) > 0
	if len(row.Children) == 0 {
		img.Manifests = []cache.Manifest{{Digest: d, IsSigned: img.IsSigned, SignatureInfo: img.SignatureInfo}}
	}
	for _, child := range row.Children {
		m := cache.Manifest{Digest: child.Digest, Platform: child.Platform, SignatureInfo: []cache.Signature{}}
		if row := rows[child.Digest]; row != nil && row.Present {
			if m.SignatureInfo, err = n.signatures(ctx, row); err != nil {
				return cache.Image{}, err
			}
			m.IsSigned = len(m.SignatureInfo) > 0
		}
		img.Manifests = append(img.Manifests, m)
	}
	return img, nil
}

// now is one VerifyNow in progress.
type now struct {
	s          *Scheduler
	p          *layout.Repository
	repository string
	in         *trustInUse
	at         time.Time
}

func (n *now) signatures(ctx context.Context, row *cache.Row) ([]cache.Signature, error) {
	out := []cache.Signature{}
	for k := range row.References {
		ref := &row.References[k]
		tool := kindOf(ref.Carrier).Tool()
		if !n.in.inForce().Enabled(tool) {
			continue
		}
		l := looked{problems: ref.Problems}
		if len(ref.Problems) == 0 {
			var err error
			if l, err = n.s.look(ctx, n.in, n.p, n.repository, row, ref, nil); err != nil {
				return nil, err
			}
		}
		out = append(out, n.decide(tool, ref, l)...)
	}
	return out, nil
}

// decide joins what a look gave with what is in force.
func (n *now) decide(tool trust.Tool, ref *cache.Reference, l looked) []cache.Signature {
	verdicts := []trust.Verdict{{}}
	if l.fact != nil && l.fact.Attachment {
		return nil
	}
	if l.fact != nil && len(l.fact.Verdicts) > 0 {
		verdicts = l.fact.Verdicts
	}
	var out []cache.Signature
	for i := range verdicts {
		v := &verdicts[i]
		d := n.in.inForce().Decide(n.repository, tool, v, n.at)
		if v.Reason == "" && !v.Matched() {
			d = n.in.inForce().Decide(n.repository, tool, nil, n.at)
		}
		for _, problem := range l.problems {
			if problem.Layer < 0 || problem.Layer == i {
				d = trust.Decision{Status: problem.Reason.Status(), Reason: problem.Reason}
			}
		}
		out = append(out, cache.NewSignature(tool, ref.Digest, i, v.Format, v.VerifiedAt, d))
	}
	return out
}
