package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"trust-worker/trust"
)

// lateMade is how many signatures the key made that is dropped in later.
const lateMade = 500

// generator makes deterministic storage: the same keys and signatures for the
// same numbers.
type generator struct {
	dir                  string
	n, keys              int
	perRepo              int // images in each repository
	large                int // images in the first repository instead; 0: as in each
	signers              int // of each image; with one, it is the same for the whole repository
	distribution         bool
	images, repositories int
	priv                 []*ecdsa.PrivateKey
	late                 *ecdsa.PrivateKey
	lateImages           []place
}

// place is an image by repository and digest.
type place struct {
	repo   string
	digest trust.Digest
}

func newGenerator(dir string, n, keys, perRepo, large, signers int) *generator {
	g := &generator{dir: dir, n: n, keys: keys, perRepo: perRepo, large: large, signers: signers, images: n / signers}
	g.repositories = (g.images + perRepo - 1) / perRepo
	if large > 0 {
		g.repositories = 1 + max(0, g.images-large+perRepo-1)/perRepo
	}
	return g
}

// imagesOf are the images of a repository, from one to before another.
func (g *generator) imagesOf(r int) (from, to int) {
	switch {
	case g.large == 0:
		from, to = r*g.perRepo, (r+1)*g.perRepo
	case r == 0:
		to = g.large
	default:
		from = g.large + (r-1)*g.perRepo
		to = from + g.perRepo
	}
	return from, min(to, g.images)
}

// derive makes the i-th key from its number.
func derive(i int) (*ecdsa.PrivateKey, error) {
	for salt := uint64(0); ; salt++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte("trust-worker scale"), uint64(i)), salt))
		if d := new(big.Int).SetBytes(sum[:]); d.Sign() > 0 && d.Cmp(elliptic.P256().Params().N) < 0 {
			return ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:])
		}
	}
}

func publicPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

func (g *generator) run() error {
	if err := os.MkdirAll(filepath.Join(g.dir, "_cosign"), 0o755); err != nil {
		return err
	}
	for i := range g.keys {
		k, err := derive(i)
		if err != nil {
			return err
		}
		g.priv = append(g.priv, k)
		text, err := publicPEM(k)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(g.dir, "_cosign", fmt.Sprintf("key-%05d.pub", i)), text, 0o644); err != nil {
			return err
		}
	}
	var err error
	if g.late, err = derive(1 << 30); err != nil {
		return err
	}
	var work errgroup.Group
	work.SetLimit(2 * runtime.NumCPU())
	late := make([][]place, g.repositories)
	for r := range g.repositories {
		work.Go(func() (err error) { late[r], err = g.repository(r); return err })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, l := range late {
		g.lateImages = append(g.lateImages, l...)
	}
	return nil
}

func repoName(r int) string { return fmt.Sprintf("team-%03d/app-%05d", r%500, r) }

// isLate says whether the late key signs image i instead of its first signer.
func (g *generator) isLate(i int) bool {
	step := max(g.images/lateMade, 1)
	return i%step == 0 && i/step < lateMade
}

// signer is whose signature layer s of image i is, in repository r.
func (g *generator) signer(r, i, s int) *ecdsa.PrivateKey {
	switch {
	case s == 0 && g.isLate(i):
		return g.late
	case g.signers == 1:
		return g.priv[r%len(g.priv)]
	}
	return g.priv[(i*g.signers+s)%len(g.priv)]
}

type object = map[string]any

// repository writes one repository and returns the images that the late key
// signed.
func (g *generator) repository(r int) ([]place, error) {
	w, err := g.writer(repoName(r))
	if err != nil {
		return nil, err
	}
	config := w.blob("application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	var late []place
	var manifests []object
	from, to := g.imagesOf(r)
	for i := from; i < to; i++ {
		img := w.json("application/vnd.oci.image.manifest.v1+json", object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": config, "layers": []object{}, "annotations": object{"n": fmt.Sprint(i)}})
		manifests = append(manifests, tagged(img, fmt.Sprintf("v%d", i)))
		w.link(img, fmt.Sprintf("v%d", i))
		digest := img["digest"].(string)
		payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.example/%s"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repoName(r), digest)
		layer := w.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload)
		hash := sha256.Sum256(payload)
		var layers []object
		for s := range g.signers {
			key := g.signer(r, i, s)
			if key == g.late {
				d, err := trust.ParseDigest(digest)
				if err != nil {
					return nil, err
				}
				late = append(late, place{repoName(r), d})
			}
			sig, err := key.Sign(nil, hash[:], crypto.SHA256) // deterministic: RFC 6979
			if err != nil {
				return nil, err
			}
			signed := object{"annotations": object{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}}
			for k, v := range layer {
				signed[k] = v
			}
			layers = append(layers, signed)
		}
		m := w.json("application/vnd.oci.image.manifest.v1+json", object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": config, "layers": layers})
		manifests = append(manifests, tagged(m, "sha256-"+digest[len("sha256:"):]+".sig"))
		w.link(m, "sha256-"+digest[len("sha256:"):]+".sig")
	}
	if g.distribution {
		return late, w.err
	}
	dir := filepath.Join(g.dir, repoName(r))
	w.file(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": manifests})
	if err != nil {
		return nil, err
	}
	w.file(filepath.Join(dir, "index.json"), index)
	return late, w.err
}

func tagged(d object, tag string) object {
	out := object{"annotations": object{"org.opencontainers.image.ref.name": tag}}
	for k, v := range d {
		out[k] = v
	}
	return out
}

// writer writes blobs and keeps the first error.
type writer struct {
	blobs string
	links string // distribution's repository, or ""
	err   error
}

func (g *generator) writer(repo string) (*writer, error) {
	w := &writer{blobs: filepath.Join(g.dir, repo, "blobs", "sha256")}
	if g.distribution {
		base := filepath.Join(g.dir, "docker/registry/v2")
		w.blobs, w.links = filepath.Join(base, "blobs", "sha256"), filepath.Join(base, "repositories", repo)
	}
	return w, os.MkdirAll(w.blobs, 0o755)
}

// link puts a manifest into distribution's repository, with its tag.
func (w *writer) link(manifest object, tag string) {
	digest := manifest["digest"].(string)
	if w.links == "" {
		return
	}
	for _, dir := range []string{"revisions/sha256/" + digest[len("sha256:"):], "tags/" + tag + "/current", "tags/" + tag + "/index/sha256/" + digest[len("sha256:"):]} {
		w.make(filepath.Join(w.links, "_manifests", dir, "link"), []byte(digest))
	}
}

// make writes a file in a directory of its own.
func (w *writer) make(path string, b []byte) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil && w.err == nil {
		w.err = err
	}
	w.file(path, b)
}

func (w *writer) file(path string, b []byte) {
	if err := os.WriteFile(path, b, 0o644); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *writer) blob(mediaType string, b []byte) object {
	d := trust.SumOf(b)
	if w.links == "" {
		w.file(filepath.Join(w.blobs, d.Hex()), b)
	} else {
		w.make(filepath.Join(w.blobs, d.Hex()[:2], d.Hex(), "data"), b)
		if !strings.Contains(mediaType, "manifest") {
			w.make(filepath.Join(w.links, "_layers", "sha256", d.Hex(), "link"), []byte(d.String()))
		}
	}
	return object{"mediaType": mediaType, "digest": d.String(), "size": len(b)}
}

func (w *writer) json(mediaType string, v any) object {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil && w.err == nil {
		w.err = err
	}
	return w.blob(mediaType, b.Bytes())
}
