package verifier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// What all kinds of signature have in common: their layers, the blobs of these,
// earlier verdicts, and panics of the libraries that verify.

// manifest verifies a cosign signature manifest, whose layers are one signature
// each.
func (v *Verifier) manifest(ctx context.Context, r *Request, o Outcome, f trust.Format, check layerCheck) (Outcome, error) {
	fetched := newContents(r)               // layers often share one blob
	var seen map[trust.LayerID]LayerOutcome // a layer that is repeated is verified once
	if len(r.Signature.Layers) > 1 {
		seen = map[trust.LayerID]LayerOutcome{}
	}
	for i, d := range r.Signature.Layers {
		verdict := v.verdict(&o, f)
		if i == trust.MaxLayers {
			o.Layers = append(o.Layers, LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded})
			break
		}
		verdict.Layer = layerID(d)
		if r.Signature.Carrier == trust.Attestations {
			verdict.Layer = attestationID(d)
		}
		lo, ok := seen[verdict.Layer]
		switch {
		case ok:
			lo.Calls, lo.Trials = 0, 0
		case r.Skip != nil && r.Skip(i):
			lo = LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded}
		default:
			r.Guesses.at(i)
			var err error
			if lo, err = v.layer(ctx, r, &o, d, verdict, fetched, check); err != nil {
				return Outcome{}, err
			}
			if seen != nil {
				seen[verdict.Layer] = lo
			}
		}
		o.Layers = append(o.Layers, lo)
	}
	if len(r.Signature.Layers) == 0 {
		verdict := v.verdict(&o, f)
		lo := LayerOutcome{Verdict: verdict}
		lo.refuse(faultf(trust.Malformed, "the signature's manifest has no layers"))
		o.Layers = append(o.Layers, lo)
	}
	return o, nil
}

// single verifies a manifest that must have exactly one layer.
func (v *Verifier) single(ctx context.Context, r *Request, o Outcome, f trust.Format, check layerCheck) (Outcome, error) {
	verdict := v.verdict(&o, f)
	if n := len(r.Signature.Layers); n != 1 {
		reason := trust.Malformed
		if n > 1 {
			reason = trust.Ambiguous // which of them is the signature?
		}
		lo := LayerOutcome{Verdict: verdict}
		lo.refuse(faultf(reason, "the signature's manifest has %d layers; one is expected", n))
		o.Layers = []LayerOutcome{lo}
		return o, nil
	}
	if r.Skip != nil && r.Skip(0) {
		o.Layers = []LayerOutcome{{Verdict: verdict, Problem: trust.LimitExceeded}}
		return o, nil
	}
	r.Guesses.at(0)
	lo, err := v.layer(ctx, r, &o, r.Signature.Layers[0], verdict, newContents(r), check)
	if err != nil {
		return Outcome{}, err
	}
	o.Layers = []LayerOutcome{lo}
	return o, nil
}

func (v *Verifier) verdict(o *Outcome, f trust.Format) trust.Verdict {
	return trust.Verdict{Format: f, Policy: o.Policy, VerifiedAt: v.now().Unix(), Epoch: Epoch}
}

// content is a blob that was fetched and whose digest was recomputed, in this call
// of Verify, with what its first reader found.
type content struct {
	digest  trust.Digest
	blob    []byte // nil: none yet
	payload payloadCheck
}

// contents are the blobs that the layers of one manifest have been read into, so that
// each is read, hashed and parsed once, in whatever order layers name them. Few are
// kept: genuine manifests have one or two.
type contents struct {
	kept   []*content
	limits *Limits
}

func newContents(r *Request) *contents { return &contents{limits: LimitsOf(r.Signature.Carrier)} }

// Limits say which layers of a manifest are read, in their order.
type Limits struct {
	Layer int64 // bytes of one
	left  int64 // of those that are still to come
}

// LimitsOf returns those of a manifest that was found by the carrier.
func LimitsOf(c trust.Carrier) *Limits {
	switch c {
	case trust.CosignTag, trust.CosignReferrer:
		return &Limits{maxPayload, math.MaxInt64}
	case trust.CosignBundle:
		return &Limits{trust.MaxAttestation, math.MaxInt64}
	case trust.Attestations:
		return &Limits{trust.MaxAttestation, trust.MaxAttestations}
	}
	return &Limits{trust.MaxBlob, math.MaxInt64}
}

// Take reports whether a layer of that size is read.
func (l *Limits) Take(size int64) bool {
	if size < 0 || size > l.Layer || size > l.left {
		return false
	}
	l.left -= size
	return true
}

const maxKept = 16

// of returns the blob of that digest and size if it is there.
func (c *contents) of(d trust.Digest, size int64) *content {
	for _, k := range c.kept {
		if k.digest == d && int64(len(k.blob)) == size {
			return k
		}
	}
	return nil
}

// keep adds a blob, in place of the oldest if there are too many.
func (c *contents) keep(k *content) {
	if len(c.kept) == maxKept {
		c.kept = append(c.kept[:0], c.kept[1:]...)
	}
	c.kept = append(c.kept, k)
}

