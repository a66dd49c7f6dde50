package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What the released tools have attested is read as they wrote it: by a tag and in bundles,
// and of the type that was given to them.
func TestAttestationsOfTheTools(t *testing.T) {
	for _, root := range []string{"cosign2", "cosign3"} {
		_, images := scanAndList(t, copyRoot(t, root))
		var got []string
		for _, img := range images {
			for _, a := range img.Attestations {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s", img.Tag, a.PredicateType, a.Format, a.Status, a.Reason, a.SignerFile)))
			}
		}
		slices.Sort(got)
		want := []string{
			"bundle https://spdx.dev/Document bundle trusted  _cosign/p256.pub",
			"bundle-and-signature https://spdx.dev/Document bundle trusted  _cosign/p256.pub",
			"bundle-and-trusted-signature https://spdx.dev/Document bundle untrusted no-trusted-key",
			"legacy https://spdx.dev/Document dsse trusted  _cosign/p256.pub",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s", root, strings.Join(got, "\n"))
		}
	}
}
