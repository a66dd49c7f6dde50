package scheduler

import (
	"context"
	"slices"
	"time"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// Other workers of a cluster verify, too. Whatever makes work here makes it here as without
// them; but before a signature is verified they are asked what they know of it, and where it
// is another's turn first (package cluster) the look waits for a while. A fact that is taken
// goes the way of one that was made here.

// Peers are the other workers of a cluster, package cluster's Worker. Ask alone waits for the
// network, for half a second at most; while that is gone they know nobody.
type Peers interface {
	// Ask returns what others have told of these.
	Ask(ctx context.Context, keys []store.FactKey) map[store.FactKey]*store.Shared
	// Tell tells the others what this worker has verified.
	Tell(*store.Shared)
	// Wait says for how long not to verify what has been owed to a repository since a time,
	// 0 if it is this worker's turn. hurry: somebody waits for it.
	Wait(repository string, since time.Time, hurry bool) time.Duration
	// Rank is how many come before this worker in a repository.
	Rank(repository string) int
	// Took counts a fact that was taken, Leave one that was not.
	Took()
	Leave(reason string)
	// HintTrust and HintRepository have the others look at what has changed. hurry: somebody
	// waits for it.
	HintTrust()
	HintRepository(name string, hurry bool)
}

// Why a fact of another worker is not taken.
const (
	refusedPlace     = "other-bytes"    // it is not about the manifests that are here
	refusedTrust     = "trust-store"    // it says no, or not all, under another trust store
	refusedSigner    = "unknown-signer" // it rests on one that is not in force here
	refusedUndecided = "undecided"      // it says what belongs to a place, or nothing
	refusedRevoked   = "revoked-here"
	refusedService   = "revocation" // a revocation service has answered here
	refusedWorse     = "worse"      // than what is known here
)

// asked is what was asked of other workers in a turn, and what they know of it.
type asked map[store.FactKey]*store.Shared

func (a asked) has(k store.FactKey) bool {
	_, did := a[k]
	return did
}

// only is what is known of one, for whoever may not share the rest.
func (a asked) only(subject, signature trust.Digest, c store.Context) asked {
	k := store.FactKey{Subject: subject, Signature: signature, Context: c}
	if !a.has(k) {
		return nil
	}
	return asked{k: a[k]}
}

// ask asks about references, those that have not been asked about.
func (in *trustInUse) ask(ctx context.Context, o *opened, keys ...store.FactKey) {
	keys = slices.DeleteFunc(keys, o.asked.has)
	if in.peers == nil || len(keys) == 0 {
		return
	}
	if o.asked == nil {
		o.asked = asked{}
	}
	known := in.peers.Ask(ctx, keys)
	for _, k := range keys {
		o.asked[k] = known[k]
	}
}

// askOf asks about cosign's facts. Others are not asked about notation's, whose context is not
// known yet, and which are under another trust store when a signer has come or gone.
func (s *Scheduler) askOf(ctx context.Context, in *trustInUse, facts []store.Fact, want func(*store.Fact) bool) asked {
	if in.peers == nil {
		return nil
	}
	var keys []store.FactKey
	for i := range facts {
		if f := &facts[i]; f.Context.Tool == trust.Cosign && want(f) {
			keys = append(keys, store.FactKey{Subject: f.Subject, Signature: f.Signature, Context: store.Context{Tool: trust.Cosign}})
		}
	}
	o := &opened{}
	in.ask(ctx, o, keys...)
	return o.asked
}

// key names the fact about a reference, if there is to be one.
func (o *opened) key(row *store.Row, ref *store.Reference) (store.FactKey, bool) {
	c, reason := o.in.context(o.name, row, ref)
	return store.FactKey{Subject: row.Digest, Signature: ref.Digest, Context: c}, reason == ""
}

func (o *opened) keyOf(f found) store.FactKey {
	k, _ := o.key(f.row, f.ref)
	return k
}

// wanted are the facts about references that have to be verified.
func (v *visit) wanted(open []found) (keys []store.FactKey) {
	for _, f := range open[:min(len(open), turnSize)] {
		if k, ok := v.key(f.row, f.ref); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// askAhead asks about a reference of the first row and those after it that have to be
// verified as well, as many as a turn may look at.
func (v *visit) askAhead(ctx context.Context, ref *store.Reference, rows []store.Row) error {
	var open []found
	for i := range rows {
		row := &rows[i]
		for k := range row.References {
			r := &row.References[k]
			if i == 0 && r.Digest != ref.Digest && !after(r.Digest, ref.Digest) {
				continue
			}
			if len(open) == turnSize || v.left.late() {
				v.in.ask(ctx, &v.opened, v.wanted(open)...)
				return nil
			}
			if needs, _, err := v.needs(v.in, v.name, row, r); err != nil {
				return err
			} else if needs {
				open = append(open, found{row: row, ref: r})
			}
		}
	}
	v.in.ask(ctx, &v.opened, v.wanted(open)...)
	return nil
}

// others reports whether a reference waits for another worker's fact: nothing is known of it,
// and it is another's turn.
func (v *visit) others(row *store.Row, ref *store.Reference) bool {
	if v.in.peers == nil {
		return false
	}
	k, ok := v.key(row, ref)
	if !ok || v.asked[k] != nil {
		return false
	}
	if !v.looked {
		v.looked, v.wait = true, v.in.peers.Wait(v.name, v.since, v.hurry)
	}
	if v.wait > 0 {
		if v.deferred == nil {
			v.deferred = &deferred{name: v.name, since: v.since, asked: v.began, wait: v.wait}
		}
		v.deferred.about(row.Digest)
	}
	return v.wait > 0
}

// tell tells the others a fact that was made here of what stands in storage alone. What a
// revocation service said when it was asked is told to nobody: who sends an old answer again
// could undo a later one. Each worker asks for itself.
func (o *opened) tell(row *store.Row, ref *store.Reference, l *looked) {
	if o.in.peers == nil || l.fact == nil || len(l.problems) > 0 || l.retry || l.service || l.fact.Partial || !travels(l.fact) {
		return
	}
	s := &store.Shared{Fact: *l.fact, Carrier: ref.Carrier, MediaType: row.MediaType, Size: row.Size, TrustStore: o.in.store.ID()}
	s.Verdicts, s.Hints = slices.Clone(s.Verdicts), slices.Clone(s.Hints) // what follows changes them
	o.in.peers.Tell(s)
}

// travels reports whether a fact says something of each layer that follows from bytes and
// signers alone, and not from a place or, as far as can be seen, from what a revocation
// service said.
func travels(f *store.Fact) bool {
	for i := range f.Verdicts {
		v := &f.Verdicts[i]
		switch r := v.Reason; {
		case v.Matched() != (r == ""):
			return false
		case r != "" && r.Undecided(), r == trust.DigestMismatch:
			return false
		case r == trust.Revoked, v.Recheck() != 0, v.RevocationLogged, v.RevocationNotChecked:
			return false
		}
	}
	return len(f.Verdicts) > 0
}

// take makes a look of a fact that another worker has told, if it can be taken: it is about
// the bytes that are here, which are read, and says what verifying them here would. A reason
// is why it cannot be. manifest is the signature's, as it was just read; the image's was read
// and hashed when the repository was scanned, or there would be no row with it.
func (e *examiner) take(ctx context.Context, o *opened, row *store.Row, ref *store.Reference, manifest *layout.Manifest, s *store.Shared) (l looked, refused string, err error) {
	if refused, err = e.refuses(o, row, ref, manifest, s); refused != "" || err != nil {
		return looked{}, refused, err
	}
	reason, err := e.readLayers(ctx, o, ref, manifest)
	if err != nil {
		return looked{}, "", err
	}
	if reason != "" {
		return whole(reason), "", nil
	}
	f := s.Fact
	f.Verdicts, f.Hints = slices.Clone(f.Verdicts), slices.Clone(f.Hints)
	for i := range f.Verdicts { // by a clock that may be ahead
		f.Verdicts[i].VerifiedAt = min(f.Verdicts[i].VerifiedAt, e.now().Unix())
	}
	if f.Trust = 0; s.TrustStore == o.in.store.ID() {
		f.Trust = o.in.generation
	} else {
		f.Hints = nil
		for i := range f.Verdicts {
			for _, g := range f.Verdicts[i].Grounds {
				for _, signer := range g.Signers {
					f.Hints = append(f.Hints, hintSigner(signer))
				}
			}
		}
		sortHints(f.Hints)
		f.Hints = slices.Compact(f.Hints)
	}
	f.Partial, f.Filed = false, false
	return looked{fact: &f, until: recheck(f.Verdicts)}, "", nil
}

// askOthers takes what another worker has told of a reference.
func (e *examiner) askOthers(ctx context.Context, o *opened, row *store.Row, ref *store.Reference, manifest *layout.Manifest) (l looked, took bool, err error) {
	k, ok := o.key(row, ref)
	if !ok || o.in.peers == nil || o.alone {
		return looked{}, false, nil
	}
	o.in.ask(ctx, o, k)
	s := o.asked[k]
	if s == nil {
		return looked{}, false, ctx.Err()
	}
	l, refused, err := e.take(ctx, o, row, ref, manifest, s)
	switch {
	case err != nil:
		return looked{}, false, err
	case refused != "":
		o.in.peers.Leave(refused)
		return looked{}, false, nil
	}
	if l.fact != nil { // else it cannot be read here
		e.counters.taken.Add(1)
		o.in.peers.Took()
	}
	l.taken = true
	return l, true, nil
}

// refuses says why a fact of another worker is not taken.
func (e *examiner) refuses(o *opened, row *store.Row, ref *store.Reference, manifest *layout.Manifest, s *store.Shared) (string, error) {
	f := o.in.inForce()
	c, _ := o.in.context(o.name, row, ref)
	switch {
	case s.Subject != row.Digest || s.Signature != ref.Digest || s.Context != c || s.Carrier != ref.Carrier || s.MediaType != row.MediaType || s.Size != row.Size,
		manifest.Ambiguous, !verifier.SameLayers(ref.Carrier, manifest.Layers, s.Verdicts):
		return refusedPlace, nil
	case !travels(&s.Fact) || s.Epoch != verifier.Epoch:
		return refusedUndecided, nil
	}
	same := s.TrustStore == o.in.store.ID()
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		switch {
		case v.Policy != c.Policy || v.Epoch != verifier.Epoch:
			return refusedPlace, nil
		case !same && (c.Tool != trust.Cosign || !v.Matched() || v.Identity != nil):
			// Another anchor or root may be here; what one key has made, another has not.
			return refusedTrust, nil
		case v.Matched() && !f.Lives(v):
			return refusedSigner, nil
		}
	}
	known, ok, err := e.facts.Fact(row.Digest, ref.Digest, c)
	if err != nil || !ok {
		return "", err
	}
	if slices.ContainsFunc(known.Verdicts, func(v trust.Verdict) bool { return v.Reason == trust.Revoked }) {
		return refusedRevoked, nil
	}
	for i := range known.Verdicts {
		v := &known.Verdicts[i]
		switch {
		case known.Epoch != verifier.Epoch:
		case v.Recheck() != 0:
			return refusedService, nil
		case f.Lives(v) && (i >= len(s.Verdicts) || !s.Verdicts[i].Matched()):
			return refusedWorse, nil
		}
	}
	return "", nil
}
