package verifier

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	in_toto "github.com/in-toto/attestation/go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

const (
	bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	bundleVersion   = "v0.3"
	// signPredicate is what cosign sign says. Everything else that shares the
	// carrier (SBOMs, provenance, scan results) is an attestation about the
	// image, not a signature over it, though the same key may have made it.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"

	// sigstore-go's limits; beyond them it errs, here they have a name.
	maxTlogEntries    = 32
	maxSubjects       = 1024
	maxSubjectDigests = 32
)

// bundleRules: the decoder is protojson, which refuses unknown, doubled and
// case-variant fields by itself; these refuse them in what it takes for maps.
var (
	bundleRules    = strictjson.Rules{}
	statementRules = strictjson.Rules{Maps: []string{"predicate", "annotations"}}
)

// bundle verifies a sigstore bundle v0.3 made by cosign sign.
func (v *Verifier) bundle(ctx context.Context, r *Request, o *Outcome, d ocispec.Descriptor, c *content, lo *LayerOutcome) {
	if d.MediaType != bundleMediaType {
		lo.refuse(faultf(trust.Malformed, "its layer has the media type %.80q; %s is expected", d.MediaType, bundleMediaType))
		return
	}
	if f := checkJSON("the bundle", bundleRules, c.blob); f.found() {
		lo.refuse(f)
		return
	}
	if f := checkBundleEntries(c.blob); f.found() {
		lo.refuse(f)
		return
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(c.blob); err != nil {
		if b.Bundle != nil && len(b.GetVerificationMaterial().GetTlogEntries()) > maxTlogEntries {
			lo.Problem = trust.LimitExceeded
			return
		}
		lo.refuse(faultf(trust.Malformed, "the bundle: %s", libraryText(err)))
		return
	}
	dsse := b.GetDsseEnvelope()
	version, err := b.Version()
	switch {
	case err != nil || version != bundleVersion:
		lo.refuse(faultf(trust.Malformed, "the bundle's media type is %.80q; %s is expected", b.GetMediaType(), bundleMediaType))
		return
	case b.GetMessageSignature() != nil: // over the manifest itself, which cosign refuses for an image
		lo.refuse(faultf(trust.PayloadTypeUnknown, "the bundle signs the manifest's bytes, as cosign sign-blob does; an in-toto statement is expected"))
		return
	case dsse != nil && len(dsse.GetSignatures()) > 0 && dsse.GetPayloadType() != bundle.IntotoMediaType:
		lo.refuse(faultf(trust.PayloadTypeUnknown, "the payload's type is %.80q; %s is expected", dsse.GetPayloadType(), bundle.IntotoMediaType))
		return
	case dsse == nil || len(dsse.GetSignatures()) == 0:
		lo.refuse(faultf(trust.Malformed, "the bundle holds no signature"))
		return
	case len(dsse.GetSignatures()) > 1: // which one is meant?
		lo.refuse(faultf(trust.Ambiguous, "the bundle's envelope holds %d signatures; one is expected", len(dsse.GetSignatures())))
		return
	}
	header, f := readHeader(dsse.GetPayload(), r.Subject.Digest)
	switch attests := header.kind != "" && header.kind != signPredicate; {
	case attests:
		o.Attachment, lo.Verdict.Predicate, lo.Verdict.Size = true, header.kind, d.Size
		if f.found() {
			lo.refuse(f)
			return
		}
	case d.Size > trust.MaxBlob:
		lo.Problem = trust.LimitExceeded
		return
	default:
		header = statementHeader{}
		if f := checkJSON("the in-toto statement", statementRules, dsse.GetPayload()); f.found() {
			lo.refuse(f)
			return
		}
	}
	envelope := v.statement(r, &b, header, lo)
	if lo.Verdict.Reason != "" || lo.Problem != "" {
		return
	}
	entity := readBundle{&b, envelope}
	if b.GetVerificationMaterial().GetPublicKey() == nil { // it has a certificate
		v.keylessBundle(r, entity, lo)
		return
	}
	subject := verify.WithArtifactDigest("sha256", r.Subject.Digest[:])
	message, raw := pae(dsse.GetPayloadType(), dsse.GetPayload()), dsse.GetSignatures()[0].GetSig()
	v.match(r, message, raw, hintOf(&b), lo, func(w truststore.Way) error {
		if o.Attachment { // the envelope is read only for the key that has made it
			if err := w.Bundle.SigVerifier.VerifySignature(bytes.NewReader(raw), bytes.NewReader(message)); err != nil {
				return err
			}
		}
		_, err := cosign.VerifyNewBundle(ctx, w.Bundle, subject, entity)
		return err
	})
}

// keylessBundle asks the trusted roots about a bundle with a certificate.
func (v *Verifier) keylessBundle(r *Request, entity readBundle, lo *LayerOutcome) {
	stamps, err := entity.Timestamps()
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "the bundle's time stamps: %s", libraryText(err)))
		return
	}
	c := &certified{
		der:       entity.GetVerificationMaterial().GetCertificate().GetRawBytes(),
		signature: entity.envelope.Signature(),
		stamps:    stamps,
	}
	var all []*tlog.Entry
	c.readEntries = func() (entries []logEntry, err error) {
		all, err = entity.TlogEntries()
		for _, e := range all {
			entries = append(entries, logEntry{log: hex.EncodeToString([]byte(e.LogKeyID())), at: e.IntegratedTime(), promised: e.HasInclusionPromise(), read: e})
		}
		return entries, err
	}
	c.accept = func(rt *truststore.Root, material root.TrustedMaterial, _ bool) error {
		options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
		if len(rt.Logs) > 0 {
			options = append(options, verify.WithTransparencyLog(1))
		}
		if len(rt.CTLogs) > 0 {
			options = append(options, verify.WithSignedCertificateTimestamps(1))
		}
		sv, err := verify.NewVerifier(material, options...)
		if err != nil {
			return err
		}
		// Who may sign is asked when an answer is read.
		_, err = sv.Verify(withEntries{entity, all, c.unreadable}, verify.NewPolicy(verify.WithArtifactDigest("sha256", r.Subject.Digest[:]), verify.WithoutIdentitiesUnsafe()))
		return err
	}
	c.logged = func(material root.TrustedMaterial, e *tlog.Entry) error {
		_, err := verify.VerifyTlogEntry(withEntries{entity, []*tlog.Entry{e}, nil}, material, 1, true)
		return err
	}
	v.keyless(c, lo)
}

