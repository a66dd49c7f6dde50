package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"trust-worker/verifier/recovery"
)

// libraries is the floor of the first pass by the libraries that do the work: each file of a
// repository is read and hashed once, each manifest goes through encoding/json once, each
// signature through cosign, which is handed the right key; where the next signature is by
// another key, the key is recovered first, as it has to be where nobody says which of a
// thousand it is. For each signature and each image bbolt gets one value, 2,000 in a
// transaction. Nothing is checked, indexed, published or guarded, and nothing can be asked.
func (d *driver) libraries() (took, used time.Duration, err error) {
	path := filepath.Join(filepath.Dir(d.state), "libraries.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.Remove(path)) }()
	before, start := ownProcessorTime(), time.Now()
	found := make(chan [2][]byte, 10_000)
	var store errgroup.Group
	store.Go(func() error { return put(db, found) })
	var g errgroup.Group
	g.SetLimit(numCPU())
	for r := range d.g.repositories {
		g.Go(func() error { return d.g.verified(r, filepath.Join(d.root, repoName(r)), found) })
	}
	err = g.Wait()
	close(found)
	err = errors.Join(err, store.Wait())
	return time.Since(start), ownProcessorTime() - before, err
}

// put writes what comes, in transactions.
func put(db *bbolt.DB, found <-chan [2][]byte) error {
	for open := true; open; {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("found"))
			for n := 0; n < 2000 && err == nil; n++ {
				var kv [2][]byte
				if kv, open = <-found; !open {
					return nil
				}
				err = b.Put(kv[0], kv[1])
			}
			return err
		})
		if err != nil {
			for range found { // or who finds would wait for ever
			}
			return err
		}
	}
	return nil
}

// verified reads one repository and verifies all that it holds.
func (g *generator) verified(r int, dir string, found chan<- [2][]byte) error {
	read := func(digest string) ([]byte, error) {
		hex := strings.TrimPrefix(digest, "sha256:")
		b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", hex))
		if sum := sha256.Sum256(b); err == nil && fmt.Sprintf("%x", sum) != hex {
			err = fmt.Errorf("%s in %s is damaged", digest, dir)
		}
		return b, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	var index ocispec.Index
	if err = errors.Join(err, json.Unmarshal(b, &index)); err != nil {
		return err
	}
	from, _ := g.imagesOf(r)
	var image, value string
	var last *ecdsa.PrivateKey
	for n, entry := range index.Manifests {
		b, err := read(string(entry.Digest))
		var m ocispec.Manifest
		if err = errors.Join(err, json.Unmarshal(b, &m)); err != nil {
			return err
		}
		if n%2 == 0 { // an image; the manifest of its signatures follows
			image = string(entry.Digest)
			continue
		}
		blob := []byte(nil)
		for s, layer := range m.Layers {
			if s == 0 { // they share it
				if blob, err = read(string(layer.Digest)); err != nil {
					return err
				}
			}
			key := g.signer(r, from+n/2, s)
			if err := verified(image, blob, layer.Annotations["dev.cosignproject.cosign/signature"], key, key != last); err != nil {
				return err
			}
			last = key
			value = fmt.Sprintf("%s %d %s", entry.Digest, s, entry.Annotations[ocispec.AnnotationRefName])
			found <- [2][]byte{fmt.Appendf(nil, "%s %d", entry.Digest, s), []byte(value)}
		}
		found <- [2][]byte{fmt.Appendf(nil, "%s %s", repoName(r), image), []byte(value)}
	}
	return nil
}

// verified has cosign verify one signature.
func verified(image string, payload []byte, sig string, key *ecdsa.PrivateKey, searched bool) error {
	if searched {
		raw, err := base64.StdEncoding.DecodeString(sig)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(payload)
		if keys, err := recovery.Candidates(elliptic.P256(), raw, digest[:]); err != nil || len(keys) < 2 {
			return fmt.Errorf("the key of a signature of %s cannot be recovered: %w", image, err)
		}
	}
	subject, err := v1.NewHash(image)
	if err != nil {
		return err
	}
	v, err := signature.LoadECDSAVerifier(&key.PublicKey, crypto.SHA256)
	if err != nil {
		return err
	}
	layer, err := static.NewSignature(payload, sig)
	if err != nil {
		return err
	}
	_, err = cosign.VerifyImageSignature(context.Background(), layer, subject,
		&cosign.CheckOpts{SigVerifier: v, IgnoreTlog: true, IgnoreSCT: true, Offline: true, ClaimVerifier: cosign.SimpleClaimVerifier})
	return err
}
