package layout

import (
	"strings"
	"testing"

	"trust-worker/trust"
)

func TestParseTag(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	tests := []struct {
		tag  string
		want tagUse
	}{
		{"latest", tagOrdinary},
		{"1.0", tagOrdinary},
		{"_", tagOrdinary},
		{"v1.sig", tagOrdinary},
		{"sha-1a2b3c", tagOrdinary},
		{"sha256-" + hex[:63], tagOrdinary},
		{"sha256-" + hex + "0", tagOrdinary},
		{"sha256-" + strings.ToUpper(hex), tagOrdinary},
		{strings.Repeat("a", 128), tagOrdinary},

		{"sha256-" + hex, tagReferrers},
		{"sha256-" + hex + ".sig", tagSignature},
		{"sha256-" + hex + ".att", tagAttestation},
		{"sha256-" + hex + ".sbom", tagSBOM},

		// threats.md S2
		{"sha256-.sig", tagMalformed},
		{"sha256-abc.sig", tagMalformed},
		{"sha256-" + hex[:63] + ".sig", tagMalformed},
		{"sha256-" + hex + "0.sig", tagMalformed},
		{"sha256-" + strings.ToUpper(hex) + ".sig", tagMalformed},
		{"sha256-" + hex + ".sig.sig", tagMalformed},
		{"sha256-" + hex + ".sig.att", tagMalformed},
		{"sha512-" + hex + ".sig", tagMalformed},
		{"sha512-" + hex + hex + ".sig", tagMalformed},
		{"sha256-" + hex[:63] + ".sbom", tagMalformed},
		{"", tagMalformed},
		{".sig", tagMalformed},
		{"-x", tagMalformed},
		{"a/b", tagMalformed},
		{"../x", tagMalformed},
		{"a\n", tagMalformed},
		{"a\x00", tagMalformed},
		{"é", tagMalformed},
		{strings.Repeat("a", 129), tagMalformed},
		{"sha256-" + hex + ".sig\n", tagMalformed},
		{strings.Repeat("a", 1<<20), tagMalformed},
	}
	for _, tt := range tests {
		use, d := parseTag(tt.tag)
		if use != tt.want {
			t.Errorf("parseTag(%.100q) = %d, want %d", tt.tag, use, tt.want)
		}
		named := use == tagSignature || use == tagAttestation || use == tagSBOM || use == tagReferrers
		if named != (d != (trust.Digest{})) || named && d.Hex() != hex {
			t.Errorf("parseTag(%.100q) names %s", tt.tag, d)
		}
	}
}

func FuzzParseTag(f *testing.F) {
	hex := strings.Repeat("ab", 32)
	for _, s := range []string{"latest", "sha256-" + hex + ".sig", "sha256-" + hex, "sha256-.sig", hex + ".att", "sha512-.sbom"} {
		f.Add(s)
	}
	suffix := map[tagUse]string{tagSignature: ".sig", tagAttestation: ".att", tagSBOM: ".sbom", tagReferrers: ""}
	f.Fuzz(func(t *testing.T, tag string) {
		use, d := parseTag(tag)
		if s, named := suffix[use]; named {
			// A tag that names a digest is made of nothing else.
			if tag != "sha256-"+d.Hex()+s {
				t.Errorf("parseTag(%q) = %d, %s", tag, use, d)
			}
		} else if d != (trust.Digest{}) {
			t.Errorf("parseTag(%q) = %d with %s", tag, use, d)
		}
		if use == tagOrdinary && (tag == "" || len(tag) > 128 || strings.ContainsAny(tag, "/\x00\n:@ ")) {
			t.Errorf("%q is an ordinary tag", tag)
		}
	})
}
