package cache

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Expiration is a signer of an image whose signatures dates will end: by their own
// expiry, or by that of a certificate in the chain. Signature is the one that is
// trusted longest, and Until when that ends.
type Expiration struct {
	Signature
	Until time.Time
}

// maxSigners is how many signers of an image Expirations tells apart.
const maxSigners = 1000

// Expirations are the signers of an image whose signatures dates will end.
type Expirations struct {
	// First are in the order of their dates. Omitted counts signatures by signers
	// beyond the first thousand.
	First   []Expiration
	Omitted int
	// Trusted says whether the image is trusted now, and Until when dates end that; the
	// zero time: they do not.
	Trusted bool
	Until   time.Time
}

// Expirations returns those of one image. A repository can repeat a signature, and add
// to a cosign signature a certificate that ends it early: for each signer the one that
// lasts counts. The signatures of an index's children are the children's. What is not
// believed, since the snapshot is stale or the repository could not be listed, is not
// trusted.
func (s *Snapshot) Expirations(repository string, d trust.Digest) (e Expirations, err error) {
	type signer struct {
		tool        trust.Tool
		fingerprint trust.Digest
		author      string
	}
	signers, lasting := map[signer]*Expiration{}, false
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
		quorum, err := s.quorum(repository, s.record.signatures, unlisted)
		if err != nil {
			return err
		}
		for _, b := range s.record.signatures {
			err := s.eachLayer(repository, b, unlisted, quorum, func(sig *Signature) {
				if !sig.IsTrusted {
					return
				}
				end := s.trustedUntil(repository, sig)
				e.Trusted, lasting = true, lasting || end.IsZero()
				if end.After(e.Until) {
					e.Until = end
				}
				by := signer{sig.Tool, sig.SignerFingerprint, sig.Author}
				switch was := signers[by]; {
				case was == nil && len(signers) >= maxSigners:
					e.Omitted++
				case was == nil || !was.Until.IsZero() && (end.IsZero() || end.After(was.Until)):
					signers[by] = &Expiration{*sig, end}
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if lasting {
		e.Until = time.Time{}
	}
	for _, one := range signers {
		if !one.Until.IsZero() {
			e.First = append(e.First, *one)
		}
	}
	slices.SortFunc(e.First, func(a, b Expiration) int {
		return cmp.Or(a.Until.Compare(b.Until), bytes.Compare(a.Digest[:], b.Digest[:]), cmp.Compare(a.Layer, b.Layer))
	})
	return e, err
}

// trustedUntil is when dates end the signature that was decided last; zero: never.
func (s *Snapshot) trustedUntil(repository string, sig *Signature) time.Time {
	if !sig.IsTrusted {
		return time.Time{}
	}
	return s.g.trust.InForce.TrustedUntil(repository, sig.Tool, &s.verdict.Verdict, s.now)
}
