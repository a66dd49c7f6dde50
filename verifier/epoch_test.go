package verifier

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"trust-worker/trust"
)

// The modules whose versions an epoch stands for. When this test fails: look at
// what changed in them, then raise Epoch and write the new versions here.
const epochModules = `
github.com/notaryproject/notation-core-go v1.3.0
github.com/notaryproject/notation-go v1.3.2
github.com/sigstore/cosign/v2 v2.6.5
github.com/sigstore/sigstore v1.10.9
github.com/sigstore/sigstore-go v1.2.2
github.com/golang-jwt/jwt/v4 v4.5.2
github.com/notaryproject/tspclient-go v1.0.0
github.com/secure-systems-lab/go-securesystemslib v0.11.0
github.com/veraison/go-cose v1.3.0
`

func TestEpoch(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(epochModules), "\n") {
		if !regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(line) + `( //.*)?$`).Match(mod) {
			t.Errorf("go.mod no longer has %s: raise Epoch (now %d)", line, Epoch)
		}
	}
	if trust.MinEpoch > Epoch {
		t.Error("no verdict would be served")
	}
}

// V1: a Ground is made in two places, one for each tool.
func TestGroundsAreMadeInThreePlaces(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		b, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "trust.Ground{"); n > 0 {
			made[e.Name()] = n
		}
		if strings.Contains(string(b), "cosign/v2/pkg/signature") || strings.Contains(string(b), `"net/http"`) {
			t.Errorf("%s imports what this package must not", e.Name())
		}
		if strings.Contains(string(b), "trust.Trusted") {
			t.Errorf("%s says trusted; only the join does", e.Name())
		}
	}
	if fmt.Sprint(made) != "map[cosign.go:1 keyless.go:1 notation.go:1]" {
		t.Errorf("grounds are made in %v", made)
	}
}

// Every reason of the table either can come from here, and a test names it, or
// belongs to another package.
func TestReasonsAreCovered(t *testing.T) {
	elsewhere := map[trust.Reason]bool{
		trust.Stale: true, trust.NoCache: true, trust.New: true, trust.PolicyChanged: true, // the join and the cache
		trust.Revoked:           true, // the online validator
		trust.TooFewSigners:     true, // the join
		trust.UnsupportedDigest: true, // package layout finds these, and nobody verifies them
	}
	var tests strings.Builder
	for _, name := range []string{"cosign_test.go", "bundle_test.go", "notation_test.go", "timestamp_test.go", "keyless_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(b)
	}
	symbols := map[trust.Reason]string{trust.NoPolicy: "trust.NoPolicy", trust.PolicyInvalid: "trust.PolicyInvalid",
		trust.PolicyAmbiguous: "trust.PolicyAmbiguous", trust.PolicyDoesNotVerify: "trust.PolicyDoesNotVerify", trust.SignerRemoved: "trust.SignerRemoved",
		trust.NoTrustedRoot: "trust.NoTrustedRoot", trust.AuthorityRemoved: "trust.AuthorityRemoved", trust.NotLogged: "trust.NotLogged",
		trust.NoSignedTime: "trust.NoSignedTime", trust.SCTMissing: "trust.SCTMissing"}
	for _, r := range trust.Reasons() {
		want := string(r)
		if s, ok := symbols[r]; ok {
			want = s
		}
		if !elsewhere[r] && !strings.Contains(tests.String(), want) {
			t.Errorf("no test for %s", r)
		}
	}
}
