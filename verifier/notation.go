package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	notationstore "github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// notation verifies one JWS or COSE envelope under the statement that governs the
// repository. What needs no cryptography comes first; notation-go decides.
func (v *Verifier) notation(ctx context.Context, r *Request, _ *Outcome, d ocispec.Descriptor, fetched *content, lo *LayerOutcome) {
	blob := fetched.blob
	join, reason := v.store.InForce().Statement(r.Subject.Repository)
	if reason != "" { // Verify has asked already; never without a statement
		lo.Verdict.Reason = reason
		return
	}
	var c claims
	var f fault
	switch lo.Verdict.Format {
	case trust.JWS:
		c, f = readJWS(blob)
	case trust.COSE:
		c, f = readCOSE(blob)
	default:
		f = faultf(trust.Malformed, "its layer has the media type %.80q; %s or %s is expected", d.MediaType, jws.MediaTypeEnvelope, cose.MediaTypeEnvelope)
	}
	if f.found() {
		lo.refuse(f)
		return
	}
	lo.Verdict.StoreType = string(c.storeType())
	if c.excessive() {
		lo.Problem = trust.LimitExceeded
		return
	}
	for _, fp := range c.prints {
		lo.Hints = append(lo.Hints, Hint{Kind: HintCertificate, Fingerprint: fp})
	}
	signed, f := c.target()
	if f.found() {
		lo.refuse(f)
		return
	}
	if f := differs(&signed, r.Subject.descriptor()); f.found() {
		lo.refuse(f)
		return
	}
	anchors := v.anchors(&c)
	if len(anchors) == 0 {
		lo.refuse(unanchored(d.MediaType, blob, c.storeType()))
		return
	}
	for _, a := range anchors {
		lo.RestsOn = append(lo.RestsOn, a.Signers()...)
	}
	if c.plugin != "" {
		lo.refuse(pluginFault(c.plugin))
		return
	}
	e := examination{v: v, r: r, lo: lo, mediaType: d.MediaType, blob: blob, claims: &c,
		statement: v.store.Statement(join.Name)}
	e.judge(ctx, anchors)
}

// differs says what a signed descriptor and the subject as stored do not agree on.
func differs(signed *ocispec.Descriptor, stored ocispec.Descriptor) fault {
	switch {
	case signed.Digest != stored.Digest:
		return faultf(trust.SubjectMismatch, "it signs %.140q", signed.Digest)
	case signed.MediaType != stored.MediaType:
		return faultf(trust.SubjectMismatch, "it signs the media type %.100q; the manifest is stored as %.100q", signed.MediaType, stored.MediaType)
	case signed.Size != stored.Size:
		return faultf(trust.SubjectMismatch, "it signs a manifest of %d bytes; the one that is stored has %d", signed.Size, stored.Size)
	}
	return fault{}
}

func pluginFault(attribute string) fault {
	return faultf(trust.PluginRequired, "its signed attribute is %.80q", attribute)
}

// unanchored is what an envelope reads whose chain ends in no trusted certificate. It
// is not verified only to be explained: whoever pushes chooses what that costs.
func unanchored(mediaType string, blob []byte, storeType notationstore.Type) fault {
	env, err := signature.ParseEnvelope(mediaType, blob)
	var content *signature.EnvelopeContent
	if err == nil {
		content, err = parseOnly(env).Content()
	}
	if err != nil {
		return integrityFault(err, nil)
	}
	chain := content.SignerInfo.CertificateChain
	if len(chain) == 0 || storeType == "" {
		return fault{reason: trust.NoTrustedKey}
	}
	return faultf(trust.NoTrustedKey, "it brings certificates, not verified, that end at %.120q; no trust store of the type %s holds any of them",
		subjectText(chain[len(chain)-1]), storeType)
}

// stranger says what is wrong with an envelope that a trusted certificate anchors, and
// that is not intact.
func stranger(mediaType string, blob []byte) fault {
	env, err := signature.ParseEnvelope(mediaType, blob)
	if err != nil {
		return integrityFault(err, nil)
	}
	if _, err = env.Verify(); err == nil {
		return fault{reason: trust.NoTrustedKey}
	}
	content, parseErr := parseOnly(env).Content()
	if parseErr != nil {
		return integrityFault(err, nil)
	}
	return integrityFault(err, &content.SignerInfo)
}

func (s *Subject) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: s.MediaType, Digest: ociDigest(s.Digest), Size: s.Size}
}

