package integration

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// oddity is what a certificate can have that killed or stalled a verifier once:
// in the template it is made from, or instead of its key.
type oddity struct {
	template  func(*x509.Certificate)
	publicKey func(*x509.Certificate) []byte // a SubjectPublicKeyInfo in DER
}

// oddities are by the name that the option odd= takes.
var oddities = map[string]oddity{
	"dsa": {publicKey: func(*x509.Certificate) []byte {
		one := big.NewInt(1)
		p := new(big.Int).Add(new(big.Int).Lsh(one, 1023), one)
		parameters, _ := asn1.Marshal(struct{ P, Q, G *big.Int }{p, new(big.Int).Rsh(p, 800), big.NewInt(2)})
		y, _ := asn1.Marshal(big.NewInt(4))
		return publicKeyInfo(asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, parameters, y)
	}},
	"unknown-algorithm": {publicKey: func(*x509.Certificate) []byte {
		return publicKeyInfo(asn1.ObjectIdentifier{1, 2, 3, 4}, asn1.NullBytes, bytes.Repeat([]byte{7}, 64))
	}},
	"giant-rsa": {publicKey: func(*x509.Certificate) []byte {
		n := new(big.Int).Lsh(big.NewInt(1), 30_000)
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 1<<31 - 1})
		if err != nil {
			panic(err)
		}
		return der
	}},
	"empty-dns": {template: func(t *x509.Certificate) { t.DNSNames = []string{""} }},
	"many-names": {template: func(t *x509.Certificate) {
		for i := range 200 {
			t.DNSNames = append(t.DNSNames, fmt.Sprintf("a%d.example.", i))
		}
	}},
	"name-constraints": {template: func(t *x509.Certificate) {
		t.PermittedDNSDomainsCritical = true
		for i := range 200 {
			t.ExcludedDNSDomains = append(t.ExcludedDNSDomains, fmt.Sprintf("b%d.example", i))
		}
	}},
	"policies": {template: func(t *x509.Certificate) {
		for i := range 100 {
			oid, err := x509.OIDFromInts([]uint64{1, 2, 3, uint64(i)})
			if err != nil {
				panic(err)
			}
			t.Policies = append(t.Policies, oid)
			t.PolicyMappings = append(t.PolicyMappings, x509.PolicyMapping{IssuerDomainPolicy: oid, SubjectDomainPolicy: t.Policies[0]})
		}
		t.PolicyMappings = t.PolicyMappings[1:]
	}},
	"any-usage": {template: func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
	"deep-extension": {template: func(t *x509.Certificate) {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 5}, Critical: true,
			Value: bytes.Repeat([]byte{0x30, 0x80}, 2000)})
	}},
}

func publicKeyInfo(algorithm asn1.ObjectIdentifier, parameters, key []byte) []byte {
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: asn1.RawValue{FullBytes: parameters}}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		panic(err)
	}
	return der
}
