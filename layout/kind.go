package layout

import (
	"slices"
	"unique"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

// Class is what a manifest is, by its own bytes.
type Class uint8

// The classes. Callers store these numbers: never renumber them; what changes
// their meaning changes the epoch of whoever stores them.
const (
	Unclassified      Class = 0
	ImageManifest     Class = 1 // also Helm charts and other artifacts without subject
	ImageIndex        Class = 2
	CosignSignature   Class = 3 // subject, artifact type of a cosign signature
	SigstoreBundle    Class = 4 // subject, artifact type of a bundle; may hold an attestation
	NotationSignature Class = 5 // subject, artifact type of a notation signature
	SimpleSigning     Class = 6 // only simple signing layers: what .sig tags point to
	Attestation       Class = 7 // only DSSE or in-toto layers, whatever points to it
	Referrer          Class = 8 // has a subject, and is none of the above
	Malformed         Class = 9
	Excessive         Class = 10 // nested too deep, or too many members, layers or children
)

var classNames = []string{
	"unclassified", "image-manifest", "image-index", "cosign-signature", "sigstore-bundle",
	"notation-signature", "simple-signing", "attestation", "referrer", "malformed", "excessive",
}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "class of another version"
}

// carrier is how a manifest of the class says that it is a signature, or 0.
func (c Class) carrier() trust.Carrier {
	switch c {
	case CosignSignature:
		return trust.CosignReferrer
	case SigstoreBundle:
		return trust.CosignBundle
	case NotationSignature:
		return trust.NotationReferrer
	}
	return 0
}

// Carries says how a manifest carries signatures of a subject or attestations about it, when
// something in the repository points from the one to the other: its own bytes decide, and
// what they leave open is a signature by a tag.
func (m *Manifest) Carries(subject trust.Digest) trust.Carrier {
	switch c := m.Class.carrier(); {
	case c != 0 && m.Subject == subject:
		return c
	case m.Class == Attestation:
		return trust.Attestations
	}
	return trust.CosignTag
}

// signature reports whether a manifest of the class is usually a signature.
func (c Class) signature() bool { return c == SimpleSigning || c.carrier() != 0 }

// Kind is what a manifest is, by its own bytes alone: the same in every
// repository, and therefore worth remembering by digest. It is plain data.
type Kind struct {
	Class Class
	// MediaType is the body's own, empty if it has none.
	MediaType string
	// Size is the real one, in bytes.
	Size int64
	// Subject is zero when there is none.
	Subject trust.Digest
	// Children are those of an index, as it lists them.
	Children []Child
	// Skipped counts children that cannot be named: no digest, a negative size.
	Skipped int
	// Ambiguous is set when two readers could take the bytes for two things: a
	// member given twice, a manifest that is an index as well, a media type
	// that its content contradicts.
	Ambiguous bool
}

// Child is one entry of an index, as the index describes it.
type Child struct {
	Digest    trust.Digest
	MediaType string
	Size      int64
	// Platform is "os/architecture" or "os/architecture/variant"; may be empty.
	Platform string
	// Attestation is set when the index says that the child is one (BuildKit), and About
	// what it says it is about; zero if it does not.
	Attestation bool
	About       trust.Digest
	// Foreign is the digest as the index has it, if it is of another algorithm than
	// SHA-256; Digest then only stands for it.
	Foreign string
}

// Flaw returns why a manifest of this kind cannot be relied on, whoever has
// stored it where: ambiguous, malformed, limit-exceeded, or "".
func (k Kind) Flaw() trust.Reason {
	switch {
	case k.Class == Malformed:
		return trust.Malformed
	case k.Class == Excessive:
		return trust.LimitExceeded
	case k.Ambiguous:
		return trust.Ambiguous
	}
	return ""
}

// served is the media type by which a registry without descriptors gives out a manifest
// whose body has none.
func (k Kind) served() string {
	switch {
	case k.Class == ImageIndex:
		return ocispec.MediaTypeImageIndex
	case k.Class == Unclassified, k.Flaw() != "":
		return ""
	}
	return ocispec.MediaTypeImageManifest
}

// imageByItself reports whether the manifest is an image unless a tag says
// otherwise.
func (k Kind) imageByItself() bool { return k.Class == ImageManifest || k.Class == ImageIndex }

// imageAsChild reports whether the manifest is an image when an image index
// lists it. A broken one is: the index has a child that cannot be read.
func (k Kind) imageAsChild() bool {
	return k.imageByItself() || k.Class == Unclassified || k.Class == Malformed || k.Class == Excessive
}

// Artifact and media types that decide what a manifest is. The first three are
// the carriers of cosign's SIGNATURE_SPEC and BUNDLE_SPEC, and of the Notary
// Project signature specification.
const (
	typeCosignSignature   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	typeSigstoreBundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeNotationSignature = "application/vnd.cncf.notary.signature"

	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeDSSE          = "application/vnd.dsse.envelope.v1+json"
	typeInToto        = "application/vnd.in-toto+json"

	// The manifest of artifacts that image-spec v1.1 had until its release candidate 3:
	// notation's first versions have made them.
	typeArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json"

	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

var (
	indexTypes    = []string{ocispec.MediaTypeImageIndex, typeDockerIndex}
	manifestTypes = []string{ocispec.MediaTypeImageManifest, typeDockerManifest, typeArtifactManifest}
	configTypes   = []string{ocispec.MediaTypeImageConfig, typeDockerConfig}
)

// interned returns a common string instead of a copy of it: there is one media
// type for each of a million digests, and they are all the same four. Somebody's own
// types are held once each too.
func interned(s string) string {
	for _, known := range [][]string{manifestTypes, indexTypes} {
		if i := slices.Index(known, s); i >= 0 {
			return known[i]
		}
	}
	return unique.Make(s).Value()
}
