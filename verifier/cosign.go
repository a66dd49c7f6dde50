package verifier

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
	"trust-worker/verifier/recovery"
	"trust-worker/verifier/truststore"
)

// layerAnnotations are those of a layer that cosign reads before it verifies.
var layerAnnotations = []string{static.SignatureAnnotationKey, static.CertificateAnnotationKey, static.ChainAnnotationKey,
	static.BundleAnnotationKey, static.RFC3161TimestampAnnotationKey}

// layerID names a cosign layer by what decides about it: the payload and its size,
// the signature, and what came along. Each is preceded by its length, since an
// annotation may hold anything.
func layerID(d ocispec.Descriptor) trust.LayerID {
	h := sha256.New()
	var b []byte
	field := func(text string) {
		b = append(append(strconv.AppendInt(b[:0], int64(len(text)), 10), ':'), text...)
		h.Write(b)
	}
	field(string(d.Digest))
	field(strconv.FormatInt(d.Size, 10))
	for _, name := range layerAnnotations {
		field(d.Annotations[name])
	}
	var id trust.LayerID
	copy(id[:], h.Sum(nil))
	return id
}

func hasCertificate(d ocispec.Descriptor) bool {
	return strings.TrimSpace(d.Annotations[static.CertificateAnnotationKey]) != ""
}

// checkAnnotation refuses a layer without a signature before its blob is read.
func checkAnnotation(d ocispec.Descriptor) fault {
	text := d.Annotations[static.SignatureAnnotationKey]
	switch {
	case len(text) == 0:
		return faultf(trust.Malformed, "the layer has no annotation %s", static.SignatureAnnotationKey)
	case len(text) > maxSigText:
		return faultf(trust.Malformed, "the annotation %s has %d bytes; no signature has more than %d", static.SignatureAnnotationKey, len(text), maxSigText)
	}
	if sig, err := base64.StdEncoding.DecodeString(text); err != nil || len(sig) == 0 {
		return faultf(trust.Malformed, "the annotation %s is not base64", static.SignatureAnnotationKey)
	}
	return fault{}
}

// payloadRules are cosign's SIGNATURE_SPEC, section Payload: what is in optional
// is the signer's own. Tekton Chains has written the members with a capital; to
// cosign that is the same.
var payloadRules = strictjson.Rules{
	Members: []string{"critical", "identity", "docker-reference", "image", "docker-manifest-digest", "type", "optional",
		"Critical", "Identity", "Docker-reference", "Image", "Docker-manifest-digest", "Type", "Optional"},
	Maps: []string{"optional", "Optional"},
}

// payloadTypes are the types of simple signing payloads that are a signature over an
// image: cosign's, that of "atomic" signatures (containers-signature(5)), which early
// cosign wrote, and Tekton Chains'.
var payloadTypes = []string{payload.CosignSignatureType, "atomic container signature", "Tekton container signature"}

// checkJSON is what is wrong with the document b, which people know as what, under
// rules: nothing when it is one that all readers take for the same.
func checkJSON(what string, rules strictjson.Rules, b []byte) fault {
	switch err := rules.Check(b); {
	case err == nil:
		return fault{}
	case errors.Is(err, strictjson.ErrDuplicate):
		return faultf(trust.Ambiguous, "%s: %s", what, libraryText(err))
	default:
		return faultf(trust.Malformed, "%s: %s", what, libraryText(err))
	}
}

// payloadCheck is what became of reading a simple signing payload; the zero value
// is that nobody has.
type payloadCheck struct {
	done  bool
	fault fault // none when cosign accepts its claims about the subject
}

// checkPayload lets cosign judge the claims of a payload, as it would after each
// signature over it. Its type is not among what cosign looks at: any would do.
func checkPayload(subject v1.Hash, blob []byte) payloadCheck {
	if f := checkJSON("the payload", payloadRules, blob); f.found() {
		return payloadCheck{true, f}
	}
	claims, err := static.NewSignature(blob, "")
	if err == nil {
		err = cosign.SimpleClaimVerifier(claims, subject, nil)
	}
	kind := payloadType(blob)
	known := slices.Contains(payloadTypes, kind)
	if err == nil && known {
		return payloadCheck{done: true}
	}
	// Refused; this is only to say why.
	var p *payload.SimpleContainerImage
	err = json.Unmarshal(blob, &p)
	switch {
	case err != nil:
		return payloadCheck{true, faultf(trust.Malformed, "the payload: %s", strictjson.Explain(blob, err))}
	case p == nil:
		return payloadCheck{true, faultf(trust.Malformed, "the payload is null")}
	case !known:
		return payloadCheck{true, faultf(trust.PayloadTypeUnknown, "the payload's type is %.80q", kind)}
	}
	return payloadCheck{true, faultf(trust.SubjectMismatch, "it signs %.80q", p.Critical.Image.DockerManifestDigest)}
}

