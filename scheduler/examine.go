package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"trust-worker/cache/store"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/revocation"
)

// examiner looks at one signature: it reads the manifest and the layers, has them
// verified, and makes of the outcome a fact and what belongs to the place. It knows
// nothing of queues, and of what is stored only what it asks of facts.
type examiner struct {
	facts      knownFacts
	now        func() time.Time                                                                      // the wall clock
	verify     func(context.Context, *verifier.Verifier, verifier.Request) (verifier.Outcome, error) // tests make it crash
	quarantine quarantine
	counters   counters
	measures   *measures
	log        *slog.Logger
}

// knownFacts are the facts of earlier looks: those of a [store.Store], or none.
type knownFacts interface {
	Fact(subject, signature trust.Digest, c store.Context) (store.Fact, bool, error)
}

// noFacts is a memory of nothing.
type noFacts struct{}

func (noFacts) Fact(trust.Digest, trust.Digest, store.Context) (store.Fact, bool, error) {
	return store.Fact{}, false, nil
}

func newExaminer(facts knownFacts, now func() time.Time, log *slog.Logger) examiner {
	return examiner{facts: facts, now: now, verify: verifyOne, measures: newMeasures(), log: log}
}

func verifyOne(ctx context.Context, v *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
	return v.Verify(ctx, r)
}

// opened is a repository whose signatures are looked at, and the trust to verify them
// under. One goroutine at a time uses it.
type opened struct {
	*layout.Repository
	name    string
	in      *trustInUse
	guesses verifier.Guesses
	asked   asked // of other workers
	alone   bool  // none of them is asked
}

// trialReferences is how many signatures of one subject may have their key
// guessed (RSA, Ed25519), the first by digest: what is tried depends on what
// is stored and not on its history.
const trialReferences = 1000

// looked is what a look at one reference gave.
type looked struct {
	fact     *store.Fact // nil: nothing is known but the problems
	problems []store.Problem
	// retry is set when looking again later may tell more.
	retry bool
	// asked is set when revocation services are being asked.
	asked bool
	// service is set when revocation services have a say in it.
	service bool
	// taken: another worker has verified it.
	taken bool
	// until is when what revocation services said ends, 0 if nothing does.
	until int64
}

// context returns what a fact about the reference depends on here, or the
// reason why it is not verified: no statement governs it, or none verifies.
func (in *trustInUse) context(repository string, row *store.Row, ref *store.Reference) (store.Context, trust.Reason) {
	tool := ref.Carrier.Tool()
	policy, reason := in.inForce().Policy(repository, tool)
	if reason == "" && !in.inForce().Enabled(tool) {
		reason = trust.NoPolicy
	}
	c := store.Context{Tool: tool, Policy: policy}
	if tool == trust.Notation {
		c.MediaType = row.MediaType
	}
	return c, reason
}

// needs reports whether a reference has to be verified: nothing is known of it
// under the statement in force, or only by another epoch, or a signer has come
// that the index could not propose it for. If it has not, until is when what
// revocation services said of it ends, 0 if nothing does.
func (e *examiner) needs(in *trustInUse, repository string, row *store.Row, ref *store.Reference) (needs bool, until int64, err error) {
	waits := len(ref.Problems) > 0
	if !row.Present || waits && !unasked(ref.Problems) {
		return false, 0, nil // not yet, or the retry timer's
	}
	c, reason := in.context(repository, row, ref)
	if reason != "" {
		return false, 0, nil
	}
	f, ok, err := e.facts.Fact(row.Digest, ref.Digest, c)
	if err != nil || !ok {
		return true, 0, err // also when another policy waits for revocation services
	}
	if waits { // the retry timer's, unless it is known here
		return !slices.ContainsFunc(f.Verdicts, func(v trust.Verdict) bool { return !v.Matched() && v.Reason == "" }), 0, nil
	}
	if f.Epoch != verifier.Epoch {
		return true, 0, nil
	}
	for i := range f.Verdicts {
		v := &f.Verdicts[i]
		if !v.Matched() && v.Reason == "" {
			return true, 0, nil // decided elsewhere but for a blob that was missing there
		}
		curable := v.Reason == trust.NoTrustedKey || keylessReason(v.Reason) || v.Reason == trust.TimestampInvalid ||
			v.Matched() && (c.Tool == trust.Notation || v.Identity != nil) // another anchor or root may have come
		if curable && !f.Filed && f.Trust < in.generation {
			return true, 0, nil
		}
	}
	return false, recheck(f.Verdicts), nil
}

