package signtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"time"

	"trust-worker/trust"
)

// CertOptions say what a certificate holds. Zero values are sensible.
type CertOptions struct {
	// CommonName; the rest of the subject is O=Notary,L=Seattle,ST=WA,C=US.
	CommonName string
	// NotBefore and NotAfter are by default 1990 and 2090.
	NotBefore, NotAfter time.Time
	// Key is made when nil, of Kind, by default P-256.
	Key  *Key
	Kind Kind
	// OCSP and CRL are revocation addresses.
	OCSP, CRL string
	// Change is applied to the template last.
	Change func(*x509.Certificate)
}

// Chain is a certificate with its key and its issuers, leaf first.
type Chain struct {
	Certs []*x509.Certificate
	Key   *Key
}

// NewRoot makes a root CA.
func NewRoot(o CertOptions) *Chain { return issue(nil, o, true) }

// Intermediate makes a CA below c.
func (c *Chain) Intermediate(o CertOptions) *Chain { return issue(c, o, true) }

// Leaf makes a code signing certificate below c.
func (c *Chain) Leaf(o CertOptions) *Chain { return issue(c, o, false) }

// SelfSigned makes a self-signed code signing certificate.
func SelfSigned(o CertOptions) *Chain { return issue(nil, o, false) }

func issue(parent *Chain, o CertOptions, isCA bool) *Chain {
	if o.CommonName == "" {
		o.CommonName = "Test"
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if o.Kind == "" {
		o.Kind = P256
	}
	if o.Key == nil {
		o.Key = NewKey(o.Kind)
	}
	t := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject: pkix.Name{CommonName: o.CommonName, Organization: []string{"Notary"}, Locality: []string{"Seattle"},
			Province: []string{"WA"}, Country: []string{"US"}},
		NotBefore: o.NotBefore, NotAfter: o.NotAfter, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if isCA {
		t.IsCA, t.KeyUsage, t.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	}
	if o.OCSP != "" {
		t.OCSPServer = []string{o.OCSP}
	}
	if o.CRL != "" {
		t.CRLDistributionPoints = []string{o.CRL}
	}
	if o.Change != nil {
		o.Change(t)
	}
	issuer, key := t, crypto.Signer(o.Key.Private)
	var above []*x509.Certificate
	if parent != nil {
		issuer, key, above = parent.Certs[0], parent.Key.Private, parent.Certs
	}
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		key = deterministic{k}
	}
	der := must(x509.CreateCertificate(rand.Reader, t, issuer, o.Key.Public(), key))
	return &Chain{Certs: append([]*x509.Certificate{must(x509.ParseCertificate(der))}, above...), Key: o.Key}
}

// deterministic signs as RFC 6979 says, so that with a [FixedKey] and a serial
// number of its own a certificate is always the same.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

// Cert is the first certificate, Root the last.
func (c *Chain) Cert() *x509.Certificate { return c.Certs[0] }

// Root is the last certificate of the chain.
func (c *Chain) Root() *x509.Certificate { return c.Certs[len(c.Certs)-1] }

// CertPEM encodes certificates as a file of a trust store.
func CertPEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		check(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// CertSigner is a certificate in a store as trust material.
func CertSigner(storeType, storeName string, c *x509.Certificate) trust.Signer {
	return trust.Signer{Tool: trust.Notation, StoreType: storeType, StoreName: storeName, Fingerprint: sha256.Sum256(c.Raw)}
}
