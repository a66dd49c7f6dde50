package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Keyless signatures that cosign v2 and v3 made with a private instance, under each of
// the trusted roots that the tools were given: the root keyless of testdata/storage.

// keylessNames are who signs, as the last part of a mode's name has them.
var keylessNames = map[string]string{
	"workflow": "- issuer: https://token.actions.example\n  subject: https://git.example/acme/app/.github/workflows/release.yml@refs/tags/v1.0\n",
	"person":   "- issuer: https://accounts.example\n  subject: release@acme.example\n",
}

// keylessRule explains a difference from the tools. Those that trust more are none.
type keylessRule struct {
	name  string
	holds func(image *recordedImage, root string, ours []cache.Signature) bool
}

func refusedBy(ours []cache.Signature, reasons ...trust.Reason) bool {
	return len(ours) > 0 && !slices.ContainsFunc(ours, func(s cache.Signature) bool { return !slices.Contains(reasons, s.Reason) })
}

// keylessRules are all the ways in which we refuse what a tool accepts; each is a row of
// docs/differences.md by the same name.
var keylessRules = []keylessRule{
	{"one-name-one-issuer", func(i *recordedImage, _ string, ours []cache.Signature) bool {
		return (strings.HasPrefix(i.Tag, "two-") || i.Tag == "host-name") && refusedBy(ours, trust.CertificateInvalid)
	}},
	{"log-at-the-time", func(_ *recordedImage, root string, ours []cache.Signature) bool {
		return root == "log-ended.json" && refusedBy(ours, trust.AuthorityRemoved)
	}},
	{"listed-stamp-contradicts", func(i *recordedImage, root string, ours []cache.Signature) bool {
		return (i.Tag == "late-stamp" || i.Tag == "early-stamp") && refusedBy(ours, trust.TimestampInvalid)
	}},
}

// lenient are the ways in which we trust what no tool accepts.
var lenient = []keylessRule{
	{"new-issuer-in-both-carriers", func(i *recordedImage, _ string, _ []cache.Signature) bool {
		return i.Repository == "sig" && i.Tag == "issuer-v2"
	}},
}

// TestKeylessVerdicts compares every image under every root and identity: what is trusted
// is what some mode of a tool accepts, but for the rules.
func TestKeylessVerdicts(t *testing.T) {
	v := loadVerdicts(t, "keyless")
	roots, err := filepath.Glob(filepath.Join(testdata, "keyless.roots", "*.json"))
	if err != nil || len(roots) < 5 || len(v.Images) < 60 {
		t.Fatalf("%d roots, %d images, %v", len(roots), len(v.Images), err)
	}
	used, trusted, refused := map[string]int{}, 0, 0
	for who, entry := range keylessNames {
		for _, file := range roots {
			name := filepath.Base(file)
			if who == "person" && name != "full.json" {
				continue
			}
			dir := copyKeyless(t, name, entry)
			ours, _ := scanAndList(t, dir)
			for k := range v.Images {
				img := &v.Images[k]
				var accepting []string
				asked := false
				for mode, result := range img.Results {
					part := strings.Split(mode, "/")
					if part[2] != who || part[0] == "cosign2" && !strings.HasPrefix(img.Repository, "sig") && !strings.HasPrefix(img.Tag, "sig-") {
						continue // cosign 2's is no verdict over bundles
					}
					if slices.Contains(result.Accepted, name) {
						accepting = append(accepting, mode)
					}
					asked = true
				}
				if !asked {
					t.Fatalf("nobody was asked about %s", img.name())
				}
				all := ours[img.Repository+"@"+img.Digest.String()]
				we := slices.ContainsFunc(all, func(s cache.Signature) bool { return s.IsTrusted })
				if len(all) == 0 || slices.ContainsFunc(all, func(s cache.Signature) bool { return s.Status == trust.Unknown || s.Status == trust.Pending }) {
					t.Errorf("%s under %s: %+v", img.name(), name, all)
				}
				if we {
					trusted++
				} else {
					refused++
				}
				if we == (len(accepting) > 0) {
					continue
				}
				rules := keylessRules
				if we {
					rules = lenient
				}
				i := slices.IndexFunc(rules, func(r keylessRule) bool { return r.holds(img, name, all) })
				if i < 0 {
					t.Errorf("%s (%s) as %s under %s: we say %v, %s, accepted by %q\n%s", img.name(), img.Notes, who, name, we, reasonsOf(all), accepting, rejections(img, who, name))
					continue
				}
				used[rules[i].name]++
			}
		}
	}
	for _, r := range slices.Concat(keylessRules, lenient) {
		if used[r.name] == 0 {
			t.Errorf("the rule %s explains nothing", r.name)
		}
	}
	if trusted == 0 || refused == 0 {
		t.Errorf("%d trusted, %d refused", trusted, refused)
	}
	t.Logf("%d trusted, %d refused, differences %v", trusted, refused, used)
}

// copyKeyless copies the root keyless and trusts identities in it, under a trusted root.
func copyKeyless(t *testing.T, root, identities string) string {
	t.Helper()
	dir := copyRoot(t, "keyless")
	b, err := os.ReadFile(filepath.Join(testdata, "keyless.roots", root))
	if err != nil {
		t.Fatal(err)
	}
	st := signtest.NewStorage(dir)
	st.TrustFile("trusted_root.json", b)
	st.TrustFile("identities.yaml", []byte(identities))
	return dir
}

func reasonsOf(all []cache.Signature) string {
	var out []string
	for _, s := range all {
		out = append(out, string(s.Reason)+" "+s.Detail)
	}
	return fmt.Sprint(out)
}

// rejections is what the tools say against an image under a root.
func rejections(img *recordedImage, who, root string) string {
	var out []string
	for mode, r := range img.Results {
		for text, roots := range r.Rejected {
			if strings.Contains(mode, "/"+who) && slices.Contains(roots, root) {
				out = append(out, mode+": "+text)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
