package scheduler

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/truststore"
)

// Work that a change of trust, of the verifier's epoch or an earlier run makes
// necessary, and the checkpoints in the store by which it survives a crash.

// markApplied is the checkpoint of a signer whose pass is complete: every signature that
// it could have made has been tried. A signer in force without one needs a pass.
func markApplied(s trust.SignerID) string { return "applied " + hex.EncodeToString(s[:]) }

// markGone is the checkpoint of a signer that has left and whose signatures are still to
// be tried with the other signers. The transaction that sets it clears markApplied: a
// signer that returns before then counts as new.
func markGone(s trust.SignerID) string { return "gone " + hex.EncodeToString(s[:]) }

// markPair is the checkpoint of a curve and hash for which every unmatched signature has
// been indexed.
func markPair(p truststore.CurveHash) string { return "pair " + strconv.Itoa(int(p)) }

// markOff says that a tool was switched off while repositories were verified, so that
// its signatures there were skipped.
func markOff(t trust.Tool) string { return "off " + string(t) }

// parseMark reads the signer in a mark of a kind.
func parseMark(kind, mark string) (s trust.SignerID, ok bool) {
	b, err := hex.DecodeString(strings.TrimPrefix(mark, kind+" "))
	if err != nil || len(b) != len(s) {
		return s, false
	}
	return trust.SignerID(b), true
}

// owePasses queues what a change of trust makes necessary: a pass for each
// signer that came or went and has not been applied, and the repositories with
// notation signatures when statements changed meaning. followMu is held.
func (s *Scheduler) owePasses(in *trustInUse, change store.TrustChange, was *trustInUse) error {
	marks, err := s.cfg.Store.Marks()
	if err != nil {
		return err
	}
	f := in.inForce()
	if known, err := s.cfg.Store.HasFacts(); err != nil {
		return err
	} else if !known { // what comes is verified with all of them
		if marks, err = s.applied(in); err != nil {
			return err
		}
	}
	for mark := range marks {
		if signer, ok := parseMark("gone", mark); ok && !f.Has(signer) {
			s.oweSigner(in, signer, false, marks)
		}
	}
	for _, m := range f.Terms().Materials {
		// A pass from before a signer left and came back may say now that it is applied.
		id := m.Signer.ID()
		back := slices.Contains(change.Added, id) && (!change.First || was != nil && !was.inForce().Has(id))
		if back || !marks[markApplied(id)] {
			s.oweSigner(in, id, true, marks)
		}
	}
	if err := s.oweSwitched(f, marks); err != nil {
		return err
	}
	if change.Policies {
		return s.oweNotation(change.First)
	}
	return nil
}

// applied marks every signer in force as applied, where no fact is known that it could
// concern, and returns the marks.
func (s *Scheduler) applied(in *trustInUse) (map[string]bool, error) {
	marks, err := s.cfg.Store.Marks()
	if err != nil {
		return nil, err
	}
	change := map[string]bool{}
	for mark := range marks {
		if _, ok := parseMark("gone", mark); ok {
			change[mark] = false
		}
	}
	for _, m := range in.inForce().Terms().Materials {
		change[markApplied(m.Signer.ID())] = true
	}
	for _, pair := range in.store.InUse() {
		change[markPair(pair)] = true
	}
	if _, err := s.cfg.Store.Commit(store.Batch{Marks: change}); err != nil {
		return nil, err
	}
	return s.cfg.Store.Marks()
}

// takeBack takes back the marks that the new trust ends: that signers are applied
// which have left or are back, and that signatures are filed for curves and hashes that no key
// uses any more. was is what workers have verified under, if that is published or
// not.
func (s *Scheduler) takeBack(loaded *truststore.TrustStore, trustChange store.TrustChange, was *trustInUse) error {
	marks, err := s.cfg.Store.Marks()
	if err != nil {
		return err
	}
	change := map[string]bool{}
	for mark := range marks {
		if signer, ok := parseMark("applied", mark); ok && !loaded.InForce().Has(signer) {
			change[mark], change[markGone(signer)] = false, true
		}
		if n, ok := cutPair(mark); ok && !slices.Contains(loaded.InUse(), n) {
			change[mark] = false
		}
	}
	for _, signer := range trustChange.Added {
		if marks[markApplied(signer)] && (!trustChange.First || was != nil && !was.inForce().Has(signer)) {
			change[markApplied(signer)] = false
		}
	}
	if len(change) == 0 {
		return nil
	}
	_, err = s.cfg.Store.Commit(store.Batch{Marks: change})
	return err
}

