package verifier

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"

	"github.com/notaryproject/tspclient-go"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Log entries and time stamps before a library reads them. Rekor's types verify what a
// *proposed* entry holds as they parse it, each key against each signature, with no end in
// sight; pkcs7 verifies with whatever certificate is in a stamp. Neither is bounded, so
// that only what a log gives out is let through, with keys of a bounded cost.

// entryMembers are the names that the canonical form of an entry has, by its kind and
// version (rekor, pkg/types; rekor-tiles). Proposed forms have others: proposedContent,
// and the envelope's payload.
var entryMembers = map[string][]string{
	"hashedrekord 0.0.1": {"apiVersion", "kind", "spec", "data", "hash", "algorithm", "value", "signature", "content", "publicKey"},
	"dsse 0.0.1":         {"apiVersion", "kind", "spec", "envelopeHash", "payloadHash", "algorithm", "value", "signatures", "signature", "verifier"},
	"intoto 0.0.2": {"apiVersion", "kind", "spec", "content", "envelope", "payloadType", "signatures", "sig", "publicKey", "keyid", "hash", "payloadHash",
		"algorithm", "value"},
	"hashedrekord 0.0.2": {"apiVersion", "kind", "spec", "hashedRekordV002", "data", "digest", "algorithm", "signature", "content", "verifier", "publicKey",
		"rawBytes", "keyDetails", "x509Certificate"},
}

const maxEntry = 32 << 10 // bytes of an entry's body; genuine ones have under ten thousand

// checkEntry refuses the body of a log entry that a library must not be given.
func checkEntry(body []byte) fault {
	if len(body) > maxEntry {
		return faultf(trust.Malformed, "a log entry has %d bytes; at most %d are read", len(body), maxEntry)
	}
	if f := checkJSON("the log entry", strictjson.Rules{}, body); f.found() {
		return f
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	var all any
	if json.Unmarshal(body, &head) != nil || json.Unmarshal(body, &all) != nil {
		return faultf(trust.Malformed, "the log entry is no JSON object")
	}
	members, known := entryMembers[head.Kind+" "+head.APIVersion]
	if !known {
		return faultf(trust.Malformed, "the log entry is of the kind %.40q, version %.20q, which is none that cosign makes", head.Kind, head.APIVersion)
	}
	if f := checkMembers("", all, members); f.found() {
		return f
	}
	if hash, ok := below(all, "spec", "content", "hash").(map[string]any); head.Kind == "intoto" && (!ok || hash["algorithm"] == nil || hash["value"] == nil) {
		return faultf(trust.Malformed, "the log entry has no spec.content.hash, which cosign takes for granted")
	}
	return fault{}
}

// below is the value at a path of members, nil if there is none.
func below(v any, path ...string) any {
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// checkMembers walks a canonical entry: its members, one signature, and keys of a bounded
// cost. name is the member that holds v.
func checkMembers(name string, v any, members []string) fault {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			below := v[key]
			if !slices.Contains(members, key) {
				return faultf(trust.Malformed, "the log entry has the member %.40q, which no entry of a log has", key)
			}
			if (name == "publicKey" || name == "x509Certificate") && (key == "content" || key == "rawBytes") {
				key = "publicKey" // its text
			}
			if f := checkMembers(key, below, members); f.found() {
				return f
			}
		}
	case []any:
		if len(v) != 1 {
			return faultf(trust.Malformed, "the log entry has %d %.40s; one is expected", len(v), name)
		}
		return checkMembers(name, v[0], members)
	case string:
		if name == "publicKey" || name == "verifier" {
			return checkKeyText(v)
		}
	}
	return fault{}
}

