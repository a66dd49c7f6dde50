package layout

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
	"trust-worker/trust"
)

const (
	maxChildren  = strictjson.MaxItems
	maxMediaType = 255 // RFC 6838: 127 "/" 127
	maxPlatform  = 128

	annotationReferenceType = "vnd.docker.reference.type"
	annotationReferenceOf   = "vnd.docker.reference.digest"
	attestationManifest     = "attestation-manifest"
)

// Manifest is an image manifest or an index, parsed.
type Manifest struct {
	Kind
	// ArtifactType is as written; [Manifest.Artifact] applies the fallback.
	ArtifactType    string
	ConfigMediaType string
	Layers          []ocispec.Descriptor
	Annotations     map[string]string
	// Embeds is set if a descriptor holds the content that it describes, or says where else
	// it is: whoever reads the manifest need not ask this storage for that.
	Embeds bool
}

// Artifact returns the artifact type, or the config's media type where there is
// none (OCI image-spec v1.1, manifest, "Guidelines for Artifact Usage").
func (m *Manifest) Artifact() string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.ConfigMediaType
}

// Manifest reads and parses one manifest; the first time, it may be what [Repository.Contents]
// has just read. Besides those of [Repository.Blob],
// the reasons are malformed, ambiguous and limit-exceeded, for what is wrong
// with the bytes themselves: a manifest that is returned has no [Kind.Flaw].
// Whether descriptors elsewhere contradict it, only Contents says.
func (p *Repository) Manifest(ctx context.Context, d trust.Digest) (*Manifest, error) {
	m := p.read.take(d)
	if m == nil {
		var err error
		if m, err = p.parsed(ctx, d); err != nil {
			return nil, err
		}
	}
	if flaw := m.Flaw(); flaw != "" {
		return nil, reasonf(flaw, "manifest %s", d)
	}
	return m, nil
}

func (p *Repository) parsed(ctx context.Context, d trust.Digest) (*Manifest, error) {
	b, err := p.hashed(ctx, p.content.manifest, d, -1, p.root.limits.Manifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(b), nil
}

// readManifests are signature manifests that Contents has read, each for the one look that
// follows: it need not read, hash and parse the bytes again.
type readManifests struct {
	mu    sync.Mutex
	kept  map[trust.Digest]*Manifest
	bytes int64
}

// maxReadBytes bounds them, in bytes as stored. The others are read again.
const maxReadBytes = 1 << 20

func (r *readManifests) keep(d trust.Digest, m *Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !m.Class.signature() || r.bytes+m.Size > maxReadBytes {
		return
	}
	if r.kept == nil {
		r.kept = map[trust.Digest]*Manifest{}
	}
	r.kept[d] = m
	r.bytes += m.Size
}

// take returns a manifest that was kept, for the last time, or nil.
func (r *readManifests) take(d trust.Digest) *Manifest {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.kept[d]
	if m != nil {
		delete(r.kept, d)
		r.bytes -= m.Size
	}
	return m
}

// parseManifest says what b is. It has no error: being malformed is a class.
func parseManifest(b []byte) *Manifest {
	m := &Manifest{Kind: Kind{Size: int64(len(b))}}
	switch err := manifestRules.Check(b); {
	case err == nil:
	case errors.Is(err, strictjson.ErrDuplicate):
		// Classified all the same, so that it can be listed with its reason.
		m.Ambiguous = true
	case errors.Is(err, strictjson.ErrSyntax):
		m.Class = Malformed
		return m
	default:
		m.Class = Excessive
		return m
	}
	var doc document
	var err error
	if m.Ambiguous {
		err = json.Unmarshal(b, &doc)
	} else {
		err = doc.decode(b)
	}
	if err != nil || len(doc.MediaType) > maxMediaType || !m.take(&doc) {
		*m = Manifest{Kind: Kind{Class: Malformed, Size: m.Size}}
		return m
	}
	m.classify(&doc)
	return m
}

// take copies what is kept of a document and reports whether it is one.
func (m *Manifest) take(doc *document) bool {
	m.MediaType, m.ArtifactType = interned(doc.MediaType), doc.ArtifactType
	m.Layers, m.Annotations = doc.Layers, doc.Annotations
	if doc.Config != nil {
		m.ConfigMediaType = doc.Config.MediaType
	}
	if doc.Subject != nil {
		var err error
		if m.Subject, err = trust.ParseDigest(string(doc.Subject.Digest)); err != nil || m.Subject == (trust.Digest{}) {
			return false // another algorithm, at best: it cannot be in this storage
		}
	}
	for _, list := range [][]ocispec.Descriptor{doc.Manifests, doc.Layers, doc.Blobs} {
		m.Embeds = m.Embeds || slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return len(d.Data) > 0 || len(d.URLs) > 0 })
	}
	for i := range doc.Manifests {
		if c, ok := childOf(&doc.Manifests[i]); ok {
			m.Children = append(m.Children, c)
		} else {
			m.Skipped++
		}
	}
	isManifest := doc.Config != nil || doc.Layers != nil
	if doc.MediaType == typeArtifactManifest {
		m.Ambiguous = m.Ambiguous || isManifest
		m.Layers, isManifest = doc.Blobs, true // it may have none
	}
	if doc.Manifests != nil && isManifest ||
		(doc.Manifests != nil || isManifest) && (doc.FSLayers != nil || doc.History != nil) ||
		doc.Manifests != nil && slices.Contains(manifestTypes, doc.MediaType) ||
		isManifest && slices.Contains(indexTypes, doc.MediaType) {
		// CVE-2021-41190. Its children are not followed: for other readers it
		// has none.
		m.Ambiguous, m.Children, m.Skipped = true, nil, 0
	}
	return doc.Manifests != nil || isManifest
}

