package signtest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
)

// Example of what other packages' tests begin with.
func ExampleStorage() {
	dir, err := os.MkdirTemp("", "signtest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, k := signtest.NewStorage(dir), signtest.NewKey(signtest.P256)
	img := s.Image("team/app", "1.0")
	s.SignSimple(img, k, signtest.CosignOptions{})
	s.SignBundle(img, k, signtest.CosignOptions{})
	root := signtest.NewRoot(signtest.CertOptions{})
	s.SignNotation(img, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	s.TrustKey("team.pub", k)
	s.TrustCert("ca:acme", "root.pem", root.Cert())
	// Output:
}

func TestStorageKeepsLayersOfOtherSigners(t *testing.T) {
	s := signtest.NewStorage(t.TempDir())
	img := s.Image("a/b", "1")
	s.SignSimple(img, signtest.NewKey(signtest.P256), signtest.CosignOptions{})
	sig := s.SignSimple(img, signtest.NewKey(signtest.P256), signtest.CosignOptions{})
	if n := len(s.Signatures(sig)); n != 2 {
		t.Errorf("%d layers after two signers, want 2", n)
	}
	var index ocispec.Index
	b, err := os.ReadFile(filepath.Join(s.Dir, "a/b/index.json"))
	if err != nil || json.Unmarshal(b, &index) != nil || len(index.Manifests) != 2 {
		t.Errorf("index.json has %d manifests (%v), want the image and one signature tag", len(index.Manifests), err)
	}
}