// anchors returns the trusted certificates in an envelope's chain: those in the stores
// of the type that its signing scheme wants, whether or not the statement names
// the store, since that is applied when an answer is read.
func (v *Verifier) anchors(c *claims) []*truststore.Anchor {
	var found []*truststore.Anchor
	for _, fp := range c.prints {
		if an := v.store.Anchor(c.storeType(), fp); an != nil && !slices.Contains(found, an) {
			found = append(found, an)
		}
	}
	return found
}

// storeType is the type of the trust stores that may anchor an envelope of this
// signing scheme, "" for a scheme that is not known.
func (c *claims) storeType() notationstore.Type {
	switch c.scheme {
	case signature.SigningSchemeX509:
		return notationstore.TypeCA
	case signature.SigningSchemeX509SigningAuthority:
		return notationstore.TypeSigningAuthority
	}
	return ""
}

// examination is one envelope under one statement, and what comes of it.
type examination struct {
	v         *Verifier
	r         *Request
	lo        *LayerOutcome
	mediaType string
	blob      []byte
	claims    *claims
	statement *truststore.Statement
	// fault is why the run that came furthest gave no ground, problem why it
	// was not decided.
	fault
	problem     trust.Reason
	stampCounts bool                  // some ground rests on the countersignature
	notChecked  bool                  // revocation applied to a ground and was not asked
	revoked     bool                  // and said so, under a policy that only logs it
	refused     bool                  // and said so, under a policy that enforces it
	again       int64                 // the first end of an answer that no ground ends with
	verified    *signature.SignerInfo // of a run that gave a ground
}

// judge asks notation-go about every anchor, once without and, where the statement
// has a use for countersignatures, once with each TSA certificate.
func (e *examination) judge(ctx context.Context, anchors []*truststore.Anchor) {
	s := e.statement
	// Whether a countersignature can be a ground (trust-store-trust-policy,
	// "Signature verification details", authentic timestamp). Whether the
	// statement names the tsa store is the join's to apply.
	stamped := s.Enforces(trustpolicy.TypeAuthenticTimestamp) && e.claims.scheme == signature.SigningSchemeX509
	e.fault = fault{reason: trust.NoTrustedKey}
	for _, a := range anchors {
		plain := e.run(ctx, a, nil, s.Identities, e.v.store.Revocation())
		if f := e.authenticity(ctx, a, plain); f.found() {
			e.fault = f
			continue
		}
		if !stamped || !s.StampRequired() {
			e.accept(plain, a, nil)
		}
		if stamped {
			e.stamped(ctx, a)
		}
	}
	lo := e.lo
	if e.refused { // news may come between two runs: nothing of the first stands
		lo.Verdict.Grounds, e.fault = nil, fault{reason: trust.Revoked}
	}
	switch {
	case lo.Verdict.Matched():
		lo.Incomplete = e.problem
		if stamped && len(e.claims.stamp) > 0 && !e.stampCounts && e.problem == "" {
			lo.Verdict.Detail = "its time stamp does not count: no tsa trust store holds its authority's certificate, or the time stamp is not good"
		}
		lo.Verdict.Author = e.verified.CertificateChain[0].Subject.String()
		lo.Verdict.Key = keyOf(e.verified.CertificateChain[0])
		lo.Verdict.RevocationNotChecked, lo.Verdict.RevocationLogged = e.notChecked, e.revoked
		lo.Verdict.RevocationUntil = e.again
		if expiry := e.verified.SignedAttributes.Expiry; !expiry.IsZero() && !s.Enforces(trustpolicy.TypeExpiry) {
			lo.Verdict.LoggedExpiry = unixBound(expiry)
		}
	case e.problem != "" && e.reason != trust.Revoked:
		lo.Problem = e.problem
	default:
		lo.refuse(e.fault)
		if e.reason == trust.Revoked || e.reason == trust.TimestampInvalid {
			lo.Verdict.RevocationUntil = e.again
		}
	}
}

// recheck notes the end of an answer that no ground ends with.
func (e *examination) recheck(c *revocationCheck) {
	if u := unixBound(c.until); !c.until.IsZero() && (e.again == 0 || u < e.again) {
		e.again = u
	}
}

