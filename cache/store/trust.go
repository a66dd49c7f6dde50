package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What is trusted, published: a small file that a removal waits for alone.

// TrustChange is what a new trust in force has different from the one before.
type TrustChange struct {
	Added, Removed []trust.SignerID
	// Terms is set when anything else that is published differs: an author,
	// a statement, a tool, a registry name.
	Terms bool
	// Policies is set when some repository may be governed by a statement of
	// another meaning, so that notation signatures have to be looked at.
	Policies bool
	First    bool // nothing had been set in this process before
}

// mayLose reports whether something may be no longer trusted.
func (c TrustChange) mayLose() bool { return c.First || c.Terms || len(c.Removed) > 0 }

// Changed reports whether anything differs.
func (c TrustChange) Changed() bool {
	return c.First || c.Terms || len(c.Added)+len(c.Removed) > 0
}

// And returns the change that c and then next make.
func (c TrustChange) And(next TrustChange) TrustChange {
	return TrustChange{Added: append(slices.Clone(c.Added), next.Added...), Removed: append(slices.Clone(c.Removed), next.Removed...),
		Terms: c.Terms || next.Terms, Policies: c.Policies || next.Policies, First: c.First || next.First}
}

// SetTrust is PublishTrust, as of now, and then RecordTrust.
func (s *Store) SetTrust(f *trust.InForce) (TrustChange, error) {
	if err := s.PublishTrust(f, s.opts.Now()); err != nil {
		return TrustChange{}, err
	}
	change, _, err := s.RecordTrust(f)
	return change, err
}

// PublishTrust publishes what the trust directories held when a look at them began:
// it is confirmed as of then, so that a process that is frozen in between publishes
// no more than what it saw. It waits for no transaction, no base, no delta and no
// fsync but that of its own small file (C2).
//
// A loss of trust that cannot be published (a full disk) withdraws CURRENT, which
// needs no space: answers read unknown until a later call succeeds.
func (s *Store) PublishTrust(f *trust.InForce, looked time.Time) (err error) {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	defer func() { s.pub.unsure = err != nil }()
	s.pub.looked = looked
	s.pub.signers.note(f, looked.Unix())
	change := compareTrust(s.pub.terms, f)
	if !change.Changed() && !s.pub.withdrawn && !s.pub.unsure { // or CURRENT may name what failed
		return nil
	}
	if s.pub.cur.Base == 0 {
		// The first base brings the trust file. What is published until then
		// is another cache's, and says what was in force for that.
		if err := s.removeCurrent(); err != nil {
			s.pub.terms = nil // nor does a first base bring what was in force before
			return fmt.Errorf("publish trust: %w", err)
		}
		s.pub.terms = f
		return nil
	}
	if err := s.publishTrust(f); err != nil {
		if !change.mayLose() {
			return fmt.Errorf("publish trust: %w", err) // what is published is still true
		}
		return s.withdraw(err)
	}
	s.pub.terms = f
	return nil
}

// RecordTrust records the trust in force in the private store: who is in force and who
// has left, and what has to be rendered anew. It waits for transactions. It returns what differs from what was last recorded, and the
// generation of the set of signers from now on: what is verified under f is
// decided under that one.
//
// f may have been superseded: what is published afterwards is what PublishTrust was
// last given.
func (s *Store) RecordTrust(f *trust.InForce) (change TrustChange, generation uint64, err error) {
	s.record.Lock()
	defer s.record.Unlock()
	recorded := s.pub.inForce.Load()
	if s.recordUnsure {
		recorded = nil // it may or may not be what the store says
	}
	if change = compareTrust(recorded, f); change.Changed() {
		if err := s.recordTrust(f); err != nil {
			return change, 0, fmt.Errorf("record trust: %w", err)
		}
		s.pub.wake() // everything may have to be published anew
	}
	return change, s.TrustGeneration(), nil
}

// recordTrust is the transaction of RecordTrust. Everything that renders goes by what is recorded, and changes with it: s.write is held until it does. record
// is held.
func (s *Store) recordTrust(f *trust.InForce) error {
	signers := s.remembered()
	s.write.Lock()
	defer s.write.Unlock()
	generation := s.TrustGeneration()
	err := s.update(func(tx *bbolt.Tx) error {
		if err := errors.Join(signers.record(tx), s.noteNamed(tx)); err != nil {
			return err
		}
		if sum := format.PoliciesSum(f.Terms()); getMeta(tx, metaPolicies) != sum || s.recordUnsure {
			// Records show the verdicts of the statement that governed when
			// they were rendered, in this process or an earlier one.
			seq := getMeta(tx, metaSequence) + 1
			if err := errors.Join(putMeta(tx, metaPolicies, sum), putMeta(tx, metaSequence, seq), putMeta(tx, metaFull, seq)); err != nil {
				return err
			}
		}
		if sum := format.SignersSum(f.Terms()); getMeta(tx, metaInForce) != sum || s.recordUnsure {
			generation = getMeta(tx, metaTrust) + 1
			return errors.Join(putMeta(tx, metaInForce, sum), putMeta(tx, metaTrust, generation))
		}
		return nil
	})
	if s.recordUnsure = err != nil; err != nil {
		return err
	}
	s.trustGeneration.Store(generation)
	s.pub.inForce.Store(f)
	return nil
}

