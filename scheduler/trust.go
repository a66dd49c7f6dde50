package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
	"trust-worker/verifier"
	"trust-worker/verifier/truststore"
	"trust-worker/watcher"
)

// trustInUse is the trust store that workers verify under, with the
// generation of the signers that it stands for.
type trustInUse struct {
	store      *truststore.TrustStore
	verifier   *verifier.Verifier
	generation uint64
	peers      Peers // nil: none
}

func (t *trustInUse) inForce() *trust.InForce { return t.store.InForce() }

// errTrustNotPublished: the trust in force could not be published; answers are
// withdrawn, and the trust loop tries again.
var errTrustNotPublished = errors.New("trust is not published")

// trustLoop keeps what is published in step with the trust directories. It waits
// for nothing that takes long: what a change makes necessary besides is followLoop's.
func (s *Scheduler) trustLoop(ctx context.Context) error {
	var notices <-chan watcher.Notice
	if s.cfg.Trust != nil {
		notices = s.cfg.Trust.C()
	}
	timer := time.NewTimer(s.cfg.ConfirmInterval)
	defer timer.Stop()
	fails := uint32(0)
	for {
		var notice watcher.Notice
		select {
		case <-ctx.Done():
			return nil
		case notice = <-notices:
		case <-s.reload:
		case <-timer.C:
		}
		next := s.cfg.ConfirmInterval
		if err := s.reloadTrust(ctx); errors.Is(err, store.ErrStateGone) {
			return err
		} else if err != nil && ctx.Err() == nil {
			fails++
			next = min(next, backoff(fails, 250*time.Millisecond, next))
			s.counters.errors.Add(1)
			s.log.Error("cannot bring the published trust up to date; will retry", "error", err, "in", next)
		} else {
			fails = 0
			if s.cfg.Trust != nil {
				s.cfg.Trust.Reconciled(notice)
			}
		}
		if at, ok := s.cfg.Loader.RetryAt(s.now()); ok {
			next = max(min(next, at.Sub(s.now())), 10*time.Millisecond)
		}
		s.state.setLooked(s.now())
		timer.Reset(next)
	}
}

// ReloadNow looks at the trust directories and returns nil once what they hold
// is published: every snapshot taken afterwards has it. It waits for no transaction.
// After an error a loss of trust has been withdrawn, or is tried again by the trust
// loop.
func (s *Scheduler) ReloadNow(ctx context.Context) error {
	err := s.reloadTrust(ctx)
	if err != nil {
		s.Reload()
		return err
	}
	if !s.started.Load() { // a test, or before the start
		return s.followTrust()
	}
	return nil
}

// TrustStore returns what was last loaded from the trust directories and published,
// or nil before the first load.
func (s *Scheduler) TrustStore() *truststore.TrustStore { return s.loaded.Load() }

// reloadTrust loads the trust directories, publishes what differs (S1), renews the
// lease, and has the rest follow. It waits for no transaction.
func (s *Scheduler) reloadTrust(ctx context.Context) error {
	changed, err := s.reloadOnce(ctx)
	if changed && s.cfg.Peers != nil {
		s.cfg.Peers.HintTrust() // also what a hint led to: a change beside it may be nobody else's
	}
	return err
}