// stamped looks for grounds that rest on the countersignature. All TSA
// certificates are asked about together first, since most envelopes have no
// countersignature that any of them vouches for; then one by one, because a
// ground names its signers, those first that the chain found points at.
func (e *examination) stamped(ctx context.Context, a *truststore.Anchor) {
	found := false
	var together *run
	if tsa := e.v.store.TSA(); len(e.claims.stamp) > 0 && len(tsa) > 0 {
		together = e.run(ctx, a, tsa, e.statement.Identities, e.v.store.Revocation())
		switch {
		case together.err != nil || together.failed(trustpolicy.TypeAuthenticTimestamp):
			e.recheck(together.stamp)
			if together.stamp.unknown {
				e.problem = trust.RevocationUnknown
				return
			}
		case len(tsa) == 1:
			found = e.accept(together, a, tsa[0])
		default:
			for i, t := range likeliest(tsa, together.stamp.root) {
				if i == maxTSARuns {
					if !found {
						e.problem = trust.LimitExceeded
						return
					}
					break
				}
				one := e.run(ctx, a, []*truststore.Anchor{t}, e.statement.Identities, e.v.store.Revocation())
				found = e.accept(one, a, t) || found
			}
		}
		if !found && e.problem == "" {
			e.lo.Hints = append(e.lo.Hints, Hint{Kind: HintTimestamp})
		}
	} else if len(e.claims.stamp) > 0 {
		e.lo.Hints = append(e.lo.Hints, Hint{Kind: HintTimestamp})
	}
	if !found && e.statement.StampRequired() && (e.reason == trust.NoTrustedKey || e.reason == trust.IdentityNotTrusted) {
		e.fault = e.stampFault(together)
	}
	e.stampCounts = e.stampCounts || found
}

// stampFault says why a countersignature that the policy wants is no ground. together
// is the run with all TSA certificates, nil if there was none.
func (e *examination) stampFault(together *run) fault {
	switch {
	case len(e.claims.stamp) == 0:
		return faultf(trust.TimestampInvalid, "the trust policy wants a time stamp, and there is none")
	case together == nil:
		return faultf(trust.TimestampInvalid, "no tsa trust store holds a certificate")
	}
	if res := together.result(trustpolicy.TypeAuthenticTimestamp); res != nil && res.Error != nil {
		return faultf(trust.TimestampInvalid, "%s", libraryText(res.Error))
	}
	return fault{reason: trust.TimestampInvalid}
}

