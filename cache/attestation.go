package cache

import (
	"slices"
	"strings"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Attestation is the answer about one attestation of an image. It makes nothing trusted, and
// is no signature. Its status and reason are those that a signature by the same signer would
// have; [NobodySigned] is that of a statement in no envelope.
type Attestation struct {
	// PredicateType is from the payload that was verified, whoever wrote it; empty while
	// that has not been read.
	PredicateType     string
	Format            trust.Format
	Status            trust.Status
	Reason            trust.Reason
	Author            string
	SignerFingerprint trust.Digest
	SignerFile        string
	Issuer            string
	Subject           string
	Root              string
	Digest            trust.Digest // of the manifest that holds it
	Layer             int
	Size              int64 // bytes
	SignedAt          *time.Time
	Detail            string
}

// NobodySigned is the status of an attestation that nobody has signed, as BuildKit writes
// them.
const NobodySigned trust.Status = "unsigned"

// maxAttestations bounds how many attestations an answer lists.
const maxAttestations = 200

// NewAttestation is what a layer of a manifest says, and what has been decided about it.
func NewAttestation(manifest trust.Digest, layer int, v *trust.Verdict, d *trust.Decision) Attestation {
	a := Attestation{PredicateType: v.Predicate, Format: v.Format, Status: attestationStatus(v, d), Reason: d.Reason, Author: d.Author,
		SignerFingerprint: d.Signer.Fingerprint, SignerFile: d.File, Issuer: d.Issuer, Subject: d.Subject, Root: d.Root,
		Digest: manifest, Layer: layer, Size: v.Size, Detail: d.Detail}
	if a.Status == NobodySigned {
		a.Reason, a.Detail = "", ""
	}
	if !d.SignedAt.IsZero() {
		a.SignedAt = pointer(d.SignedAt)
	}
	return a
}

// attestationStatus is the status of an attestation: a statement in no envelope is
// [NobodySigned].
func attestationStatus(v *trust.Verdict, d *trust.Decision) trust.Status {
	if v.Format == trust.InToto && d.Reason == trust.PayloadTypeUnknown {
		return NobodySigned
	}
	return d.Status
}

// size estimates, from above, how many bytes it takes as JSON.
func (a *Attestation) size() int {
	return 2*signatureBytes + len(a.PredicateType) + 5*strings.Count(a.PredicateType, "&") + len(a.Author) + len(a.SignerFile) + len(a.Issuer) + len(a.Subject) + len(a.Detail)
}

// AddAttestation lists one within the budget of an answer, after its signatures, or counts it
// among those left out. Each predicate type of which one is trusted is listed before further
// ones of a type, and those before what is not trusted.
func (img *Image) AddAttestation(b *Budget, a Attestation) {
	list := img.Attestations
	if len(list) < maxAttestations && b.has(a.size()) {
		b.used += a.size()
		img.Attestations = append(list, a)
		return
	}
	img.AttestationsOmitted++
	if a.Status != trust.Trusted {
		return
	}
	many := map[string]int{}
	for i := range list {
		if list[i].Status == trust.Trusted {
			many[list[i].PredicateType]++
		}
	}
	i := slices.IndexFunc(list, func(o Attestation) bool { return o.Status != trust.Trusted })
	if i < 0 && many[a.PredicateType] == 0 {
		i = slices.IndexFunc(list, func(o Attestation) bool { return many[o.PredicateType] > 1 })
	}
	if i >= 0 && b.has(a.size()-list[i].size()) {
		b.used += a.size() - list[i].size()
		list[i] = a
	}
}

// attestations adds every attestation of the image just decoded to its answer.
func (s *Snapshot) attestations(img *Image, unlisted bool, budget *Budget) error {
	if budget.limit == 0 { // whoever asks for a state alone
		return nil
	}
	quorums, err := s.attestedBy(img.RepoName, unlisted)
	if err != nil {
		return err
	}
	return s.eachAttestation(img.RepoName, unlisted, func(layer int, d *trust.Decision) {
		quorums[s.verdict.Predicate].Judge(d)
		img.AddAttestation(budget, NewAttestation(s.signature.digest, layer, &s.verdict.Verdict, d))
	})
}

// eachAttestation calls fn with the decision about each attestation of the image just
// decoded.
func (s *Snapshot) eachAttestation(repository string, unlisted bool, fn func(layer int, d *trust.Decision)) error {
	for _, b := range s.record.attestations {
		err := s.eachDecision(repository, b, unlisted, s, (*trust.InForce).DecideAttestation, func(layer int, d *trust.Decision) bool {
			fn(layer, d)
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// attestedBy counts who has attested what of the image just decoded, by predicate type, where
// several signers are required; nil where one is enough.
func (s *Snapshot) attestedBy(repository string, unlisted bool) (map[string]*trust.Quorum, error) {
	if s.InForce().Quorum(repository) == nil {
		return nil, nil
	}
	quorums := map[string]*trust.Quorum{}
	err := s.eachAttestation(repository, unlisted, func(_ int, d *trust.Decision) {
		if d.Status != trust.Trusted {
			return // whoever pushes can name as many types as they like
		}
		q := quorums[s.verdict.Predicate]
		if q == nil {
			q = s.InForce().Quorum(repository)
			quorums[s.verdict.Predicate] = q
		}
		q.Add(d)
	})
	return quorums, err
}

// Attested reports which of the predicate types an image has no trusted attestation of, ""
// if it has one of each. Of what is not known it has none, and no error. undecided is set if
// some attestation is not decided, which may be of that type.
func (s *Snapshot) Attested(repository string, d trust.Digest, predicates []string) (lacking string, undecided bool, err error) {
	has := make([]bool, len(predicates))
	format.Guard(&err, func() error {
		body, ok, err := s.get(format.InImages, format.ImageKey(repository, d))
		if err != nil || !ok {
			return err
		}
		if err := s.record.decode(body); err != nil || len(s.record.foreign) > 0 {
			return err
		}
		unlisted := false
		if s.anyUnlisted() {
			if _, unlisted, err = s.get(format.InUnlisted, []byte(repository)); err != nil {
				return err
			}
		}
		quorums, err := s.attestedBy(repository, unlisted)
		if err != nil {
			return err
		}
		return s.eachAttestation(repository, unlisted, func(_ int, d *trust.Decision) {
			quorums[s.verdict.Predicate].Judge(d)
			undecided = undecided || d.Status == trust.Unknown || d.Status == trust.Pending
			for i, p := range predicates {
				has[i] = has[i] || p == s.verdict.Predicate && d.Status == trust.Trusted
			}
		})
	})
	if i := slices.Index(has, false); i >= 0 {
		return predicates[i], undecided, err
	}
	return "", false, err
}
