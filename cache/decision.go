package cache

import (
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// The decision about each layer of a signature, made anew at each look: what was
// published joined with what is in force and with the clock.

// IsTrusted reports whether an image of a repository reads trusted. It is what the
// state of [Snapshot.Image] says, without the rest of an answer: for whoever marks
// thousands of images, or lets one in. What is not known is not trusted, and no error.
func (s *Snapshot) IsTrusted(repository string, d trust.Digest) (is bool, err error) {
	format.Guard(&err, func() error {
		is, err = s.isTrusted(repository, d)
		return err
	})
	return is && err == nil, err
}

func (s *Snapshot) isTrusted(repository string, d trust.Digest) (is bool, err error) {
	body, ok, err := s.get(format.InImages, format.ImageKey(repository, d))
	if err != nil || !ok {
		return false, err
	}
	if err := s.record.decode(body); err != nil || len(s.record.foreign) > 0 {
		return false, err
	}
	unlisted := false
	if s.anyUnlisted() {
		if _, unlisted, err = s.get(format.InUnlisted, []byte(repository)); err != nil {
			return false, err
		}
	}
	quorum, err := s.quorum(repository, s.record.signatures, unlisted)
	if err != nil || quorum.Short() {
		return false, err
	}
	for _, b := range s.record.signatures {
		err := s.eachDecision(repository, b, unlisted, withoutAuthors{s}, (*trust.InForce).Decide, func(_ int, d *trust.Decision) bool {
			is = d.Status == trust.Trusted
			return !is
		})
		if err != nil || is {
			return is, err
		}
	}
	return false, nil
}

// withoutAuthors reads of texts only what decides.
type withoutAuthors struct{ *Snapshot }

func (withoutAuthors) author([]byte) string { return "" }

// quorum counts who signed an image, given its signatures; nil where one signer is enough.
func (s *Snapshot) quorum(repository string, encoded [][]byte, unlisted bool) (*trust.Quorum, error) {
	q := s.g.trust.InForce.Quorum(repository)
	if q == nil {
		return nil, nil
	}
	for _, b := range encoded {
		err := s.eachDecision(repository, b, unlisted, s, (*trust.InForce).Decide, func(_ int, d *trust.Decision) bool {
			q.Add(d)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

// unread is why the image just decoded, of which no signature is known, may have
// some, or "".
func (s *Snapshot) unread(unlisted bool) trust.Reason {
	r := s.record.unreadable
	if unlisted {
		r = trust.IOError
	}
	if r != "" && s.stale {
		r = trust.Stale
	}
	return r
}

// eachLayer calls fn with the answer about each layer of one signature of an image.
func (s *Snapshot) eachLayer(repository string, encoded []byte, unlisted bool, quorum *trust.Quorum, fn func(*Signature)) error {
	return s.eachDecision(repository, encoded, unlisted, s, (*trust.InForce).Decide, func(layer int, d *trust.Decision) bool {
		quorum.Judge(d)
		sig := NewSignature(s.signature.tool, s.signature.digest, layer, s.verdict.Format, s.verdict.VerifiedAt, *d)
		if at := s.g.trust.InForce.Since(repository, s.signature.tool, &s.verdict.Verdict, d, s.now); !at.IsZero() {
			sig.Since = pointer(at)
		}
		fn(&sig)
		return true
	})
}

// decide is how a verdict is joined with what is in force: as a signature or as an
// attestation.
type decide func(*trust.InForce, string, trust.Tool, *trust.Verdict, time.Time) trust.Decision

// eachDecision calls fn with the decision about each layer of one signature, until it
// returns false.
func (s *Snapshot) eachDecision(repository string, encoded []byte, unlisted bool, t texts, by decide, fn func(layer int, d *trust.Decision) bool) error {
	if err := s.signature.decode(encoded); err != nil {
		return err
	}
	if !s.g.trust.InForce.Enabled(s.signature.tool) {
		return nil
	}
	var d trust.Decision // one for all: it is large
	for layer, b := range s.signature.verdicts {
		if err := s.verdict.decode(b, t); err != nil {
			return err
		}
		if d = s.decision(repository, unlisted, by); !fn(layer, &d) {
			return nil
		}
	}
	return nil
}

// decision joins the verdict just decoded with what is in force; what is wrong
// with the answer as a whole, or with the place, comes first.
func (s *Snapshot) decision(repository string, unlisted bool, by decide) trust.Decision {
	overridden := s.verdict.problem
	if unlisted {
		overridden = trust.IOError
	}
	if s.stale {
		overridden = trust.Stale
	}
	return join(s.g.trust.InForce, repository, s.signature.tool, &s.verdict.Verdict, overridden, s.signature.policyChanged, s.now, by)
}

// join decides one verdict, unless something overrides it.
func join(f *trust.InForce, repository string, tool trust.Tool, v *trust.Verdict, overridden trust.Reason, policyChanged bool, now time.Time, by decide) trust.Decision {
	if overridden != "" {
		return trust.Decision{Status: overridden.Status(), Reason: overridden}
	}
	if v.VerifiedAt == 0 { // nothing is known of this layer
		v = nil
		if policyChanged {
			v = &trust.Verdict{} // made under a policy that is not this one
		}
	}
	return by(f, repository, tool, v, now)
}
