package signtest

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// Storage writes a registry's storage directory as zot lays it out or, with Distribution set,
// as CNCF distribution does, with the trust
// directories _cosign and _notation beside the repositories. Every method leaves
// a complete state on disk, replaced by rename as zot does, except within
// [Storage.Batch]. It is safe for concurrent use.
type Storage struct {
	Dir          string
	Distribution bool // as in its paths.go; set it before anything is stored

	mu      sync.Mutex
	indexes map[string]*ocispec.Index // by repository, as on disk or ahead of it
	batch   bool
}

// NewStorage begins storage in dir.
func NewStorage(dir string) *Storage {
	check(os.MkdirAll(dir, 0o755))
	return &Storage{Dir: dir, indexes: map[string]*ocispec.Index{}}
}

// Image is a manifest or index in storage.
type Image struct {
	Repo, Tag string
	ocispec.Descriptor
}

// Hex is the digest's 64 digits.
func (i Image) Hex() string { return i.Digest.Encoded() }

// Trust is the digest as package trust has it.
func (i Image) Trust() trust.Digest { return must(trust.ParseDigest(i.Digest.String())) }

// Batch writes each index.json once, when f has returned: for storage of many
// thousands of signatures.
func (s *Storage) Batch(f func()) {
	s.mu.Lock()
	s.batch = true
	s.mu.Unlock()
	f()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch = false
	for repo := range s.indexes {
		s.flush(repo)
	}
}

// Blob stores content.
func (s *Storage) Blob(repo string, content []byte) ocispec.Descriptor {
	d := descriptor("application/octet-stream", content)
	s.store(repo, d, content)
	if s.Distribution {
		s.link(repo, "_layers", d.Digest.Encoded())
	}
	return d
}

func (s *Storage) store(repo string, d ocispec.Descriptor, content []byte) {
	s.replace(must(filepath.Rel(s.Dir, s.path(repo, d.Digest.Encoded()))), content)
}

// Manifest stores a manifest or index and lists it in index.json, with a tag when
// one is given; the tag is taken from whatever had it. manifest is a struct, or
// bytes to be stored as they are.
func (s *Storage) Manifest(repo, tag, mediaType string, manifest any) Image {
	content, ok := manifest.([]byte)
	if !ok {
		content = must(json.Marshal(manifest))
	}
	d := descriptor(mediaType, content)
	s.store(repo, d, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Distribution {
		s.linkManifest(repo, tag, d)
		return Image{repo, tag, d}
	}
	index := s.index(repo)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		return tag != "" && m.Annotations[ocispec.AnnotationRefName] == tag || tag == "" && m.Digest == d.Digest
	})
	listed := d
	if tag != "" {
		listed.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	index.Manifests = append(index.Manifests, listed)
	if !s.batch {
		s.flush(repo)
	}
	return Image{repo, tag, d}
}

// Image stores an image that differs from every other by its name.
func (s *Storage) Image(repo, tag string) Image {
	return s.Content(repo, tag, repo+":"+tag)
}

// Content stores an image whose one layer is content.
func (s *Storage) Content(repo, tag, content string) Image {
	layer := s.Blob(repo, []byte(content))
	layer.MediaType = ocispec.MediaTypeImageLayer
	config := s.Blob(repo, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer.Digest))
	config.MediaType = ocispec.MediaTypeImageConfig
	return s.Manifest(repo, tag, ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
}

// Index stores an index over children.
func (s *Storage) Index(repo, tag string, children ...Image) Image {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, c := range children {
		index.Manifests = append(index.Manifests, c.Descriptor)
	}
	return s.Manifest(repo, tag, ocispec.MediaTypeImageIndex, index)
}

