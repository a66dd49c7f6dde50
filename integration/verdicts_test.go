package integration

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache"
	"trust-worker/trust"
)

const testdata = "testdata/storage"

// recorded is a file of verdicts; see testdata/storage/README.md.
type recorded struct {
	Root  string
	Modes map[string]struct {
		Tool, Policy string
		Args         []string
	}
	Images []recordedImage
}

type recordedImage struct {
	Repository, Tag string
	Digest          trust.Digest
	Absent          bool
	Notes           string
	Results         map[string]recordedResult
}

type recordedResult struct {
	Accepted []string
	Warnings []string
	Rejected map[string][]string
}

func (i *recordedImage) name() string {
	return i.Repository + ":" + i.Tag + "@" + i.Digest.String()[:19]
}

func loadVerdicts(t *testing.T, root string) *recorded {
	t.Helper()
	v := &recorded{}
	b, err := os.ReadFile(filepath.Join(testdata, root+".verdicts.json"))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil || len(v.Images) == 0 || len(v.Modes) == 0 {
		t.Fatalf("verdicts of %s: %v (%d images, %d modes)", root, err, len(v.Images), len(v.Modes))
	}
	return v
}

// copyRoot copies a root, since the program keeps its cache below it.
func copyRoot(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), root)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(testdata, root))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// usePolicy puts a policy in force in a copy.
func usePolicy(t *testing.T, dir, policy string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testdata, "notation.policies", policy))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "_notation", "trustpolicy.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listed is what `list -o json` prints.
type listed struct{ Images []cache.Image }

// scanAndList returns every answer about a root, children of indexes among them.
// The cache is a new one.
func scanAndList(t *testing.T, dir string) (answers, []cache.Image) {
	t.Helper()
	state := t.TempDir()
	must(t, nil, "scan", "--root", dir, "--state", state)
	var l listed
	must(t, &l, "list", "--state", state, "-o", "json")
	return index(l.Images), l.Images
}

// answers are the signatures of every image, by repository and digest.
type answers map[string][]cache.Signature

func index(images []cache.Image) answers {
	a := answers{}
	for _, img := range images {
		a[img.RepoName+"@"+img.Digest.String()] = img.SignatureInfo
		for _, m := range img.Manifests {
			a[img.RepoName+"@"+m.Digest.String()] = m.SignatureInfo
		}
	}
	return a
}

// difference is one point where the tool and we disagree: about one image, and
// for cosign one key.
type difference struct {
	root, dir string
	image     *recordedImage
	policy    string // notation: the mode's policy file
	key       string // cosign: the file in _cosign
	algorithm string // of that key
	weTrust   bool
	ours      []cache.Signature
	told      []string // cosign: modes told the hash that accept
	asItComes []string // modes as they come that accept
}

// errors are what the tool says against the image, with this key.
func (d *difference) errors() string {
	var all []string
	for _, r := range d.image.Results {
		for text, keys := range r.Rejected {
			if slices.Contains(keys, d.key) {
				all = append(all, text)
			}
		}
	}
	sort.Strings(all)
	return strings.Join(all, "\n")
}

func TestAnswersAreTheToolsVerdicts(t *testing.T) {
	used, compared := newRuleUse(), 0
	for _, root := range []string{"cosign2", "cosign3"} {
		t.Run(root, func(t *testing.T) {
			compareCosign(t, used, root)
			compared++
		})
	}
	v, dir := loadVerdicts(t, "notation"), copyRoot(t, "notation")
	for mode, m := range v.Modes {
		t.Run(mode, func(t *testing.T) {
			usePolicy(t, dir, m.Policy)
			compareNotation(t, used, v, dir, mode, m.Policy)
			compared++
		})
	}
	if !t.Failed() && compared == 2+len(v.Modes) { // -run may have left some out
		used.check(t)
	}
}

