package cache

import (
	"slices"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// MadeBy returns the signers under whom a signature of an image has verified, in force or
// not any more: whose coming and going its answers follow. It is for whoever asks about the
// past, and says nothing about trust. Who left long ago is not named.
func (s *Snapshot) MadeBy(repository string, d trust.Digest) (list []trust.Signer, err error) {
	format.Guard(&err, func() error {
		body, ok, err := s.get(format.InImages, format.ImageKey(repository, d))
		if err != nil || !ok {
			return err
		}
		if err := s.record.decode(body); err != nil {
			return err
		}
		for _, b := range s.record.signatures {
			if err := s.signature.decode(b); err != nil {
				return err
			}
			for _, v := range s.signature.verdicts {
				if err := s.verdict.decode(v, withoutAuthors{s}); err != nil {
					return err
				}
				for i := range s.verdict.Grounds {
					for _, id := range s.verdict.Grounds[i].Signers {
						if signer, known := s.InForce().Signer(id); known && !slices.Contains(list, signer) {
							list = append(list, signer)
						}
					}
				}
			}
		}
		return nil
	})
	return list, err
}