// SignSimple attaches a cosign simple signing signature, by the tag
// sha256-<hex>.sig or as a referrer. Like cosign, it adds a layer to the
// signatures that the tag already has.
func (s *Storage) SignSimple(img Image, k *Key, o CosignOptions) Image {
	layer, blob := SimpleLayer(img.Trust(), k, o)
	s.Blob(img.Repo, blob)
	if o.Referrer {
		return s.Attach(img, CosignArtifactType, layer)
	}
	tag := SigTag(img.Trust())
	layers := append(s.layersOf(img.Repo, tag), layer)
	return s.Layers(img.Repo, tag, layers...)
}

// Attest attaches an attestation by cosign's tag.
func (s *Storage) Attest(img Image, k *Key, o CosignOptions) Image {
	layer := s.Blob(img.Repo, DSSE(img.Trust(), k, o))
	layer.MediaType = "application/vnd.dsse.envelope.v1+json"
	layer.Annotations = map[string]string{SignatureAnnotation: "", "predicateType": "https://not.what.it.says"}
	tag := "sha256-" + img.Hex() + ".att"
	return s.Layers(img.Repo, tag, append(s.layersOf(img.Repo, tag), layer)...)
}

// BuildKit stores an index, by the tag, of img and of a statement about it in no envelope, as
// BuildKit does.
func (s *Storage) BuildKit(img Image, predicateType, tag string) Image {
	layer := s.Blob(img.Repo, Statement(img.Trust(), predicateType))
	layer.MediaType = InTotoMediaType
	layer.Annotations = map[string]string{"in-toto.io/predicate-type": "https://not.what.it.says"}
	of := s.Layers(img.Repo, "", layer)
	of.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	of.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": img.Digest.String()}
	return s.Index(img.Repo, tag, img, of)
}

// SigTag is the tag by which cosign attaches simple signatures.
func SigTag(d trust.Digest) string { return "sha256-" + d.Hex() + ".sig" }