// checkKeyText refuses a key or certificate, in base64 around PEM or DER, that would be
// costly to verify with.
func checkKeyText(text string) fault {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(der) > 2*maxCertDER {
		return faultf(trust.Malformed, "the log entry has a key that cannot be read")
	}
	if text := bytes.TrimSpace(der); bytes.Contains(text, []byte("-----BEGIN")) { // as Rekor's types read it: more blocks are a chain
		block, rest := pem.Decode(text)
		if block == nil || len(rest) > 0 || !bytes.HasPrefix(text, []byte("-----BEGIN")) {
			return faultf(trust.Malformed, "the log entry has a key that is no single block of PEM")
		}
		der = block.Bytes
	}
	var pub crypto.PublicKey
	if c, err := x509.ParseCertificate(der); err == nil {
		pub = c.PublicKey
	} else if pub, err = x509.ParsePKIXPublicKey(der); err != nil {
		return faultf(trust.Malformed, "the log entry has a key that cannot be read")
	}
	if why := costlyKey(pub); why != "" {
		return faultf(trust.Malformed, "the log entry has a key that %s", why)
	}
	return fault{}
}

// maxForeignRSA bounds RSA keys that come along, in bits.
const maxForeignRSA = 8192

// costlyKey says why nothing is verified with a key that came along, "" if it may be.
func costlyKey(pub crypto.PublicKey) string {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		switch {
		case p.N.BitLen() < truststore.MinRSABits:
			return "is an RSA key below 2048 bits"
		case p.N.BitLen() > maxForeignRSA:
			return "is an RSA key beyond 8192 bits"
		}
		return ""
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() || p.Curve == elliptic.P384() || p.Curve == elliptic.P521() {
			return ""
		}
		return "is on a curve that is not supported"
	case ed25519.PublicKey:
		return ""
	}
	return "is of a kind that is not supported"
}

// checkBundleEntries is checkEntry for each log entry in a bundle's JSON, by either of the
// names that protobuf has for it, before sigstore-go reads any.
func checkBundleEntries(blob []byte) fault {
	if !bytes.Contains(blob, []byte("anonicalized")) && !bytes.Contains(blob, []byte(`\u`)) {
		return fault{} // it has no entry, under any spelling of the name
	}
	var all any
	if json.Unmarshal(blob, &all) != nil {
		return faultf(trust.Malformed, "the bundle is no JSON")
	}
	var walk func(v any) fault
	walk = func(v any) fault {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				below := v[key]
				if text, is := below.(string); is && (key == "canonicalizedBody" || key == "canonicalized_body") {
					body, err := base64.RawStdEncoding.DecodeString(standardBase64(text))
					if err != nil {
						return faultf(trust.Malformed, "a log entry of the bundle is not base64")
					}
					if f := checkEntry(body); f.found() {
						return f
					}
				}
				if f := walk(below); f.found() {
					return f
				}
			}
		case []any:
			for _, below := range v {
				if f := walk(below); f.found() {
					return f
				}
			}
		}
		return fault{}
	}
	return walk(all)
}

// standardBase64 spells base64 as protojson reads it: either alphabet, padded or not.
func standardBase64(text string) string {
	return strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
}

// costlyStamp reports whether a time stamp response (RFC 3161, 2.4.2) must not be given to
// a library: it has one signer, and certificates of a bounded cost.
func costlyStamp(response []byte) bool {
	if len(response) > maxStamp {
		return true
	}
	var r struct {
		Status asn1.RawValue
		Token  asn1.RawValue `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(response, &r); err != nil || len(rest) > 0 {
		return true // nor would it be read
	}
	token, err := tspclient.ParseSignedToken(r.Token.FullBytes)
	return err != nil || costly(token) // what another parser takes, it takes unseen
}

// costlyToken is the same for a time stamp token that is read by the same parser: one that
// it cannot read costs nothing.
func costlyToken(der []byte) bool {
	token, err := tspclient.ParseSignedToken(der)
	return err == nil && costly(token)
}

func costly(token *tspclient.SignedToken) bool {
	return len(token.SignerInfos) > 1 || len(token.Certificates) > MaxChain || slices.ContainsFunc(token.Certificates, func(c *x509.Certificate) bool {
		return len(c.Raw) > maxCertDER || costlyKey(c.PublicKey) != ""
	})
}
