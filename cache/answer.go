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
	ValidFrom         *time.Time
	ValidUntil        *time.Time
	VerifiedAt        *time.Time
}

// Code folds the image to its exit code; see [trust.Fold].
func (i *Image) Code() int {
	statuses := make([]trust.Status, len(i.SignatureInfo))
	for n := range i.SignatureInfo {
		statuses[n] = i.SignatureInfo[n].Status
	}
	return trust.Fold(statuses)
}

// State names the image's state in a word: trusted, untrusted, expired,
// unknown, pending or unsigned.
func (i *Image) State() string {
	switch code := i.Code(); code {
	case trust.ExitTrusted:
		return string(trust.Trusted)
	case trust.ExitUnsigned:
		return "unsigned"
	default:
		best := trust.Status("")
		for _, s := range i.SignatureInfo {
			undecided := s.Status == trust.Unknown || s.Status == trust.Pending
			if undecided == (code == trust.ExitUndecided) && (best == "" || s.Status == trust.Expired) {
				best = s.Status
			}
		}
		return string(best)
	}
}

func unmarshal(key, body []byte, m proto.Message) error {
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("%w under key %.40x: %w", ErrDamaged, key, err)
	}
	return nil
}

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
func (s *Snapshot) answer(repository string, d trust.Digest, p *cachepb.Image, children bool) (Image, error) {
	img := Image{RepoName: repository, Digest: d, MediaType: p.MediaType, AsOf: s.asOf}
	unlisted, err := s.unlisted(repository)
	if err != nil {
		return Image{}, err
	}
	img.SignatureInfo = s.signatures(repository, p, unlisted)
	img.IsSigned = len(img.SignatureInfo) > 0
	if !children {
		return img, nil
	}
	if len(p.Children) == 0 {
		img.Manifests = []Manifest{{Digest: d, IsSigned: img.IsSigned, SignatureInfo: img.SignatureInfo}}
		return img, nil
	}
	img.Manifests = make([]Manifest, 0, len(p.Children))
	for _, c := range p.Children {
		var cd trust.Digest
		copy(cd[:], c.Digest)
		child, ok, err := s.image(repository, cd, false)
		if err != nil {
			return Image{}, err
		}
		m := Manifest{Digest: cd, Platform: c.Platform, SignatureInfo: []Signature{}}
		if ok {
			m.IsSigned, m.SignatureInfo = child.IsSigned, child.SignatureInfo
		}
		img.Manifests = append(img.Manifests, m)
	}
	return img, nil
}

// unlisted reports whether the repository could not be listed lately.
func (s *Snapshot) unlisted(repository string) (bool, error) {
	key := []byte(repository)
	body, ok, err := s.get(inRepositories, key)
	if err != nil || !ok {
		return true, err // an image of no repository: nothing is known of it
	}
	if len(body) == 0 {
		return false, nil
	}
	var p cachepb.Repository
	if err := unmarshal(key, body, &p); err != nil {
		return true, err
	}
	return p.Unlisted, nil
}

// signatures answers for every layer of every signature whose tool is on.
func (s *Snapshot) signatures(repository string, p *cachepb.Image, unlisted bool) []Signature {
	out := make([]Signature, 0, len(p.Signatures))
	for _, ps := range p.Signatures {
		tool := decodeCode(toolCodes, ps.Tool)
		if !s.g.trust.inForce.Enabled(tool) {
			continue
		}
		for layer, pv := range ps.Verdicts {
			var d trust.Digest
			copy(d[:], ps.Digest)
			out = append(out, NewSignature(tool, d, layer, decodeCode(formatCodes, pv.Format), pv.VerifiedAt,
				s.decision(repository, tool, ps, pv, unlisted)))
		}
	}
	return out
}

func (s *Snapshot) decision(repository string, tool trust.Tool, ps *cachepb.Signature, pv *cachepb.Verdict, unlisted bool) trust.Decision {
	overridden := trust.Reason("")
	switch {
	case s.stale:
		overridden = trust.Stale
	case unlisted:
		overridden = trust.IOError
	case pv.Problem != 0:
		overridden = decodeReason(pv.Problem)
	}
	if overridden != "" {
		return trust.Decision{Status: overridden.Status(), Reason: overridden}
	}
	if pv.VerifiedAt == 0 { // nothing is known of this layer
		if !ps.PolicyChanged {
			return s.g.trust.inForce.Decide(repository, tool, nil, s.now)
		}
		pv = &cachepb.Verdict{} // made under a policy that is not this one
	}
	v := decodeVerdict(pv, s)
	return s.g.trust.inForce.Decide(repository, tool, &v, s.now)
}

// NewSignature makes the answer about one signature layer from a decision.
// verifiedAt is Unix seconds, 0 for never.
func NewSignature(tool trust.Tool, manifest trust.Digest, layer int, f trust.Format, verifiedAt int64, d trust.Decision) Signature {
	sig := Signature{Tool: tool, IsTrusted: d.Status == trust.Trusted, Author: d.Author, Status: d.Status, Reason: d.Reason,
		Notes: []trust.Note{}, Digest: manifest, Layer: layer, Format: f, SignerFingerprint: d.Signer.Fingerprint}
	if len(d.Notes) > 0 {
		sig.Notes = d.Notes
	}
	if verifiedAt != 0 {
		t := time.Unix(verifiedAt, 0).UTC()
		sig.VerifiedAt = &t
	}
	if !d.From.IsZero() {
		sig.ValidFrom = &d.From
	}
	if !d.Until.IsZero() {
		sig.ValidUntil = &d.Until
	}
	return sig
}