// Layers stores a signature manifest with these layers under tag.
func (s *Storage) Layers(repo, tag string, layers ...ocispec.Descriptor) Image {
	config := s.Blob(repo, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}`))
	config.MediaType = ocispec.MediaTypeImageConfig
	return s.Manifest(repo, tag, ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
}

// SignBundle attaches a sigstore bundle v0.3.
func (s *Storage) SignBundle(img Image, k *Key, o CosignOptions) Image {
	return s.AttachBlob(img, BundleMediaType, BundleMediaType, BundleJSON(img.Trust(), k, o))
}

// SignNotation attaches a notation signature.
func (s *Storage) SignNotation(img Image, c *Chain, o NotationOptions) Image {
	mediaType, envelope := Envelope(img.Descriptor, c, o)
	return s.AttachBlob(img, NotationArtifactType, mediaType, envelope)
}

// AttachBlob stores blob and attaches it as a referrer of img.
func (s *Storage) AttachBlob(img Image, artifactType, mediaType string, blob []byte) Image {
	layer := s.Blob(img.Repo, blob)
	layer.MediaType = mediaType
	return s.Attach(img, artifactType, layer)
}

// Attach stores a manifest with these layers whose subject is img.
func (s *Storage) Attach(img Image, artifactType string, layers ...ocispec.Descriptor) Image {
	config := s.Blob(img.Repo, []byte("{}"))
	config.MediaType = ocispec.MediaTypeEmptyJSON
	if artifactType == CosignArtifactType || artifactType == NotationArtifactType {
		config.MediaType = artifactType // as cosign and notation write it
	}
	subject := img.Descriptor
	return s.Manifest(img.Repo, "", ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: config, Layers: layers, Subject: &subject})
}

// Tag gives img a further tag.
func (s *Storage) Tag(img Image, tag string) Image {
	content := must(os.ReadFile(s.path(img.Repo, img.Hex())))
	return s.Manifest(img.Repo, tag, img.MediaType, content)
}

// Remove takes a manifest out of index.json; its blobs stay.
func (s *Storage) Remove(img Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Distribution {
		s.unlink(img)
		return
	}
	index := s.index(img.Repo)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		return m.Digest == img.Digest && (img.Tag == "" || m.Annotations[ocispec.AnnotationRefName] == img.Tag)
	})
	s.flush(img.Repo)
}

// RemoveBlob takes a blob or a manifest out of a repository: its file or, in distribution's
// storage, its link.
func (s *Storage) RemoveBlob(repo string, d ocispec.Descriptor) { check(os.Remove(s.Here(repo, d))) }

// Corrupt flips a bit of a blob, keeping its size.
func (s *Storage) Corrupt(repo string, d ocispec.Descriptor) {
	path := s.path(repo, d.Digest.Encoded())
	content := must(os.ReadFile(path))
	content[len(content)/2] ^= 1
	check(os.WriteFile(path, content, 0o644))
}

// Signatures returns the layers of a signature manifest.
func (s *Storage) Signatures(img Image) []ocispec.Descriptor {
	var m ocispec.Manifest
	check(json.Unmarshal(must(os.ReadFile(s.path(img.Repo, img.Hex()))), &m))
	return m.Layers
}

// TrustKey drops a public key into _cosign; Untrust takes it out again.
func (s *Storage) TrustKey(name string, k *Key) { s.replace(filepath.Join("_cosign", name), k.PEM()) }

// TrustCert drops certificates into a store, for example "ca:acme".
func (s *Storage) TrustCert(store, name string, certs ...*x509.Certificate) {
	s.replace(filepath.Join("_notation", "truststore", "x509", strings.Replace(store, ":", "/", 1), name), CertPEM(certs...))
}

// Policy writes trustpolicy.json.
func (s *Storage) Policy(document string) {
	s.replace(filepath.Join("_notation", "trustpolicy.json"), []byte(document))
}

// Untrust removes a file, named relative to the storage directory.
func (s *Storage) Untrust(name string) { check(os.Remove(filepath.Join(s.Dir, name))) }

func (s *Storage) path(repo, hex string) string {
	if s.Distribution {
		return filepath.Join(s.Dir, distributionBase, "blobs", "sha256", hex[:2], hex, "data")
	}
	return filepath.Join(s.Dir, filepath.FromSlash(repo), "blobs", "sha256", hex)
}

// layersOf returns the layers of a tagged manifest, none when there is none.
func (s *Storage) layersOf(repo, tag string) []ocispec.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Distribution {
		if hex := s.named(repo, tag); hex != "" {
			return s.Signatures(Image{Repo: repo, Descriptor: ocispec.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, hex)}})
		}
		return nil
	}
	for _, m := range s.index(repo).Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return s.Signatures(Image{Repo: repo, Descriptor: m})
		}
	}
	return nil
}

// index is the repository's index, read from disk the first time.
func (s *Storage) index(repo string) *ocispec.Index {
	if s.indexes[repo] == nil {
		index := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{}}
		if b, err := os.ReadFile(filepath.Join(s.Dir, filepath.FromSlash(repo), "index.json")); err == nil {
			check(json.Unmarshal(b, index))
		}
		s.indexes[repo] = index
	}
	return s.indexes[repo]
}

func (s *Storage) flush(repo string) {
	layout := filepath.Join(s.Dir, filepath.FromSlash(repo), ocispec.ImageLayoutFile)
	if _, err := os.Stat(layout); err != nil {
		s.replace(filepath.Join(repo, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	s.replace(filepath.Join(repo, "index.json"), must(json.Marshal(s.indexes[repo])))
}

// replace writes a file by rename, as zot does for index.json.
func (s *Storage) replace(name string, content []byte) {
	path := filepath.Join(s.Dir, filepath.FromSlash(name))
	f, err := os.CreateTemp(filepath.Dir(path), ".signtest-*")
	if err != nil {
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		f = must(os.CreateTemp(filepath.Dir(path), ".signtest-*"))
	}
	must(f.Write(content))
	check(f.Chmod(0o644))
	check(f.Close())
	check(os.Rename(f.Name(), path))
}
