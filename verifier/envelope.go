package verifier

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	nx509 "github.com/notaryproject/notation-core-go/x509"
	nverifier "github.com/notaryproject/notation-go/verifier"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// targetMediaType is the only payload that a notation signature has (Notary
// Project signature-specification, section Payload).
const targetMediaType = "application/vnd.cncf.notary.payload.v1+json"

// The members that notation reads of a JWS envelope (Notary Project
// signature-envelope-jws), of its protected header, and of the payload.
// encoding/json takes the last of two members and any spelling of their names,
// and notation-core-go reads the protected header twice: two readers could see
// different values (N9).
var (
	envelopeRules = strictjson.Rules{Members: []string{"payload", "protected", "header", "signature", "signatures",
		"x5c", "io.cncf.notary.timestampSignature"}} // the signing agent decides nothing
	protectedRules = strictjson.Rules{Members: []string{"alg", "cty", "crit", "io.cncf.notary.expiry",
		"io.cncf.notary.signingTime", "io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime",
		nverifier.HeaderVerificationPlugin, nverifier.HeaderVerificationPluginMinVersion}}
	targetRules = strictjson.Rules{Members: []string{"targetArtifact", "mediaType", "digest", "size"},
		Maps: []string{"annotations"}}
)

// envelopeFormat is the format of a notation signature's only layer.
func envelopeFormat(layers []ocispec.Descriptor) trust.Format {
	if len(layers) == 1 {
		switch layers[0].MediaType {
		case jws.MediaTypeEnvelope:
			return trust.JWS
		case cose.MediaTypeEnvelope:
			return trust.COSE
		}
	}
	return ""
}

// claims is what an envelope says of itself, read without any cryptography. It
// serves to answer cheaply where the answer is no, and to find the trusted
// certificates to verify with. Whatever makes a ground is read again from what
// notation-go has verified.
type claims struct {
	prints      []trust.Digest // of the certificates, leaf first
	chainSize   int            // of all certificates in DER
	largest     int            // of one
	scheme      signature.SigningScheme
	contentType string
	payload     []byte
	plugin      string // the attribute that names a plugin, or that is critical and only one could process
	stamp       []byte // the countersignature; empty for none
}

// excessive reports whether an envelope is too costly to verify for what it can
// be: the keys in a chain or a countersignature are the pusher's to choose, up to
// where one verification takes seconds.
func (c *claims) excessive() bool {
	return len(c.prints) > MaxChain || c.chainSize > maxChainDER || c.largest > maxCertDER || c.excessiveStamp()
}

// excessiveStamp reports the same of the countersignature. It has one signer (RFC
// 3161, section 2.4.2); for each of several a chain would be sought.
func (c *claims) excessiveStamp() bool {
	if len(c.stamp) == 0 || len(c.stamp) > maxStamp {
		return len(c.stamp) > 0
	}
	return costlyToken(c.stamp)
}

func (c *claims) addCertificate(fingerprint trust.Digest, size int) {
	c.prints = append(c.prints, fingerprint)
	c.chainSize += size
	c.largest = max(c.largest, size)
}

