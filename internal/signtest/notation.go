package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// Media types of notation's signatures.
const (
	NotationArtifactType = "application/vnd.cncf.notary.signature"
	JWSMediaType         = jws.MediaTypeEnvelope
	COSEMediaType        = cose.MediaTypeEnvelope
	TargetMediaType      = "application/vnd.cncf.notary.payload.v1+json"
)

// NotationOptions say how a notation signature departs from what notation sign
// makes.
type NotationOptions struct {
	COSE bool
	// Time is the signing time; by default now.
	Time time.Time
	// Expiry of the signature; none by default.
	Expiry time.Time
	// SigningAuthority uses the scheme notary.x509.signingAuthority.
	SigningAuthority bool
	// Attributes are extended signed attributes.
	Attributes []signature.Attribute
	// Payload is signed instead of the one that names the subject.
	Payload []byte
	// TSA countersigns, at Stamped or else Time. JWS alone.
	TSA     *TSA
	Stamped time.Time
}

// Target is the notation payload over subject.
func Target(subject ocispec.Descriptor) []byte {
	return must(json.Marshal(map[string]any{"targetArtifact": map[string]any{
		"mediaType": subject.MediaType, "digest": subject.Digest, "size": subject.Size}}))
}

// Envelope makes a notation signature over subject and returns its media type.
func Envelope(subject ocispec.Descriptor, c *Chain, o NotationOptions) (mediaType string, envelope []byte) {
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	if o.Payload == nil {
		o.Payload = Target(subject)
	}
	mediaType = JWSMediaType
	if o.COSE {
		mediaType = COSEMediaType
	}
	scheme := signature.SigningSchemeX509
	if o.SigningAuthority {
		scheme = signature.SigningSchemeX509SigningAuthority
	}
	env := must(signature.NewEnvelope(mediaType))
	b := must(env.Sign(&signature.SignRequest{
		Payload:     signature.Payload{ContentType: TargetMediaType, Content: o.Payload},
		Signer:      must(signature.NewLocalSigner(c.Certs, c.Key.Private)),
		SigningTime: o.Time, Expiry: o.Expiry, SigningScheme: scheme, SigningAgent: "signtest",
		ExtendedSignedAttributes: o.Attributes,
	}))
	if o.TSA != nil {
		if o.Stamped.IsZero() {
			o.Stamped = o.Time
		}
		b = o.TSA.stampJWS(b, o.Stamped)
	}
	return mediaType, b
}

// Protected is the protected header of a JWS envelope as notation writes it, for
// changing and signing with [RawJWS].
func Protected(alg string, at time.Time) map[string]any {
	return map[string]any{
		"alg": alg, "cty": TargetMediaType,
		"crit":                         []string{"io.cncf.notary.signingScheme"},
		"io.cncf.notary.signingScheme": string(signature.SigningSchemeX509),
		"io.cncf.notary.signingTime":   at.UTC().Truncate(time.Second).Format(time.RFC3339),
	}
}

// RawJWS makes a JWS envelope over exactly these bytes, with a good signature by
// c's key: ES256 to ES512, or PS256 to PS512 for RSA.
func RawJWS(protected, payload []byte, c *Chain) []byte {
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc(protected) + "." + enc(payload)
	var chain [][]byte
	for _, cert := range c.Certs {
		chain = append(chain, cert.Raw)
	}
	return must(json.Marshal(map[string]any{
		"payload": enc(payload), "protected": enc(protected), "header": map[string]any{"x5c": chain},
		"signature": enc(c.signJWS([]byte(signed))),
	}))
}

func (c *Chain) signJWS(message []byte) []byte {
	hash := map[Kind]crypto.Hash{P384: crypto.SHA384, P521: crypto.SHA512, RSA3072: crypto.SHA384, RSA4096: crypto.SHA512}[c.Key.Kind]
	if hash == 0 {
		hash = crypto.SHA256
	}
	h := hash.New()
	h.Write(message)
	switch k := c.Key.Private.(type) {
	case *ecdsa.PrivateKey:
		der := must(ecdsa.SignASN1(rand.Reader, k, h.Sum(nil)))
		var rs struct{ R, S *big.Int }
		must(asn1.Unmarshal(der, &rs))
		n := (k.Params().BitSize + 7) / 8
		return append(rs.R.FillBytes(make([]byte, n)), rs.S.FillBytes(make([]byte, n))...)
	case *rsa.PrivateKey:
		return must(rsa.SignPSS(rand.Reader, k, hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
	}
	panic("signtest: no JWS algorithm for " + c.Key.Kind)
}

func ociDigest(d trust.Digest) digest.Digest { return digest.Digest(d.String()) }