// layerCheck verifies the blob of one layer. It fills in lo, whose verdict has
// neither grounds nor a reason yet.
type layerCheck func(ctx context.Context, r *Request, o *Outcome, d ocispec.Descriptor, c *content, lo *LayerOutcome)

// layer does what all kinds have in common: the checks that need no blob, the
// blob, earlier verdicts, panics. The blob is fetched unless it has been.
func (v *Verifier) layer(ctx context.Context, r *Request, o *Outcome, d ocispec.Descriptor, verdict trust.Verdict, fetched *contents, check layerCheck) (LayerOutcome, error) {
	if err := ctx.Err(); err != nil {
		return LayerOutcome{}, err
	}
	lo := LayerOutcome{Verdict: verdict}
	digest, err := trust.ParseDigest(string(d.Digest))
	limit := fetched.limits.Layer
	switch {
	case r.Subject.Ambiguous || r.Signature.Ambiguous:
		lo.Verdict.Reason = trust.Ambiguous
		return lo, nil
	case err != nil || d.Size < 0:
		lo.refuse(faultf(trust.Malformed, "its layer is named by the digest %.100q and the size %d", string(d.Digest), d.Size))
		return lo, nil
	case !fetched.limits.Take(d.Size):
		lo.Problem = trust.LimitExceeded
		return lo, nil
	}
	if r.Signature.Carrier.Simple() {
		if f := checkAnnotation(d); f.found() {
			lo.refuse(f)
			return lo, nil
		}
	}
	c := fetched.of(digest, d.Size)
	if c == nil {
		blob, err := r.Fetch(ctx, digest, d.Size, limit)
		if ctx.Err() != nil {
			return LayerOutcome{}, ctx.Err()
		}
		if lo.Problem = fetchProblem(digest, d.Size, limit, blob, err); lo.Problem != "" {
			return lo, nil
		}
		c = &content{digest: digest, blob: blob}
		fetched.keep(c)
	}
	if prior, ok := r.Prior[verdict.Layer]; ok && r.Signature.Carrier.Simple() && !hasCertificate(d) && v.reusable(&prior) {
		prior.Layer = verdict.Layer
		return LayerOutcome{Verdict: prior, Reused: true}, nil
	}
	v.guard(ctx, r, o, digest, &lo, func() { check(ctx, r, o, d, c, &lo) })
	if ctx.Err() != nil { // what was found may be for want of time
		return LayerOutcome{}, ctx.Err()
	}
	return lo, nil
}

// guard runs check. A panic of a library decides nothing: the layer reads
// limit-exceeded. It is the only recover in the package.
func (v *Verifier) guard(ctx context.Context, r *Request, o *Outcome, blob trust.Digest, lo *LayerOutcome, check func()) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		o.Panics++
		o.Attachment = r.Signature.Carrier == trust.Attestations
		v.logger.ErrorContext(ctx, "verification panicked", "repository", r.Subject.Repository, "subject", r.Subject.Digest.String(),
			"signature", r.Signature.Digest.String(), "blob", blob.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		verdict := lo.Verdict
		verdict.Reason, verdict.Detail, verdict.Grounds, verdict.Author, verdict.Identity, verdict.Key, verdict.Predicate = "", "", nil, "", nil, trust.KeyID{}, ""
		*lo = LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded, Panicked: true, Calls: lo.Calls, Trials: lo.Trials}
	}()
	check()
}

// fetchProblem is why there are no bytes to verify, or "".
func fetchProblem(d trust.Digest, size, limit int64, blob []byte, err error) trust.Reason {
	if re := (*trust.ReasonError)(nil); errors.As(err, &re) {
		if re.Reason == trust.DigestMismatch || re.Reason.Undecided() {
			return re.Reason
		}
		return trust.IOError
	}
	switch {
	case err != nil:
		return trust.IOError
	case int64(len(blob)) > limit:
		return trust.LimitExceeded
	case int64(len(blob)) != size || trust.SumOf(blob) != d:
		return trust.DigestMismatch
	}
	return ""
}

// reusable reports whether an earlier verdict over the same bytes and subject
// still says what verifying again would.
func (v *Verifier) reusable(p *trust.Verdict) bool {
	if p.Epoch != Epoch || p.Format != trust.SimpleSigning || p.Policy != (trust.PolicyID{}) {
		return false
	}
	return v.store.InForce().Lives(p)
}

// SameLayers reports whether verdicts are those of a manifest with these layers, one by one.
func SameLayers(c trust.Carrier, layers []ocispec.Descriptor, verdicts []trust.Verdict) bool {
	id := layerID
	switch {
	case c == trust.Attestations:
		id = attestationID
	case !c.Simple():
		return len(verdicts) == 1
	}
	if len(layers) != len(verdicts) || len(layers) > trust.MaxLayers {
		return false
	}
	for i := range layers {
		if verdicts[i].Layer != id(layers[i]) {
			return false
		}
	}
	return true
}