// withEntries is a bundle with its log entries as sigstore-go has read them, all or one.
type withEntries struct {
	readBundle
	entries []*tlog.Entry
	err     error
}

// TlogEntries implements verify.SignedEntity.
func (b withEntries) TlogEntries() ([]*tlog.Entry, error) { return b.entries, b.err }

// hintOf is the fingerprint of the key that a bundle says it is by, as cosign writes it:
// the SHA-256 of the public key, in base64. It is zero for any other hint.
func hintOf(b *bundle.Bundle) (fingerprint trust.Digest) {
	raw, err := base64.StdEncoding.DecodeString(b.GetVerificationMaterial().GetPublicKey().GetHint())
	if err == nil && len(raw) == len(fingerprint) {
		fingerprint = trust.Digest(raw)
	}
	return fingerprint
}

// readBundle is a bundle with its envelope and statement as sigstore-go has read
// them: it would read them again for each verification, and the statement twice.
type readBundle struct {
	*bundle.Bundle
	envelope *readEnvelope
}

// SignatureContent implements verify.SignedEntity.
func (b readBundle) SignatureContent() (verify.SignatureContent, error) { return b.envelope, nil }

type readEnvelope struct {
	*bundle.Envelope
	statement *in_toto.Statement
}

// EnvelopeContent implements verify.SignatureContent.
func (e *readEnvelope) EnvelopeContent() verify.EnvelopeContent { return e }

// Statement implements verify.EnvelopeContent.
func (e *readEnvelope) Statement() (*in_toto.Statement, error) { return e.statement, nil }

// readStatement reads a bundle's envelope and statement, with sigstore-go's own
// methods; of an attestation only the header of the statement.
func readStatement(b *bundle.Bundle, header statementHeader) (*readEnvelope, error) {
	envelope, err := b.Envelope()
	if err != nil {
		return nil, err
	}
	if header.text != nil {
		statement := &in_toto.Statement{}
		return &readEnvelope{envelope, statement}, protojson.Unmarshal(header.text, statement)
	}
	statement, err := envelope.Statement()
	if err != nil {
		return nil, err
	}
	return &readEnvelope{envelope, statement}, nil
}

// statement checks the in-toto statement that the bundle's envelope carries; header is that
// of an attestation. With neither a reason nor a problem, it returns what it has read.
func (v *Verifier) statement(r *Request, b *bundle.Bundle, header statementHeader, lo *LayerOutcome) *readEnvelope {
	attestation := header.text != nil
	envelope, err := readStatement(b, header)
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "the in-toto statement: %s", libraryText(err)))
		return nil
	}
	s := envelope.statement
	if s.GetType() != "https://in-toto.io/Statement/v1" && s.GetType() != "https://in-toto.io/Statement/v0.1" {
		lo.refuse(faultf(trust.Malformed, "the in-toto statement's type is %.80q", s.GetType()))
		return nil
	}
	switch kind := s.GetPredicateType(); {
	case attestation && kind == lo.Verdict.Predicate, !attestation && kind == signPredicate:
	case kind == "": // nothing in particular: a broken signature
		lo.refuse(faultf(trust.Malformed, "the in-toto statement has no predicate type"))
		return nil
	default: // two readers of it differ
		lo.refuse(faultf(trust.Ambiguous, "the in-toto statement's predicate type is %.80q", kind))
		return nil
	}
	if len(s.GetSubject()) > maxSubjects {
		lo.Problem = trust.LimitExceeded
		return nil
	}
	found, signs := false, ""
	for _, subject := range s.GetSubject() {
		if len(subject.GetDigest()) > maxSubjectDigests {
			lo.Problem = trust.LimitExceeded
			return nil
		}
		for _, algorithm := range slices.Sorted(maps.Keys(subject.GetDigest())) {
			text := subject.GetDigest()[algorithm]
			digest, err := hex.DecodeString(text)
			if err != nil {
				lo.refuse(faultf(trust.Malformed, "a subject's digest in the in-toto statement is no hexadecimal number: %.80q", text))
				return nil
			}
			found = found || algorithm == "sha256" && bytes.Equal(digest, r.Subject.Digest[:])
			signs = cmp.Or(signs, algorithm+":"+text)
		}
	}
	switch {
	case found:
	case signs == "":
		lo.refuse(faultf(trust.SubjectMismatch, "it signs nothing: its in-toto statement has no subject with a digest"))
	default:
		lo.refuse(faultf(trust.SubjectMismatch, "it signs %.140q", signs))
	}
	return envelope
}

// pae is DSSE's pre-authentication encoding (DSSE protocol.md, Signature
// Definition): what the signature is over.
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+48)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(append(append(b, ' '), payloadType...), ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	return append(append(b, ' '), payload...)
}