// oweSwitched remembers which tools are off, and owes a pass over every
// repository when one is on again.
func (s *Scheduler) oweSwitched(f *trust.InForce, marks map[string]bool) error {
	switched, on := map[string]bool{}, false
	for _, tool := range []trust.Tool{trust.Cosign, trust.Notation} {
		if off := !f.Enabled(tool); off != marks[markOff(tool)] {
			switched[markOff(tool)] = off
			on = on || !off
		}
	}
	if len(switched) == 0 {
		return nil
	}
	if on {
		places, err := s.cfg.Store.Places()
		if err != nil {
			return err
		}
		if err := s.oweSettling(places, bulk); err != nil {
			return err
		}
	}
	_, err := s.cfg.Store.Commit(store.Batch{Marks: switched})
	return err
}

// markAtOnce is how many repositories one transaction marks: a pass over all of storage
// begins while others' results are written.
const markAtOnce = 1000

// oweSettling queues a pass over the rows of the places, and marks what makes it owed
// across a restart. What is to be remembered of the pass is committed after it.
func (s *Scheduler) oweSettling(places []store.Place, level priority) error {
	yes := true
	for part := range slices.Chunk(places, markAtOnce) {
		batches := make([]store.Batch, 0, len(part))
		for _, p := range part {
			batches = append(batches, store.Batch{Place: p.Name, Update: &store.PlaceUpdate{Unsettled: &yes}})
		}
		if _, err := s.cfg.Store.Commit(batches...); err != nil {
			return err
		}
		for _, p := range part {
			s.oweSettle(p.Name, level)
		}
	}
	return nil
}

// oweSettle queues a pass over the rows of a repository, from the first.
func (s *Scheduler) oweSettle(name string, level priority) {
	s.agenda.add(item{repository: name}, level, func(w *work) { w.settle, w.at = true, place{} })
}

// oweNotation owes a pass over every repository that has notation signatures.
// At the first load of a process that is needed only if the policies changed
// while it was not running; the pass finds nothing to do otherwise.
func (s *Scheduler) oweNotation(first bool) error {
	places, err := s.cfg.Store.Places()
	if err != nil {
		return err
	}
	var mark []store.Place
	for _, p := range places {
		switch {
		case !p.HasNotation:
		case first:
			s.oweSettle(p.Name, fresh)
		default:
			mark = append(mark, p)
		}
	}
	return s.oweSettling(mark, fresh)
}

// resume owes what an earlier run left unfinished.
func (s *Scheduler) resume() error {
	places, err := s.cfg.Store.Places()
	if err != nil {
		return err
	}
	marks, err := s.cfg.Store.Marks()
	if err != nil {
		return err
	}
	epoch := "epoch " + strconv.Itoa(int(verifier.Epoch))
	for _, p := range places {
		if p.Unsettled {
			s.oweSettle(p.Name, bulk)
		}
	}
	s.oweOverflow()
	if marks[epoch] {
		return nil
	}
	if err := s.oweSettling(places, bulk); err != nil {
		return err
	}
	_, err = s.cfg.Store.Commit(store.Batch{Marks: map[string]bool{epoch: true}})
	return err
}

// oweRehash owes the slow pass: the bytes of signatures and of the images that they
// are about are read again and hashed, so that rot is found within its interval.
func (s *Scheduler) oweRehash() error {
	places, err := s.cfg.Store.Places()
	if err != nil {
		return fmt.Errorf("list repositories: %w", err)
	}
	for _, p := range places {
		s.agenda.add(item{repository: p.Name}, slow, func(w *work) { w.rehash = true })
	}
	return nil
}
