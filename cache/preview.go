package cache

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Other trust over what is published: what a change of trust would do, and what rests on a
// signer. The decision is the readers' own; lease and staleness do not count.

// Trustee is by whom an image is trusted: the file of a key; with a certificate or an identity
// the author as well.
type Trustee struct{ File, Author string }

// Previewed is one image that reads differently under another trust.
type Previewed struct {
	Repository string
	Digest     trust.Digest
	// Was and Is name its states.
	Was, Is string
	// Before and After are by whom it is trusted, each once.
	Before, After []Trustee
	// ToVerify is how many of its signatures have to be verified again under the other trust.
	ToVerify int
	// Attestations is how many of its attestations, trusted, would not be.
	Attestations int
}

// Preview calls fn with every image of the snapshot that may read differently under
// another trust: the same decision over the same facts, at one time. If only signers differ,
// it passes over what rests on none of them. What has not been verified under the other
// trust reads pending; what a new signer may have made reads as it does now. What fn is
// given is used again for the next image.
//
// verified is what has been verified under the other trust, and takes the place of what is
// stored there.
func (s *Snapshot) Preview(was, is *trust.InForce, verified Verified, fn func(*Previewed) error) (err error) {
	signers := movedSigners(was, is)
	if signers == nil && sameTrust(was.Terms(), is.Terms()) {
		return nil
	}
	p := &Previewed{}
	s.verified, s.subjects = verified, map[trust.Digest]bool{}
	for k := range verified {
		s.subjects[k.Subject] = true
	}
	defer func() { s.verified, s.subjects = nil, nil }()
	format.Guard(&err, func() error {
		return s.eachImage(signers, func(repository string, d trust.Digest, unlisted bool) error {
			before, after := tally{tees: p.Before[:0]}, tally{tees: p.After[:0]}
			err := s.decide(repository, unlisted, []*trust.InForce{was, is}, func(i int, tool trust.Tool, d *trust.Decision) {
				[]*tally{&before, &after}[i].add(tool, d)
			})
			if err != nil {
				return err
			}
			attestations, err := s.lostAttestations(repository, unlisted, was, is)
			if err != nil {
				return err
			}
			unread := s.unread(unlisted)
			*p = Previewed{repository, d, before.state(unread), after.state(unread), before.tees, after.tees, after.changed, attestations}
			return fn(p)
		})
	})
	return err
}

// lostAttestations counts the attestations of the image just decoded that are trusted under
// one trust and not under another.
func (s *Snapshot) lostAttestations(repository string, unlisted bool, was, is *trust.InForce) (n int, err error) {
	if unlisted {
		return 0, nil
	}
	for _, b := range s.record.attestations {
		if err := s.signature.decode(b); err != nil {
			return 0, err
		}
		for _, v := range s.signature.verdicts {
			if err := s.verdict.decode(v, withoutAuthors{s}); err != nil {
				return 0, err
			}
			under := func(f *trust.InForce) bool {
				return join(f, repository, s.signature.tool, &s.verdict.Verdict, s.verdict.problem, s.signature.policyChanged, s.now, (*trust.InForce).DecideAttestation).Status == trust.Trusted
			}
			if under(was) && !under(is) {
				n++
			}
		}
	}
	return n, nil
}

// eachImage decodes every image record but those of foreign digests and those that name none
// of the signers (nil: all), and calls fn.
func (s *Snapshot) eachImage(signers map[trust.SignerID]bool, fn func(repository string, d trust.Digest, unlisted bool) error) error {
	var last string
	unlisted := false
	for m := s.layers.Merged(format.InImages, nil, nil); m.K != nil; m.Next() {
		if signers != nil && !names(m.K, m.V, signers) && (len(s.subjects) == 0 || !s.subjects[subjectOf(m.K)]) {
			continue
		}
		body, ok, err := format.Unseal(m.K, m.V)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		name, digest, ok := bytes.Cut(m.K, []byte{0})
		if !ok || len(digest) != len(trust.Digest{}) {
			return format.ErrDamaged
		}
		if string(name) != last {
			last, unlisted = string(name), false
			if s.anyUnlisted() {
				if _, unlisted, err = s.get(format.InUnlisted, name); err != nil {
					return err
				}
			}
		}
		if err := s.record.decode(body); err != nil {
			return err
		}
		if len(s.record.foreign) > 0 {
			continue
		}
		s.subject = trust.Digest(digest)
		if err := fn(last, trust.Digest(digest), unlisted); err != nil {
			return err
		}
	}
	return nil
}

// decide calls fn with the decision about each layer of each signature of the image just
// decoded, under each of several trusts.
func (s *Snapshot) decide(repository string, unlisted bool, under []*trust.InForce, fn func(i int, tool trust.Tool, d *trust.Decision)) error {
	quorums, counts := make([]*trust.Quorum, len(under)), false
	for i, f := range under {
		quorums[i] = f.Quorum(repository)
		counts = counts || quorums[i] != nil
	}
	if counts {
		err := s.decideOnce(repository, unlisted, under, func(i int, _ trust.Tool, d *trust.Decision) {
			if quorums[i] != nil {
				quorums[i].Add(d)
			}
		})
		if err != nil {
			return err
		}
	}
	return s.decideOnce(repository, unlisted, under, func(i int, tool trust.Tool, d *trust.Decision) {
		quorums[i].Judge(d)
		fn(i, tool, d)
	})
}

