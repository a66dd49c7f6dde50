package trust

import (
	"regexp"
	"strings"
)

// foreignDigest is the grammar of digests (OCI image-spec, "Digests").
var foreignDigest = regexp.MustCompile(`^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)

// maxForeign bounds the text of a digest.
const maxForeign = 255

// ForeignDigest stands for a digest of another algorithm than SHA-256, so that what it
// names can be listed as what is not judged: no bytes have it, no path is built from it,
// and no signature over it is verified. ok is false for what is no such digest.
func ForeignDigest(text string) (d Digest, ok bool) {
	if len(text) > maxForeign || strings.HasPrefix(text, "sha256:") || !foreignDigest.MatchString(text) {
		return Digest{}, false
	}
	return SumOf([]byte("trust-worker foreign digest 1\n" + text)), true
}
