package scheduler

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/truststore"
)

// pass is what is left to do about one signer that came or went: the index
// rows to go through.
type pass struct {
	came  bool
	hints []store.Hint
	after uint64
	// pairs are complete when the pass is: every unmatched signature of the
	// class has been filed for them.
	pairs []truststore.CurveHash
}

// Kinds of hint in the index: store.HintSigner, and the verifier's above it.
func hintSigner(s trust.SignerID) store.Hint { return hint(store.HintSigner, s[:8]) }

func hint(kind uint8, value []byte) store.Hint {
	h := store.Hint{kind}
	copy(h[1:], value)
	return h
}

func hintOf(h verifier.Hint) store.Hint {
	kind := store.HintSigner + uint8(h.Kind)
	switch h.Kind {
	case verifier.HintClass:
		return hint(kind, binary.BigEndian.AppendUint16(nil, uint16(h.Class)))
	case verifier.HintTimestamp:
		return hint(kind, nil)
	default:
		return hint(kind, h.Fingerprint[:8])
	}
}

// oweSigner queues the pass of a signer.
func (s *Scheduler) oweSigner(in *trustInUse, id trust.SignerID, came bool, marks map[string]bool) {
	p := &pass{came: came}
	signer, _ := in.inForce().Signer(id) // if it came
	switch {
	case !came:
		p.hints = []store.Hint{hintSigner(id)}
	case signer.Tool == trust.Notation && signer.StoreType == "tsa":
		p.hints = []store.Hint{hintOf(verifier.Hint{Kind: verifier.HintTimestamp})}
	case signer.Tool == trust.Notation:
		p.hints = []store.Hint{hintOf(verifier.Hint{Kind: verifier.HintCertificate, Fingerprint: signer.Fingerprint})}
	case signer.StoreType == trust.RootStore:
		for _, key := range in.store.Issuers(signer) {
			p.hints = append(p.hints, hintOf(verifier.Hint{Kind: verifier.HintIssuer, Fingerprint: key}))
		}
	default:
		class, pairs := in.store.Filing(signer)
		complete := len(pairs) > 0
		for _, pair := range pairs {
			complete = complete && marks[markPair(pair)]
		}
		if complete {
			p.hints = []store.Hint{hintOf(verifier.Hint{Kind: verifier.HintCandidate, Fingerprint: signer.Fingerprint})}
		} else {
			p.hints = []store.Hint{hintOf(verifier.Hint{Kind: verifier.HintClass, Class: class})}
			p.pairs = pairs
		}
	}
	level := fresh
	if !came {
		level = urgent
	}
	s.agenda.add(item{signer: id}, level, func(w *work) { w.pass = p })
}

// passSize is how many candidates a signer's turn looks at: more than turnSize,
// since somebody waits for a new key, and each turn ends with a commit.
const passSize = 4 * turnSize

