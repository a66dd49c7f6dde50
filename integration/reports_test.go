package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/trust"
)

// What public reports led to, as people have it in storage: made by the real tools, and
// read by the program as it is. "" is an image's state without a reason.
func TestReports(t *testing.T) {
	sha512 := func(text string) string { return "app@sha512:" + text }
	const (
		manifest512 = "37d5f4f121990d3171ad9e54372ed829eef6beb3663743e478ea62620e6f7e26e1d6d511c8eddd985af05527ccae70384d8b60671a7099c2eb115531b8a4e45a"
		child512    = "40d8c656affc5793ad6202299e97c03720700524e4cf56657872a1c477aa7abf1306876a583700e4c16db7f5059b5a8617fbd39b27eaeb5616d86a5318fad3b0"
	)
	details := map[string][]string{ // what they say besides
		"d15-email":            {`the trust policy does not name the subject "O=Notary`, "emailAddress ", "notation matches it with no identity but *"},
		"t05-no-tsa-in-policy": {`its time stamp would count if the statement "a" named the trust store tsa:tsa`},
		"x02-no-ku":            {`"CN=`, "key usage"},
		"x08-missing-inter":    {"is not issued by"},
		"p20-sa-store":         {"did you mean ca:acme?"},
		"p34-yaml-name":        {"trustpolicy.yaml"},
		"p16-missing-store":    {"ca:nope"},
		"e02-store-dir-empty":  {"ca:acme"},
	}
	for _, c := range []struct {
		dir    string
		images map[string]string // reference → state and reason
		listed []string          // that are not among them
	}{
		{"d15-email", map[string]string{"app:latest": "untrusted identity-not-trusted"}, nil},
		{"t05-no-tsa-in-policy", map[string]string{"app:latest": "expired certificate-expired"}, nil},
		{"x02-no-ku", map[string]string{"app:latest": "untrusted certificate-invalid"}, nil},
		{"x08-missing-inter", map[string]string{"app:latest": "untrusted certificate-invalid"}, nil},
		{"01-tekton-old", map[string]string{"pay/a:1.0": "trusted"}, nil},
		{"01-tekton-new", map[string]string{"pay/a:1.0": "trusted"}, nil},
		{"02-signed-referrer", map[string]string{
			"team/g@sha256:ff2f4f217d6637b27725bf0e10e50d7ad8eca7d7a33ab808f4c449218f2ead72":    "trusted", // an SBOM
			"multi/rec@sha256:b7d58722433fecb5793c0121c7df49350c9dcde88eb6d99600b64ad3c7db6eec": "trusted", // BuildKit's attestation
		}, []string{"multi/rec:1.0", "team/g:1.0", "team/m:1.0"}},
		{"03-sha512", map[string]string{
			"app:manifest512": "unknown unsupported-digest", sha512(manifest512): "unknown unsupported-digest", sha512(child512): "unknown unsupported-digest",
			"app:all512": "unknown unsupported-digest", "app:index-child512": "unsigned", "app:blobs512": "unsigned", "app:normal": "unsigned",
		}, nil},
		{"04-oci-policy", map[string]string{"app:latest": "untrusted identity-not-trusted"}, nil},
		{"05-cosign-save", map[string]string{}, nil},
		{"06-artifact-manifest", map[string]string{"app:latest": "trusted"}, nil},
		{"e02-store-dir-empty", map[string]string{"app:latest": "untrusted policy-invalid"}, nil},
		{"p16-missing-store", map[string]string{"app:latest": "untrusted policy-invalid"}, nil},
		{"p17-two-stores-one-missing", map[string]string{"app:latest": "untrusted policy-invalid"}, nil},
		{"p20-sa-store", map[string]string{"app:latest": "untrusted policy-invalid"}, nil},
		{"p34-yaml-name", map[string]string{"app:latest": "untrusted policy-invalid"}, nil},
	} {
		t.Run(c.dir, func(t *testing.T) {
			t.Parallel()
			root, state := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", "reports", c.dir))); err != nil {
				t.Fatal(err)
			}
			if c.dir == "e02-store-dir-empty" { // which no archive of files keeps
				if err := os.MkdirAll(filepath.Join(root, "_notation", "truststore", "x509", "ca", "acme"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			run := func(code int, args ...string) []byte {
				t.Helper()
				cmd := exec.Command(binary, append(args, "--root", root, "--state", state)...)
				out, err := cmd.Output()
				if got := cmd.ProcessState.ExitCode(); got != code {
					t.Fatalf("%v: exit %d, want %d: %v", args, got, code, err)
				}
				return out
			}
			run(0, "scan")
			var list struct{ Images []answered }
			if err := json.Unmarshal(run(0, "list", "-o", "json"), &list); err != nil {
				t.Fatal(err)
			}
			var listed, want []string
			for _, img := range list.Images {
				if img.Tag != "" {
					listed = append(listed, img.RepoName+":"+img.Tag)
				}
			}
			for ref := range c.images {
				if !strings.Contains(ref, "@") {
					want = append(want, ref)
				}
			}
			if want = append(want, c.listed...); !slices.Equal(slices.Sorted(slices.Values(listed)), slices.Sorted(slices.Values(want))) {
				t.Errorf("listed %v, want %v", listed, want)
			}
			codes := map[string]int{"trusted": trust.ExitTrusted, "unsigned": trust.ExitUnsigned, "untrusted": trust.ExitNotTrusted, "expired": trust.ExitNotTrusted, "unknown": trust.ExitUndecided}
			for ref, want := range c.images {
				state, _, _ := strings.Cut(want, " ")
				for _, command := range []string{"get", "verify"} {
					var img answered
					if err := json.Unmarshal(run(codes[state], command, ref, "-o", "json"), &img); err != nil {
						t.Fatal(err)
					}
					if got := strings.TrimSpace(img.State + " " + string(img.Reason)); got != want {
						t.Errorf("%s %s: %s, want %s", command, ref, got, want)
					}
					for _, text := range details[c.dir] {
						if len(img.SignatureInfo) != 1 || !strings.Contains(img.SignatureInfo[0].Detail, text) {
							t.Errorf("%s %s does not say %q: %+v", command, ref, text, img.SignatureInfo)
						}
					}
					if at := strings.Index(ref, "@"); at >= 0 && img.Digest != ref[at+1:] {
						t.Errorf("%s %s names it %s", command, ref, img.Digest)
					}
				}
			}
		})
	}
}

// answered is an image as it is printed.
type answered struct {
	RepoName, Tag, Digest, State string
	Reason                       trust.Reason
	SignatureInfo                []cache.Signature
}
