package verifier

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"slices"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/tspclient-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
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
	plugin      bool   // names a plugin, or has a critical attribute that only one could process
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
	token, err := tspclient.ParseSignedToken(c.stamp)
	if err != nil {
		return false // nor will notation-go read it
	}
	return len(token.SignerInfos) > 1 || len(token.Certificates) > MaxChain ||
		slices.ContainsFunc(token.Certificates, func(c *x509.Certificate) bool { return len(c.Raw) > maxCertDER })
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
func readJWS(blob []byte) (c claims, reason trust.Reason) {
	if reason := jsonReason(envelopeRules, blob); reason != "" {
		return c, reason
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
	if json.Unmarshal(blob, &e) != nil {
		return c, trust.Malformed
	}
	if e.Signatures != nil {
		return c, trust.Ambiguous // the serialisation with several signatures, beside the one
	}
	protected, err := base64.RawURLEncoding.DecodeString(e.Protected)
	if err != nil {
		return c, trust.Malformed
	}
	if reason := jsonReason(protectedRules, protected); reason != "" {
		return c, reason
	}
	var h struct {
		Alg    string                  `json:"alg"`
		Type   string                  `json:"cty"`
		Crit   []string                `json:"crit"`
		Scheme signature.SigningScheme `json:"io.cncf.notary.signingScheme"`
		Plugin json.RawMessage         `json:"io.cncf.notary.verificationPlugin"`
	}
	if json.Unmarshal(protected, &h) != nil {
		return c, trust.Malformed
	}
	if !slices.Contains(jwsAlgorithms, h.Alg) {
		return c, trust.UnsupportedAlgorithm
	}
	if c.payload, err = base64.RawURLEncoding.DecodeString(e.Payload); err != nil || len(e.Header.X5c) == 0 {
		return c, trust.Malformed
	}
	c.scheme, c.contentType, c.stamp = h.Scheme, h.Type, e.Header.Stamp
	c.plugin = h.Plugin != nil
	for _, name := range h.Crit {
		c.plugin = c.plugin || !slices.Contains(understood, name)
	}
	for _, der := range e.Header.X5c {
		c.addCertificate(sha256.Sum256(der), len(der))
	}
	return c, ""
}

// readCOSE reads a COSE envelope's claims. go-cose refuses labels that are doubled.
func readCOSE(blob []byte) (c claims, reason trust.Reason) {
	env, err := signature.ParseEnvelope(cose.MediaTypeEnvelope, blob)
	if err != nil {
		return c, integrityReason(err, nil)
	}
	content, err := parseOnly(env).Content()
	if err != nil {
		return c, integrityReason(err, nil)
	}
	info := &content.SignerInfo
	c.scheme, c.contentType, c.payload = info.SignedAttributes.SigningScheme, content.Payload.ContentType, content.Payload.Content
	c.plugin, c.stamp = needsPlugin(info), info.UnsignedAttributes.TimestampSignature
	for _, cert := range info.CertificateChain {
		c.addCertificate(fingerprintOf(cert), len(cert.Raw))
	}
	return c, ""
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
func (c *claims) target() (ocispec.Descriptor, trust.Reason) {
	if c.contentType != targetMediaType {
		return ocispec.Descriptor{}, trust.Malformed
	}
	if reason := jsonReason(targetRules, c.payload); reason != "" {
		return ocispec.Descriptor{}, reason
	}
	var p struct {
		TargetArtifact ocispec.Descriptor `json:"targetArtifact"`
	}
	if json.Unmarshal(c.payload, &p) != nil {
		return ocispec.Descriptor{}, trust.Malformed
	}
	return p.TargetArtifact, ""
}

// needsPlugin reports whether an envelope names a verification plugin, or marks an
// attribute critical that only a plugin could process: plugins are never run, and
// notation-go passes over the latter in silence.
func needsPlugin(info *signature.SignerInfo) bool {
	for _, a := range info.SignedAttributes.ExtendedAttributes {
		if a.Critical || a.Key == nverifier.HeaderVerificationPlugin {
			return true
		}
	}
	return false
}

// integrityReason says more of an envelope that notation-core-go refuses than that
// it is malformed, when the cause is an algorithm.
func integrityReason(err error, chain []*x509.Certificate) trust.Reason {
	if ua := (*signature.UnsupportedSignatureAlgoError)(nil); errors.As(err, &ua) {
		return trust.UnsupportedAlgorithm
	}
	if len(chain) == 0 {
		return trust.Malformed
	}
	switch p := chain[0].PublicKey.(type) {
	case *rsa.PublicKey:
		switch bits := p.Size() * 8; {
		case bits < minRSABits:
			return trust.KeyTooSmall
		case bits != 2048 && bits != 3072 && bits != 4096:
			return trust.UnsupportedAlgorithm
		}
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() && p.Curve != elliptic.P384() && p.Curve != elliptic.P521() {
			return trust.UnsupportedAlgorithm
		}
	default:
		return trust.UnsupportedAlgorithm
	}
	for _, c := range chain {
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			return trust.UnsupportedAlgorithm
		}
	}
	return trust.Malformed
}
