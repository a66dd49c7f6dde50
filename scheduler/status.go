package scheduler

import (
	"cmp"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/fair"
	"trust-worker/layout"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
	"trust-worker/watcher"
)

// counters count work done since the start.
type counters struct {
	walks, scanned, opened  atomic.Int64
	verified, calls, reread atomic.Int64
	commits, errors, panics atomic.Int64
	taken                   atomic.Int64
}

// Work is what a Scheduler has done since it was made.
type Work struct {
	Walks    int64 // passes over storage
	Scanned  int64 // looks at one repository
	Opened   int64 // manifests opened to see what they are
	Verified int64 // signature manifests verified
	Calls    int64 // verifications by cosign or notation-go
	Reread   int64 // signature manifests read and hashed alone: by the slow pass, or since they were known from elsewhere
	Taken    int64 // facts of other workers that were taken instead
	Commits  int64
	Errors   int64
	Panics   int64
}

// LogValue is the work in words.
func (w Work) LogValue() slog.Value {
	return slog.GroupValue(slog.Int64("passes", w.Walks), slog.Int64("repositories", w.Scanned), slog.Int64("opened", w.Opened),
		slog.Int64("verified", w.Verified), slog.Int64("calls", w.Calls), slog.Int64("reread", w.Reread), slog.Int64("taken", w.Taken), slog.Int64("commits", w.Commits),
		slog.Int64("errors", w.Errors), slog.Int64("panics", w.Panics))
}

// Work returns the counters.
func (s *Scheduler) Work() Work {
	c := &s.counters
	return Work{Walks: c.walks.Load(), Scanned: c.scanned.Load(), Opened: c.opened.Load(),
		Verified: c.verified.Load(), Calls: c.calls.Load(), Reread: c.reread.Load(), Taken: c.taken.Load(),
		Commits: c.commits.Load(), Errors: c.errors.Load(), Panics: c.panics.Load()}
}

// Status is a Scheduler's condition: what `trust-worker status` shows.
type Status struct {
	// Problem is what keeps the answers from being kept up to date, or "".
	Problem string
	// Confirmed is when the trust directories were last found to be what is
	// published.
	Confirmed time.Time
	// Looked is when the loop that keeps the published trust in step last came
	// round, whatever it found. It does so each Config.ConfirmInterval; if it
	// does not, the process hangs.
	Looked  time.Time
	Loaded  int // trust files
	Refused []truststore.Refusal
	// Warnings are about trust files that are in force.
	Warnings []truststore.Refusal `json:",omitempty"`
	Ignored  int
	Policy   string
	// LastPass and PassTook are of the last pass over storage.
	LastPass time.Time
	PassTook time.Duration
	// Layout is that of the storage root. Links are those that the last pass has looked at to
	// tell what has changed, in distribution's.
	Layout       layout.Layout `json:",omitempty"`
	Links        int64         `json:",omitempty"`
	FirstPass    bool          // over
	Repositories int
	RefusedDirs  []string // directories in storage that were not entered
	Unlisted     []string // directories in storage that could not be listed
	// Overflowing are repositories with more unmatched signatures than the
	// index takes: a new key is tried on them as a whole, later than elsewhere.
	Overflowing []string
	Queue       int // repositories and signers with work owed
	// QueueAge is for how long the first of them has been.
	QueueAge time.Duration
	// Quarantined are signatures that are not verified because that crashed
	// twice: the first hundred of QuarantinedAll.
	Quarantined    []string
	QuarantinedAll int
	Trust          *watcher.Status
	Storage        *watcher.Status
	// Revocation is nil unless revocation services are asked.
	Revocation *revocation.Stats
	Work       Work
}

// stateOfScan is the part of Status that loops leave behind.
type stateOfScan struct {
	mu sync.Mutex
	st Status
	// Each ends when what it is about succeeds.
	trustProblem, recordProblem, commitProblem string
	// unstableTries counts, by repository, the scans in a row that found it
	// changing or incomplete. Bounded: see unstable.
	unstableTries map[string]int
}

func (st *stateOfScan) setTrustProblem(p string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.trustProblem = p
}

func (st *stateOfScan) setRecordProblem(p string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.recordProblem = p
}

func (st *stateOfScan) setCommitProblem(p string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.commitProblem = p
}

func (st *stateOfScan) setLooked(now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.st.Looked = now
}

func (st *stateOfScan) setTrust(t *truststore.TrustStore, now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.st.Confirmed, st.st.Loaded, st.st.Refused, st.st.Warnings = now, len(t.Loaded()), t.Refused(), t.Warnings()
	st.st.Ignored, st.st.Policy = t.Ignored(), t.Policy().String()
}

// setPass notes a pass over storage that has ended.
func (st *stateOfScan) setPass(now time.Time, took time.Duration, links int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.st.LastPass, st.st.PassTook, st.st.Links = now, took, links
}

func (st *stateOfScan) setListed(l *listing, places []store.Place) {
	st.mu.Lock()
	defer st.mu.Unlock()
	const enough = 100
	st.st.Overflowing = nil
	for _, p := range places {
		if p.Overflow && len(st.st.Overflowing) < enough {
			st.st.Overflowing = append(st.st.Overflowing, p.Name)
		}
	}
	st.st.Repositories = len(l.found)
	refused := fair.Order(l.refused, fair.TopLevel)
	st.st.RefusedDirs = refused[:min(len(refused), enough)]
	st.st.Unlisted = nil
	cannot := fair.Order(l.unlisted, func(u unlisted) string { return fair.TopLevel(u.name) })
	for _, dir := range cannot[:min(len(cannot), enough)] {
		st.st.Unlisted = append(st.st.Unlisted, dir.name)
	}
}

// unstable counts how often in a row a repository was found so. With too many
// of them the count is given up: the passes still look at each.
func (st *stateOfScan) unstable(name string, is bool) int {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !is {
		delete(st.unstableTries, name)
		return 0
	}
	if st.unstableTries == nil || len(st.unstableTries) > 1000 {
		st.unstableTries = map[string]int{}
	}
	st.unstableTries[name]++
	return st.unstableTries[name]
}

// Status returns the present condition.
func (s *Scheduler) Status() Status {
	s.state.mu.Lock()
	st := s.state.st
	st.Problem = cmp.Or(s.state.trustProblem, s.state.recordProblem, s.state.commitProblem)
	s.state.mu.Unlock()
	st.Layout = s.cfg.Storage[0].Root.Layout()
	st.Queue, st.QueueAge, st.Work = s.agenda.size(), s.agenda.oldest(time.Now(), priorities), s.Work()
	if c := s.cfg.Revocation; c != nil {
		stats := c.Stats()
		st.Revocation = &stats
	}
	st.Quarantined, st.QuarantinedAll = s.quarantine.list(100)
	select {
	case <-s.firstPass:
		st.FirstPass = true
	default:
	}
	if s.cfg.Trust != nil {
		t := s.cfg.Trust.Status()
		st.Trust = &t
	}
	if s.cfg.Repositories != nil {
		r := s.cfg.Repositories.Status()
		st.Storage = &r
	}
	return st
}
