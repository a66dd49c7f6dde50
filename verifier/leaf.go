package verifier

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"trust-worker/trust"
)

// The leaf certificate of a keyless signature: who it was issued to, and whether its key
// may be used. That an authority issued it is for keyless.go.

// readLeaf reads a leaf certificate, afresh each time: the libraries change it.
func readLeaf(der []byte) (*x509.Certificate, fault) {
	if len(der) > maxCertDER {
		return nil, faultf(trust.CertificateInvalid, "the certificate has %d bytes; at most %d are read", len(der), maxCertDER)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, faultf(trust.CertificateInvalid, "the certificate cannot be read: %s", libraryText(err))
	}
	return leaf, fault{}
}

func keyOf(leaf *x509.Certificate) trust.KeyID {
	sum := trust.SumOf(leaf.RawSubjectPublicKeyInfo)
	return trust.KeyID(sum[:len(trust.KeyID{})])
}

// leafFault says why a certificate's key must not be used.
func leafFault(leaf *x509.Certificate) fault {
	if why := costlyKey(leaf.PublicKey); why != "" {
		return faultf(trust.CertificateInvalid, "the certificate's key %s", why)
	}
	return fault{}
}

// The extensions of Fulcio that name the issuer of the OIDC token: as raw bytes, and as
// a DER string (fulcio oid-info.md).
var (
	oidIssuer   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
)

// identityOf reads who a certificate was issued to. Two readers must not see different
// ones: there is one subject alternative name, of a kind that sigstore has, and if there
// are both extensions for the issuer they agree.
func identityOf(leaf *x509.Certificate) (*trust.Identity, fault) {
	names := 0
	var issuers []string
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(cryptoutils.SANOID):
			n, f := countNames(e.Value)
			if f.found() {
				return nil, f
			}
			names += n
		case e.Id.Equal(oidIssuer):
			issuers = append(issuers, string(e.Value))
		case e.Id.Equal(oidIssuerV2):
			var text string
			if rest, err := asn1.Unmarshal(e.Value, &text); err != nil || len(rest) > 0 {
				return nil, faultf(trust.CertificateInvalid, "the certificate's extension for the issuer is no DER string")
			}
			issuers = append(issuers, text)
		}
	}
	switch {
	case names != 1:
		return nil, faultf(trust.CertificateInvalid, "the certificate has %d subject alternative names; one is expected", names)
	case len(leaf.DNSNames)+len(leaf.IPAddresses) > 0:
		return nil, faultf(trust.CertificateInvalid, "the certificate's subject alternative name is a host; a URI, an e-mail address or Fulcio's OtherName is expected")
	case len(issuers) > 1 && slices.ContainsFunc(issuers, func(i string) bool { return i != issuers[0] }):
		return nil, faultf(trust.CertificateInvalid, "the certificate names two issuers, %.100q and %.100q", issuers[0], issuers[1])
	}
	s, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return nil, faultf(trust.CertificateInvalid, "the certificate's identity cannot be read: %s", libraryText(err))
	}
	id := &trust.Identity{Subject: s.SubjectAlternativeName, SourceRepositoryURI: s.SourceRepositoryURI,
		SourceRepositoryRef: s.SourceRepositoryRef, BuildSignerURI: s.BuildSignerURI, RunnerEnvironment: s.RunnerEnvironment}
	if len(issuers) > 0 {
		id.Issuer = issuers[0]
	}
	if n := len(id.Text()); n > trust.MaxIdentity {
		return nil, faultf(trust.CertificateInvalid, "the certificate's identity has %d bytes; at most %d are taken", n, trust.MaxIdentity)
	}
	return id, fault{}
}

// countNames counts the names in a SubjectAltName extension, also of kinds that Go passes
// over (RFC 5280, 4.2.1.6).
func countNames(value []byte) (n int, _ fault) {
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(value, &seq)
	if err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence {
		return 0, faultf(trust.CertificateInvalid, "the certificate's subject alternative name cannot be read")
	}
	for rest = seq.Bytes; len(rest) > 0; n++ {
		var name asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return 0, faultf(trust.CertificateInvalid, "the certificate's subject alternative name cannot be read")
		}
	}
	return n, fault{}
}

// withoutOtherName has Go verify a certificate whose subject alternative name is Fulcio's
// OtherName, which it does not know; identityOf has read it.
func withoutOtherName(leaf *x509.Certificate) {
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return id.Equal(cryptoutils.SANOID) })
}
