package cache

import (
	"time"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// listingTime is for how long indexes are asked of one manifest that they list: whoever may
// sign in a repository can make many.
var listingTime = 5 * time.Millisecond

// ListedByTrusted reports whether an index that reads trusted lists a manifest, in the same
// repository, and which. An index lists what its own bytes do; what is in an index that
// itself is in a trusted one is not listed by that. more is set if there were more indexes
// than could be asked in 5 ms.
func (s *Snapshot) ListedByTrusted(repository string, child trust.Digest) (index trust.Digest, ok, more bool, err error) {
	prefix := format.ListingKey(repository, child, nil)
	format.Guard(&err, func() error {
		begin := time.Now()
		for m := s.layers.Merged(format.InListings, prefix, prefix); m.K != nil && !ok; m.Next() {
			if _, live, err := format.Unseal(m.K, m.V); err != nil || !live {
				return err
			}
			if time.Since(begin) > listingTime {
				more = true
				return nil
			}
			if len(m.K) != len(prefix)+len(index) {
				return format.ErrDamaged
			}
			d := trust.Digest(m.K[len(prefix):])
			var err error
			if ok, err = s.isTrusted(repository, d); err != nil {
				return err
			}
			if ok {
				index = d
			}
		}
		return nil
	})
	return index, ok && err == nil, more, err
}
