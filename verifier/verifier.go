package verifier

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
	"trust-worker/verifier/recovery"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// Epoch is written into every verdict. It stands for the versions of the
// modules that verify and for the rules of this package: a verdict of another
// epoch is made again in the background. TestEpoch fails when the modules
// change and it does not.
const Epoch uint32 = 9

// Limits, all applied before memory or cryptography is spent. Reaching one reads limit-exceeded.
const (
	maxPayload  = 64 << 10 // bytes of one simple signing payload; genuine ones have under one
	MaxChain    = 10       // certificates in an envelope
	maxChainDER = 64 << 10
	maxCertDER  = 8 << 10
	maxStamp    = 32 << 10 // bytes of a countersignature; genuine ones have under ten
	maxTSARuns  = 16       // TSA certificates asked about one by one, by likelihood
	maxSigText  = 8 << 10  // base64 of a signature: RSA with 16,384 bits needs a third
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

// Signature is the manifest that carries one or more signatures.
type Signature struct {
	Digest  trust.Digest
	Carrier trust.Carrier
	Layers  []ocispec.Descriptor
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
	// Guesses, if not nil, are of the subject's repository.
	Guesses *Guesses
	// Skip, if not nil, names layers that are not to be verified since that
	// has crashed; they read limit-exceeded.
	Skip func(layer int) bool
}

// Outcome is what is known after looking at one signature manifest.
type Outcome struct {
	Tool trust.Tool
	// Attachment is set for what is an attestation, not a signature: its layers have a
	// predicate, and are not counted.
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
	// Service is set when the chain names revocation services, so that what they said, or
	// that they were not asked, is a part of this.
	Service bool
	// Hints are what the signature is to be filed under.
	Hints []Hint
	// RestsOn are the trusted signers that the Verdict's reason takes for granted:
	// without them it would be another one.
	RestsOn []trust.Signer
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
	// HintIssuer is who has issued the certificate of a keyless signature, see
	// [truststore.IssuerKey]. Matched signatures have it, too: a further trusted root
	// may vouch for them.
	HintIssuer HintKind = 5
)

// Hint names trust material that would concern this signature if it came.
// Cosign layers that a key matches have none. Hints only propose: everything they lead
// to is verified.
type Hint struct {
	Kind        HintKind
	Fingerprint trust.Digest   // HintCertificate, HintCandidate, HintIssuer
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
	store      *truststore.TrustStore
	now        func() time.Time
	logger     *slog.Logger
	revocation *revocation.Checker
}

// New returns a verifier for t. A nil t trusts nothing.
func New(t *truststore.TrustStore, o Options) *Verifier {
	if t == nil {
		t = truststore.Empty()
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
	o := Outcome{Tool: r.Signature.Carrier.Tool()}
	if o.Tool == "" {
		return o, fmt.Errorf("verify: no such carrier of signatures: %d", r.Signature.Carrier)
	}
	if o.Tool == trust.Notation {
		o.MediaType = r.Subject.MediaType
	}
	policy, reason := v.store.InForce().Policy(r.Subject.Repository, o.Tool)
	if !v.store.InForce().Enabled(o.Tool) {
		reason = trust.NoPolicy
	}
	if reason != "" {
		o.Skipped = reason
		return o, nil
	}
	o.Policy = policy
	switch {
	case r.Signature.Carrier.Simple():
		return v.manifest(ctx, &r, o, trust.SimpleSigning, v.simple)
	case r.Signature.Carrier == trust.Attestations:
		o.Attachment = true
		return v.manifest(ctx, &r, o, trust.DSSE, v.attestation)
	case r.Signature.Carrier == trust.CosignBundle:
		return v.single(ctx, &r, o, trust.Bundle, v.bundle)
	default:
		return v.single(ctx, &r, o, envelopeFormat(r.Signature.Layers), v.notation)
	}
}
