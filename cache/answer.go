package cache

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Image is the answer about one image, in the names of zot's GraphQL. What it lists
// is bounded, see [MaxAnswer]; its state is that of all its signatures.
type Image struct {
	RepoName string
	Tag      string
	Digest   trust.Digest
	// Foreign is the digest that storage has, if it is no SHA-256: Digest only stands
	// for it, and the image reads unknown, unsupported-digest.
	Foreign       string `json:"-"`
	MediaType     string
	IsSigned      bool
	AsOf          time.Time
	SignatureInfo []Signature
	// SignaturesOmitted is how many more there are than SignatureInfo has.
	SignaturesOmitted int `json:",omitempty"`
	// Manifests are an index's children, each with its own signatures:
	// nothing is inherited. A single image lists itself.
	Manifests []Manifest
	// Attestations are about the image, up to 200, and AttestationsOmitted how many more
	// there are. They are no signatures and make nothing trusted.
	Attestations        []Attestation `json:",omitempty"`
	AttestationsOmitted int           `json:",omitempty"`

	omitted omissions
}

// Manifest is one child of an index, or the single image itself.
type Manifest struct {
	Digest            trust.Digest
	Foreign           string `json:"-"` // as for an Image
	Platform          string `json:",omitempty"`
	IsSigned          bool
	SignatureInfo     []Signature
	SignaturesOmitted int `json:",omitempty"`

	omitted omissions
}

// Signature is the answer about one signature; a manifest with several cosign
// layers gives several, in layer order.
type Signature struct {
	Tool      trust.Tool
	IsTrusted bool
	// Author is the PEM text of the key file or the Subject (cosign), or the subject
	// of the leaf certificate (notation); empty unless the signer is in force.
	Author            string
	Status            trust.Status
	Reason            trust.Reason
	Notes             []trust.Note
	Digest            trust.Digest // of the signature's manifest
	Layer             int
	Format            trust.Format
	SignerFingerprint trust.Digest
	// SignerFile is the file that holds the signer: "_cosign/team.pub".
	SignerFile string
	// Issuer and Subject say who a keyless signature's certificate was issued to,
	// SignedAt is the earliest time that was proven, and Root the file of the trusted
	// root. They are empty for keys and for notation.
	Issuer   string
	Subject  string
	SignedAt *time.Time
	Root     string
	// Detail says more of the reason, in one sentence for people; often empty.
	Detail string
	// Since is since when the answer is what it is: see [trust.InForce.Since]; nil while
	// nothing is decided.
	Since      *time.Time
	ValidFrom  *time.Time
	ValidUntil *time.Time
	VerifiedAt *time.Time
}

// Code folds the image to its exit code; see [trust.Fold].
func (i *Image) Code() int { return trust.Fold(i.statuses()) }

// State names the image's state in a word: trusted, untrusted, expired,
// unknown, pending or unsigned.
func (i *Image) State() string { return stateOf(i.statuses()) }

// Manifest is the image as an entry of Manifests, its own or an index's.
func (i *Image) Manifest(platform string) Manifest {
	return Manifest{Digest: i.Digest, Foreign: i.Foreign, Platform: platform, IsSigned: i.IsSigned, SignatureInfo: i.SignatureInfo,
		SignaturesOmitted: i.SignaturesOmitted, omitted: i.omitted}
}

// weight is how many signatures were read for the answer.
func (i *Image) weight() int {
	n := len(i.SignatureInfo) + i.SignaturesOmitted
	for _, m := range i.Manifests {
		n += len(m.SignatureInfo) + m.SignaturesOmitted
	}
	return n
}

// leaveOut counts all signatures among those left out.
func (m *Manifest) leaveOut() {
	m.omitted = slices.Clone(m.omitted) // another entry's as well
	for i := range m.SignatureInfo {
		m.omitted.add(m.SignatureInfo[i].Status, m.SignatureInfo[i].Reason)
	}
	m.SignaturesOmitted += len(m.SignatureInfo)
	m.SignatureInfo = []Signature{}
}

