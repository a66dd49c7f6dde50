package scheduler

import (
	"slices"
	"sync"
	"time"

	"trust-worker/cache/store"
	"trust-worker/trust"
)

// Measures are distributions and counts of what a Scheduler has done since it
// was made, for metrics.
type Measures struct {
	// Verifications count looks at one signature manifest.
	Verifications map[Verification]uint64
	// Verifying is how long those took, reading included.
	Verifying map[trust.Tool]Histogram
	// Lag is the time from the beginning of the turn that saw a signature
	// until its answer could be read.
	Lag Histogram
}

// Verification is what a look at one signature manifest came to.
type Verification struct {
	Tool trust.Tool
	// Outcome is "matched" (some signer makes a layer good), "unmatched",
	// "undecided" or "attachment" (no signature).
	Outcome string
}

// Histogram counts seconds: Counts[i] are those up to Bounds[i], the last one
// those above all.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

var (
	verifyingBounds = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5}
	lagBounds       = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
)

func newHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

func (h *Histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(h.Bounds, d.Seconds())
	h.Counts[i]++
	h.Sum += d.Seconds()
}

func (h Histogram) clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// measures collects Measures.
type measures struct {
	mu            sync.Mutex
	verifications map[Verification]uint64
	verifying     map[trust.Tool]*Histogram
	lag           Histogram
	// waiting are commits that are not known to be readable yet.
	waiting []waitingCommit
}

type waitingCommit struct{ began, committed time.Time }

// maxWaiting bounds them: in a bulk scan the others stand for those left out.
const maxWaiting = 4096

func newMeasures() *measures {
	m := &measures{verifications: map[Verification]uint64{}, verifying: map[trust.Tool]*Histogram{}, lag: newHistogram(lagBounds)}
	for _, tool := range []trust.Tool{trust.Cosign, trust.Notation} {
		h := newHistogram(verifyingBounds)
		m.verifying[tool] = &h
		for _, outcome := range []string{"matched", "unmatched", "undecided", "attachment"} {
			m.verifications[Verification{tool, outcome}] = 0 // so that rates begin at 0
		}
	}
	return m
}

// looked counts one look.
func (m *measures) looked(tool trust.Tool, l *looked, took time.Duration) {
	outcome := "unmatched"
	switch {
	case l.fact == nil || len(l.problems) > 0:
		outcome = "undecided"
	case l.fact.Attachment:
		outcome = "attachment"
	case slices.ContainsFunc(l.fact.Verdicts, func(v trust.Verdict) bool { return v.Matched() }):
		outcome = "matched"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verifications[Verification{tool, outcome}]++
	if h := m.verifying[tool]; h != nil {
		h.add(took)
	}
}

// committed notes that the facts of a turn are in the store.
func (m *measures) committed(results []result) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range results {
		hasFacts := slices.ContainsFunc(results[i].batches, func(b store.Batch) bool { return len(b.Facts) > 0 })
		if hasFacts && len(m.waiting) < maxWaiting {
			m.waiting = append(m.waiting, waitingCommit{results[i].began, now})
		}
	}
}

// published notes that what was committed before asOf can be read.
func (m *measures) published(asOf time.Time) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = slices.DeleteFunc(m.waiting, func(w waitingCommit) bool {
		done := !w.committed.After(asOf)
		if done {
			m.lag.add(now.Sub(w.began))
		}
		return done
	})
}

// Measures returns the counts and distributions so far.
func (s *Scheduler) Measures() Measures {
	m := s.measures
	m.mu.Lock()
	defer m.mu.Unlock()
	out := Measures{Verifications: map[Verification]uint64{}, Verifying: map[trust.Tool]Histogram{}, Lag: m.lag.clone()}
	for v, n := range m.verifications {
		out.Verifications[v] = n
	}
	for tool, h := range m.verifying {
		out.Verifying[tool] = h.clone()
	}
	return out
}