// reloadOnce is reloadTrust. It reports whether the trust in force was published that is
// another than the one before.
func (s *Scheduler) reloadOnce(ctx context.Context) (anew bool, err error) {
	s.trustMu.Lock()
	defer s.trustMu.Unlock()
	looked := s.now()
	loaded, err := s.cfg.Loader.Load(ctx, looked)
	if err != nil {
		return false, fmt.Errorf("load trust directories: %w", err)
	}
	was := s.loaded.Load()
	s.logFiles(was, loaded)
	changed := s.publishOwed || !loaded.Same(was)
	if changed {
		s.publishOwed = true
		if err := s.cfg.Store.PublishTrust(loaded.InForce(), looked); err != nil {
			s.state.setTrustProblem("cannot publish trust: " + err.Error())
			return false, fmt.Errorf("%w: %w", errTrustNotPublished, err)
		}
		s.publishOwed = false
		s.published()
		s.state.setTrustProblem("")
		s.log.Info("trust in force", "signers", len(loaded.InForce().Terms().Materials),
			"policy", loaded.Policy().String(), "refused", len(loaded.Refused()))
	}
	s.logPolicy(loaded.Policy())
	s.loaded.Store(loaded)
	s.state.setTrust(loaded, looked)
	if changed || s.cfg.MirrorPolicy && s.cfg.Loader.WantsMirror() || s.cfg.Loader.MemoryLags() {
		poke(s.follow)
	}
	return changed && was != nil, s.cfg.Store.Confirm(looked)
}

// followLoop does what a change of trust makes necessary once it is published, and
// may take long: it records it, has the workers verify under the new trust, and owes the
// passes.
// first is closed when that has been done once.
func (s *Scheduler) followLoop(ctx context.Context, first chan<- struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	fails := uint32(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.follow:
		case <-timer.C:
		}
		err := s.followTrust()
		switch {
		case errors.Is(err, cache.ErrDamaged), errors.Is(err, store.ErrStateGone), err != nil && s.impatient:
			s.fail(err)
			return err
		case err != nil && ctx.Err() == nil:
			fails++
			wait := backoff(fails, 250*time.Millisecond, s.cfg.ConfirmInterval)
			s.counters.errors.Add(1)
			s.state.setRecordProblem("cannot record the trust in force: " + err.Error())
			s.log.Error("cannot record the trust in force; it is published, but what new signers made is not looked for; will retry", "error", err, "in", wait)
			timer.Reset(wait)
		case err == nil:
			fails = 0
			s.state.setRecordProblem("")
			if first != nil && s.trust.Load() != nil {
				close(first)
				first = nil
			}
		}
	}
}

// followTrust brings the store, and with it the workers, to the trust that is
// published. Should any step fail, the next call does all of them again.
func (s *Scheduler) followTrust() error {
	s.followMu.Lock()
	defer s.followMu.Unlock()
	loaded, was := s.loaded.Load(), s.trust.Load()
	if loaded == nil {
		return nil // nothing could be published yet
	}
	if was == nil || s.followOwed || was.store.ID() != loaded.ID() {
		s.followOwed = true
		change, generation, err := s.cfg.Store.RecordTrust(loaded.InForce())
		s.owedChange = s.owedChange.And(change)
		if err != nil {
			return err
		}
		s.log.Debug("trust recorded", "added", len(change.Added), "removed", len(change.Removed))
		if err := s.takeBack(loaded, s.owedChange, was); err != nil {
			return err
		}
		in := &trustInUse{store: loaded, generation: generation, peers: s.cfg.Peers,
			verifier: verifier.New(loaded, verifier.Options{Now: s.now, Logger: s.log, Revocation: s.cfg.Revocation})}
		s.trust.Store(in)
		if err := s.owePasses(in, s.owedChange, was); err != nil {
			return err
		}
		s.followOwed, s.owedChange = false, store.TrustChange{}
	}
	if s.cfg.MirrorPolicy {
		s.mirrorPolicy()
	}
	if err := s.cfg.Loader.SaveMemory(); err != nil {
		s.log.Warn("the trust memory is behind and cannot be written", "error", err)
	}
	return nil
}

// mirrorPolicy writes the default policy where the last load wants it. followMu is
// held.
func (s *Scheduler) mirrorPolicy() {
	path, err := s.cfg.Loader.MirrorDefaultPolicy(context.Background())
	said := fmt.Sprint(err)
	switch {
	case err != nil && said != s.mirrorSaid:
		s.log.Warn("the default trust policy is in force, but cannot be written where notation reads it", "error", err)
	case path != "":
		s.log.Info("wrote the default trust policy", "path", path)
	}
	s.mirrorSaid = said
}