// jwsAlgorithms are those that notation has (signature-specification, "Algorithm
// Selection"). notation-core-go holds the leaf's key to the one that is named.
var jwsAlgorithms = []string{"ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}

// understood are the critical attributes that notation processes by itself.
var understood = []string{"io.cncf.notary.signingScheme", "io.cncf.notary.expiry", "io.cncf.notary.authenticSigningTime"}

// readJWS reads a JWS envelope's claims, and refuses one that two readers could
// take for different things.
func readJWS(blob []byte) (c claims, _ fault) {
	if f := checkJSON("the envelope", envelopeRules, blob); f.found() {
		return c, f
	}
	var e struct {
		Payload    string          `json:"payload"`
		Protected  string          `json:"protected"`
		Signatures json.RawMessage `json:"signatures"`
		Header     struct {
			X5c   [][]byte `json:"x5c"`
			Stamp []byte   `json:"io.cncf.notary.timestampSignature"`
		} `json:"header"`
	}
	if err := json.Unmarshal(blob, &e); err != nil {
		return c, faultf(trust.Malformed, "the envelope: %s", strictjson.Explain(blob, err))
	}
	if e.Signatures != nil {
		return c, faultf(trust.Ambiguous, "the envelope has a list of signatures beside the one")
	}
	protected, err := base64.RawURLEncoding.DecodeString(e.Protected)
	if err != nil {
		return c, faultf(trust.Malformed, "the envelope's protected header is not base64 for URLs without padding")
	}
	if f := checkJSON("the protected header", protectedRules, protected); f.found() {
		return c, f
	}
	var h struct {
		Alg    string                  `json:"alg"`
		Type   string                  `json:"cty"`
		Crit   []string                `json:"crit"`
		Scheme signature.SigningScheme `json:"io.cncf.notary.signingScheme"`
		Plugin json.RawMessage         `json:"io.cncf.notary.verificationPlugin"`
	}
	if err := json.Unmarshal(protected, &h); err != nil {
		return c, faultf(trust.Malformed, "the protected header: %s", strictjson.Explain(protected, err))
	}
	if !slices.Contains(jwsAlgorithms, h.Alg) {
		return c, faultf(trust.UnsupportedAlgorithm, "the algorithm is %.40q; one of %s is expected", h.Alg, strings.Join(jwsAlgorithms, ", "))
	}
	if c.payload, err = base64.RawURLEncoding.DecodeString(e.Payload); err != nil {
		return c, faultf(trust.Malformed, "the envelope's payload is not base64 for URLs without padding")
	}
	if len(e.Header.X5c) == 0 {
		return c, faultf(trust.Malformed, "the envelope has no certificate")
	}
	c.scheme, c.contentType, c.stamp = h.Scheme, h.Type, e.Header.Stamp
	if h.Plugin != nil {
		c.plugin = nverifier.HeaderVerificationPlugin
	}
	for _, name := range h.Crit {
		if !slices.Contains(understood, name) {
			c.plugin = cmp.Or(c.plugin, name, "critical attribute without a name")
		}
	}
	for _, der := range e.Header.X5c {
		c.addCertificate(sha256.Sum256(der), len(der))
	}
	return c, fault{}
}

// readCOSE reads a COSE envelope's claims. go-cose refuses labels that are doubled.
func readCOSE(blob []byte) (c claims, _ fault) {
	env, err := signature.ParseEnvelope(cose.MediaTypeEnvelope, blob)
	if err != nil {
		return c, integrityFault(err, nil)
	}
	content, err := parseOnly(env).Content()
	if err != nil {
		return c, integrityFault(err, nil)
	}
	info := &content.SignerInfo
	c.scheme, c.contentType, c.payload = info.SignedAttributes.SigningScheme, content.Payload.ContentType, content.Payload.Content
	c.plugin, c.stamp = needsPlugin(info), info.UnsignedAttributes.TimestampSignature
	for _, cert := range info.CertificateChain {
		c.addCertificate(truststore.FingerprintOf(cert), len(cert.Raw))
	}
	return c, fault{}
}

// parseOnly returns the envelope whose Content only parses. The outer one, in a
// package that cannot be imported, validates the chain as well, which costs two
// verifications; they come later, within notation-go's own, for those envelopes
// that hold a trusted certificate at all. If that type ever changes, the outer
// one does.
func parseOnly(env signature.Envelope) signature.Envelope {
	if v := reflect.ValueOf(env); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		if f := v.Elem().FieldByName("Envelope"); f.IsValid() && f.CanInterface() {
			if inner, ok := f.Interface().(signature.Envelope); ok && inner != nil {
				return inner
			}
		}
	}
	return env
}