// withdraw removes CURRENT: answers read unknown/no-cache. There are no terms
// then under which anything else could be published.
func (s *Store) withdraw(cause error) error {
	s.pub.withdrawn, s.pub.terms = true, nil
	return errors.Join(fmt.Errorf("publish trust (withdrawn until it can be): %w", cause), s.removeCurrent())
}

// removeCurrent removes CURRENT, durably; one that is another's stays.
func (s *Store) removeCurrent() error {
	err := s.owned()
	if errors.Is(err, ErrStateGone) {
		return err
	}
	return format.RemoveCurrent(s.publishedPath())
}

func compareTrust(old, f *trust.InForce) TrustChange {
	change := TrustChange{First: old == nil}
	a, b := old.Terms(), f.Terms()
	was, is := byID(a.Materials), byID(b.Materials)
	for id, old := range was {
		if now, still := is[id]; !still {
			change.Removed = append(change.Removed, id)
		} else if !slices.Equal(old, now) {
			change.Terms = true // another file, or another scope
		}
	}
	for id := range is {
		if _, ok := was[id]; !ok {
			change.Added = append(change.Added, id)
		}
	}
	for _, ids := range [][]trust.SignerID{change.Added, change.Removed} {
		slices.SortFunc(ids, func(a, b trust.SignerID) int { return bytes.Compare(a[:], b[:]) })
	}
	change.Policies = change.First || !format.SamePolicies(a, b)
	change.Terms = change.Terms || change.Policies || !format.EqualTerms(a, b)
	return change
}

// byID are materials by signer: each scope that holds it has one.
func byID(materials []trust.Material) map[trust.SignerID][]trust.Material {
	m := map[trust.SignerID][]trust.Material{}
	for _, one := range materials {
		id := one.Signer.ID()
		m[id] = append(m[id], one)
	}
	return m
}

// publishTrust writes a trust file and CURRENT. pub.mu is held.
func (s *Store) publishTrust(f *trust.InForce) error {
	next, err := s.next()
	if err != nil {
		return err
	}
	next.Trusts = next.Generation
	at, err := s.writeTrust(f, next)
	if err != nil {
		return err
	}
	if err := s.setCurrent(next); err != nil {
		s.discard("trust", next.Trusts)
		return err
	}
	s.pub.trustPublished, s.pub.at = true, at
	return nil
}

// writeTrust writes a trust file and returns when it says that it was published, in
// Unix nanoseconds. pub.mu is held.
func (s *Store) writeTrust(f *trust.InForce, next format.Current) (at int64, err error) {
	t := f.Terms()
	p := encodeTerms(t)
	p.PublishedAt, p.Lease, p.Partial = s.opts.Now().UnixNano(), int64(max(s.opts.Lease, 0)), s.pub.partial
	for _, m := range t.Materials {
		m.Since = s.pub.signers[m.Signer].came
		p.Signers = append(p.Signers, format.EncodeSigner(m, 0))
	}
	for _, signer := range s.pub.signers.left() {
		p.Signers = append(p.Signers, format.EncodeSigner(trust.Material{Signer: signer, File: s.pub.signers[signer].file}, s.pub.signers[signer].left))
	}
	b, err := proto.Marshal(p)
	if err != nil {
		return 0, err
	}
	return p.PublishedAt, format.WriteFile(next.TrustPath(s.publishedPath()), format.Seal([]byte(format.FileName("trust", next.Trusts)), b), s.pub.looked)
}

