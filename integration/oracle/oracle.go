package oracle

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	nrevocation "github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/result"
	_ "github.com/notaryproject/notation-core-go/signature/cose" // an envelope's encoding
	_ "github.com/notaryproject/notation-core-go/signature/jws"  // likewise
	"github.com/notaryproject/notation-go"
	nverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/layout"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Oracle holds the trust directories of one storage root.
type Oracle struct {
	verifiers []signature.Verifier // every key, with every hash
	stores    certificates
	notation  interface {
		Verify(context.Context, ocispec.Descriptor, []byte, notation.VerifierVerifyOptions) (*notation.VerificationOutcome, error)
	}
}

// Load reads _cosign and _notation below dir. The policy is strict, over every
// store, for anybody.
func Load(dir string) (*Oracle, error) {
	o := &Oracle{stores: certificates{}}
	err := each(filepath.Join(dir, "_cosign"), func(_ string, block *pem.Block) error {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return err
		}
		return o.add(key)
	})
	if err != nil {
		return nil, err
	}
	base := filepath.Join(dir, "_notation", "truststore", "x509")
	err = each(base, func(path string, block *pem.Block) error {
		c, err := x509.ParseCertificate(block.Bytes)
		rel, _ := filepath.Rel(base, filepath.Dir(path))
		name := strings.Replace(filepath.ToSlash(rel), "/", ":", 1)
		o.stores[name] = append(o.stores[name], c)
		return err
	})
	if err != nil || len(o.stores) == 0 {
		return o, err
	}
	doc := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{Name: "all", RegistryScopes: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: "strict", VerifyTimestamp: trustpolicy.OptionAfterCertExpiry},
		TrustedIdentities:     []string{"*"}}}}
	for name := range o.stores {
		doc.TrustPolicies[0].TrustStores = append(doc.TrustPolicies[0].TrustStores, name)
	}
	o.notation, err = nverifier.NewWithOptions(doc, o.stores, nil, nverifier.VerifierOptions{
		RevocationCodeSigningValidator: nobody{}, RevocationTimestampingValidator: nobody{}})
	return o, err
}

// each calls f with every PEM block of every file below dir, if there is one.
// A file without one is a block by itself: DER.
func each(dir string, f func(path string, block *pem.Block) error) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		for n, rest := 0, content; err == nil; n++ {
			block, after := pem.Decode(rest)
			switch {
			case block == nil && n > 0:
				return nil
			case block == nil:
				block = &pem.Block{Bytes: content}
			}
			rest, err = after, f(path, block)
		}
		return fmt.Errorf("%s: %w", path, err)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// add makes verifiers for each hash that cosign sign may have used.
func (o *Oracle) add(key crypto.PublicKey) error {
	hashes := []crypto.Hash{crypto.SHA256}
	if k, ok := key.(*ecdsa.PublicKey); ok && k.Params().BitSize > 256 {
		hashes = append(hashes, map[int]crypto.Hash{384: crypto.SHA384, 521: crypto.SHA512}[k.Params().BitSize])
	}
	for _, h := range hashes {
		v, err := signature.LoadVerifier(key, h)
		if err != nil {
			return err
		}
		o.verifiers = append(o.verifiers, v)
	}
	if k, ok := key.(ed25519.PublicKey); ok {
		v, err := signature.LoadED25519phVerifier(k)
		if err != nil {
			return err
		}
		o.verifiers = append(o.verifiers, v)
	}
	return nil
}

// certificates implements truststore.X509TrustStore, by "type:name".
type certificates map[string][]*x509.Certificate

// GetCertificates implements truststore.X509TrustStore.
func (c certificates) GetCertificates(_ context.Context, t truststore.Type, name string) ([]*x509.Certificate, error) {
	return c[string(t)+":"+name], nil
}

// nobody is asked about revocation: addresses read unknown.
type nobody struct{}

func (nobody) ValidateContext(_ context.Context, o nrevocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	all := make([]*result.CertRevocationResult, len(o.CertChain))
	for i, c := range o.CertChain {
		all[i] = &result.CertRevocationResult{Result: result.ResultNonRevokable}
		if len(c.OCSPServer)+len(c.CRLDistributionPoints) > 0 && i < len(o.CertChain)-1 {
			all[i].Result = result.ResultUnknown
		}
	}
	return all, nil
}

