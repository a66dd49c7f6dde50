package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"trust-worker/cache"
	"trust-worker/changes/webhook"
	"trust-worker/cluster"
	"trust-worker/cluster/replica"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/watcher"
)

// daemonCollector reads the daemon's condition when it is asked.
type daemonCollector struct {
	s     *Server
	rows  map[string]metric
	descs map[string]*prometheus.Desc
}

func newDaemonCollector(s *Server) *daemonCollector {
	c := &daemonCollector{s: s, rows: map[string]metric{}, descs: map[string]*prometheus.Desc{}}
	for _, m := range daemonMetrics {
		c.rows[m.name] = m
		c.descs[m.name] = prometheus.NewDesc("trust_worker_"+m.name, m.help, m.labels, nil)
	}
	return c
}

func (c *daemonCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect gives each metric that is known now.
func (c *daemonCollector) Collect(ch chan<- prometheus.Metric) {
	e := &emitter{c, ch}
	b := c.s.cfg.Build
	e.value("build_info", 1, b.Version, b.Go, b.Cosign, b.Notation)
	e.cache()
	if c.s.cfg.Replica != nil {
		e.replica(c.s.cfg.Replica())
	} else {
		e.daemon(c.s.cfg.Status())
	}
	e.trust()
	e.changes()
	if c.s.cfg.Cluster != nil {
		e.cluster(c.s.cfg.Cluster())
	}
}

// emitter sends metrics by their names in the table.
type emitter struct {
	*daemonCollector
	ch chan<- prometheus.Metric
}

func (e *emitter) value(name string, v float64, labels ...string) {
	kind := prometheus.GaugeValue
	if e.rows[name].kind == counter {
		kind = prometheus.CounterValue
	}
	e.ch <- prometheus.MustNewConstMetric(e.descs[name], kind, v, labels...)
}

func (e *emitter) histogram(name string, h scheduler.Histogram, labels ...string) {
	cumulative, n := map[float64]uint64{}, uint64(0)
	for i, count := range h.Counts {
		if n += count; i < len(h.Bounds) {
			cumulative[h.Bounds[i]] = n
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(e.descs[name], n, h.Sum, cumulative, labels...)
}

// cache: what any reader sees.
func (e *emitter) cache() {
	private, published := cache.Sizes(e.s.cfg.StateDir)
	e.value("cache_bytes", float64(private), "private")
	e.value("cache_bytes", float64(published), "published")
	snap, err := e.s.cfg.Reader.Snapshot()
	if err != nil {
		e.value("answers_believed", 0)
		return
	}
	defer snap.Close()
	e.value("answers_believed", truth(!snap.Stale()))
	e.value("cache_generation", float64(snap.Generation().Number))
	e.value("confirmation_age_seconds", e.s.cfg.Now().Sub(snap.AsOf()).Seconds())
	e.value("lease_seconds", snap.Lease().Seconds())
	counts, _ := e.s.counts(snap)
	if counts == nil {
		return
	}
	for _, days := range []int{0, 1, 7, 30} {
		e.value("signatures_expiring", float64(counts.EndingBy(e.s.cfg.Now().AddDate(0, 0, days))), strconv.Itoa(days))
	}
	for _, state := range states {
		e.value("images", float64(counts.Images[state]), state)
		e.value("attestations", float64(counts.Attestations[trust.Status(state)]), state)
		if state != cache.Unsigned {
			e.value("signatures", float64(counts.Signatures[trust.Status(state)]), state)
		}
	}
	for _, reason := range trust.Reasons() {
		e.value("signatures_not_trusted", float64(counts.Reasons[reason]), string(reason))
	}
}

func (e *emitter) cluster(c *cluster.Status) {
	e.value("cluster_connected", truth(c.Connected && c.StreamProblem == ""))
	alike := map[bool]int{}
	for _, m := range c.Members {
		if m.Heard {
			alike[m.Alike]++
		}
	}
	for is, label := range map[bool]string{true: "yes", false: "no"} {
		e.value("cluster_members", float64(alike[is]), label)
	}
	for kind, n := range map[string]int64{"given": c.Given, "heard": c.Heard, "taken": c.Taken, "double": c.Double, "lost": c.Lost} {
		e.value("cluster_facts_total", float64(n), kind)
	}
	for reason, n := range c.Refused {
		e.value("cluster_refused_total", float64(n), reason)
	}
	for reason, n := range c.Left {
		e.value("cluster_not_taken_total", float64(n), reason)
	}
	e.value("cluster_lag_seconds", c.Lag.Seconds())
	e.value("cluster_waiting", float64(c.Waiting))
}

func (e *emitter) daemon(st scheduler.Status) {
	e.value("problem", truth(st.Problem != ""))
	e.value("first_pass_done", truth(st.FirstPass))
	e.value("queue_items", float64(st.Queue))
	e.value("queue_age_seconds", st.QueueAge.Seconds())
	e.value("repositories", float64(st.Repositories))
	e.value("pass_seconds", st.PassTook.Seconds())
	e.value("pass_timestamp_seconds", unixSeconds(st.LastPass))
	for name, w := range map[string]*watcher.Status{"trust": st.Trust, "storage": st.Storage} {
		if w != nil {
			e.value("watch_polling", truth(w.Mode == watcher.ModePolling), name)
			e.value("watch_overflows_total", float64(w.Overflows), name)
			e.value("watch_errors_total", float64(w.Errors), name)
		}
	}
	for kind, n := range map[string]int64{"pass": st.Work.Walks, "repository": st.Work.Scanned, "manifest": st.Work.Opened,
		"signature": st.Work.Verified, "verification": st.Work.Calls, "reread": st.Work.Reread, "taken": st.Work.Taken, "commit": st.Work.Commits,
		"error": st.Work.Errors, "panic": st.Work.Panics} {
		e.value("work_total", float64(n), kind)
	}
	e.value("quarantined", float64(st.QuarantinedAll))
	if r := st.Revocation; r != nil {
		for outcome, n := range map[string]int64{"good": r.Good, "revoked": r.Revoked, "unknown": r.Unknown, "dropped": r.Dropped} {
			e.value("revocation_checks_total", float64(n), outcome)
		}
		e.value("revocation_requests_total", float64(r.Requests))
		e.value("revocation_waiting", float64(r.Waiting))
	}
	if e.s.cfg.Measures == nil {
		return
	}
	m := e.s.cfg.Measures()
	for v, n := range m.Verifications {
		e.value("verifications_total", float64(n), string(v.Tool), v.Outcome)
	}
	for tool, h := range m.Verifying {
		e.histogram("verification_seconds", h, string(tool))
	}
	e.histogram("publication_lag_seconds", m.Lag)
}

// replica: what a replica knows of itself, in place of a daemon's work.
func (e *emitter) replica(st replica.Status) {
	e.value("problem", truth(st.Problem != "" || st.DataProblem != ""))
	e.value("first_pass_done", truth(st.Published))
	e.value("replica_connected", truth(st.Connected))
	e.value("replica_generation", float64(st.Generation), "trust")
	e.value("replica_generation", float64(st.Data), "data")
	e.value("replica_behind_seconds", st.Behind.Seconds())
	e.value("replica_bytes_total", float64(st.Bytes))
	e.value("replica_publications_total", float64(st.Publications))
}

// trust: the operator's directories bound the number of series.
func (e *emitter) trust() {
	store := e.s.cfg.Trust.TrustStore()
	if store == nil {
		return
	}
	loaded := map[trust.Tool]int{trust.Cosign: 0, trust.Notation: 0}
	seen := map[trust.Signer]bool{}
	for _, f := range store.Loaded() {
		loaded[f.Signer.Tool]++
		if !f.NotAfter.IsZero() && !seen[f.Signer] {
			seen[f.Signer] = true
			e.value("certificate_expiry_timestamp_seconds", unixSeconds(f.NotAfter), f.Signer.Store(), f.Signer.Fingerprint.String())
		}
	}
	for tool, n := range loaded {
		e.value("trust_files_loaded", float64(n), string(tool))
	}
	ended := 0
	for _, r := range store.Roots() {
		if !r.Open(time.Now()) {
			ended++
		}
	}
	e.value("trusted_roots_ended", float64(ended))
	e.value("trust_files_refused", float64(len(store.Refused())))
}

func (e *emitter) changes() {
	e.value("changes_total", float64(e.s.cfg.Changes.Last().Number))
	e.value("change_streams", float64(len(e.s.streams.all)))
	e.value("replicas", float64(len(e.s.replicas.all)))
	if e.s.cfg.Webhooks == nil {
		return
	}
	sums := map[string]webhook.Status{} // two may differ only in what is not shown
	for _, h := range e.s.cfg.Webhooks() {
		sum := sums[h.Target]
		h.Delivered, h.Retries, h.Refused = h.Delivered+sum.Delivered, h.Retries+sum.Retries, h.Refused+sum.Refused
		h.Dropped, h.Behind = h.Dropped+sum.Dropped, h.Behind+sum.Behind
		sums[h.Target] = h
	}
	for _, h := range sums {
		e.value("webhook_delivered_total", float64(h.Delivered), h.Target)
		e.value("webhook_retries_total", float64(h.Retries), h.Target)
		e.value("webhook_refused_total", float64(h.Refused), h.Target)
		e.value("webhook_dropped_total", float64(h.Dropped), h.Target)
		e.value("webhook_waiting", float64(h.Behind), h.Target)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