// payloadType returns critical.type of a payload without decoding it again, "" if
// it is no string. The rules leave one member of each name.
func payloadType(valid []byte) string {
	for name, critical := range strictjson.Members(valid) {
		if name == "critical" || name == "Critical" {
			for name, value := range strictjson.Members(critical) {
				if name == "type" || name == "Type" {
					text, _ := strictjson.String(value)
					return text
				}
			}
		}
	}
	return ""
}

// simple verifies one simple signing layer (cosign SIGNATURE_SPEC). The cheap
// checks come first: none of them can make anything trusted, and most forgeries
// fail them.
func (v *Verifier) simple(ctx context.Context, r *Request, _ *Outcome, d ocispec.Descriptor, c *content, lo *LayerOutcome) {
	subject := v1.Hash{Algorithm: "sha256", Hex: r.Subject.Digest.Hex()}
	if !c.payload.done {
		c.payload = checkPayload(subject, c.blob)
	}
	if c.payload.fault.found() {
		lo.refuse(c.payload.fault)
		return
	}
	text := d.Annotations[static.SignatureAnnotationKey]
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "the annotation %s is not base64", static.SignatureAnnotationKey))
		return
	}
	// Neither certificate, chain nor bundle of the layer is handed over: keys
	// come from the trust directory alone.
	sig, err := static.NewSignature(c.blob, text)
	if err != nil {
		lo.refuse(faultf(trust.Malformed, "%s", libraryText(err)))
		return
	}
	v.match(r, c.blob, raw, trust.Digest{}, lo, func(w truststore.Way) error {
		_, err := cosign.VerifyImageSignature(ctx, sig, subject, w.Simple)
		return err
	})
	if lo.Verdict.Matched() && !readable(d) {
		lo.Verdict.Grounds = nil
		lo.refuse(faultf(trust.Malformed, "a key that is trusted verifies it, but cosign cannot read what its layer carries besides: a certificate, a chain, a log's bundle or a time stamp"))
		return
	}
	if hasCertificate(d) {
		v.keylessLayer(ctx, subject, c.blob, raw, d, lo)
	}
}

// keylessLayer asks the trusted roots about a layer with a certificate.
func (v *Verifier) keylessLayer(ctx context.Context, subject v1.Hash, blob, raw []byte, d ocispec.Descriptor, lo *LayerOutcome) {
	certs, ok := annotatedCertificates(d, static.CertificateAnnotationKey)
	if !ok || len(certs) != 1 {
		lo.keylessFault(faultf(trust.Malformed, "the annotation %s holds no single certificate in PEM", static.CertificateAnnotationKey))
		return
	}
	var log *cbundle.RekorBundle
	var stamp *cbundle.RFC3161Timestamp
	signed := &certified{der: certs[0].Raw, signature: raw, issuedThen: true} // cosign.verifyInternal
	signed.readEntries = func() ([]logEntry, error) {
		if !annotatedJSON(d, static.BundleAnnotationKey, &log) {
			return nil, errors.New("it cannot be read")
		}
		if log == nil {
			return nil, nil
		}
		e, err := annotatedEntry(log)
		if err != nil {
			return nil, err
		}
		return []logEntry{e}, nil
	}
	if annotatedJSON(d, static.RFC3161TimestampAnnotationKey, &stamp) && stamp != nil { // else it proves nothing
		signed.stamps = [][]byte{stamp.SignedRFC3161Timestamp}
	}
	signed.accept = func(rt *truststore.Root, material root.TrustedMaterial, stamped bool) error {
		// The chain that comes along is not handed over: cosign does not use it
		// beside a trusted root. What the root does not demand is neither.
		options := []static.Option{static.WithCertChain([]byte(d.Annotations[static.CertificateAnnotationKey]), nil)}
		if len(rt.Logs) > 0 {
			options = append(options, static.WithBundle(log))
		}
		if stamped {
			options = append(options, static.WithRFC3161Timestamp(stamp))
		}
		sig, err := static.NewSignature(blob, d.Annotations[static.SignatureAnnotationKey], options...)
		if err != nil {
			return err
		}
		_, err = cosign.VerifyImageSignature(ctx, sig, subject, &cosign.CheckOpts{TrustedMaterial: material, Offline: true,
			IgnoreTlog: len(rt.Logs) == 0, IgnoreSCT: len(rt.CTLogs) == 0, UseSignedTimestamps: stamped})
		return err
	}
	v.keyless(signed, lo)
}

// annotatedEntry reads the log entry of a layer. cosign, which verifies it, takes for
// granted that its body is a string.
func annotatedEntry(b *cbundle.RekorBundle) (e logEntry, _ error) {
	text, ok := b.Payload.Body.(string)
	if !ok {
		return e, errors.New("the entry's body is no text")
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil {
		return e, errors.New("the log's id is no hexadecimal number")
	}
	body, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return e, errors.New("the entry's body is not base64")
	}
	if f := checkEntry(body); f.found() {
		return e, errors.New(f.detail)
	}
	return logEntry{log: hex.EncodeToString(id), at: time.Unix(b.Payload.IntegratedTime, 0), promised: len(b.SignedEntryTimestamp) > 0}, nil
}

