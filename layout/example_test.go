package layout_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"trust-worker/layout"
)

// store makes a repository with one image, tagged 1.0, and one manifest under
// the tag that cosign would give to the image's signature.
func store(root string) error {
	dir := filepath.Join(root, "team", "app")
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	image := []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)
	signature := []byte(`{"schemaVersion":2,"config":{},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json"}]}`)
	index := fmt.Sprintf(`{"manifests":[
		{"digest":"sha256:%x","size":%d,"annotations":{"org.opencontainers.image.ref.name":"1.0"}},
		{"digest":"sha256:%x","size":%d,"annotations":{"org.opencontainers.image.ref.name":"sha256-%[1]x.sig"}}]}`,
		sha256.Sum256(image), len(image), sha256.Sum256(signature), len(signature))
	for name, content := range map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": []byte(index),
		fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(image)):     image,
		fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(signature)): signature,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func Example() {
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := store(dir); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	root, err := layout.Open(dir, layout.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	err = root.Walk(ctx, func(v layout.Visit) error {
		if !v.IsRepository {
			return nil
		}
		repository, err := root.Repository(v.Name)
		if err != nil {
			return err
		}
		defer repository.Close()
		contents, err := repository.Contents(ctx, nil)
		if err != nil {
			return err
		}
		for tag, digest := range contents.Tags {
			for _, signature := range contents.Signatures[digest] {
				fmt.Printf("%s:%s has a signature by %s (%s)\n", v.Name, tag, signature.Carrier.Tool(), signature.Carrier)
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: team/app:1.0 has a signature by cosign (cosign-tag)
}