func (s *Snapshot) decideOnce(repository string, unlisted bool, under []*trust.InForce, fn func(i int, tool trust.Tool, d *trust.Decision)) error {
	var d trust.Decision // one for all: it is large
	for _, b := range s.record.signatures {
		if err := s.signature.decode(b); err != nil {
			return err
		}
		var t texts = withoutAuthors{s}
		if s.signature.tool == trust.Notation {
			t = s
		}
		for layer, v := range s.signature.verdicts {
			if err := s.verdict.decode(v, t); err != nil {
				return err
			}
			overridden := s.verdict.problem
			if unlisted {
				overridden = trust.IOError
			}
			for i, f := range under {
				if f.Enabled(s.signature.tool) {
					verdict := &s.verdict.Verdict
					if i == 1 && s.subjects[s.subject] {
						verdict = s.verifiedInstead(f, repository, layer)
					}
					d = join(f, repository, s.signature.tool, verdict, overridden, s.signature.policyChanged, s.now, (*trust.InForce).Decide)
					fn(i, s.signature.tool, &d)
				}
			}
		}
	}
	return nil
}

// tally is what the decisions about an image come to.
type tally struct {
	statuses []trust.Status // each once
	tees     []Trustee
	changed  int
}

func (t *tally) add(tool trust.Tool, d *trust.Decision) {
	if !slices.Contains(t.statuses, d.Status) {
		t.statuses = append(t.statuses, d.Status)
	}
	if d.Reason == trust.PolicyChanged {
		t.changed++
	}
	if d.Status != trust.Trusted {
		return
	}
	who := Trustee{File: d.File}
	if tool == trust.Notation || d.Subject != "" {
		who.Author = d.Author
	}
	if !slices.Contains(t.tees, who) {
		t.tees = append(t.tees, who)
		slices.SortFunc(t.tees, func(a, b Trustee) int {
			return cmp.Or(strings.Compare(a.File, b.File), strings.Compare(a.Author, b.Author))
		})
	}
}

func (t *tally) state(unread trust.Reason) string {
	if unread != "" && len(t.statuses) == 0 {
		t.statuses = append(t.statuses, unread.Status())
	}
	return stateOf(t.statuses)
}

// Candidate is a signature of which another trust may say something else, once it has been
// verified under it.
type Candidate struct {
	Repository string
	MediaType  string // of the subject
	Subject    trust.Digest
	Signature  trust.Digest // its manifest
	Tool       trust.Tool
	Layers     int // of it that are in question
}

// Candidates calls fn with each signature of which some layer has one of the reasons under a
// trust. What fn is given is used again.
func (s *Snapshot) Candidates(f *trust.InForce, reasons map[trust.Reason]bool, fn func(*Candidate) error) (err error) {
	c := &Candidate{}
	format.Guard(&err, func() error {
		return s.eachImage(nil, func(repository string, subject trust.Digest, unlisted bool) error {
			for _, b := range s.record.signatures {
				*c = Candidate{Repository: repository, Subject: subject}
				if err := s.signature.decode(b); err != nil {
					return err
				}
				c.Tool, c.Signature = s.signature.tool, s.signature.digest
				for _, v := range s.signature.verdicts {
					if err := s.verdict.decode(v, withoutAuthors{s}); err != nil {
						return err
					}
					overridden := s.verdict.problem
					if unlisted {
						overridden = trust.IOError
					}
					if f.Enabled(c.Tool) && reasons[join(f, repository, c.Tool, &s.verdict.Verdict, overridden, s.signature.policyChanged, s.now, (*trust.InForce).Decide).Reason] {
						c.Layers++
					}
				}
				if c.Layers == 0 {
					continue
				}
				c.MediaType = s.mediaType(s.record.mediaType)
				if err := fn(c); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return err
}

// VerifiedKey names a signature that was verified, and under which policy.
type VerifiedKey struct {
	Subject, Signature trust.Digest
	// Of notation also what its verdict depends on: zero for cosign.
	Policy    trust.PolicyID
	MediaType string // of the subject
}

// Verified are verdicts by layer, made under a trust that is not in force.
type Verified map[VerifiedKey][]trust.Verdict

// verifiedInstead is the verdict on a layer of the signature just decoded as it was verified
// under the other trust, or the stored one.
func (s *Snapshot) verifiedInstead(f *trust.InForce, repository string, layer int) *trust.Verdict {
	k := VerifiedKey{Subject: s.subject, Signature: s.signature.digest}
	if s.signature.tool == trust.Notation {
		k.Policy, _ = f.Policy(repository, trust.Notation) // none: nothing was verified under it
		k.MediaType = s.mediaType(s.record.mediaType)
	}
	if all := s.verified[k]; layer < len(all) {
		return &all[layer]
	}
	return &s.verdict.Verdict
}

// subjectOf is the digest in the key of an image.
func subjectOf(key []byte) (d trust.Digest) {
	if len(key) > len(d) {
		copy(d[:], key[len(key)-len(d):])
	}
	return d
}
