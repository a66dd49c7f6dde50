package verifier

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Attestations that cosign keeps by a tag (cosign ATTESTATION_SPEC): each layer is a DSSE
// envelope around an in-toto statement. BuildKit's are statements in no envelope. Those in
// bundles are in bundle.go.

const (
	typeInTotoPayload = "application/vnd.in-toto+json"
	// maxPredicate is how many bytes of a predicate type are kept.
	maxPredicate = 255
)

// dsseRules are those of DSSE's JSON form (DSSE envelope.md).
var dsseRules = strictjson.Rules{Members: []string{"payload", "payloadType", "signatures", "keyid", "sig"}}

// dsseEnvelope is as much of an envelope as is read.
type dsseEnvelope struct {
	PayloadType string `json:"payloadType"`
	Payload     string `json:"payload"`
	Signatures  []struct {
		Sig string `json:"sig"`
	} `json:"signatures"`
}

// attestation looks at one layer of a manifest of attestations.
func (v *Verifier) attestation(ctx context.Context, r *Request, _ *Outcome, d ocispec.Descriptor, c *content, lo *LayerOutcome) {
	lo.Verdict.Size = d.Size
	if d.MediaType == typeInTotoPayload {
		lo.Verdict.Format = trust.InToto
		header, _ := readHeader(c.blob, r.Subject.Digest)
		lo.Verdict.Predicate = header.kind
		lo.refuse(faultf(trust.PayloadTypeUnknown, "nobody has signed it"))
		return
	}
	if f := checkJSON("the envelope", dsseRules, c.blob); f.found() {
		lo.refuse(f)
		return
	}
	var e dsseEnvelope
	if err := json.Unmarshal(c.blob, &e); err != nil {
		lo.refuse(faultf(trust.Malformed, "the envelope: %s", strictjson.Explain(c.blob, err)))
		return
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	switch {
	case e.PayloadType != typeInTotoPayload:
		lo.refuse(faultf(trust.PayloadTypeUnknown, "the payload's type is %.80q; %s is expected", e.PayloadType, typeInTotoPayload))
		return
	case err != nil || len(payload) == 0:
		lo.refuse(faultf(trust.Malformed, "the envelope's payload is not base64"))
		return
	case len(e.Signatures) != 1:
		lo.refuse(faultf(trust.Ambiguous, "the envelope holds %d signatures; one is expected", len(e.Signatures)))
		return
	}
	header, f := readHeader(payload, r.Subject.Digest)
	lo.Verdict.Predicate = header.kind
	if f.found() {
		lo.refuse(f)
		return
	}
	raw, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil || len(raw) == 0 {
		lo.refuse(faultf(trust.Malformed, "the envelope's signature is not base64"))
		return
	}
	subject := v1.Hash{Algorithm: "sha256", Hex: r.Subject.Digest.Hex()}
	// The layer's annotations are not handed over: keys come from the trust directory alone.
	att, err := static.NewAttestation(c.blob)
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "%s", libraryText(err)))
		return
	}
	// cosign reads the whole predicate to find the subject; the header is as much as that needs.
	short, err := json.Marshal(map[string]any{"payloadType": e.PayloadType, "payload": header.text, "signatures": []any{}})
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "%s", libraryText(err)))
		return
	}
	claims, err := static.NewAttestation(short)
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "%s", libraryText(err)))
		return
	}
	message := pae(e.PayloadType, payload)
	v.match(r, message, raw, trust.Digest{}, lo, func(w truststore.Way) error {
		// The envelope is read only for the key that has made it.
		if err := w.Simple.SigVerifier.VerifySignature(bytes.NewReader(raw), bytes.NewReader(message)); err != nil {
			return err
		}
		if _, err := cosign.VerifyBlobAttestation(ctx, att, subject, w.Simple); err != nil {
			return err
		}
		return cosign.IntotoSubjectClaimVerifier(claims, subject, nil)
	})
	if !lo.Verdict.Matched() && lo.Problem == "" && hasCertificate(d) {
		lo.Verdict.Detail = "it carries a certificate, which is asked about in bundles alone"
	}
}

// attestationID names a layer of attestations by what decides about it: its annotations do not.
func attestationID(d ocispec.Descriptor) (id trust.LayerID) {
	h := sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s%d", len(d.MediaType), d.MediaType, len(d.Digest), d.Digest, d.Size))
	copy(id[:], h[:])
	return id
}

// statementHeader is an in-toto statement without its predicate, which may be of any size and
// is not looked at.
type statementHeader struct {
	kind string // the predicate type; empty if there is none or it cannot be one: it is the pusher's text
	text []byte // the statement with an empty predicate; nil with a fault
}

// readHeader reads the header of a statement, in one pass over the rest, and says what keeps
// it from being about an image.
func readHeader(statement []byte, d trust.Digest) (h statementHeader, f fault) {
	if !json.Valid(statement) {
		return h, faultf(trust.Malformed, "the in-toto statement is not JSON")
	}
	seen := map[string]json.RawMessage{}
	kinds := 0
	for name, value := range strictjson.Members(statement) {
		for _, known := range []string{"_type", "predicateType", "subject"} {
			if !strings.EqualFold(name, known) {
				continue
			}
			if known == "predicateType" {
				kinds++
				if name != known {
					kinds++
				}
			}
			if _, again := seen[known]; !f.found() && (again || name != known) {
				f = faultf(trust.Ambiguous, "the in-toto statement has %.80q besides or instead of %s", name, known)
			}
			seen[known] = value
		}
	}
	if text, ok := strictjson.String(seen["predicateType"]); ok && kinds == 1 && isURI(text) {
		h.kind = text
	}
	if f.found() {
		return h, f
	}
	if kind, _ := strictjson.String(seen["_type"]); !slices.Contains([]string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}, kind) {
		return h, faultf(trust.Malformed, "the in-toto statement's type is %.80q", kind)
	}
	if h.kind == "" {
		return h, faultf(trust.Malformed, "the in-toto statement has no predicate type that is a URI of at most %d bytes", maxPredicate)
	}
	if f := checkJSON("the subjects", strictjson.Rules{Members: []string{"name", "digest"}, Maps: []string{"annotations"}}, seen["subject"]); f.found() {
		return h, f
	}
	var subjects []struct {
		Digest map[string]string `json:"digest"`
	}
	if err := json.Unmarshal(seen["subject"], &subjects); err != nil {
		return h, faultf(trust.Malformed, "the in-toto statement's subjects cannot be read")
	}
	if len(subjects) > maxSubjects {
		return h, faultf(trust.Malformed, "the in-toto statement has %d subjects; at most %d are read", len(subjects), maxSubjects)
	}
	if !slices.ContainsFunc(subjects, func(s struct {
		Digest map[string]string `json:"digest"`
	}) bool {
		return s.Digest["sha256"] == d.Hex()
	}) {
		other := ""
		for _, s := range subjects {
			other = cmp.Or(s.Digest["sha256"], other)
		}
		return h, faultf(trust.SubjectMismatch, "it is about sha256:%.80q", other)
	}
	seen["predicate"] = json.RawMessage("{}")
	text, err := json.Marshal(seen)
	if err != nil {
		return h, faultf(trust.Malformed, "the in-toto statement's header cannot be read")
	}
	h.text = text
	return h, fault{}
}

// isURI reports whether a predicate type has the characters of a URI (RFC 3986) alone.
func isURI(text string) bool {
	return text != "" && len(text) <= maxPredicate && !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~:/?#[]@!$&'()*+,;=%", r))
	})
}
