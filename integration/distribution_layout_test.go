package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/trust"
)

// TestBothLayoutsAnswerAlike holds what the signing tools made, in zot's layout, against the
// same in distribution's: whatever is damaged in it, every answer is the same.
func TestBothLayoutsAnswerAlike(t *testing.T) {
	for _, name := range []string{"cosign2", "cosign3", "notation", "keyless"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := copyRoot(t, name)
			if name == "keyless" {
				root = copyKeyless(t, "full.json", "- {issuerRegExp: '.*', subjectRegExp: '.*'}\n")
			}
			_, want := scanAndList(t, root)
			_, got := scanAndList(t, asDistribution(t, root))
			answers := func(images []cache.Image) map[string]cache.Image {
				all := map[string]cache.Image{}
				for _, img := range images {
					all[img.RepoName+":"+img.Tag+"@"+img.Digest.String()] = settled(img)
				}
				return all
			}
			of := answers(got)
			for at, want := range answers(want) {
				got := of[at]
				if got.MediaType == "" { // what cannot be read says nothing of it, and nothing else does
					want.MediaType = ""
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s reads\n%+v, beside zot\n%+v", at, got, want)
				}
			}
			if len(got) != len(want) || len(want) < 20 {
				t.Errorf("%d images, beside zot %d", len(got), len(want))
			}
		})
	}
}

// TestDistributionFixtures reads what distribution itself, cosign 2, cosign 3 and notation have
// stored: each image is as its list says, and there are no others.
func TestDistributionFixtures(t *testing.T) {
	for _, root := range []string{"distribution-2", "distribution-3"} {
		t.Run(root, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(testdata, root+".images"))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for line := range strings.Lines(string(raw)) {
				field := strings.Split(line, "\t")
				want[field[0]] = field[1]
			}
			_, images := scanAndList(t, copyRoot(t, root))
			for _, img := range images {
				at := img.RepoName + ":" + img.Tag
				if img.Tag == "" {
					at = img.RepoName + "@" + img.Digest.String()
				}
				if img.State() != want[at] {
					t.Errorf("%s is %s, want %q: %+v", at, img.State(), want[at], img.SignatureInfo)
				}
				delete(want, at)
				if at == "team/app:1.0" && (len(img.SignatureInfo) != 2 || len(img.Attestations) != 1 || img.Attestations[0].Status != trust.Trusted) {
					t.Errorf("%s: %+v, %+v", at, img.SignatureInfo, img.Attestations)
				}
			}
			for at, state := range want {
				if state != "absent" {
					t.Errorf("%s is not there, want %s", at, state)
				}
			}
		})
	}
}

// asDistribution makes of a root in zot's layout one in distribution's, with the same trust
// directories.
func asDistribution(t *testing.T, root string) string {
	t.Helper()
	to := t.TempDir()
	c := &conversion{t, root, filepath.Join(to, "docker/registry/v2")}
	for _, dir := range []string{"_cosign", "_notation"} {
		if err := os.CopyFS(filepath.Join(to, dir), os.DirFS(filepath.Join(root, dir))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	c.check(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "index.json" {
			name, err := filepath.Rel(root, filepath.Dir(path))
			c.check(err)
			c.repository(name)
		}
		return err
	}))
	return to
}

type conversion struct {
	t    *testing.T
	from string
	to   string
}

func (c *conversion) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *conversion) write(path, content string) {
	c.t.Helper()
	path = filepath.Join(c.to, path)
	c.check(os.MkdirAll(filepath.Dir(path), 0o755))
	c.check(os.WriteFile(path, []byte(content), 0o644))
}

func (c *conversion) repository(name string) {
	blobs := filepath.Join(c.from, name, "blobs", "sha256")
	list, err := os.ReadDir(blobs)
	c.check(err)
	for _, e := range list {
		content, err := os.ReadFile(filepath.Join(blobs, e.Name()))
		c.check(err)
		// A file that is damaged in one repository may be whole in another, which here is one.
		path := "blobs/sha256/" + e.Name()[:2] + "/" + e.Name() + "/data"
		if old, err := os.ReadFile(filepath.Join(c.to, path)); err == nil && string(old) != string(content) {
			c.t.Fatalf("%s of %s differs from another repository's", e.Name(), name)
		}
		c.write(path, string(content))
		c.write("repositories/"+name+"/_layers/sha256/"+e.Name()+"/link", "sha256:"+e.Name())
	}
	raw, err := os.ReadFile(filepath.Join(c.from, name, "index.json"))
	c.check(err)
	var index ocispec.Index
	c.check(json.Unmarshal(raw, &index))
	for _, m := range index.Manifests {
		c.manifest(name, m)
	}
}

// manifest links a manifest and, of an index, those that it lists.
func (c *conversion) manifest(name string, m ocispec.Descriptor) {
	at, hex := "repositories/"+name+"/_manifests/", m.Digest.Encoded()
	c.write(at+"revisions/sha256/"+hex+"/link", m.Digest.String())
	if tag := m.Annotations[ocispec.AnnotationRefName]; tag != "" {
		c.write(at+"tags/"+tag+"/current/link", m.Digest.String())
		c.write(at+"tags/"+tag+"/index/sha256/"+hex+"/link", m.Digest.String())
	}
	content, err := os.ReadFile(filepath.Join(c.from, name, "blobs", "sha256", hex))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.check(err)
	var body ocispec.Index
	if json.Unmarshal(content, &body) != nil || strings.Contains(m.Annotations[ocispec.AnnotationRefName], "sha256-") {
		return
	}
	for _, child := range body.Manifests {
		child.Annotations = nil
		if _, err := os.Stat(filepath.Join(c.from, name, "blobs", "sha256", child.Digest.Encoded())); err == nil {
			c.manifest(name, child)
		}
	}
}
