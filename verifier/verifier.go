package verifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
	"trust-worker/verifier/recovery"
	"trust-worker/verifier/revocation"
)

// Epoch is written into every verdict. It stands for the versions of the
// modules that verify and for the rules of this package: a verdict of another
// epoch is made again in the background. TestEpoch fails when the modules
// change and it does not.
const Epoch uint32 = 3

// Limits, all applied before memory or cryptography is spent (design,
// section 4). Reaching one reads limit-exceeded.
const (
	MaxLayers   = 1000    // signature layers of one manifest
	MaxBlob     = 1 << 20 // bytes of one payload, bundle or envelope
	MaxChain    = 10      // certificates in an envelope
	maxChainDER = 64 << 10
	maxCertDER  = 8 << 10
	maxStamp    = 32 << 10 // bytes of a countersignature; genuine ones have under ten
	maxTSARuns  = 16
	maxSigText  = 8 << 10 // base64 of a signature: RSA with 16,384 bits needs a third
)

// Subject is the manifest that a signature is about, as storage holds it.
type Subject struct {
	// Repository is the path below the storage root. It selects the notation
	// policy statement; nothing signed is compared with it.
	Repository string
	Digest     trust.Digest
	// MediaType and Size are compared with what a notation envelope signed.
	MediaType string
	Size      int64
	// Ambiguous marks a manifest that two readers could take for different
	// things; no signature over it is accepted.
	Ambiguous bool
}

// Kind is the carrier of a signature.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	Simple   Kind = iota + 1 // cosign, one simple signing payload per layer
	Bundle                   // cosign, one sigstore bundle v0.3
	Notation                 // one JWS or COSE envelope
)

// Tool returns the tool that makes signatures of kind k.
func (k Kind) Tool() trust.Tool {
	if k == Notation {
		return trust.Notation
	}
	return trust.Cosign
}

// Signature is the manifest that carries one or more signatures.
type Signature struct {
	Digest trust.Digest
	Kind   Kind
	Layers []ocispec.Descriptor
	// Ambiguous is as for [Subject].
	Ambiguous bool
}

// Fetch returns the blob d of the subject's repository. size is what its
// descriptor says, limit the most that may be read. The bytes returned have been
// hashed; the verifier hashes them again. A *[trust.ReasonError] says what is
// wrong with the place (blob-missing, digest-mismatch, limit-exceeded); any
// other error reads io-error.
type Fetch func(ctx context.Context, d trust.Digest, size, limit int64) ([]byte, error)

// Request is one signature manifest to verify over one subject.
type Request struct {
	Subject   Subject
	Signature Signature
	Fetch     Fetch
	// Prior holds verdicts over this same subject that the caller has stored,
	// by cosign layer. A verdict with a ground is used again while that
	// ground's signers are in force. One without is made again: it comes with
	// the hints that lead a later signer to it.
	Prior map[trust.LayerID]trust.Verdict
	// NoTrials forbids trial verification (RSA, Ed25519), whose cost grows
	// with the number of keys: layers that need it read limit-exceeded.
	NoTrials bool
	// Skip, if not nil, names layers that are not to be verified since that
	// has crashed; they read limit-exceeded.
	Skip func(layer int) bool
}

// Outcome is what is known after looking at one signature manifest.
type Outcome struct {
	Tool trust.Tool
	// Attachment is set for a bundle that is an attestation, not a signature:
	// it has no layers and is not counted.
	Attachment bool
	// Skipped is why nothing was verified: the policy's reason for this
	// repository, or no-policy for a tool that is switched off. There are no
	// layers then: the join gives that reason by itself.
	Skipped trust.Reason
	// Layers has one element per signature, in layer order; notation has
	// exactly one. When the manifest has more than MaxLayers, one more says
	// so.
	Layers []LayerOutcome
	// Policy and MediaType are what the fact depends on besides the digests:
	// the statement's effective meaning and, for notation, the subject's
	// media type.
	Policy    trust.PolicyID
	MediaType string
	// Panics counts inputs that made a library panic: nothing was decided
	// about their layers. The caller counts them and quarantines them.
	Panics int
}