// readable reports whether cosign verify --key can read what a layer carries beside its
// signature. If not it refuses the layer, and so do we. What it says there adds no trust
// and takes none: a key in _cosign is enough (docs/differences.md).
func readable(d ocispec.Descriptor) bool {
	var log cbundle.RekorBundle
	var stamp cbundle.RFC3161Timestamp
	certs, ok := annotatedCertificates(d, static.CertificateAnnotationKey)
	if d.Annotations[static.CertificateAnnotationKey] != "" { // else cosign does not look at the chain
		_, chain := annotatedCertificates(d, static.ChainAnnotationKey)
		ok = ok && chain && len(certs) > 0
	}
	return ok && annotatedJSON(d, static.BundleAnnotationKey, &log) && annotatedJSON(d, static.RFC3161TimestampAnnotationKey, &stamp)
}

// annotatedCertificates reads an annotation of certificates, if there is one.
func annotatedCertificates(d ocispec.Descriptor, name string) (certs []*x509.Certificate, ok bool) {
	text := d.Annotations[name]
	if len(text) > maxChainDER {
		return nil, false
	}
	certs, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(text))
	return certs, err == nil
}

// annotatedJSON reads an annotation of JSON, if there is one.
func annotatedJSON(d ocispec.Descriptor, name string, into any) bool {
	text := d.Annotations[name]
	return text == "" || len(text) <= maxChainDER && json.Unmarshal([]byte(text), into) == nil
}

// match finds the trusted keys under which raw is a signature over message, and
// sets lo's verdict. The candidates are only proposals; accept asks cosign, and
// the one Ground of this package's cosign side is made right where it has said
// yes. Everything else about the signature has been checked by the caller. hinted is the
// fingerprint that the signature's carrier names, or zero.
func (v *Verifier) match(r *Request, message, raw []byte, hinted trust.Digest, lo *LayerOutcome, accept func(truststore.Way) error) {
	try := func(k *truststore.Key) {
		for _, w := range k.Ways {
			lo.Calls++
			if accept(w) == nil {
				lo.Verdict.Grounds = append(lo.Verdict.Grounds, trust.Ground{Signers: []trust.SignerID{k.Signer().ID()}})
				r.Guesses.signed(k.Fingerprint)
				return
			}
		}
	}
	skipped := false
	for _, class := range recovery.Classify(raw) {
		lo.Hints = append(lo.Hints, Hint{Kind: HintClass, Class: class})
		keys := v.store.Keys(class)
		switch {
		case lo.Verdict.Matched() || len(keys) == 0:
		case class == recovery.ECDSA256 || class == recovery.ECDSA384 || class == recovery.ECDSA521:
			if len(keys) == 1 {
				// Verifying costs no more than finding out whether to.
				if try(keys[0]); lo.Verdict.Matched() {
					continue
				}
				lo.Hints = append(lo.Hints, candidates(keys[0], message, raw)...)
				continue
			}
			likeliest, guessed := v.likeliest(r, hinted, class)
			if likeliest != nil {
				if try(likeliest); lo.Verdict.Matched() {
					continue
				}
				if guessed {
					r.Guesses.wrong()
				}
			}
			for _, h := range candidates(keys[0], message, raw) {
				lo.Hints = append(lo.Hints, h)
				if k := v.store.Key(h.Fingerprint); k != nil && k != likeliest {
					try(k)
				}
			}
		default:
			// One is enough: nobody can make a signature that two keys
			// accept, and when this key is removed the rest are tried.
			for _, k := range keys {
				if rk, ok := k.Public.(*rsa.PublicKey); ok && !recovery.RSAFits(rk, raw) {
					continue
				}
				if skipped = r.NoTrials; skipped {
					break
				}
				before := lo.Calls
				try(k)
				lo.Trials += lo.Calls - before
				if lo.Verdict.Matched() {
					break
				}
			}
		}
	}
	switch {
	case lo.Verdict.Matched():
		lo.Hints = nil
	case skipped:
		lo.Problem = trust.LimitExceeded
	default:
		lo.Verdict.Reason = trust.NoTrustedKey
	}
}

// candidates recovers the keys on like's curve that could have made an ECDSA
// signature, under each hash that is accepted there. All keys of one class are
// on one curve, since smaller ones are refused.
func candidates(like *truststore.Key, message, raw []byte) []Hint {
	digests := make([][]byte, len(like.Curves))
	for i, c := range like.Curves {
		digests[i] = sum(c.Hash(), message)
	}
	prints, err := recovery.Candidates(like.Curves[0].Curve(), raw, digests...)
	if err != nil {
		panic(err) // only for curves that parseKey refuses
	}
	hints := make([]Hint, len(prints))
	for i, fp := range prints {
		hints[i] = Hint{Kind: HintCandidate, Fingerprint: trust.Digest(fp)}
	}
	return hints
}

func sum(h crypto.Hash, b []byte) []byte {
	if h == crypto.SHA256 {
		s := sha256.Sum256(b)
		return s[:]
	}
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}