// State is as for an image.
func (m *Manifest) State() string { return m.image().State() }

// Reason is as for an image.
func (m *Manifest) Reason() trust.Reason { return m.image().Reason() }

func (m *Manifest) image() *Image { return &Image{SignatureInfo: m.SignatureInfo, omitted: m.omitted} }

// Reason is that of the first signature that gives the image its state.
func (i *Image) Reason() trust.Reason {
	state := trust.Status(i.State())
	for n := range i.SignatureInfo {
		if sig := &i.SignatureInfo[n]; sig.Status == state {
			return sig.Reason
		}
	}
	for _, o := range i.omitted {
		if o.status == state {
			return o.reason
		}
	}
	return ""
}

// Detail is that of the signature whose reason is the image's; it is often empty.
func (i *Image) Detail() string {
	if i.Foreign != "" {
		return "storage names it by " + i.Foreign
	}
	state := trust.Status(i.State())
	for n := range i.SignatureInfo {
		if sig := &i.SignatureInfo[n]; sig.Status == state {
			return sig.Detail
		}
	}
	return ""
}

// Has reports whether some signature, also of those that are left out, reads the
// reason.
func (i *Image) Has(r trust.Reason) bool {
	for n := range i.SignatureInfo {
		if i.SignatureInfo[n].Reason == r {
			return true
		}
	}
	for _, o := range i.omitted {
		if o.reason == r {
			return true
		}
	}
	return false
}

// Statuses counts the image's signatures by status, those that are left out
// included.
func (i *Image) Statuses() map[trust.Status]int {
	counts := map[trust.Status]int{}
	for n := range i.SignatureInfo {
		counts[i.SignatureInfo[n].Status]++
	}
	for _, o := range i.omitted {
		counts[o.status] += o.n
	}
	return counts
}

