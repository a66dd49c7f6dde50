package cache

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// Image is the answer about one image, in the names of zot's GraphQL.
type Image struct {
	RepoName      string
	Tag           string
	Digest        trust.Digest
	MediaType     string
	IsSigned      bool
	AsOf          time.Time
	SignatureInfo []Signature
	// Manifests are an index's children, each with its own signatures:
	// nothing is inherited. A single image lists itself.
	Manifests []Manifest
}

// Manifest is one child of an index, or the single image itself.
type Manifest struct {
	Digest        trust.Digest
	Platform      string `json:",omitempty"`
	IsSigned      bool
	SignatureInfo []Signature
}

// Signature is the answer about one signature; a manifest with several cosign
// layers gives several, in layer order.
type Signature struct {
	Tool      trust.Tool
	IsTrusted bool
	// Author is the PEM text of the key file (cosign) or the subject of the
	// leaf certificate (notation); empty unless the signer is in force.
	Author            string
	Status            trust.Status
	Reason            trust.Reason
	Notes             []trust.Note
	Digest            trust.Digest // of the signature's manifest
	Layer             int
	Format            trust.Format
	SignerFingerprint trust.Digest
	// Detail says more of the reason, in one sentence for people; often empty.
	Detail     string
	ValidFrom  *time.Time
	ValidUntil *time.Time
	VerifiedAt *time.Time
}

// Code folds the image to its exit code; see [trust.Fold].
func (i *Image) Code() int {
	return trust.Fold(i.statuses())
}

// State names the image's state in a word: trusted, untrusted, expired,
// unknown, pending or unsigned.
func (i *Image) State() string {
	return stateOf(i.statuses())
}

func (i *Image) statuses() []trust.Status {
	statuses := make([]trust.Status, len(i.SignatureInfo))
	for n := range i.SignatureInfo {
		statuses[n] = i.SignatureInfo[n].Status
	}
	return statuses
}

// stateOf folds the statuses of an image's signatures to a word.
func stateOf(statuses []trust.Status) string {
	switch code := trust.Fold(statuses); code {
	case trust.ExitTrusted:
		return string(trust.Trusted)
	case trust.ExitUnsigned:
		return Unsigned
	default:
		best := trust.Status("")
		for _, s := range statuses {
			undecided := s == trust.Unknown || s == trust.Pending
			if undecided == (code == trust.ExitUndecided) && (best == "" || s == trust.Expired) {
				best = s
			}
		}
		return string(best)
	}
}

// Unsigned is the state of an image without a signature; the other states are
// named as the statuses are.
const Unsigned = "unsigned"

// The snapshot resolves the numbers in verdicts by its trust file; authors
// come from the data files.

func (s *Snapshot) signer(id uint32) trust.Signer   { return s.g.trust.signers[id] }
func (s *Snapshot) policy(id uint32) trust.PolicyID { return s.g.trust.policies[id] }

func (s *Snapshot) author(id uint32) string {
	body, ok, err := s.get(inAuthors, id32(id))
	if !ok || err != nil {
		return ""
	}
	return string(body)
}

// answer joins an image record with what is in force.
func (s *Snapshot) answer(repository string, d trust.Digest, body []byte, children bool) (Image, error) {
	if err := s.record.decode(body); err != nil {
		return Image{}, err
	}
	img := Image{RepoName: repository, Digest: d, MediaType: s.mediaType(s.record.mediaType), AsOf: s.asOf}
	unlisted, err := false, error(nil)
	if s.anyUnlisted() {
		if _, unlisted, err = s.get(inUnlisted, []byte(repository)); err != nil {
			return Image{}, err
		}
	}
	if img.SignatureInfo, err = s.signatures(repository, s.record.signatures, unlisted); err != nil {
		return Image{}, err
	}
	img.IsSigned = len(img.SignatureInfo) > 0
	if !children {
		return img, nil
	}
	if len(s.record.children) == 0 {
		img.Manifests = []Manifest{{Digest: d, IsSigned: img.IsSigned, SignatureInfo: img.SignatureInfo}}
		return img, nil
	}
	img.Manifests, err = s.manifests(repository, s.record.children)
	return img, err
}

