package signtest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"time"
)

// TSA is a time-stamping authority (RFC 3161) whose clock says what it is told.
type TSA struct{ chain *Chain }

// NewTSA makes an authority below root, which a tsa store would hold.
func NewTSA(root *Chain, o CertOptions) *TSA {
	if o.CommonName == "" {
		o.CommonName = "Test TSA"
	}
	change := o.Change
	o.Change = func(c *x509.Certificate) {
		c.ExtKeyUsage = nil
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true,
			Value: must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}))})
		if change != nil {
			change(c)
		}
	}
	return &TSA{root.Leaf(o)}
}

// The structures of RFC 5652 (CMS), RFC 3161 and RFC 5816, as far as one token
// needs them.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	signedData struct {
		Version          int
		DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
		EncapContent     encapContent
		Certificates     asn1.RawValue
		SignerInfos      []signerInfo `asn1:"set"`
	}
	encapContent struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"explicit,tag:0"`
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	signerInfo struct {
		Version            int
		SID                issuerAndSerial
		DigestAlgorithm    pkix.AlgorithmIdentifier
		SignedAttributes   asn1.RawValue
		SignatureAlgorithm pkix.AlgorithmIdentifier
		Signature          []byte
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	messageImprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	tstInfo struct {
		Version int
		Policy  asn1.ObjectIdentifier
		Imprint messageImprint
		Serial  *big.Int
		Time    time.Time `asn1:"generalized"`
	}
	signingCertificateV2 struct{ Certs []essCertIDv2 }
	essCertIDv2          struct{ Hash []byte }
)

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256        = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}}
	oidECDSASHA256   = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
)

// Token makes a time-stamp token over message.
func (t *TSA) Token(message []byte, at time.Time) []byte { return t.OddToken(message, at, 1) }

// OddToken is a token that its authority has signed a number of times, with more
// certificates than belong to it.
func (t *TSA) OddToken(message []byte, at time.Time, signers int, more ...*x509.Certificate) []byte {
	imprint := sha256.Sum256(message)
	info := must(asn1.Marshal(tstInfo{Version: 1, Policy: asn1.ObjectIdentifier{1, 2, 3, 4}, Serial: big.NewInt(1),
		Imprint: messageImprint{oidSHA256, imprint[:]}, Time: at.UTC().Truncate(time.Second)}))
	leaf := t.chain.Cert()
	certHash, infoHash := sha256.Sum256(leaf.Raw), sha256.Sum256(info)
	value := func(v any) []asn1.RawValue { return []asn1.RawValue{{FullBytes: must(asn1.Marshal(v))}} }
	attributes := must(asn1.MarshalWithParams([]attribute{
		{oidContentType, value(oidTSTInfo)},
		{oidMessageDigest, value(infoHash[:])},
		{oidSigningCertV2, value(signingCertificateV2{[]essCertIDv2{{certHash[:]}}})},
	}, "set"))
	signature := t.chain.Key.Sign(attributes, crypto.SHA256)
	attributes[0] = 0xa0 // signed as SET OF, sent as [0] IMPLICIT
	var certs []byte
	for _, c := range slices.Concat(t.chain.Certs, more) {
		certs = append(certs, c.Raw...)
	}
	signer := signerInfo{Version: 1, SID: issuerAndSerial{asn1.RawValue{FullBytes: leaf.RawIssuer}, leaf.SerialNumber},
		DigestAlgorithm: oidSHA256, SignedAttributes: asn1.RawValue{FullBytes: attributes},
		SignatureAlgorithm: oidECDSASHA256, Signature: signature}
	sd := must(asn1.Marshal(signedData{
		Version: 3, DigestAlgorithms: []pkix.AlgorithmIdentifier{oidSHA256},
		EncapContent: encapContent{oidTSTInfo, info},
		Certificates: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: certs},
		SignerInfos:  slices.Repeat([]signerInfo{signer}, signers),
	}))
	return must(asn1.Marshal(contentInfo{oidSignedData, asn1.RawValue{FullBytes: append(header(0xa0, len(sd)), sd...)}}))
}

func header(tag byte, n int) []byte {
	v := must(asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: make([]byte, n)}))
	v[0] = tag
	return v[:len(v)-n]
}

// stampJWS adds a countersignature to a JWS envelope.
func (t *TSA) stampJWS(envelope []byte, at time.Time) []byte {
	var e map[string]any
	check(json.Unmarshal(envelope, &e))
	sig := must(base64.RawURLEncoding.DecodeString(e["signature"].(string)))
	e["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = t.Token(sig, at)
	return must(json.Marshal(e))
}

// Chain is the authority's certificate with its issuers.
func (t *TSA) Chain() *Chain { return t.chain }