// likeliest sorts TSA certificates: the root of the chain that was found, those
// that differ from it in date or number alone, the others.
func likeliest(tsa []*truststore.Anchor, root *x509.Certificate) []*truststore.Anchor {
	distance := func(a *truststore.Anchor) int {
		switch {
		case root == nil || !bytes.Equal(a.Cert.RawSubject, root.RawSubject):
			return 2
		case !a.Cert.Equal(root):
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(tsa), func(x, y *truststore.Anchor) int { return distance(x) - distance(y) })
}

// authenticity returns "" when a run found the envelope intact and its signer
// authentic under a, else why not.
func (e *examination) authenticity(ctx context.Context, a *truststore.Anchor, run *run) fault {
	switch {
	case run.outcome == nil: // our own document was refused: nothing about the signature
		e.problem = trust.IOError
		return fault{reason: trust.NoTrustedKey}
	case run.failed(trustpolicy.TypeIntegrity):
		return stranger(e.mediaType, e.blob) // for its reason; it is broken
	case run.failed(trustpolicy.TypeAuthenticity):
		// Either the chain or the identity: notation-go has one result for both.
		// Nobody is asked about a signer that is not to be trusted anyway.
		if anyone := e.run(ctx, a, nil, []string{"*"}, truststore.RevocationOffline); !anyone.failed(trustpolicy.TypeAuthenticity) && anyone.err == nil {
			return e.identityFault(anyone)
		}
		return fault{reason: trust.NoTrustedKey}
	case run.err != nil: // the descriptor, or something that is not ours to name
		return faultf(trust.SubjectMismatch, "%s", libraryText(run.err))
	}
	return fault{}
}

// identityFault names the subject that is not among the identities of the statement.
// The run has found its certificate authentic.
func (e *examination) identityFault(run *run) fault {
	if run.outcome.EnvelopeContent == nil || len(run.outcome.EnvelopeContent.SignerInfo.CertificateChain) == 0 {
		return fault{reason: trust.IdentityNotTrusted}
	}
	leaf := run.outcome.EnvelopeContent.SignerInfo.CertificateChain[0]
	more := ""
	if why := unmatchable(leaf); why != "" {
		more = "; notation matches it with no identity but *, since " + why
	}
	return faultf(trust.IdentityNotTrusted, "the trust policy does not name the subject %.160q%s", subjectText(leaf), more)
}

// accept reads the results of a run that found the signer authentic, and records
// its grounds: one for each store that holds the anchor, and the TSA's when one
// was needed. It is the only place that makes a Ground for notation. Dates are
// not judged here but become the ground's bounds, so that time needs no new run.
func (e *examination) accept(run *run, a, tsa *truststore.Anchor) bool {
	s, now := e.statement, time.Now()
	if run.err != nil || run.outcome == nil || run.outcome.Error != nil || run.outcome.EnvelopeContent == nil {
		return false
	}
	for _, t := range []trustpolicy.ValidationType{trustpolicy.TypeIntegrity, trustpolicy.TypeAuthenticity} {
		if run.failed(t) {
			return false
		}
	}
	if run.result(trustpolicy.TypeExpiry) == nil || run.result(trustpolicy.TypeAuthenticTimestamp) == nil {
		return false
	}
	if s.Enforces(trustpolicy.TypeRevocation) && (run.failed(trustpolicy.TypeRevocation) || run.code.revoked || run.code.unknown) {
		if e.recheck(run.code); run.code.revoked {
			e.fault, e.refused = fault{reason: trust.Revoked}, true
		} else {
			e.problem = trust.RevocationUnknown
		}
		return false
	}
	info := &run.outcome.EnvelopeContent.SignerInfo
	if plugin := needsPlugin(info); plugin != "" || !slices.ContainsFunc(info.CertificateChain, a.Cert.Equal) {
		e.fault = pluginFault(plugin)
		return false
	}
	isX509 := info.SignedAttributes.SigningScheme == signature.SigningSchemeX509
	stampEnforced := s.Enforces(trustpolicy.TypeAuthenticTimestamp)
	byDates := isX509 && stampEnforced && tsa == nil
	if stampEnforced && !byDates && (run.failed(trustpolicy.TypeAuthenticTimestamp) || run.stamp.revoked || run.stamp.unknown) {
		e.recheck(run.stamp)
		if e.fault = e.stampFault(run); run.stamp.unknown {
			e.problem = trust.RevocationUnknown
		}
		return false
	}
	var b bounds
	if s.Enforces(trustpolicy.TypeExpiry) {
		b.end(info.SignedAttributes.Expiry, trust.SignatureExpired)
	}
	if byDates {
		for _, c := range info.CertificateChain {
			b.begin(c.NotBefore)
			b.end(c.NotAfter, trust.CertificateExpired)
		}
	}
	if tsa != nil && !s.StampRequired() {
		// Only then does afterCertExpiry look at the countersignature; until
		// then a chain that is not yet valid is not saved by one.
		b.from = firstExpiry(info.CertificateChain)
	}
	// What revocation services said has an end as well.
	if s.Enforces(trustpolicy.TypeRevocation) {
		b.end(run.code.until, trust.RevocationUnknown)
	}
	if tsa != nil {
		b.end(run.stamp.until, trust.RevocationUnknown)
	}
	// notation-go has judged the same dates by the clock. Where ours allow, its
	// results must not object: a disagreement is a mistake in one of them.
	if b.contain(run.began) && b.contain(now) {
		if s.Enforces(trustpolicy.TypeExpiry) && run.failed(trustpolicy.TypeExpiry) ||
			stampEnforced && run.failed(trustpolicy.TypeAuthenticTimestamp) {
			e.fault = fault{reason: trust.TimestampInvalid}
			return false
		}
	}
	if run.code.notChecked || run.stamp.notChecked || run.code.unknown {
		e.notChecked = true
	}
	if !s.Enforces(trustpolicy.TypeRevocation) { // logged: what is not enforced is noted
		e.recheck(run.code)
		e.revoked = e.revoked || run.code.revoked
		if run.code.unknown && e.v.store.Revocation() == truststore.RevocationOnline {
			e.problem = trust.RevocationUnknown // looked at again; this ground stands
		}
	}
	e.verified = info
	stamps := [][]trust.SignerID{nil}
	if tsa != nil {
		stamps = nil
		for _, t := range tsa.Signers() {
			stamps = append(stamps, []trust.SignerID{t.ID()})
		}
	}
	for _, signer := range a.Signers() {
		for _, stamp := range stamps {
			e.lo.Verdict.Grounds = append(e.lo.Verdict.Grounds, trust.Ground{
				Signers: append([]trust.SignerID{signer.ID()}, stamp...), From: b.from, Until: b.until, Limit: b.limit, Ends: b.ends})
		}
	}
	return true
}
