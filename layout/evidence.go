package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

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

// evidenceTypes are the media types that a layer of a signature or an attestation may have.
var evidenceTypes = []string{typeSimpleSigning, typeSigstoreBundle, typeDSSE, typeJWS, typeCOSE}

// MaxEvidence bounds the bytes of all layers of a signature or an attestation.
const MaxEvidence = 32 << 20

// ErrLarge is returned for a manifest whose layers are more than the caller wants read.
var ErrLarge = errors.New("its layers are larger than what is to be read")

// Evidence reports whether a manifest is a signature or an attestation and nothing that a
// container runtime could run. It has layers, each of a media type of simple signing, a
// bundle, an envelope of notation or DSSE, and each is what that says: a JSON object or, for
// COSE, a tagged COSE_Sign1 (RFC 9052, section 4.2), and no archive. The artifact type, the
// subject, the config and tags count for nothing: runtimes take a layer for an archive
// whatever its media type, and some a config for an image's.
//
// If the layers have more than most bytes it returns ErrLarge. Other errors are those of
// [Repository.Manifest] and [Repository.Blob].
func (p *Repository) Evidence(ctx context.Context, d trust.Digest, most int64) (bool, error) {
	m, err := p.parsed(ctx, d)
	if err != nil || m.Flaw() != "" || m.Class == ImageIndex || len(m.Layers) == 0 || m.Embeds {
		return false, err
	}
	kinds, total := map[trust.Digest]string{}, int64(0)
	for i := range m.Layers {
		l := &m.Layers[i]
		blob, err := trust.ParseDigest(string(l.Digest))
		if kind, again := kinds[blob]; err != nil || !slices.Contains(evidenceTypes, l.MediaType) || l.Size < 0 || l.Size > MaxEvidence || again && kind != l.MediaType {
			return false, nil
		} else if !again {
			kinds[blob] = l.MediaType
			total += l.Size
		}
	}
	switch {
	case total > MaxEvidence:
		return false, nil
	case total > most:
		return false, ErrLarge
	}
	for i := range m.Layers {
		blob, _ := trust.ParseDigest(string(m.Layers[i].Digest)) // it was parsed above
		kind, ok := kinds[blob]
		if !ok {
			continue // read already
		}
		delete(kinds, blob)
		b, err := p.Blob(ctx, blob, m.Layers[i].Size, MaxEvidence)
		if err != nil || !isEvidence(kind, b) {
			return false, err
		}
	}
	return true, nil
}

// isEvidence reports whether bytes are of the kind that a media type says, and no archive.
func isEvidence(mediaType string, b []byte) bool {
	if holdsTar(b) {
		return false
	}
	if mediaType == typeCOSE {
		return bytes.HasPrefix(b, []byte{0xd2, 0x84}) // tag 18, an array of four
	}
	return bytes.HasPrefix(b, []byte("{")) && json.Valid(b)
}

// holdsTar reports whether bytes hold the header of a tar archive, of any format: a block of
// 512 bytes with its own checksum in it. A header can be written in printable characters, and
// so within JSON.
func holdsTar(b []byte) bool {
	const block, at, width = 512, 148, 8
	for ; len(b) >= block; b = b[block:] {
		field := b[at : at+width]
		signed, unsigned := int64(width*' '), int64(width*' ') // the field counts as spaces
		for i, c := range b[:block] {
			if i < at || i >= at+width {
				signed += int64(int8(c))
				unsigned += int64(c)
			}
		}
		// Readers differ in what may stand around the digits: any run of them counts.
		for _, run := range bytes.FieldsFunc(field, func(r rune) bool { return r < '0' || r > '7' }) {
			if sum, err := strconv.ParseInt(string(run), 8, 64); err == nil && (sum == signed || sum == unsigned) {
				return true
			}
		}
	}
	return false
}

// IsReferrers reports whether a manifest is an index, by its own bytes, and says no more of
// its children than where to ask for them: an index may embed them, or name other places.
// Errors are those of [Repository.Manifest].
func (p *Repository) IsReferrers(ctx context.Context, d trust.Digest) (bool, error) {
	m, err := p.parsed(ctx, d)
	return err == nil && m.Flaw() == "" && m.Class == ImageIndex && !m.Embeds, err
}

// Companions are the tags under which signatures and the like are kept for a manifest
// (sha256-<hex>.sig, .att and .sbom, and sha256-<hex>), with what they name, of a repository
// in which that is found out for all together.
type Companions struct {
	stamp Stamp // of the index.json; zero if it was changing
	tags  map[companion]trust.Digest
}

type companion struct {
	use     tagUse
	subject trust.Digest
}

// Len is how many tags there are.
func (c *Companions) Len() int { return len(c.tags) }

// Companion returns what a tag names that [IsCompanion], zero if there is no such tag or it
// names two manifests. referrers is set if the tag is sha256-<hex>, which keeps
// an index of referrers (OCI distribution-spec v1.1, "Referrers Tag Schema"). last is what an
// earlier call has returned, or nil; it is asked only if it is still so.
// Errors are those of [Repository.Contents].
func (p *Repository) Companion(ctx context.Context, tag string, last *Companions) (d trust.Digest, referrers bool, next *Companions, err error) {
	use, _ := parseTag(tag)
	if use <= tagOrdinary {
		return trust.Digest{}, false, last, nil
	}
	d, next, err = p.companion(ctx, tag, last)
	if err != nil {
		return trust.Digest{}, false, nil, failed(p.name, err)
	}
	return d, use == tagReferrers, next, nil
}

// IsCompanion reports whether a tag has the form of those of [Companions].
func IsCompanion(tag string) bool {
	use, _ := parseTag(tag)
	return use > tagOrdinary
}
