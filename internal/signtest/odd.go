package signtest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
)

// certificate is RFC 5280, section 4.1, as far as it has to be taken apart.
type (
	certificate struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	tbsCertificate struct {
		Version    int `asn1:"optional,explicit,default:0,tag:0"`
		Serial     *big.Int
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		Validity   asn1.RawValue
		Subject    asn1.RawValue
		PublicKey  asn1.RawValue
		Extensions asn1.RawValue `asn1:"optional,explicit,tag:3"`
	}
)

// Reissue is cert with another SubjectPublicKeyInfo (DER), signed anew by c, whose
// key has to be P-256: for keys that crypto/x509 makes no certificate of.
func (c *Chain) Reissue(cert *x509.Certificate, publicKey []byte) *x509.Certificate {
	var tbs tbsCertificate
	must(asn1.Unmarshal(cert.RawTBSCertificate, &tbs))
	tbs.PublicKey = asn1.RawValue{FullBytes: publicKey}
	der := must(asn1.Marshal(tbs))
	hash := sha256.Sum256(der)
	signature := must(c.Key.Private.Sign(nil, hash[:], crypto.SHA256))
	return must(x509.ParseCertificate(must(asn1.Marshal(certificate{asn1.RawValue{FullBytes: der}, tbs.Algorithm,
		asn1.BitString{Bytes: signature, BitLength: len(signature) * 8}}))))
}

// Impostor is an authority below another root that passes for t: its certificate
// has t's issuer, subject and serial number, and its tokens carry t's
// certificates beside its own (CVE-2026-39984).
func (t *TSA) Impostor(root *Chain) *TSA {
	genuine := t.chain.Cert()
	issuer := *root.Certs[0]
	issuer.RawSubject, issuer.Subject = genuine.RawIssuer, genuine.Issuer
	fake := NewTSA(&Chain{Certs: []*x509.Certificate{&issuer}, Key: root.Key}, CertOptions{Change: func(c *x509.Certificate) {
		c.SerialNumber, c.RawSubject = genuine.SerialNumber, genuine.RawSubject
	}})
	fake.chain.Certs = append([]*x509.Certificate{fake.chain.Cert()}, t.chain.Certs...)
	return fake
}
