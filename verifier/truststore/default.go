package truststore

import (
	"encoding/json"
	"slices"

	"github.com/notaryproject/notation-go/verifier/trustpolicy"

	"trust-worker/trust"
)

// The default policy, and the document that zot takes for one.

// defaultName is zot's name for the default statement.
const defaultName = "default-config"

// zotStore is where zot's uploads of certificates go. The default document names
// it while no store holds a certificate: an empty list would end zot's own trust.
const zotStore = "ca:default"

// defaultPolicy is the policy in force where no operator's ever was: all stores
// that hold a certificate. An empty directory is not yet a store, or making one
// for a TSA would at once demand countersignatures. A countersignature is wanted
// only once the certificates have expired: with "always", notation's own default,
// the first certificate in a tsa store would end trust in every signature that has
// none (ADR 0004).
func defaultPolicy(stores []string) trustpolicy.Document {
	return trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:           defaultName,
		RegistryScopes: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{
			VerificationLevel: trustpolicy.LevelStrict.Name, VerifyTimestamp: trustpolicy.OptionAfterCertExpiry},
		TrustStores:       stores,
		TrustedIdentities: []string{"*"},
	}}}
}

// defaultDocument is the default policy as a file, byte for byte: what the daemon
// writes and trust-worker policy default prints.
func defaultDocument(stores []string) []byte {
	if len(stores) == 0 {
		stores = []string{zotStore}
	}
	b, err := json.MarshalIndent(defaultPolicy(stores), "", "    ")
	if err != nil {
		panic(err) // strings and lists of strings cannot fail
	}
	return append(b, '\n')
}

// zotDefaults are the hashes of the documents that zot writes at its starts, over
// whatever is there; testdata/zot has them. The second has verifyTimestamp and a
// store of type tsa besides.
var zotDefaults = []string{
	"sha256:fb855735195e5a3f93ede5bdf6fc4b69b6a15cf0eb46abdafa4c05be441fc5ed", // v2.0.0 to v2.1.18
	"sha256:7e797799e05fefc42920db2a681a9087aea07c9e9b79817419e9340fd969bb77", // v2.1.19 and later
}

// isZotDefault reports whether a file is exactly what zot writes at its starts.
func isZotDefault(sum trust.Digest) bool { return slices.Contains(zotDefaults, sum.String()) }
