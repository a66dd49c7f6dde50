package truststore

import (
	"slices"

	"github.com/notaryproject/notation-go/verifier/truststore"

	"trust-worker/trust"
)

// Trust material that comes by another way than the directories is held to the
// rules of the loader before it is written there: what these functions accept,
// a load accepts. Their errors say in one sentence what is wrong and what to do,
// and never quote the material.

// The largest files that are loaded.
const (
	MaxKeyFile         = maxKeyFile
	MaxCertificateFile = maxCertFile
)

// maxName is what file systems take as one path element.
const maxName = 255

// ValidateKey returns the signer that b, stored in _cosign as name, will be.
func ValidateKey(name string, b []byte) (trust.Signer, error) {
	if err := validFile(name, b, maxKeyFile); err != nil {
		return trust.Signer{}, err
	}
	k, err := parseKey(b)
	if err != nil {
		return trust.Signer{}, err
	}
	return k.Signer(), nil
}

// ValidateCertificates returns the signers that b, stored as name in the trust
// store storeType:storeName, will be: one for each certificate, in the file's
// order.
func ValidateCertificates(storeType, store, name string, b []byte) ([]trust.Signer, error) {
	if err := ValidateStore(storeType, store); err != nil {
		return nil, err
	}
	if err := validFile(name, b, maxCertFile); err != nil {
		return nil, err
	}
	certs, err := parseCertificates(b, truststore.Type(storeType))
	if err != nil {
		return nil, err
	}
	var out []trust.Signer
	for _, c := range certs {
		s := trust.Signer{Tool: trust.Notation, StoreType: storeType, StoreName: store, Fingerprint: FingerprintOf(c)}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

// ValidateStore reports whether certificates below
// truststore/x509/<storeType>/<name> would be loaded. Names that it accepts
// are single path elements.
func ValidateStore(storeType, name string) error {
	if !slices.Contains(truststore.Types, truststore.Type(storeType)) {
		return refusef("%.40q is not a trust store type; use ca, signingAuthority or tsa", storeType)
	}
	if !storeName.MatchString(name) {
		return refusef("%.40q is not a trust store name; use letters, digits, '_', '.' and '-'", name)
	}
	if len(name) > maxName {
		return refusef("the trust store name has more than %d characters", maxName)
	}
	if neverLoaded(name) {
		return refusef("%.40q as a trust store name is never loaded (hidden, temporary and backup names are not)", name)
	}
	return nil
}

func validFile(name string, b []byte, limit int) error {
	switch {
	case neverLoaded(name):
		return refusef("%.40q is a name that is never loaded", name)
	case len(b) > limit:
		return refusef("is larger than %d bytes", limit)
	}
	return checkName(name, b)
}