// signerTurn verifies up to passSize of the signatures that a signer's pass
// leads to.
func (s *Scheduler) signerTurn(ctx context.Context, i item, w *work) (result, error) {
	began := time.Now()
	in := s.trust.Load()
	if w.pass == nil || in.inForce().Has(i.signer) != w.pass.came {
		return result{}, nil // it has changed again: another pass is owed or done
	}
	next := *w.pass // what is owed changes only with the commit
	p := &next
	r := result{again: w}
	left := passSize
	for len(p.hints) > 0 && left > 0 {
		facts, after, err := s.cfg.Store.Candidates(p.hints[0], p.after, left)
		if err != nil {
			return result{}, err
		}
		if !p.came || p.hints[0][0] != store.HintSigner {
			batches, err := s.verifyAll(ctx, in, facts, i.signer, p.came)
			if err != nil {
				return result{}, err
			}
			r.batches = append(r.batches, batches...)
		}
		left -= len(facts)
		if p.after = after; after == 0 {
			p.hints = p.hints[1:]
		}
	}
	done := len(p.hints) == 0
	s.log.Debug("looked at what a signer concerns", "signer", fmt.Sprintf("%x", i.signer), "came", p.came, "facts", passSize-left, "done", done, "took", time.Since(began))
	if done {
		b := store.Batch{Marks: p.marks(i.signer), Ends: len(r.batches)}
		if p.came { // and not gone before this is in the store
			b.InForce = &i.signer
		}
		r.batches = append(r.batches, b)
	}
	r.then = func(outdated bool) {
		for i := range r.batches {
			if b := &r.batches[i]; b.Place != "" && b.Update != nil {
				s.oweSettle(b.Place, fresh)
			}
			if b := &r.batches[i]; b.Place == "" && len(b.Facts) > 0 {
				s.settleWhereItIs(b.Facts[0].Subject)
			}
		}
		switch {
		case outdated:
			// Signers came while these were verified: begin again.
			s.followMu.Lock()
			defer s.followMu.Unlock()
			if marks, err := s.cfg.Store.Marks(); err == nil {
				s.oweSigner(s.trust.Load(), i.signer, p.came, marks)
			}
		case !done:
			s.agenda.add(i, w.level, func(w *work) { w.pass = p })
		case p.came:
			s.oweOverflow()
		}
	}
	return r, nil
}

