package cache

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// Reading the counts that the writer keeps (counting.go).

// Counts are the numbers of images and of signatures by state.
type Counts struct {
	// Images counts what Images shows: each image of a repository once, unless
	// it is untagged and some index's child. Keys: trusted, expired,
	// untrusted, unknown, pending, unsigned; absent is none.
	Images map[string]int64
	// Signatures counts the entries of SignatureInfo over all images,
	// children included, by status.
	Signatures map[trust.Status]int64
}

func (c *Counts) add(p *cachepb.Counts, as string) {
	for code, n := range p.Images {
		c.addImages(stateOr(as, code), n)
	}
	for code, n := range p.Signatures {
		if n != 0 {
			c.Signatures[trust.Status(stateOr(as, code))] += n
		}
	}
}

func (c *Counts) addImages(state string, n int64) {
	if n != 0 {
		c.Images[state] += n
	}
}

// stateOr names the state of a code. Unsigned images stay so whatever the
// others read as.
func stateOr(as string, code int) string {
	state := decodeCode(stateCodes, uint32(code))
	if as == "" || state == Unsigned {
		return state
	}
	return as
}

// Counts adds up the images and signatures by state: of one repository or,
// with "", of all. The writer keeps them as of each publication, and follows
// the dates of grounds within the second; a stale snapshot counts all as
// unknown, as it answers. ErrNotFound: there is no such repository.
func (s *Snapshot) Counts(repository string) (c Counts, err error) {
	c = Counts{Images: map[string]int64{}, Signatures: map[trust.Status]int64{}}
	count := func(name, body []byte) error {
		var p cachepb.Counts
		if err := proto.Unmarshal(body, &p); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		as := ""
		if _, unlisted, err := s.get(inUnlisted, name); err != nil {
			return err
		} else if unlisted || s.stale {
			as = string(trust.Unknown)
		}
		c.add(&p, as)
		return nil
	}
	guard(&err, func() error {
		if repository == "" {
			return s.each(inRepositories, nil, count)
		}
		body, ok, err := s.get(inRepositories, []byte(repository))
		if err != nil {
			return err
		}
		if !ok {
			return ErrNotFound
		}
		return count([]byte(repository), body)
	})
	return c, err
}

// SignerCounts returns how many signatures rest on each signer in force: have
// a ground that names it, whether or not that ground holds now.
func (s *Snapshot) SignerCounts() (counts map[trust.Signer]int64, err error) {
	counts = map[trust.Signer]int64{}
	guard(&err, func() error {
		for id, signer := range s.g.trust.signers {
			body, ok, err := s.get(inSigned, id32(id))
			if err != nil {
				return err
			}
			n := int64(0)
			if ok && len(body) == 8 {
				n = int64(idOf(body))
			}
			counts[signer] = n
		}
		return nil
	})
	return counts, err
}