// LayerOutcome is one signature's verdict, or why there is none.
type LayerOutcome struct {
	// Verdict is a fact when Problem is empty: it has grounds or a decided
	// reason. Its Format, Policy and Layer are set in any case.
	Verdict trust.Verdict
	// Problem is why nothing was decided: io-error, blob-missing,
	// limit-exceeded, revocation-unknown; or digest-mismatch, which is decided
	// but belongs to the place and not to the fact.
	Problem trust.Reason
	// Incomplete is set beside a verdict that has grounds when a further one
	// could not be decided (revocation-unknown, limit-exceeded): worth another
	// look later.
	Incomplete trust.Reason
	// Asked is set when revocation services are being asked: the next look may
	// tell more within [revocation.Soon].
	Asked bool
	// Hints are what the signature is to be filed under.
	Hints []Hint
	// Calls counts the verifications by cosign or notation-go, Trials those
	// among them that only guessed at the key.
	Calls, Trials int
	// Reused is set when the verdict comes from Request.Prior.
	Reused bool
	// Panicked is set when a library panicked; Problem is limit-exceeded then.
	Panicked bool
}

// HintKind is what a [Hint] names.
type HintKind uint8

// The kinds of hint. The values are stored: never renumber them.
const (
	// HintCertificate is the SHA-256 of a certificate of the envelope's chain.
	HintCertificate HintKind = 1
	// HintCandidate is the fingerprint of a key recovered from an ECDSA
	// signature, for the curves and hashes in use ([TrustStore.InUse]).
	HintCandidate HintKind = 2
	// HintClass is the family of keys that could have made the signature.
	HintClass HintKind = 3
	// HintTimestamp says that the envelope has a countersignature that no TSA
	// certificate in the stores vouches for: any new one concerns it.
	HintTimestamp HintKind = 4
)

// Hint names trust material that would concern this signature if it came.
// Cosign layers that match have none. Hints only propose: everything they lead
// to is verified.
type Hint struct {
	Kind        HintKind
	Fingerprint trust.Digest   // HintCertificate, HintCandidate
	Class       recovery.Class // HintClass
}

// Options configures a [Verifier].
type Options struct {
	// Now is the clock for Verdict.VerifiedAt; nil is time.Now.
	Now func() time.Time
	// Logger is told of panics in libraries; nil discards.
	Logger *slog.Logger
	// Revocation is asked in the mode online; nil: nobody is, and chains with
	// revocation addresses read revocation-unknown.
	Revocation *revocation.Checker
}

// Verifier verifies signatures under one trust store. It is safe for concurrent
// use and keeps no state between calls.
type Verifier struct {
	store      *TrustStore
	now        func() time.Time
	logger     *slog.Logger
	revocation *revocation.Checker
}

// New returns a verifier for t. A nil t trusts nothing.
func New(t *TrustStore, o Options) *Verifier {
	if t == nil {
		t = emptyStore()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Verifier{store: t, now: o.Now, logger: o.Logger, revocation: o.Revocation}
}

// Verify looks at one signature manifest. An error means that nothing is known
// (ctx has ended), never that something is wrong with the signature.
func (v *Verifier) Verify(ctx context.Context, r Request) (Outcome, error) {
	if k := r.Signature.Kind; k < Simple || k > Notation {
		return Outcome{}, fmt.Errorf("verify: no such kind of signature: %d", k)
	}
	o := Outcome{Tool: r.Signature.Kind.Tool()}
	if o.Tool == trust.Notation {
		o.MediaType = r.Subject.MediaType
	}
	policy, reason := v.store.inForce.Policy(r.Subject.Repository, o.Tool)
	if !v.store.inForce.Enabled(o.Tool) {
		reason = trust.NoPolicy
	}
	if reason != "" {
		o.Skipped = reason
		return o, nil
	}
	o.Policy = policy
	switch r.Signature.Kind {
	case Simple:
		return v.manifest(ctx, &r, o)
	case Bundle:
		return v.single(ctx, &r, o, trust.Bundle, v.bundle)
	default:
		return v.single(ctx, &r, o, envelopeFormat(r.Signature.Layers), v.notation)
	}
}

// manifest verifies a cosign signature manifest, whose layers are one signature
// each.
func (v *Verifier) manifest(ctx context.Context, r *Request, o Outcome) (Outcome, error) {
	var last content                        // layers often share one blob
	var seen map[trust.LayerID]LayerOutcome // a layer that is repeated is verified once
	if len(r.Signature.Layers) > 1 {
		seen = map[trust.LayerID]LayerOutcome{}
	}
	for i, d := range r.Signature.Layers {
		verdict := v.verdict(&o, trust.SimpleSigning)
		if i == MaxLayers {
			o.Layers = append(o.Layers, LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded})
			break
		}
		verdict.Layer = layerID(d)
		lo, ok := seen[verdict.Layer]
		switch {
		case ok:
			lo.Calls, lo.Trials = 0, 0
		case r.Skip != nil && r.Skip(i):
			lo = LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded}
		default:
			var err error
			if lo, err = v.layer(ctx, r, &o, d, verdict, &last, v.simple); err != nil {
				return Outcome{}, err
			}
			if seen != nil {
				seen[verdict.Layer] = lo
			}
		}
		o.Layers = append(o.Layers, lo)
	}
	if len(r.Signature.Layers) == 0 {
		verdict := v.verdict(&o, trust.SimpleSigning)
		verdict.Reason = trust.Malformed
		o.Layers = append(o.Layers, LayerOutcome{Verdict: verdict})
	}
	return o, nil
}

