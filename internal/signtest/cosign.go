package signtest

import (
	"cmp"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// Media types and annotations of cosign's signatures.
const (
	SimpleMediaType       = "application/vnd.dev.cosign.simplesigning.v1+json"
	BundleMediaType       = "application/vnd.dev.sigstore.bundle.v0.3+json"
	CosignArtifactType    = "application/vnd.dev.cosign.artifact.sig.v1+json"
	SignatureAnnotation   = "dev.cosignproject.cosign/signature"
	CertificateAnnotation = "dev.sigstore.cosign/certificate"
	InTotoMediaType       = "application/vnd.in-toto+json"
	SignPredicate         = "https://sigstore.dev/cosign/sign/v1"
)

// CosignOptions say how a cosign signature departs from what cosign sign makes.
type CosignOptions struct {
	// Hash is the hash to sign with; 0 is cosign sign's choice for the key.
	Hash crypto.Hash
	// Pure makes an Ed25519 signature without prehashing.
	Pure bool
	// Payload is signed instead of the payload (simple signing) or the in-toto
	// statement (bundle) that names the subject.
	Payload []byte
	// PayloadType and PredicateType are a bundle's.
	PayloadType, PredicateType string
	// Certificate is put in the layer's annotation; it plays no part.
	Certificate string
	// HintOf is the key that a bundle says it is by; nil: the one that signs.
	HintOf *Key
	// Annotations are added to the layer's.
	Annotations map[string]string
	// Referrer attaches a simple signature by its subject field rather than
	// by its tag. Bundles always are.
	Referrer bool
}

func (o CosignOptions) sign(k *Key, message []byte) []byte {
	hash := o.Hash
	if hash == 0 && !o.Pure {
		hash = k.CosignHash()
	}
	return k.Sign(message, hash)
}

// Payload is the simple signing payload over subject.
func Payload(subject trust.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.example/repo"},`+
		`"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, subject)
}

// SimpleLayer makes one simple signing layer over subject.
func SimpleLayer(subject trust.Digest, k *Key, o CosignOptions) (ocispec.Descriptor, []byte) {
	payload := o.Payload
	if payload == nil {
		payload = Payload(subject)
	}
	d := descriptor(SimpleMediaType, payload)
	d.Annotations = map[string]string{SignatureAnnotation: base64.StdEncoding.EncodeToString(o.sign(k, payload))}
	if o.Certificate != "" {
		d.Annotations[CertificateAnnotation] = o.Certificate
	}
	for name, value := range o.Annotations {
		d.Annotations[name] = value
	}
	return d, payload
}

// Statement is the in-toto statement that cosign signs over subject.
func Statement(subject trust.Digest, predicateType string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],`+
		`"predicateType":%q,"predicate":{}}`, subject.Hex(), predicateType)
}

// DSSE makes the envelope of an attestation over subject, as cosign attest keeps it by a tag.
func DSSE(subject trust.Digest, k *Key, o CosignOptions) []byte {
	payload, payloadType := o.Payload, o.PayloadType
	if payload == nil {
		payload = Statement(subject, o.PredicateType)
	}
	if payloadType == "" {
		payloadType = InTotoMediaType
	}
	return must(json.Marshal(map[string]any{"payloadType": payloadType, "payload": payload,
		"signatures": []map[string]any{{"keyid": "", "sig": o.sign(k, PAE(payloadType, payload))}}}))
}

// BundleJSON makes a sigstore bundle v0.3 over subject.
func BundleJSON(subject trust.Digest, k *Key, o CosignOptions) []byte {
	payload, payloadType, predicate := o.Payload, o.PayloadType, o.PredicateType
	if predicate == "" {
		predicate = SignPredicate
	}
	if payload == nil {
		payload = Statement(subject, predicate)
	}
	if payloadType == "" {
		payloadType = InTotoMediaType
	}
	type sig struct {
		Sig   []byte `json:"sig"`
		KeyID string `json:"keyid"`
	}
	fp := cmp.Or(o.HintOf, k).Fingerprint()
	return must(json.Marshal(map[string]any{
		"mediaType":            BundleMediaType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": base64.StdEncoding.EncodeToString(fp[:])}},
		"dsseEnvelope": map[string]any{
			"payload": payload, "payloadType": payloadType,
			"signatures": []sig{{Sig: o.sign(k, PAE(payloadType, payload))}},
		},
	}))
}

// PAE is DSSE's pre-authentication encoding.
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func descriptor(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: ociDigest(trust.SumOf(content)), Size: int64(len(content))}
}
