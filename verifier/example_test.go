package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/truststore"
)

// Load the trust directories, verify one cosign signature, and join the verdict
// with what is in force.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	storage, key := signtest.NewStorage(dir), signtest.NewKey(signtest.P256)
	storage.TrustKey("team.pub", key)

	loader, err := truststore.NewLoader(truststore.Config{
		CosignDir: filepath.Join(dir, "_cosign"), Cosign: true,
		NotationDir: filepath.Join(dir, "_notation"), Notation: true,
		Revocation: truststore.RevocationOffline,
	})
	if err != nil {
		panic(err)
	}
	store, err := loader.Load(context.Background(), time.Now())
	if err != nil {
		panic(err)
	}

	image := trust.SumOf([]byte("an image's manifest"))
	layer, payload := signtest.SimpleLayer(image, key, signtest.CosignOptions{})
	outcome, err := verifier.New(store, verifier.Options{}).Verify(context.Background(), verifier.Request{
		Subject:   verifier.Subject{Repository: "team/app", Digest: image, MediaType: ocispec.MediaTypeImageManifest, Size: 19},
		Signature: verifier.Signature{Carrier: trust.CosignTag, Layers: []ocispec.Descriptor{layer}},
		Fetch: func(_ context.Context, d trust.Digest, _, _ int64) ([]byte, error) {
			if d != trust.SumOf(payload) {
				return nil, &trust.ReasonError{Reason: trust.BlobMissing, Err: errors.New("no such blob")}
			}
			return payload, nil
		},
	})
	if err != nil {
		panic(err) // nothing is known
	}
	for _, l := range outcome.Layers {
		if l.Problem != "" {
			fmt.Println("undecided:", l.Problem)
			continue
		}
		d := store.InForce().Decide("team/app", outcome.Tool, &l.Verdict, time.Now())
		fmt.Println(outcome.Tool, d.Status, d.Author == string(key.PEM()))
	}
	// Output: cosign trusted true
}
