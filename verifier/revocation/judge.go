package revocation

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// judgeOCSP accepts a response that is about the certificate asked about, by its
// issuer or by a responder that the issuer made one. notation-core-go reads the
// status, and checks the signature again.
func judgeOCSP(a *ask, q *question, body []byte) (dates, error) {
	asked, err := q.ocsp()
	if err != nil {
		return dates{}, err
	}
	for i, cert := range a.chain[:len(a.chain)-1] {
		issuer := a.chain[i+1]
		if !isAbout(asked, cert, issuer) {
			continue
		}
		resp, err := ocsp.ParseResponseForCert(body, cert, issuer)
		if err != nil {
			return dates{}, err
		}
		if err := responder(resp.Certificate, issuer); err != nil {
			return dates{}, err
		}
		return dates{resp.ThisUpdate, resp.NextUpdate}, nil
	}
	return dates{}, errors.New("request about no certificate of the chain")
}

// isAbout reports whether a request asks about cert by issuer. Two issuers of one
// chain may have given the same serial number.
func isAbout(asked *ocsp.Request, cert, issuer *x509.Certificate) bool {
	mine, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: asked.HashAlgorithm})
	if err != nil {
		return false
	}
	theirs, err := asked.Marshal()
	return err == nil && bytes.Equal(mine, theirs)
}

// responder checks the certificate that a response brings along, whose signature
// by the issuer is already verified. Without one the issuer signed the response.
func responder(c, issuer *x509.Certificate) error {
	if c == nil || c.Equal(issuer) {
		return nil
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return fmt.Errorf("responder %q is not authorized to sign OCSP responses", c.Subject)
	}
	if now := time.Now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("certificate of responder %q is not valid now", c.Subject)
	}
	return nil
}

// ocsp reads the OCSP request back (RFC 6960, appendix A.1: it is the path's last
// element, or the body).
func (q *question) ocsp() (*ocsp.Request, error) {
	if q.posted != nil {
		return ocsp.ParseRequest(q.posted)
	}
	path := q.url.EscapedPath()
	text, err := url.QueryUnescape(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return ocsp.ParseRequest(der)
}

// judgeCRL accepts a list by the issuer of a certificate that names this address,
// if its scope covers that certificate; or a delta CRL, which a base CRL names and
// notation-core-go holds against it, by some issuer of the chain.
func judgeCRL(a *ask, q *question, body []byte) (dates, error) {
	list, err := x509.ParseRevocationList(body)
	if err != nil {
		return dates{}, err
	}
	address, named := q.url.String(), false
	for i, cert := range a.chain[:len(a.chain)-1] {
		if !slices.ContainsFunc(cert.CRLDistributionPoints, func(point string) bool { return sameAddress(point, address) }) {
			continue
		}
		named = true
		if err = list.CheckSignatureFrom(a.chain[i+1]); err == nil {
			err = scope(list, cert)
		}
		if err == nil {
			return dates{list.ThisUpdate, list.NextUpdate}, nil
		}
	}
	if !named {
		err = errors.New("by no issuer of the chain")
		for _, issuer := range a.chain[1:] {
			if list.CheckSignatureFrom(issuer) == nil {
				return dates{list.ThisUpdate, list.NextUpdate}, nil
			}
		}
	}
	return dates{}, err
}

func sameAddress(a, b string) bool {
	u, err := url.Parse(a)
	return err == nil && u.String() == b
}

// issuingDistributionPoint says what a CRL covers (RFC 5280, section 5.2.5).
type issuingDistributionPoint struct {
	Point               distributionPointName `asn1:"optional,tag:0"`
	OnlyUserCerts       bool                  `asn1:"optional,tag:1"`
	OnlyCACerts         bool                  `asn1:"optional,tag:2"`
	OnlySomeReasons     asn1.BitString        `asn1:"optional,tag:3"`
	Indirect            bool                  `asn1:"optional,tag:4"`
	OnlyAttributesCerts bool                  `asn1:"optional,tag:5"`
}

type distributionPointName struct {
	FullName     []asn1.RawValue  `asn1:"optional,tag:0"`
	RelativeName pkix.RDNSequence `asn1:"optional,tag:1"`
}

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
)

// scope checks that a CRL covers a certificate: delta CRLs and the lists of one
// issuer's other shards are as well signed, and do not have it.
func scope(list *x509.RevocationList, cert *x509.Certificate) error {
	find := func(oid asn1.ObjectIdentifier) int {
		return slices.IndexFunc(list.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) })
	}
	if find(oidDeltaCRLIndicator) >= 0 {
		return errors.New("delta CRL in place of a complete one")
	}
	k := find(oidIssuingDistributionPoint)
	if k < 0 {
		return nil
	}
	var p issuingDistributionPoint
	if rest, err := asn1.Unmarshal(list.Extensions[k].Value, &p); err != nil || len(rest) > 0 {
		return errors.New("CRL has a scope that cannot be read")
	}
	if p.Indirect || p.OnlyAttributesCerts || p.OnlySomeReasons.BitLength > 0 || len(p.Point.RelativeName) > 0 ||
		p.OnlyUserCerts && cert.IsCA || p.OnlyCACerts && !cert.IsCA {
		return errors.New("CRL does not cover the certificate in full")
	}
	if len(p.Point.FullName) == 0 {
		return nil
	}
	for _, name := range p.Point.FullName {
		const uri = 6 // GeneralName, uniformResourceIdentifier
		if name.Class == asn1.ClassContextSpecific && name.Tag == uri && slices.Contains(cert.CRLDistributionPoints, string(name.Bytes)) {
			return nil
		}
	}
	return errors.New("CRL is for another distribution point")
}
