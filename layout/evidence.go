package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"trust-worker/trust"
)

// Signatures and attestations as what may be fetched by whoever may not fetch an image: a
// gate lets them pass, so that they can be looked at before the image is trusted.

// Media types of the layers of signatures and attestations, besides those that decide what
// a manifest is: the Notary Project's two envelopes.
const (
	typeJWS  = "application/jose+json"
	typeCOSE = "application/cose"
)

// evidenceLimits are the media types that a layer of a signature or an attestation may have,
// and how many bytes it may have then.
var evidenceLimits = map[string]int64{
	typeSimpleSigning: trust.MaxBlob, typeSigstoreBundle: maxAttestation, typeDSSE: maxAttestation,
	typeJWS: trust.MaxBlob, typeCOSE: trust.MaxBlob,
}

const maxAttestation = 32 << 20

// inertConfigs are media types of a config that make a manifest no image for any container
// runtime. Docker takes others for an image's, "application/json" and none at all among them.
var inertConfigs = []string{"application/vnd.oci.empty.v1+json", typeNotationSignature, typeCosignSignature, typeSigstoreBundle}

// Evidence reports whether a manifest is a signature or an attestation and nothing that a
// container runtime could run: it has layers, each has the media type of simple signing, a
// bundle, an envelope of notation or DSSE, and the config is none of an image. The artifact
// type, the subject and tags count for nothing.
//
// cosign gives its tagged signatures an image's config. Runtimes may take a layer for an
// archive whatever its media type; of such a manifest each layer's bytes are therefore JSON,
// in which no program fits. Errors are those of [Repository.Manifest] and [Repository.Blob].
func (p *Repository) Evidence(ctx context.Context, d trust.Digest) (bool, error) {
	m, err := p.manifest(ctx, d)
	if err != nil || m.Flaw() != "" || len(m.Layers) == 0 || len(m.Children) > 0 || m.Skipped > 0 {
		return false, err
	}
	for i := range m.Layers {
		if limit, ok := evidenceLimits[m.Layers[i].MediaType]; !ok || m.Layers[i].Size > limit {
			return false, nil
		}
	}
	if slices.Contains(inertConfigs, m.ConfigMediaType) || m.MediaType == typeArtifactManifest {
		return true, nil
	}
	for i := range m.Layers {
		l := &m.Layers[i]
		blob, err := trust.ParseDigest(string(l.Digest))
		if err != nil || l.MediaType == typeCOSE { // of another algorithm, or no JSON
			return false, nil
		}
		b, err := p.Blob(ctx, blob, l.Size, evidenceLimits[l.MediaType])
		if err != nil {
			return false, err
		}
		if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) || !json.Valid(b) {
			return false, nil
		}
	}
	return true, nil
}

// IsIndex reports whether a manifest is an index, by its own bytes. Errors are those of
// [Repository.Manifest].
func (p *Repository) IsIndex(ctx context.Context, d trust.Digest) (bool, error) {
	m, err := p.manifest(ctx, d)
	return err == nil && m.Flaw() == "" && m.Class == ImageIndex, err
}

// Companions are the tags under which signatures and the like are kept for a manifest
// (sha256-<hex>.sig, .att and .sbom, and sha256-<hex>), with what they name.
type Companions struct {
	Stamp Stamp // as that of [Contents]
	tags  map[companion]trust.Digest
}

type companion struct {
	use     tagUse
	subject trust.Digest
}

// Companions reads them from index.json; a tag that names two digests is not among them.
// Errors are those of [Repository.Contents].
func (p *Repository) Companions(ctx context.Context) (*Companions, error) {
	index, stamp, err := p.readIndex(ctx)
	if err != nil {
		return nil, failed(p.name, err)
	}
	c := &Companions{Stamp: stamp, tags: map[companion]trust.Digest{}}
	n := 0
	err = parseIndex(index, func(raw []byte) error {
		if n++; n > p.root.limits.Descriptors {
			return reasonf(trust.LimitExceeded, "more than %d descriptors", p.root.limits.Descriptors)
		}
		e, bad := parseEntry(raw)
		if bad != nil || e.tag == "" || e.use <= tagOrdinary {
			return ctx.Err()
		}
		key := companion{e.use, e.subject}
		if first, again := c.tags[key]; again && first != e.digest || e.foreign != "" {
			c.tags[key] = trust.Digest{}
			return nil
		}
		c.tags[key] = e.digest
		return nil
	})
	if err != nil {
		return nil, failed(p.name, err)
	}
	return c, nil
}

// Len is how many tags there are.
func (c *Companions) Len() int { return len(c.tags) }

// Resolve returns what a tag names. referrers is set if the tag is sha256-<hex>, which keeps
// an index of referrers (OCI distribution-spec v1.1, "Referrers Tag Schema").
func (c *Companions) Resolve(tag string) (d trust.Digest, referrers, ok bool) {
	use, subject := parseTag(tag)
	d = c.tags[companion{use, subject}]
	return d, use == tagReferrers, d != (trust.Digest{})
}

// IsCompanion reports whether a tag has the form of those of [Companions].
func IsCompanion(tag string) bool {
	use, _ := parseTag(tag)
	return use > tagOrdinary
}
