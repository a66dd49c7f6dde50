package cache

import (
	"slices"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Use is what rests on a signer, or on an entry of an identities.yaml.
type Use struct {
	// Images is how many trusted images rest on it: it is among what makes a signature of
	// theirs good now.
	Images int64
	// Alone is how many images would not be trusted without it. That may be more than rest
	// on it, if it is the last certificate of a trust store that a policy names.
	Alone int64
	// Attestations is how many trusted attestations rest on it. They make no image trusted.
	Attestations int64
}

// Uses counts, for every signer in force ([trust.Signer.ID]) and every entry of an
// identities.yaml ([trust.IdentityRule.ID]), the images that rest on it. What has none is
// absent. It reads every image.
func (s *Snapshot) Uses() (uses map[trust.SignerID]Use, err error) {
	u := &usesCount{s: s, f: s.InForce(), uses: map[trust.SignerID]Use{}, last: s.InForce().Last(), without: map[trust.SignerID]*trust.InForce{}}
	format.Guard(&err, func() error { return s.eachImage(nil, u.image) })
	return u.uses, err
}

type usesCount struct {
	s       *Snapshot
	f       *trust.InForce
	uses    map[trust.SignerID]Use
	last    map[trust.SignerID]bool
	without map[trust.SignerID]*trust.InForce // the trust in force without one, a few of them

	any, all []trust.SignerID // of the image: what some way rests on, and what every way does
}

// image counts one image.
func (u *usesCount) image(repository string, _ trust.Digest, unlisted bool) error {
	s := u.s
	if unlisted {
		return nil
	}
	if err := u.attestations(repository); err != nil {
		return err
	}
	if s.record.other || len(s.record.signatures) == 0 {
		return nil
	}
	quorum, err := u.quorum(repository)
	if err != nil || quorum.Short() {
		return err
	}
	u.any, u.all = u.any[:0], u.all[:0]
	ways, notation := 0, false
	for _, b := range s.record.signatures {
		if err := s.signature.decode(b); err != nil {
			return err
		}
		tool := s.signature.tool
		for _, v := range s.signature.verdicts {
			if err := s.verdict.decode(v, withoutAuthors{s}); err != nil {
				return err
			}
			if s.verdict.problem != "" || s.verdict.VerifiedAt == 0 {
				continue
			}
			u.f.Holders(repository, tool, &s.verdict.Verdict, s.now, func(ids []trust.SignerID) {
				if ways++; ways == 1 {
					u.all = append(u.all, ids...)
				}
				u.all = slices.DeleteFunc(u.all, func(id trust.SignerID) bool { return !slices.Contains(ids, id) })
				for _, id := range ids {
					if !slices.Contains(u.any, id) {
						u.any = append(u.any, id)
					}
				}
				notation = notation || tool == trust.Notation
			})
		}
	}
	for _, id := range u.any {
		one := u.uses[id]
		one.Images++
		alone := slices.Contains(u.all, id)
		if !alone && (quorum != nil || u.last[id]) {
			if alone, err = u.ends(repository, id); err != nil {
				return err
			}
		}
		if alone {
			one.Alone++
		}
		u.uses[id] = one
	}
	if !notation {
		return nil
	}
	for id := range u.last {
		if slices.Contains(u.any, id) {
			continue
		}
		ends, err := u.ends(repository, id)
		if err != nil {
			return err
		}
		if ends {
			one := u.uses[id]
			one.Alone++
			u.uses[id] = one
		}
	}
	return nil
}

// attestations counts those of the image just decoded.
func (u *usesCount) attestations(repository string) error {
	s := u.s
	for _, b := range s.record.attestations {
		if err := s.signature.decode(b); err != nil {
			return err
		}
		for _, v := range s.signature.verdicts {
			if err := s.verdict.decode(v, withoutAuthors{s}); err != nil {
				return err
			}
			if s.verdict.problem != "" || s.verdict.VerifiedAt == 0 {
				continue
			}
			u.any = u.any[:0]
			s.verdict.Predicate = "" // it is asked who has made it
			u.f.Holders(repository, s.signature.tool, &s.verdict.Verdict, s.now, func(ids []trust.SignerID) {
				for _, id := range ids {
					if !slices.Contains(u.any, id) {
						u.any = append(u.any, id)
					}
				}
			})
			for _, id := range u.any {
				one := u.uses[id]
				one.Attestations++
				u.uses[id] = one
			}
		}
	}
	return nil
}

func (u *usesCount) quorum(repository string) (*trust.Quorum, error) {
	q := u.f.Quorum(repository)
	if q == nil {
		return nil, nil
	}
	err := u.s.decideOnce(repository, false, []*trust.InForce{u.f}, func(_ int, _ trust.Tool, d *trust.Decision) { q.Add(d) })
	return q, err
}

// ends reports whether the image just decoded would not be trusted without a signer, by
// deciding anew.
func (u *usesCount) ends(repository string, id trust.SignerID) (bool, error) {
	const most = 64
	f := u.without[id]
	if f == nil {
		if len(u.without) >= most {
			clear(u.without)
		}
		f = trust.NewInForce(u.f.Terms().Without(id))
		u.without[id] = f
	}
	trusted := false
	err := u.s.decide(repository, false, []*trust.InForce{f}, func(_ int, _ trust.Tool, d *trust.Decision) {
		trusted = trusted || d.Status == trust.Trusted
	})
	return !trusted, err
}
