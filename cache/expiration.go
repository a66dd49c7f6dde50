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

// Expirations returns the trusted signatures of an image that dates will end, by date,
// and until when the image is trusted by one of its signatures; the zero time: for
// ever, or not at all. Signatures of an index's children are their own.
func (s *Snapshot) Expirations(repository string, d trust.Digest) (list []Expiration, until time.Time, err error) {
	format.Guard(&err, func() error {
		key := format.ImageKey(repository, d)
		body, ok, err := s.get(format.InImages, key)
		if err != nil || !ok {
			return err
		}
		if err := s.record.decode(body); err != nil {
			return err
		}
		lasting := false
		for _, b := range s.record.signatures {
			err := s.eachLayer(repository, b, false, func(sig *Signature) {
				switch end := s.trustedUntil(repository, sig); {
				case end.IsZero():
					lasting = lasting || sig.IsTrusted
				default:
					list = append(list, Expiration{*sig, end})
					if end.After(until) {
						until = end
					}
				}
			})
			if err != nil {
				return err
			}
		}
		if lasting {
			until = time.Time{}
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b Expiration) int { return a.Until.Compare(b.Until) })
	return list, until, err
}

// trustedUntil is when dates end the signature that was decided last; zero: never.
func (s *Snapshot) trustedUntil(repository string, sig *Signature) time.Time {
	if !sig.IsTrusted {
		return time.Time{}
	}
	return s.g.trust.InForce.TrustedUntil(repository, sig.Tool, &s.verdict.Verdict, s.now)
}
