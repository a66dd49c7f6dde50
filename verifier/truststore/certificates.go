package truststore

import (
	"bytes"
	"cmp"
	"crypto/dsa" //lint:ignore SA1019 to refuse it by name
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
)

// storeName is what notation accepts as a trust store's name.
var storeName = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

// parseCertificates reads a certificate file as notation does: PEM, with one or
// several certificates, or DER. storeType decides what is acceptable. The
// error is a *fileError and never quotes the content.
func parseCertificates(b []byte, storeType truststore.Type) ([]*x509.Certificate, error) {
	if bytes.Contains(b, []byte("PRIVATE KEY-----")) {
		return nil, refusef("holds a PRIVATE key; remove it at once and put the certificate alone here")
	}
	var certs []*x509.Certificate
	block, rest := pem.Decode(b)
	if block == nil {
		parsed, err := x509.ParseCertificates(b)
		if err != nil || len(parsed) == 0 {
			return nil, unfinishedf("%s", cmp.Or(oddText(b, wantCertificate), "is neither a PEM nor a DER certificate"))
		}
		certs = parsed
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, otherBlock(block.Type, wantCertificate)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refusef("holds a certificate that cannot be parsed (%v)", err)
		}
		certs = append(certs, c)
		if next, _ := pem.Decode(rest); next == nil && beginsBlock(rest) {
			return nil, unfinishedf("ends in the middle of a PEM block")
		}
	}
	if err := truststore.ValidateCertificates(certs); err != nil {
		return nil, refusef("holds a certificate that is neither a CA nor self-signed (%s); put its issuer's certificate here", certs[0].Subject)
	}
	for _, c := range certs {
		if weak := weakness(c.PublicKey); weak != nil {
			return nil, refusef("holds a certificate (%s) whose key %s", c.Subject, weak.reason)
		}
	}
	if storeType == truststore.TypeTSA {
		for _, c := range certs {
			if c.CheckSignatureFrom(c) != nil || !bytes.Equal(c.RawSubject, c.RawIssuer) {
				return nil, refusef("holds a certificate that is not a root CA (%s), which a tsa store needs", c.Subject)
			}
		}
	}
	return certs, nil
}

// beginsBlock reports whether the text after the last whole block is, or may become,
// more than a comment: another block, as far as it has been written.
func beginsBlock(rest []byte) bool {
	const begin = "-----BEGIN "
	last := rest[bytes.LastIndexByte(rest, '\n')+1:]
	return bytes.Contains(rest, []byte(begin)) || len(last) > 0 && strings.HasPrefix(begin, string(last))
}

// AlgorithmOf names a certificate's key as [File] does.
func AlgorithmOf(pub any) string {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		return p.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", p.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	case *dsa.PublicKey:
		return "DSA"
	}
	return "unknown"
}

// anchorage is the set of trusted certificates, arranged for finding the anchors
// of a chain: by type and fingerprint, with the store names that hold each.
type anchorage struct {
	byPrint map[truststore.Type]map[trust.Digest]*Anchor
	tsa     []*Anchor // sorted by fingerprint
}

// Anchor is one distinct certificate of a store type, with the names of the
// stores that hold it, sorted.
type Anchor struct {
	Cert        *x509.Certificate
	fingerprint trust.Digest
	StoreType   truststore.Type
	names       []string
}

// FingerprintOf is the SHA-256 of the DER.
func FingerprintOf(c *x509.Certificate) trust.Digest { return sha256.Sum256(c.Raw) }

// Signers returns the anchor's signers, one for each store that holds it.
func (a *Anchor) Signers() []trust.Signer {
	out := make([]trust.Signer, 0, len(a.names))
	for _, n := range a.names {
		out = append(out, trust.Signer{Tool: trust.Notation, StoreType: string(a.StoreType), StoreName: n, Fingerprint: a.fingerprint})
	}
	return out
}