// single verifies a manifest that must have exactly one layer.
func (v *Verifier) single(ctx context.Context, r *Request, o Outcome, f trust.Format, check layerCheck) (Outcome, error) {
	verdict := v.verdict(&o, f)
	if n := len(r.Signature.Layers); n != 1 {
		verdict.Reason = trust.Malformed
		if n > 1 {
			verdict.Reason = trust.Ambiguous // which of them is the signature?
		}
		o.Layers = []LayerOutcome{{Verdict: verdict}}
		return o, nil
	}
	if r.Skip != nil && r.Skip(0) {
		o.Layers = []LayerOutcome{{Verdict: verdict, Problem: trust.LimitExceeded}}
		return o, nil
	}
	lo, err := v.layer(ctx, r, &o, r.Signature.Layers[0], verdict, &content{}, check)
	if err != nil {
		return Outcome{}, err
	}
	if !o.Attachment {
		o.Layers = []LayerOutcome{lo}
	}
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

// layerCheck verifies the blob of one layer. It fills in lo, whose verdict has
// neither grounds nor a reason yet.
type layerCheck func(ctx context.Context, r *Request, o *Outcome, d ocispec.Descriptor, c *content, lo *LayerOutcome)

// layer does what all kinds have in common: the checks that need no blob, the
// blob, earlier verdicts, panics. The blob is fetched into last unless it is
// there.
func (v *Verifier) layer(ctx context.Context, r *Request, o *Outcome, d ocispec.Descriptor, verdict trust.Verdict, last *content, check layerCheck) (LayerOutcome, error) {
	if err := ctx.Err(); err != nil {
		return LayerOutcome{}, err
	}
	lo := LayerOutcome{Verdict: verdict}
	digest, err := trust.ParseDigest(string(d.Digest))
	switch {
	case r.Subject.Ambiguous || r.Signature.Ambiguous:
		lo.Verdict.Reason = trust.Ambiguous
		return lo, nil
	case err != nil || d.Size < 0:
		lo.Verdict.Reason = trust.Malformed
		return lo, nil
	case d.Size > MaxBlob:
		lo.Problem = trust.LimitExceeded
		return lo, nil
	}
	if r.Signature.Kind == Simple {
		if lo.Verdict.Reason = checkAnnotation(d); lo.Verdict.Reason != "" {
			return lo, nil
		}
	}
	if last.blob == nil || last.digest != digest || int64(len(last.blob)) != d.Size {
		blob, err := r.Fetch(ctx, digest, d.Size, MaxBlob)
		if ctx.Err() != nil {
			return LayerOutcome{}, ctx.Err()
		}
		if lo.Problem = fetchProblem(digest, d.Size, blob, err); lo.Problem != "" {
			return lo, nil
		}
		*last = content{digest: digest, blob: blob}
	}
	if prior, ok := r.Prior[verdict.Layer]; ok && r.Signature.Kind == Simple && v.reusable(&prior) {
		prior.Layer = verdict.Layer
		return LayerOutcome{Verdict: prior, Reused: true}, nil
	}
	v.guard(ctx, r, o, digest, &lo, func() { check(ctx, r, o, d, last, &lo) })
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
		o.Attachment = false
		v.logger.ErrorContext(ctx, "verification panicked", "repository", r.Subject.Repository, "subject", r.Subject.Digest.String(),
			"signature", r.Signature.Digest.String(), "blob", blob.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		verdict := lo.Verdict
		verdict.Reason, verdict.Grounds, verdict.Author = "", nil, ""
		*lo = LayerOutcome{Verdict: verdict, Problem: trust.LimitExceeded, Panicked: true, Calls: lo.Calls, Trials: lo.Trials}
	}()
	check()
}

// fetchProblem is why there are no bytes to verify, or "".
func fetchProblem(d trust.Digest, size int64, blob []byte, err error) trust.Reason {
	if re := (*trust.ReasonError)(nil); errors.As(err, &re) {
		if re.Reason == trust.DigestMismatch || re.Reason.Undecided() {
			return re.Reason
		}
		return trust.IOError
	}
	switch {
	case err != nil:
		return trust.IOError
	case len(blob) > MaxBlob:
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
	return p.Lives(v.store.inForce.Has)
}