// target reads what an envelope signs. The reason is "" when it is a descriptor.
func (c *claims) target() (ocispec.Descriptor, fault) {
	if c.contentType != targetMediaType {
		return ocispec.Descriptor{}, faultf(trust.Malformed, "the payload's type is %.80q; %s is expected", c.contentType, targetMediaType)
	}
	if f := checkJSON("the payload", targetRules, c.payload); f.found() {
		return ocispec.Descriptor{}, f
	}
	var p struct {
		TargetArtifact ocispec.Descriptor `json:"targetArtifact"`
	}
	if err := json.Unmarshal(c.payload, &p); err != nil {
		return ocispec.Descriptor{}, faultf(trust.Malformed, "the payload: %s", strictjson.Explain(c.payload, err))
	}
	return p.TargetArtifact, fault{}
}

// needsPlugin returns the attribute by which an envelope names a verification plugin,
// or one that it marks critical and that only a plugin could process; "" if there is
// none. Plugins are never run, and notation-go passes over the latter in silence.
func needsPlugin(info *signature.SignerInfo) string {
	found := "" // they come in no order
	for _, a := range info.SignedAttributes.ExtendedAttributes {
		switch name := cmp.Or(fmt.Sprint(a.Key), "critical attribute without a name"); {
		case a.Key == nverifier.HeaderVerificationPlugin:
			return nverifier.HeaderVerificationPlugin
		case a.Critical && (found == "" || name < found):
			found = name
		}
	}
	return found
}

// integrityFault says why notation-core-go refuses an envelope with err: for an
// algorithm, for a certificate of its chain, or else since it is malformed. info is
// nil where it is not known; with it this may cost the chain's verification. What
// notation-core-go says of headers is not kept: it goes through maps, and the text
// differs from one time to the next.
func integrityFault(err error, info *signature.SignerInfo) fault {
	if ua := (*signature.UnsupportedSignatureAlgoError)(nil); errors.As(err, &ua) {
		return faultf(trust.UnsupportedAlgorithm, "%s", libraryText(err))
	}
	if info == nil || len(info.CertificateChain) == 0 {
		return faultf(trust.Malformed, "the envelope cannot be read, or lacks a header that notation needs")
	}
	chain := info.CertificateChain
	switch p := chain[0].PublicKey.(type) {
	case *rsa.PublicKey:
		switch bits := p.Size() * 8; {
		case bits < truststore.MinRSABits:
			return faultf(trust.KeyTooSmall, "the signer's certificate has an RSA key of %d bits", bits)
		case bits != 2048 && bits != 3072 && bits != 4096:
			return faultf(trust.UnsupportedAlgorithm, "the signer's certificate has an RSA key of %d bits; notation takes 2048, 3072 and 4096", bits)
		}
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() && p.Curve != elliptic.P384() && p.Curve != elliptic.P521() {
			return faultf(trust.UnsupportedAlgorithm, "the signer's certificate has a key on the curve %s", p.Params().Name)
		}
	default:
		return faultf(trust.UnsupportedAlgorithm, "the signer's certificate has a key of the kind %s", truststore.AlgorithmOf(p))
	}
	for _, c := range chain {
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			return faultf(trust.UnsupportedAlgorithm, "the certificate %.120q is signed with %s", subjectText(c), c.SignatureAlgorithm)
		}
	}
	var at *time.Time // that scheme asks for it (signature-specification, "Signing Scheme")
	if info.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		at = &info.SignedAttributes.SigningTime
	}
	if err := nx509.ValidateCodeSigningCertChain(chain, at); err != nil {
		return faultf(trust.CertificateInvalid, "%s", libraryText(err))
	}
	if broken := (*signature.SignatureIntegrityError)(nil); errors.As(err, &broken) {
		return faultf(trust.Malformed, "the signature does not verify under the certificate that came with it")
	}
	return faultf(trust.Malformed, "notation refuses the envelope's headers")
}