// verifyAll verifies the facts that a signer concerns, on all processors: a
// signer's pass is one item, and somebody waits for it.
func (s *Scheduler) verifyAll(ctx context.Context, in *trustInUse, facts []store.Fact, signer trust.SignerID, came bool) ([]store.Batch, error) {
	found := make([][]store.Batch, len(facts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Workers)
	known := s.askOf(ctx, in, facts, func(f *store.Fact) bool { return s.concerns(in, f, signer, came) })
	for k := range facts {
		if !s.concerns(in, &facts[k], signer, came) {
			continue
		}
		g.Go(func() (err error) {
			defer s.recovered(&err)
			found[k], err = s.verifyAgain(ctx, in, &facts[k], !came, known)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

// marks records the end of a pass.
func (p *pass) marks(signer trust.SignerID) map[string]bool {
	m := map[string]bool{markApplied(signer): p.came, markGone(signer): false}
	for _, pair := range p.pairs {
		m[markPair(pair)] = true
	}
	return m
}

// concerns reports whether verifying a fact again could change it.
func (s *Scheduler) concerns(in *trustInUse, f *store.Fact, signer trust.SignerID, came bool) bool {
	for i := range f.Verdicts {
		v := &f.Verdicts[i]
		if came && !restsOn(v, signer) && !in.inForce().AcceptedBy(signer, v) {
			return true
		}
		if !came && !in.inForce().Lives(v) {
			return true
		}
	}
	return false
}

func restsOn(v *trust.Verdict, signer trust.SignerID) bool {
	for _, g := range v.Grounds {
		if slices.Contains(g.Signers, signer) {
			return true
		}
	}
	return false
}

// verifyAgain verifies the signature of a fact wherever it is, once for each
// context (statement and media type) among its places. With keep, verdicts
// that now match nothing stay as they were: they read signer-removed, and hold
// again without verification should the signer come back.
//
// A fact that is nowhere at present, or in no context that is in force, or whose
// bytes cannot be read now, is not verified again by this pass, and the pass ends
// without it. It is made undecided, so that it is verified when it can be; what a
// signer in force vouches for is served until then.
func (s *Scheduler) verifyAgain(ctx context.Context, in *trustInUse, f *store.Fact, keep bool, known asked) ([]store.Batch, error) {
	names, err := s.cfg.Store.Repositories(f.Subject)
	if err != nil {
		return nil, err
	}
	var batches []store.Batch
	seen := map[store.Context]bool{}
	yes, again := true, false
	prior := in.living(f)
	for _, name := range names {
		row, ok, err := s.cfg.Store.Row(name, f.Subject)
		if err != nil {
			return nil, err
		}
		k := slices.IndexFunc(row.References, func(r store.Reference) bool { return r.Digest == f.Signature })
		if !ok || !row.Present || k < 0 {
			continue
		}
		c, reason := in.context(name, &row, &row.References[k])
		if reason != "" || seen[c] {
			continue
		}
		repository, err := s.open(name)
		if errors.Is(err, fs.ErrNotExist) { // it may be back before a walk misses it, and look unchanged
			batches = append(batches, store.Batch{Place: name, Update: &store.PlaceUpdate{Unsettled: &yes}})
			continue
		}
		if err != nil {
			return nil, err
		}
		l, err := s.look(ctx, &opened{Repository: repository, name: name, in: in, asked: known.only(f.Subject, f.Signature, c), alone: c.Tool != trust.Cosign}, &row, &row.References[k], prior)
		err = errors.Join(err, repository.Close())
		if err != nil {
			return nil, err
		}
		// This turn is not the repository's and writes no rows. What was asked
		// of revocation services has to be asked again, or is not answered yet:
		// a settling turn sees to that.
		if waits := !keep && unasked(l.problems); l.fact != nil && (len(l.problems) == 0 || waits) {
			seen[c] = true
			if keep {
				if err := s.keepDead(in, &l); err != nil {
					return nil, err
				}
			}
			b := store.Batch{Place: name, Facts: []store.Fact{*l.fact}}
			if waits || l.until != 0 {
				b.Update = &store.PlaceUpdate{Unsettled: &yes}
			}
			batches = append(batches, b)
			again = again || f.In(l.fact.Context)
		} else {
			batches = append(batches, store.Batch{Place: name, Update: &store.PlaceUpdate{Unsettled: &yes}})
		}
	}
	u, changed := s.undecided(in, f)
	if !keep && (f.Context.Tool == trust.Notation || slices.ContainsFunc(f.Verdicts, func(v trust.Verdict) bool { return v.Identity != nil })) { // what holds may have further grounds
		u.Epoch, changed = 0, true
	}
	if changed && !again {
		batches = append(batches, store.Batch{Facts: []store.Fact{u}})
	}
	return batches, nil
}

// settleWhereItIs owes another look to the repositories that hold a subject: it may
// have come to them while a fact about it was made undecided because it was nowhere.
func (s *Scheduler) settleWhereItIs(subject trust.Digest) {
	names, err := s.cfg.Store.Repositories(subject)
	if err != nil {
		s.log.Error("cannot find the repositories of an image; the next pass will", "error", err)
		return
	}
	for _, name := range names {
		s.oweSettle(name, fresh)
	}
}

// undecided is a fact without what it says of layers that no signer in force
// vouches for.
func (s *Scheduler) undecided(in *trustInUse, f *store.Fact) (u store.Fact, changed bool) {
	u = *f
	u.Trust = in.generation
	u.Verdicts = slices.Clone(f.Verdicts)
	for i := range u.Verdicts {
		if v := &u.Verdicts[i]; !in.inForce().Lives(v) {
			*v, changed = trust.Verdict{Format: v.Format, Policy: v.Policy}, true
		}
	}
	return u, changed
}

func sortHints(h []store.Hint) {
	slices.SortFunc(h, func(a, b store.Hint) int { return bytes.Compare(a[:], b[:]) })
}

// oweOverflow owes a pass at low priority over everything while some unmatched
// signatures are beyond the bounds of the index: whichever
// repository had no room for one, it may be in others.
func (s *Scheduler) oweOverflow() {
	n, err := s.cfg.Store.Unfiled()
	if n == 0 && err == nil {
		return
	}
	places, perr := s.cfg.Store.Places()
	if err := errors.Join(err, perr); err != nil {
		s.log.Error("cannot list repositories", "error", err)
		return
	}
	for _, p := range places {
		s.oweSettle(p.Name, slow)
	}
}

func cutPair(mark string) (truststore.CurveHash, bool) {
	rest, ok := strings.CutPrefix(mark, "pair ")
	n, err := strconv.ParseUint(rest, 10, 8)
	return truststore.CurveHash(n), ok && err == nil
}