// statuses are those of the signatures that are listed, and each one of those left
// out once.
func (i *Image) statuses() []trust.Status {
	statuses := make([]trust.Status, len(i.SignatureInfo), len(i.SignatureInfo)+len(i.omitted))
	for n := range i.SignatureInfo {
		statuses[n] = i.SignatureInfo[n].Status
	}
	for _, o := range i.omitted {
		statuses = append(statuses, o.status)
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

// author is the text under a key. It is read once for as long as the same is asked for.
func (s *Snapshot) author(key []byte) string {
	if s.lastAuthor.text != "" && string(key) == string(s.lastAuthor.key[:]) {
		return s.lastAuthor.text
	}
	body, ok, err := s.get(format.InAuthors, key)
	if !ok || err != nil || len(key) != len(s.lastAuthor.key) {
		return ""
	}
	s.lastAuthor.key, s.lastAuthor.text = format.AuthorKey(key), string(body)
	return s.lastAuthor.text
}

// answer joins an image record with what is in force.
func (s *Snapshot) answer(repository string, d trust.Digest, body []byte, children bool) (Image, error) {
	return s.answerWithin(repository, d, body, children, NewBudget())
}

func (s *Snapshot) answerWithin(repository string, d trust.Digest, body []byte, children bool, budget *Budget) (Image, error) {
	if err := s.record.decode(body); err != nil {
		return Image{}, err
	}
	img := Image{RepoName: repository, Digest: d, MediaType: s.mediaType(s.record.mediaType), AsOf: s.asOf}
	unlisted, err := false, error(nil)
	if s.anyUnlisted() {
		if _, unlisted, err = s.get(format.InUnlisted, []byte(repository)); err != nil {
			return Image{}, err
		}
	}
	if len(s.record.foreign) > 0 {
		NotJudged(&img, string(s.record.foreign))
		if children {
			img.Manifests = []Manifest{img.Manifest("")}
		}
		return img, nil
	}
	unread := s.unread(unlisted)
	l, err := s.signatures(repository, s.record.signatures, unlisted, budget)
	if err != nil {
		return Image{}, err
	}
	img.SignatureInfo, img.SignaturesOmitted, img.omitted = l.Kept, l.Omitted, l.omitted
	img.IsSigned = len(l.Kept)+l.Omitted > 0
	NotRead(&img, unread)
	if !children {
		return img, nil
	}
	if len(s.record.attestations) > 0 {
		if err := s.attestations(&img, unlisted, budget); err != nil {
			return Image{}, err
		}
	}
	if len(s.record.children) == 0 {
		img.Manifests = []Manifest{img.Manifest("")}
		return img, nil
	}
	img.Manifests, err = s.manifests(repository, s.record.children, budget)
	return img, err
}

// manifests answers for the children of an index, each with its own
// signatures. The children's records take the place of the index's. A child that is
// listed again, under another platform, is not read again.
func (s *Snapshot) manifests(repository string, encoded [][]byte, budget *Budget) ([]Manifest, error) {
	children := make([]*cachepb.Child, 0, len(encoded))
	for _, b := range encoded {
		c := &cachepb.Child{}
		if err := proto.Unmarshal(b, c); err != nil {
			return nil, fmt.Errorf("%w: %w", format.ErrDamaged, err)
		}
		children = append(children, c)
	}
	out := make([]Manifest, 0, len(children))
	seen := make(map[trust.Digest]int, len(children))
	for n, c := range children {
		m := Manifest{Platform: c.Platform, Foreign: c.Foreign, SignatureInfo: []Signature{}}
		copy(m.Digest[:], c.Digest)
		if first, again := seen[m.Digest]; again {
			m = out[first]
			m.Platform = c.Platform
			if !budget.spend(m.SignatureInfo) {
				m.leaveOut()
			}
			out = append(out, m)
			continue
		}
		seen[m.Digest] = n
		body, ok, err := s.get(format.InImages, format.ImageKey(repository, m.Digest))
		if err != nil {
			return nil, err
		}
		if ok {
			child, err := s.answerWithin(repository, m.Digest, body, false, budget)
			if err != nil {
				return nil, err
			}
			m = child.Manifest(c.Platform)
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

// signatures answers for every layer of every signature whose tool is on, within
// the budget.
func (s *Snapshot) signatures(repository string, encoded [][]byte, unlisted bool, budget *Budget) (*Listing, error) {
	n := 0
	for _, b := range encoded {
		if err := s.signature.decode(b); err != nil {
			return nil, err
		}
		if s.g.trust.InForce.Enabled(s.signature.tool) {
			n += len(s.signature.verdicts)
		}
	}
	l := &Listing{Kept: make([]Signature, 0, min(n, 64)), budget: budget}
	if n > 0 && !budget.look(n) {
		l.Omitted = n
		l.omitted = omissions{{trust.LimitExceeded.Status(), trust.LimitExceeded, n}}
		return l, nil
	}
	quorum, err := s.quorum(repository, encoded, unlisted)
	if err != nil {
		return nil, err
	}
	for _, b := range encoded {
		if err := s.eachLayer(repository, b, unlisted, quorum, l.Add); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// NewSignature makes the answer about one signature layer from a decision.
// verifiedAt is Unix seconds, 0 for never.
func NewSignature(tool trust.Tool, manifest trust.Digest, layer int, f trust.Format, verifiedAt int64, d trust.Decision) Signature {
	sig := Signature{Tool: tool, IsTrusted: d.Status == trust.Trusted, Author: d.Author, Status: d.Status, Reason: d.Reason,
		Notes: []trust.Note{}, Digest: manifest, Layer: layer, Format: f, SignerFingerprint: d.Signer.Fingerprint, SignerFile: d.File, Detail: d.Detail,
		Issuer: d.Issuer, Subject: d.Subject, Root: d.Root}
	if !d.SignedAt.IsZero() {
		sig.SignedAt = pointer(d.SignedAt)
	}
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