// Accepts says for each layer of a signature manifest whether some library accepts
// it over the subject. blob returns the bytes stored under a digest, or nil.
func (o *Oracle) Accepts(ctx context.Context, subject ocispec.Descriptor, manifest []byte, blob func(digest.Digest) []byte) []bool {
	var m ocispec.Manifest
	if json.Unmarshal(manifest, &m) != nil {
		return nil
	}
	accepted := make([]bool, len(m.Layers))
	for i, layer := range m.Layers {
		b := blob(layer.Digest)
		if sum := sha256.Sum256(b); b == nil || layer.Digest != digest.NewDigestFromBytes(digest.SHA256, sum[:]) {
			continue
		}
		accepted[i] = o.simple(ctx, subject.Digest, layer, b) || o.bundle(ctx, subject.Digest, b) || o.envelope(ctx, subject, layer.MediaType, b)
	}
	return accepted
}

// asCosignReads is a layer as cosign verify hands it to its verifier, read in full
// with its annotations, or nil. cosign reads a directory the same as a registry;
// the manifest has this layer alone, since what is wrong with others is theirs.
func asCosignReads(layer ocispec.Descriptor, payload []byte) (sig oci.Signature) {
	defer func() {
		if recover() != nil { // as it does on a certificate of white space
			sig = nil
		}
	}()
	dir, err := os.MkdirTemp("", "oracle")
	check(err)
	defer os.RemoveAll(dir)
	blobs := filepath.Join(dir, "blobs", "sha256")
	check(os.MkdirAll(blobs, 0o700))
	put := func(content []byte) ocispec.Descriptor {
		d := digest.FromBytes(content)
		check(os.WriteFile(filepath.Join(blobs, d.Encoded()), content, 0o600))
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(content))}
	}
	put(payload)
	config := put([]byte("{}"))
	config.MediaType = ocispec.MediaTypeImageConfig
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	content, err := json.Marshal(m)
	check(err)
	d := put(content)
	d.Annotations = map[string]string{"kind": "dev.cosignproject.cosign/sigs"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
	index.SchemaVersion = 2
	content, err = json.Marshal(index)
	check(err)
	check(os.WriteFile(filepath.Join(dir, "index.json"), content, 0o600))
	read, err := layout.SignedImageIndex(dir)
	check(err)
	signatures, err := read.Signatures()
	check(err)
	layers, err := signatures.Get()
	if err != nil || len(layers) != 1 {
		return nil
	}
	if sig, err = static.Copy(layers[0]); err != nil { // what cosign verify does first
		return nil
	}
	return sig
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (o *Oracle) simple(ctx context.Context, subject digest.Digest, layer ocispec.Descriptor, payload []byte) (ok bool) {
	defer unlessPanics(&ok)
	if layer.Annotations["dev.cosignproject.cosign/signature"] == "" {
		return false
	}
	sig := asCosignReads(layer, payload)
	if sig == nil {
		return false
	}
	for _, v := range o.verifiers {
		_, err := cosign.VerifyImageSignature(ctx, sig, v1.Hash{Algorithm: subject.Algorithm().String(), Hex: subject.Encoded()},
			&cosign.CheckOpts{SigVerifier: v, ClaimVerifier: cosign.SimpleClaimVerifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true})
		if err == nil {
			return true
		}
	}
	return false
}

func (o *Oracle) bundle(ctx context.Context, subject digest.Digest, content []byte) (ok bool) {
	defer unlessPanics(&ok)
	raw, err := hex.DecodeString(subject.Encoded())
	if err != nil {
		return false
	}
	for _, v := range o.verifiers {
		var b bundle.Bundle // verification may change it
		if b.UnmarshalJSON(content) != nil {
			return false
		}
		_, err := cosign.VerifyNewBundle(ctx, &cosign.CheckOpts{SigVerifier: v, TrustedMaterial: &root.BaseTrustedMaterial{},
			IgnoreTlog: true, IgnoreSCT: true, Offline: true, NewBundleFormat: true}, verify.WithArtifactDigest("sha256", raw), &b)
		if err == nil {
			return true
		}
	}
	return false
}

func (o *Oracle) envelope(ctx context.Context, subject ocispec.Descriptor, mediaType string, envelope []byte) (ok bool) {
	defer unlessPanics(&ok)
	if o.notation == nil {
		return false
	}
	_, err := o.notation.Verify(ctx, subject, envelope, notation.VerifierVerifyOptions{
		ArtifactReference: "registry.example/repository@" + subject.Digest.String(), SignatureMediaType: mediaType})
	return err == nil
}

// unlessPanics, deferred: a library that panics has not accepted.
func unlessPanics(ok *bool) {
	if recover() != nil {
		*ok = false
	}
}
