package graph

import (
	"strings"

	"trust-worker/cache"
	"trust-worker/server/graph/schema"
	"trust-worker/trust"
)

func some[T any](v T) *T { return &v }

// summaryOf is an image in zot's form.
func summaryOf(img *cache.Image) *schema.ImageSummary {
	s := &schema.ImageSummary{RepoName: some(img.RepoName), Tag: some(img.Tag), Digest: some(img.DigestText()), MediaType: some(img.MediaType),
		IsSigned: some(img.IsSigned), SignatureInfo: signaturesOf(img.SignatureInfo), Referrers: []*schema.Referrer{},
		IsDeletable: some(false)}
	for i := range img.Manifests {
		s.Manifests = append(s.Manifests, manifestOf(&img.Manifests[i]))
	}
	return s
}

// Two things that are not known here, and that zot's client cannot do without: it
// stops at a digest or a repository's size that it cannot parse.
const (
	noDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	noSize   = "0"
)

func manifestOf(m *cache.Manifest) *schema.ManifestSummary {
	return &schema.ManifestSummary{Digest: some(m.DigestText()), ConfigDigest: some(noDigest), IsSigned: some(m.IsSigned), SignatureInfo: signaturesOf(m.SignatureInfo),
		Platform: platformOf(m.Platform), Referrers: []*schema.Referrer{}}
}

// platformOf splits "linux/arm64/v8"; zot puts the variant into the architecture.
func platformOf(s string) *schema.Platform {
	if s == "" {
		return nil
	}
	os, arch, _ := strings.Cut(s, "/")
	return &schema.Platform{Os: some(os), Arch: some(arch)}
}

// signaturesOf lists cosign's before notation's, as zot's documentation does.
func signaturesOf(sigs []cache.Signature) []*schema.SignatureSummary {
	out := make([]*schema.SignatureSummary, 0, len(sigs))
	for i := range byTool(sigs) {
		sig := &sigs[i]
		out = append(out, &schema.SignatureSummary{Tool: some(string(sig.Tool)), IsTrusted: some(sig.IsTrusted), Author: some(sig.Author)})
	}
	return out
}

// byTool yields the indexes of sigs, those of cosign first.
func byTool(sigs []cache.Signature) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for _, first := range []bool{true, false} {
			for i := range sigs {
				if (sigs[i].Tool == trust.Cosign) == first && !yield(i) {
					return
				}
			}
		}
	}
}

// repoOf is a repository in zot's form. newest may be nil.
func repoOf(name string, newest *cache.Image) *schema.RepoSummary {
	s := &schema.RepoSummary{Name: some(name), Size: some(noSize), Platforms: []*schema.Platform{}, Vendors: []*string{}, IsBookmarked: some(false), IsStarred: some(false)}
	if newest == nil {
		return s
	}
	s.NewestImage = summaryOf(newest)
	seen := map[string]bool{}
	for _, m := range newest.Manifests {
		if p := platformOf(m.Platform); p != nil && !seen[m.Platform] {
			seen[m.Platform] = true
			s.Platforms = append(s.Platforms, p)
		}
	}
	return s
}

func trustOf(img *cache.Image, generation string) *schema.TrustImage {
	t := &schema.TrustImage{RepoName: img.RepoName, Tag: img.Tag, Digest: img.DigestText(), MediaType: img.MediaType, State: img.State(),
		AsOf: img.AsOf, Generation: generation, SignaturesOmitted: img.SignaturesOmitted, Signatures: trustSignatures(img.SignatureInfo), Manifests: []*schema.TrustManifest{},
		Attestations: trustAttestations(img.Attestations), AttestationsOmitted: img.AttestationsOmitted}
	for _, m := range img.Manifests {
		t.Manifests = append(t.Manifests, &schema.TrustManifest{Digest: m.DigestText(), Platform: m.Platform, Signatures: trustSignatures(m.SignatureInfo)})
	}
	return t
}

func trustAttestations(all []cache.Attestation) []*schema.TrustAttestation {
	out := make([]*schema.TrustAttestation, 0, len(all))
	for i := range all {
		a := &all[i]
		t := &schema.TrustAttestation{PredicateType: a.PredicateType, Format: string(a.Format), Status: string(a.Status), Reason: string(a.Reason), Author: a.Author,
			SignerFile: a.SignerFile, Issuer: a.Issuer, Subject: a.Subject, Root: a.Root, Digest: a.Digest.String(), Layer: a.Layer, Size: int(a.Size), SignedAt: a.SignedAt, Detail: a.Detail}
		if a.SignerFingerprint != (trust.Digest{}) {
			t.SignerFingerprint = a.SignerFingerprint.String()
		}
		out = append(out, t)
	}
	return out
}

func trustSignatures(sigs []cache.Signature) []*schema.TrustSignature {
	out := make([]*schema.TrustSignature, 0, len(sigs))
	for i := range sigs {
		sig := &sigs[i]
		t := &schema.TrustSignature{Tool: string(sig.Tool), IsTrusted: sig.IsTrusted, Author: sig.Author, Status: string(sig.Status),
			Reason: string(sig.Reason), SignerFile: sig.SignerFile, Detail: sig.Detail, Notes: []string{}, Digest: sig.Digest.String(), Layer: sig.Layer, Format: string(sig.Format),
			Issuer: sig.Issuer, Subject: sig.Subject, SignedAt: sig.SignedAt, Root: sig.Root, Since: sig.Since, ValidFrom: sig.ValidFrom, ValidUntil: sig.ValidUntil, VerifiedAt: sig.VerifiedAt}
		if sig.SignerFingerprint != (trust.Digest{}) {
			t.SignerFingerprint = sig.SignerFingerprint.String()
		}
		for _, n := range sig.Notes {
			t.Notes = append(t.Notes, string(n))
		}
		out = append(out, t)
	}
	return out
}