// encodeTerms encodes all but the signers, which are written with those that left.
func encodeTerms(t trust.Terms) *cachepb.Trust {
	p := &cachepb.Trust{Cosign: t.Cosign, Notation: t.Notation, PolicyProblem: format.EncodeCode(format.ReasonCodes, t.PolicyProblem),
		RegistryNames: slices.Clone(t.RegistryNames), PolicyDetail: t.PolicyDetail, DefaultPolicy: t.DefaultPolicy}
	for _, st := range t.Statements {
		p.Statements = append(p.Statements, &cachepb.Statement{Name: st.Name, Scopes: st.Scopes, Stores: st.Stores,
			Policy: bytes.Clone(st.Policy[:]), Verifies: st.Verifies})
	}
	for _, r := range t.Roots {
		pr := &cachepb.Root{File: r.File, Line: uint32(r.Line)}
		for _, a := range r.Authorities {
			pr.Authorities = append(pr.Authorities, &cachepb.Authority{Role: uint32(a.Role), Id: bytes.Clone(a.ID[:]), From: a.From, Until: a.Until, Name: a.Name})
		}
		p.Roots = append(p.Roots, pr)
	}
	for _, i := range t.Identities {
		p.Identities = append(p.Identities, &cachepb.Identity{Scope: i.Scope, File: i.File, Line: uint32(i.Line), Root: i.Root,
			Issuer: i.Issuer, IssuerRegExp: i.IssuerRegExp, Subject: i.Subject, SubjectRegExp: i.SubjectRegExp,
			SourceRepositoryUri: i.SourceRepositoryURI, SourceRepositoryRef: i.SourceRepositoryRef,
			BuildSignerUri: i.BuildSignerURI, RunnerEnvironment: i.RunnerEnvironment})
	}
	for _, n := range t.Scopes {
		p.Scopes = append(p.Scopes, &cachepb.Narrowing{Prefix: n.Prefix, Alone: n.Alone, Require: int64(n.Require)})
	}
	return p
}

// SetWhole says whether storage has been read to its end: what is not in the cache
// is not in storage then. Publish what was found before. A new private store is
// not whole.
func (s *Store) SetWhole(whole bool) error {
	s.whole.Lock() // one at a time, and nobody else's lock while it is recorded
	defer s.whole.Unlock()
	if s.partial() != whole {
		return nil
	}
	n := uint64(0)
	if whole {
		n = 1
	}
	s.write.Lock()
	err := s.update(func(tx *bbolt.Tx) error { return putMeta(tx, metaWhole, n) })
	s.write.Unlock()
	if err != nil {
		return fmt.Errorf("record that storage was read: %w", err)
	}
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	s.pub.partial = !whole
	if s.pub.terms == nil || s.pub.withdrawn || s.pub.cur.Base == 0 {
		return nil // the next trust file says it
	}
	if err := s.publishTrust(s.pub.terms); err != nil {
		s.pub.partial = whole // to be tried again
		return fmt.Errorf("publish that storage was read: %w", err)
	}
	return nil
}

func (s *Store) partial() bool {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	return s.pub.partial
}

// Confirm renews the lease: at time at the caller began the look that found the
// trust directories to be what was last given to SetTrust. A process that is
// frozen after the look confirms no more than what it saw.
//
// When at is before the publication, the clock has been set back since. What was
// published is made anew then: readers' clocks are never earlier than it. So is
// what somebody else has removed or replaced, unless it is the whole state
// directory: ErrStateGone.
func (s *Store) Confirm(at time.Time) error {
	if err := s.owned(); err != nil {
		return fmt.Errorf("confirm publication: %w", err)
	}
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	s.pub.looked = at
	if !s.pub.trustPublished || s.pub.withdrawn {
		return nil
	}
	if s.pub.terms != nil && s.outdated(at) {
		if err := s.publishTrust(s.pub.terms); err != nil {
			return fmt.Errorf("confirm publication: %w", err)
		}
	}
	if err := os.Chtimes(s.pub.cur.TrustPath(s.publishedPath()), at, at); err != nil {
		return fmt.Errorf("confirm publication: %w", err)
	}
	return nil
}

// outdated reports whether the trust in force has to be published anew. A base or
// a delta that is not there is made anew by the next fold.
func (s *Store) outdated(at time.Time) bool {
	dir, cur := s.publishedPath(), s.pub.cur
	cur.Generation = s.pub.named.Load() // others may be used up
	cur.Data = cur.Generation
	gone := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	}
	if slices.ContainsFunc(cur.Names(), gone) {
		s.opts.Log.Error("somebody has removed what is published; it is made anew")
		s.RenderAnew()
	}
	if target, err := os.Readlink(filepath.Join(dir, format.CurrentName)); err == nil && target != cur.String() ||
		errors.Is(err, fs.ErrNotExist) || gone(format.FileName("trust", cur.Trusts)) {
		s.opts.Log.Error("CURRENT is not what was published; it is published anew", "found", target)
		return true
	}
	if at.UnixNano() < s.pub.at-int64(clockStep) {
		s.opts.Log.Warn("the clock was set back; the trust in force is published anew", "by", time.Duration(s.pub.at-at.UnixNano()))
		return true
	}
	return false
}

// clockStep is how far a clock is ahead of what it said before only because
// publishing takes time after the look.
const clockStep = 30 * time.Second
