package layout

import (
	"regexp"
	"strings"

	"trust-worker/trust"
)

// tagUse is what a tag means.
type tagUse uint8

const (
	tagMalformed   tagUse = iota // not a tag, or a cosign tag that names no digest
	tagOrdinary                  // names an image
	tagSignature                 // sha256-<hex>.sig
	tagAttestation               // sha256-<hex>.att
	tagSBOM                      // sha256-<hex>.sbom
	tagReferrers                 // sha256-<hex>: OCI distribution-spec v1.1, "Referrers Tag Schema"
)

var cosignSuffixes = [...]string{tagSignature: ".sig", tagAttestation: ".att", tagSBOM: ".sbom"}

// tagGrammar is OCI distribution-spec v1.1, "Pulling manifests".
var tagGrammar = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// parseTag says what a tag means, and which digest it names. Only the exact
// forms count. A tag that is built like cosign's — "sha" or so, a dash, one of
// its suffixes — and is not exact means nothing: read as an ordinary tag it
// would turn somebody's broken signature into an image.
func parseTag(tag string) (tagUse, trust.Digest) {
	if !tagGrammar.MatchString(tag) {
		return tagMalformed, trust.Digest{}
	}
	rest, algorithm := strings.CutPrefix(tag, "sha256-")
	stem, use := rest, tagReferrers
	for u, suffix := range cosignSuffixes {
		if s, ok := strings.CutSuffix(rest, suffix); ok && suffix != "" {
			stem, use = s, tagUse(u)
		}
	}
	if d, err := trust.ParseHex(stem); algorithm && err == nil {
		return use, d
	}
	if use != tagReferrers && (algorithm || strings.HasPrefix(tag, "sha512-") || strings.HasPrefix(tag, "sha384-")) {
		return tagMalformed, trust.Digest{}
	}
	return tagOrdinary, trust.Digest{}
}
