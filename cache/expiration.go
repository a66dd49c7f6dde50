package cache

import (
	"slices"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Expiration is a trusted signature that dates will end: its own expiry, or that of a
// certificate in its chain.
type Expiration struct {
	Signature
	Until time.Time
}

// maxExpirations is how many of an image's signatures Expirations returns. Signatures
// that a repository repeats are no reason to hold them all.
const maxExpirations = 1000

// Expirations are the trusted signatures of an image that dates will end.
type Expirations struct {
	// First are those that end first, by date; Omitted counts the others.
	First   []Expiration
	Omitted int
	// Trusted says whether the image is trusted now, and Until when dates end that; the
	// zero time: they do not.
	Trusted bool
	Until   time.Time
}

func (e *Expirations) keepFirst() {
	slices.SortStableFunc(e.First, func(a, b Expiration) int { return a.Until.Compare(b.Until) })
	if more := len(e.First) - maxExpirations; more > 0 {
		e.First, e.Omitted = e.First[:maxExpirations], e.Omitted+more
	}
}

// Expirations returns those of one image. The signatures of an index's children are
// the children's. What is not believed, since the snapshot is stale or the repository
// could not be listed, is not trusted.
func (s *Snapshot) Expirations(repository string, d trust.Digest) (e Expirations, err error) {
	format.Guard(&err, func() error {
		key := format.ImageKey(repository, d)
		body, ok, err := s.get(format.InImages, key)
		if err != nil || !ok {
			return err
		}
		_, unlisted, err := s.get(format.InUnlisted, []byte(repository))
		if err != nil {
			return err
		}
		if err := s.record.decode(body); err != nil {
			return err
		}
		lasting := false
		for _, b := range s.record.signatures {
			err := s.eachLayer(repository, b, unlisted, func(sig *Signature) {
				end := s.trustedUntil(repository, sig)
				e.Trusted = e.Trusted || sig.IsTrusted
				lasting = lasting || sig.IsTrusted && end.IsZero()
				if end.IsZero() {
					return
				}
				if end.After(e.Until) {
					e.Until = end
				}
				if e.First = append(e.First, Expiration{*sig, end}); len(e.First) >= 2*maxExpirations {
					e.keepFirst()
				}
			})
			if err != nil {
				return err
			}
		}
		if lasting {
			e.Until = time.Time{}
		}
		return nil
	})
	e.keepFirst()
	return e, err
}

// trustedUntil is when dates end the signature that was decided last; zero: never.
func (s *Snapshot) trustedUntil(repository string, sig *Signature) time.Time {
	if !sig.IsTrusted {
		return time.Time{}
	}
	return s.g.trust.InForce.TrustedUntil(repository, sig.Tool, &s.verdict.Verdict, s.now)
}
