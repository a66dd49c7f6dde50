package verifier

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
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
		lo.Verdict.Predicate = predicateType(c.blob)
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
	lo.Verdict.Predicate = predicateType(payload)
	if f := aboutSubject(payload, r.Subject.Digest); f.found() {
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
	v.match(r, pae(e.PayloadType, payload), raw, trust.Digest{}, lo, func(w truststore.Way) error {
		if _, err := cosign.VerifyBlobAttestation(ctx, att, subject, w.Simple); err != nil {
			return err
		}
		return cosign.IntotoSubjectClaimVerifier(att, subject, nil)
	})
	if !lo.Verdict.Matched() && lo.Problem == "" && hasCertificate(d) {
		lo.Verdict.Detail = "it carries a certificate, which is asked about in bundles alone"
	}
}

// predicateType reads the predicate type of an in-toto statement, "" if there is none or it
// cannot be one: it is the pusher's text.
func predicateType(statement []byte) string {
	if !json.Valid(statement) {
		return ""
	}
	found := ""
	for name, value := range strictjson.Members(statement) {
		if strings.EqualFold(name, "predicateType") {
			text, ok := strictjson.String(value)
			if name != "predicateType" || found != "" || !ok || text == "" || len(text) > maxPredicate {
				return ""
			}
			found = text
		}
	}
	return found
}

// aboutSubject is what keeps a statement from being about an image: nothing if a subject of
// it has the digest. Its predicate is not looked at.
func aboutSubject(statement []byte, d trust.Digest) fault {
	if !json.Valid(statement) {
		return faultf(trust.Malformed, "the in-toto statement is not JSON")
	}
	seen := map[string]string{}
	for name, value := range strictjson.Members(statement) {
		for _, known := range []string{"_type", "predicateType", "subject"} {
			if !strings.EqualFold(name, known) {
				continue
			}
			if _, again := seen[known]; again || name != known {
				return faultf(trust.Ambiguous, "the in-toto statement has %.80q besides or instead of %s", name, known)
			}
			seen[known] = string(value)
		}
	}
	if kind, _ := strictjson.String([]byte(seen["_type"])); !slices.Contains([]string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}, kind) {
		return faultf(trust.Malformed, "the in-toto statement's type is %.80q", kind)
	}
	if predicateType(statement) == "" {
		return faultf(trust.Malformed, "the in-toto statement has no predicate type of at most %d bytes", maxPredicate)
	}
	if f := checkJSON("the subjects", strictjson.Rules{Members: []string{"name", "digest"}, Maps: []string{"annotations"}}, []byte(seen["subject"])); f.found() {
		return f
	}
	var subjects []struct {
		Digest map[string]string `json:"digest"`
	}
	if err := json.Unmarshal([]byte(seen["subject"]), &subjects); err != nil {
		return faultf(trust.Malformed, "the in-toto statement's subjects cannot be read")
	}
	if len(subjects) > maxSubjects {
		return faultf(trust.Malformed, "the in-toto statement has %d subjects; at most %d are read", len(subjects), maxSubjects)
	}
	other := ""
	for _, s := range subjects {
		if s.Digest["sha256"] == hex.EncodeToString(d[:]) {
			return fault{}
		}
		other = s.Digest["sha256"]
	}
	return faultf(trust.SubjectMismatch, "it is about sha256:%.80q", other)
}