// compareCosign compares key by key. We trust with a key: some mode as it comes
// must accept it. Some mode, told the hash or not, accepts a key: we must trust.
func compareCosign(t *testing.T, used *ruleUse, root string) {
	v := loadVerdicts(t, root)
	dir := copyRoot(t, root)
	ours, images := scanAndList(t, dir)
	keys := keyFiles(t, dir)
	for i := range v.Images {
		img := &v.Images[i]
		signatures, known := ours[img.Repository+"@"+img.Digest.String()]
		if !known && !img.Absent {
			t.Errorf("%s is not listed (%s)", img.name(), img.Notes)
			continue
		}
		for file, key := range keys {
			d := &difference{root: root, dir: dir, image: img, key: file, algorithm: key.algorithm, ours: signatures}
			for mode, r := range img.Results {
				if !slices.Contains(r.Accepted, file) {
					continue
				}
				if strings.Count(mode, "/") > 1 {
					d.told = append(d.told, mode)
				} else {
					d.asItComes = append(d.asItComes, mode)
				}
			}
			d.weTrust = slices.ContainsFunc(signatures, func(s cache.Signature) bool {
				return s.IsTrusted && s.SignerFingerprint == key.fingerprint
			})
			if d.weTrust && len(d.asItComes) == 0 || !d.weTrust && len(d.asItComes)+len(d.told) > 0 {
				used.explain(t, d)
			}
		}
	}
	compareWithVerify(t, dir, images)
}

type keyFile struct {
	fingerprint trust.Digest
	algorithm   string
}

func keyFiles(t *testing.T, dir string) map[string]keyFile {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "_cosign"))
	if err != nil || len(entries) == 0 {
		t.Fatalf("no keys: %v", err)
	}
	files := map[string]keyFile{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, "_cosign", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = keyFile{sha256.Sum256(block.Bytes), algorithmOf(key)}
	}
	return files
}

// compareNotation compares an image at a time: a policy accepts it or not.
func compareNotation(t *testing.T, used *ruleUse, v *recorded, dir, mode, policy string) {
	ours, images := scanAndList(t, dir)
	for i := range v.Images {
		img := &v.Images[i]
		signatures, known := ours[img.Repository+"@"+img.Digest.String()]
		if !known && !img.Absent {
			t.Errorf("%s is not listed (%s)", img.name(), img.Notes)
			continue
		}
		only := *img
		only.Results = map[string]recordedResult{mode: img.Results[mode]}
		d := &difference{root: "notation", dir: dir, image: &only, policy: policy, key: "policy", ours: signatures}
		d.weTrust = slices.ContainsFunc(signatures, func(s cache.Signature) bool { return s.IsTrusted })
		if len(img.Results[mode].Accepted) > 0 {
			d.asItComes = []string{mode}
		}
		if d.weTrust != (len(d.asItComes) > 0) {
			used.explain(t, d)
		}
	}
	// The policies differ in what they decide, not in how: a process for each
	// image and policy would be minutes of starting processes.
	if policy == "default.json" {
		compareWithVerify(t, dir, images)
	}
}

// compareWithVerify holds `verify`, straight from storage, to the cache's answer
// about every image: all of it but the times.
func compareWithVerify(t *testing.T, dir string, images []cache.Image) {
	var g errgroup.Group
	g.SetLimit(2)
	for _, want := range images {
		g.Go(func() error {
			name := want.RepoName + "@" + want.Digest.String()
			if want.Tag != "" {
				name = want.RepoName + ":" + want.Tag
			}
			e := command(t, "verify", name, "--root", dir, "-o", "json")
			var got cache.Image
			if err := json.Unmarshal([]byte(e.stdout), &got); err != nil {
				t.Errorf("verify %s: exit code %d: %v\n%s", name, e.code, err, e.stderr)
				return nil
			}
			if e.code != want.Code() {
				t.Errorf("verify %s: exit code %d, the cache's answer gives %d", name, e.code, want.Code())
			}
			if got, want := settled(got), settled(want); !reflect.DeepEqual(got, want) {
				t.Errorf("verify %s and the cache differ:\n  verify %+v\n  cache  %+v", name, got, want)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing above returns an error
}