func childOf(d *ocispec.Descriptor) (c Child, ok bool) {
	digest, err := trust.ParseDigest(string(d.Digest))
	foreign := ""
	if err != nil {
		var ok bool
		if digest, ok = trust.ForeignDigest(string(d.Digest)); ok {
			foreign, err = string(d.Digest), nil
		}
	}
	if err != nil || d.Size < 0 || len(d.MediaType) > maxMediaType {
		return Child{}, false
	}
	c = Child{
		Digest: digest, Foreign: foreign, MediaType: interned(d.MediaType), Size: d.Size,
		Attestation: d.Annotations[annotationReferenceType] == attestationManifest,
	}
	if c.Attestation {
		c.About, _ = trust.ParseDigest(d.Annotations[annotationReferenceOf]) // zero for what is none
	}
	if p := d.Platform; p != nil {
		c.Platform = p.OS + "/" + p.Architecture
		if p.Variant != "" {
			c.Platform += "/" + p.Variant
		}
		if len(c.Platform) > maxPlatform {
			c.Platform = ""
		}
	}
	return c, true
}

// classify sets the class of a well-formed document. The order matters: a
// signature is one whatever its layers, and a set of layers that only
// signatures or attestations have outweighs a plain config.
func (m *Manifest) classify(doc *document) {
	m.Class = ImageManifest
	if doc.Manifests != nil {
		m.Class = ImageIndex
	}
	if m.Subject != (trust.Digest{}) {
		switch artifact := m.Artifact(); {
		case artifact == typeNotationSignature:
			m.Class = NotationSignature
			return
		case doc.MediaType == typeArtifactManifest: // the other tools make none
		case artifact == typeCosignSignature:
			m.Class = CosignSignature
			return
		case artifact == typeSigstoreBundle:
			m.Class = SigstoreBundle
			return
		}
		if m.ArtifactType != "" || doc.Manifests == nil && !slices.Contains(configTypes, m.ConfigMediaType) {
			m.Class = Referrer
		}
	}
	switch {
	case m.layersAre(typeSimpleSigning):
		m.Class = SimpleSigning
	case m.layersAre(typeDSSE, typeInToto):
		m.Class = Attestation
	}
}

// layersAre reports whether there are layers, all of one of the types.
func (m *Manifest) layersAre(types ...string) bool {
	for i := range m.Layers {
		if !slices.Contains(types, m.Layers[i].MediaType) {
			return false
		}
	}
	return len(m.Layers) > 0
}