// manifests answers for the children of an index, each with its own
// signatures. The children's records take the place of the index's.
func (s *Snapshot) manifests(repository string, encoded [][]byte) ([]Manifest, error) {
	children := make([]*cachepb.Child, 0, len(encoded))
	for _, b := range encoded {
		c := &cachepb.Child{}
		if err := proto.Unmarshal(b, c); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		children = append(children, c)
	}
	out := make([]Manifest, 0, len(children))
	for _, c := range children {
		m := Manifest{Platform: c.Platform, SignatureInfo: []Signature{}}
		copy(m.Digest[:], c.Digest)
		child, ok, err := s.image(repository, m.Digest, false)
		if err != nil {
			return nil, err
		}
		if ok {
			m.IsSigned, m.SignatureInfo = child.IsSigned, child.SignatureInfo
		}
		out = append(out, m)
	}
	return out, nil
}

// mediaType avoids a copy for the usual ones.
func (s *Snapshot) mediaType(b []byte) string {
	for _, known := range []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json"} {
		if string(b) == known {
			return known
		}
	}
	return string(b)
}

// signatures answers for every layer of every signature whose tool is on.
func (s *Snapshot) signatures(repository string, encoded [][]byte, unlisted bool) ([]Signature, error) {
	n := 0
	for _, b := range encoded {
		n += countVerdicts(b)
	}
	out := make([]Signature, 0, n)
	for _, b := range encoded {
		if err := s.signature.decode(b); err != nil {
			return nil, err
		}
		tool := s.signature.tool
		if !s.g.trust.inForce.Enabled(tool) {
			continue
		}
		for layer, b := range s.signature.verdicts {
			if err := s.verdict.decode(b, s); err != nil {
				return nil, err
			}
			out = append(out, NewSignature(tool, s.signature.digest, layer, s.verdict.Format, s.verdict.VerifiedAt,
				s.decision(repository, unlisted)))
		}
	}
	return out, nil
}

// decision joins the verdict just decoded with what is in force; what is wrong
// with the answer as a whole, or with the place, comes first.
func (s *Snapshot) decision(repository string, unlisted bool) trust.Decision {
	overridden := s.verdict.problem
	if unlisted {
		overridden = trust.IOError
	}
	if s.stale {
		overridden = trust.Stale
	}
	return join(s.g.trust.inForce, repository, s.signature.tool, &s.verdict.Verdict, overridden, s.signature.policyChanged, s.now)
}

// join decides one verdict, unless something overrides it.
func join(f *trust.InForce, repository string, tool trust.Tool, v *trust.Verdict, overridden trust.Reason, policyChanged bool, now time.Time) trust.Decision {
	if overridden != "" {
		return trust.Decision{Status: overridden.Status(), Reason: overridden}
	}
	if v.VerifiedAt == 0 { // nothing is known of this layer
		v = nil
		if policyChanged {
			v = &trust.Verdict{} // made under a policy that is not this one
		}
	}
	return f.Decide(repository, tool, v, now)
}

// NewSignature makes the answer about one signature layer from a decision.
// verifiedAt is Unix seconds, 0 for never.
func NewSignature(tool trust.Tool, manifest trust.Digest, layer int, f trust.Format, verifiedAt int64, d trust.Decision) Signature {
	sig := Signature{Tool: tool, IsTrusted: d.Status == trust.Trusted, Author: d.Author, Status: d.Status, Reason: d.Reason,
		Notes: []trust.Note{}, Digest: manifest, Layer: layer, Format: f, SignerFingerprint: d.Signer.Fingerprint, Detail: d.Detail}
	if len(d.Notes) > 0 {
		sig.Notes = d.Notes
	}
	if verifiedAt != 0 {
		sig.VerifiedAt = pointer(time.Unix(verifiedAt, 0).UTC())
	}
	if !d.From.IsZero() {
		sig.ValidFrom = pointer(d.From)
	}
	if !d.Until.IsZero() {
		sig.ValidUntil = pointer(d.Until)
	}
	return sig
}

func pointer(t time.Time) *time.Time { return &t }