// keylessReason reports whether another trusted root may say something else.
func keylessReason(r trust.Reason) bool {
	switch r {
	case trust.NoTrustedRoot, trust.AuthorityRemoved, trust.NotLogged, trust.NoSignedTime, trust.SCTMissing, trust.CertificateInvalid:
		return true
	}
	return false
}

// look looks at one reference, unless it is in quarantine. prior are verdicts on
// layers that may be used again. An error means that the turn cannot go on; what
// is wrong with this reference alone is in the problems. A panic outside of the
// verifier's own guard costs this reference, not the turn.
func (e *examiner) look(ctx context.Context, o *opened, row *store.Row, ref *store.Reference, prior map[trust.LayerID]trust.Verdict) (l looked, err error) {
	done, ok := e.quarantine.begin(ref.Digest)
	if !ok {
		return whole(trust.LimitExceeded), nil
	}
	defer done()
	defer func() {
		if p := recover(); p != nil {
			e.counters.panics.Add(1)
			e.quarantine.panicked(ref.Digest, -1)
			e.log.Error("looking at a signature panicked", "repository", o.name, "subject", row.Digest.String(),
				"signature", ref.Digest.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			l, err = whole(trust.LimitExceeded), nil
		}
	}()
	return e.lookAt(ctx, o, row, ref, prior)
}

// notePanics counts the layers at which a library panicked.
func (e *examiner) notePanics(d trust.Digest, o *verifier.Outcome) {
	e.counters.panics.Add(int64(o.Panics))
	for n := range o.Layers {
		if o.Layers[n].Panicked {
			e.quarantine.panicked(d, n)
		}
	}
}

// lookAt verifies one reference.
func (e *examiner) lookAt(ctx context.Context, r *opened, row *store.Row, ref *store.Reference, prior map[trust.LayerID]trust.Verdict) (l looked, err error) {
	began := time.Now()
	defer func() {
		if err == nil && !l.taken {
			e.measures.looked(ref.Carrier.Tool(), &l, time.Since(began))
		}
	}()
	if row.Ambiguous { // here; the same bytes may be named without contradiction elsewhere
		return whole(trust.Ambiguous), nil
	}
	manifest, err := r.Manifest(ctx, ref.Digest)
	if ctx.Err() != nil {
		return looked{}, ctx.Err()
	}
	if err != nil {
		return whole(reasonOf(err)), nil
	}
	if manifest.Carries(row.Digest) != ref.Carrier {
		// It could not be read when storage was, which is owed again. A fact is everybody's:
		// it is never made of a manifest that is taken for something else.
		return whole(trust.IOError), nil
	}
	if l, took, err := e.askOthers(ctx, r, row, ref, manifest); err != nil || took {
		return l, err
	}
	e.counters.verified.Add(1)
	o, err := e.verify(ctx, r.in.verifier, verifier.Request{
		Subject: verifier.Subject{Repository: r.name, Digest: row.Digest, MediaType: row.MediaType, Size: row.Size, Ambiguous: row.Ambiguous},
		Signature: verifier.Signature{Digest: ref.Digest, Carrier: ref.Carrier, Layers: manifest.Layers,
			Ambiguous: manifest.Ambiguous},
		Fetch:    r.Blob,
		Prior:    prior,
		Guesses:  &r.guesses,
		NoTrials: !firstByDigest(row, ref),
		Skip:     func(layer int) bool { return e.quarantine.holds(ref.Digest, layer) },
	})
	if err != nil {
		return looked{}, err
	}
	e.notePanics(ref.Digest, &o)
	if o.Skipped != "" { // nothing was read: a blob that was missing may still be
		reason, err := e.reread(ctx, r, ref)
		if err != nil || reason == "" {
			return looked{}, err
		}
		return whole(reason), nil
	}
	l = e.record(r.in, row, ref, &o)
	r.tell(row, ref, &l)
	if unasked(l.problems) {
		if until, stands, err := e.stands(r.in, r.name, l.fact); err != nil {
			return looked{}, err
		} else if stands {
			return looked{retry: true, asked: l.asked, until: until}, nil
		}
	}
	return l, nil
}

// record turns an outcome into a fact and what belongs to the place.
func (e *examiner) record(in *trustInUse, row *store.Row, ref *store.Reference, o *verifier.Outcome) looked {
	l := looked{fact: &store.Fact{
		Subject: row.Digest, Signature: ref.Digest,
		Context:    store.Context{Tool: o.Tool, Policy: o.Policy, MediaType: o.MediaType},
		Attachment: o.Attachment, Trust: in.generation, Epoch: verifier.Epoch,
	}}
	hints := map[store.Hint]bool{}
	for n, lo := range o.Layers {
		v := lo.Verdict
		e.counters.calls.Add(int64(lo.Calls))
		if lo.Problem != "" {
			l.problems = append(l.problems, store.Problem{Layer: n, Reason: lo.Problem})
			l.retry = l.retry || lo.Problem.Undecided() || lo.Problem == trust.DigestMismatch
			v = trust.Verdict{Format: v.Format, Policy: v.Policy, Layer: v.Layer}
		}
		l.retry = l.retry || lo.Incomplete != ""
		l.asked = l.asked || lo.Asked
		l.service = l.service || lo.Service
		l.fact.Verdicts = append(l.fact.Verdicts, v)
		for _, h := range lo.Hints {
			hints[hintOf(h)] = true
		}
		for _, g := range v.Grounds {
			for _, signer := range g.Signers {
				hints[hintSigner(signer)] = true
			}
		}
		if v.Reason != "" && v.Reason != trust.NoTrustedKey { // it ends with these
			for _, signer := range lo.RestsOn {
				hints[hintSigner(signer.ID())] = true
			}
		}
	}
	for h := range hints {
		l.fact.Hints = append(l.fact.Hints, h)
	}
	sortHints(l.fact.Hints)
	l.fact.Partial = len(l.problems) > 0 && !unasked(l.problems)
	l.until = recheck(l.fact.Verdicts)
	return l
}

// whole is a look that ended before the first layer.
func whole(r trust.Reason) looked {
	return looked{problems: []store.Problem{{Layer: -1, Reason: r}}, retry: r.Undecided() || r == trust.DigestMismatch}
}

// reasonOf says which reason an error of package layout stands for.
func reasonOf(err error) trust.Reason {
	var re *trust.ReasonError
	switch {
	case errors.As(err, &re):
		return re.Reason
	case errors.Is(err, fs.ErrNotExist):
		return trust.BlobMissing
	}
	return trust.IOError
}

func firstByDigest(row *store.Row, ref *store.Reference) bool {
	first := 0
	for i := range row.References {
		r := &row.References[i]
		if (r.Carrier == trust.Attestations) != (ref.Carrier == trust.Attestations) {
			continue // neither takes the other's place
		}
		if first++; first > trialReferences {
			return false
		}
		if r.Digest == ref.Digest {
			return true
		}
	}
	return false
}

// apply writes what a look gave into the reference: problems, and when to look
// again, with back-off from a second to an hour.
func (e *examiner) apply(ref *store.Reference, l looked) {
	ref.Problems = l.problems
	if !l.retry {
		ref.Attempts, ref.NextTry = 0, e.again(l.until)
		return
	}
	ref.Attempts++
	limit := longestBackoff
	if l.asked { // the answer may not live as long as that
		limit = revocation.Soon
	}
	ref.NextTry = e.now().Add(min(backoff(ref.Attempts, time.Second, longestBackoff), limit)).Unix() + 1
	if at := e.again(l.until); at != 0 {
		ref.NextTry = min(ref.NextTry, at)
	}
}

// longestRetry is longer than any wait after an attempt that told nothing, longestWait
// than any for the next answer of a revocation service. A reference that waits for more
// was put off by a clock that was ahead.
const (
	longestBackoff = time.Hour
	longestRetry   = longestBackoff + time.Minute
	longestWait    = revocation.MaxAge + time.Minute
)

// keepDead restores the grounds of what was matched before and is not now, where a signer
// that they name has left: they read signer-removed, and hold again if it comes back. What
// no longer matches although its signers are in force is as the verifier says now.
func (e *examiner) keepDead(in *trustInUse, l *looked) error {
	f := l.fact
	old, ok, err := e.facts.Fact(f.Subject, f.Signature, f.Context)
	if err != nil || !ok || len(old.Verdicts) != len(f.Verdicts) || old.Epoch != f.Epoch {
		return err
	}
	for i := range f.Verdicts {
		was := &old.Verdicts[i]
		if f.Verdicts[i].Matched() || f.Verdicts[i].Reason == trust.Revoked || !was.Matched() || in.inForce().Lives(was) {
			continue
		}
		f.Verdicts[i] = *was
		for _, g := range was.Grounds {
			for _, signer := range g.Signers {
				f.Hints = append(f.Hints, hintSigner(signer))
			}
		}
	}
	sortHints(f.Hints)
	f.Hints = slices.Compact(f.Hints)
	l.until = recheck(f.Verdicts)
	return nil
}
