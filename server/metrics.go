package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"trust-worker/trust"
	"trust-worker/watcher"
)

// metrics are the daemon's, in a registry of their own. No label has a value
// that somebody who pushes images, or sends requests, can choose.
type metrics struct {
	handler  http.Handler
	requests *prometheus.CounterVec
	changes  *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trust_worker_http_requests_total",
			Help: "Requests by route."}, []string{"route"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trust_worker_trust_changes_total",
			Help: "Changes to the trust directories asked for over HTTP, by action and result."}, []string{"action", "result"}),
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.requests, m.changes, newDaemonCollector(s))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m
}

func (m *metrics) request(route string)         { m.requests.WithLabelValues(route).Inc() }
func (m *metrics) change(action, result string) { m.changes.WithLabelValues(action, result).Inc() }

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, _ identity) error {
	s.metrics.handler.ServeHTTP(w, r)
	return nil
}

// daemonCollector reads the daemon's condition when it is asked.
type daemonCollector struct {
	s *Server

	up, generation, leaseAge, lease, published, firstPass, quarantined, queue, repositories *prometheus.Desc
	loaded, refused, expires                                                                *prometheus.Desc
	polling, overflows, watchErrors                                                         *prometheus.Desc
	work, passSeconds, lastPass                                                             *prometheus.Desc
}

func newDaemonCollector(s *Server) *daemonCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trust_worker_"+name, help, labels, nil)
	}
	return &daemonCollector{s: s,
		up:           desc("answers_believed", "1 while answers are published and not stale."),
		generation:   desc("cache_generation", "Number of the publication in force."),
		published:    desc("problem", "1 while something keeps the answers from being kept up to date."),
		leaseAge:     desc("confirmation_age_seconds", "Time since the published trust was last confirmed to be the trust directories'."),
		lease:        desc("lease_seconds", "How long answers are believed without confirmation; 0 for ever."),
		firstPass:    desc("first_pass_done", "1 once the first pass over storage is over."),
		quarantined:  desc("quarantined", "Signatures that are not verified because that crashed twice."),
		queue:        desc("queue_items", "Repositories and signers with work owed."),
		repositories: desc("repositories", "Repositories found by the last pass over storage."),
		loaded:       desc("trust_files_loaded", "Pieces of trust material in force, by tool.", "tool"),
		refused:      desc("trust_files_refused", "Trust files and directories that are not loaded."),
		expires:      desc("certificate_expiry_timestamp_seconds", "End of validity of a trusted certificate.", "store", "fingerprint"),
		polling:      desc("watch_polling", "1 while a watcher polls because events cannot be had.", "watch"),
		overflows:    desc("watch_overflows_total", "Times that the kernel dropped events.", "watch"),
		watchErrors:  desc("watch_errors_total", "Errors of the event source.", "watch"),
		work:         desc("work_total", "Work done since the start, by kind.", "kind"),
		passSeconds:  desc("pass_seconds", "Duration of the last pass over storage."),
		lastPass:     desc("pass_timestamp_seconds", "Time of the last pass over storage."),
	}
}

func (c *daemonCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.generation, c.leaseAge, c.lease, c.published, c.firstPass, c.quarantined, c.queue, c.repositories,
		c.loaded, c.refused, c.expires, c.polling, c.overflows, c.watchErrors, c.work, c.passSeconds, c.lastPass} {
		ch <- d
	}
}

func (c *daemonCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	c.collectCache(gauge)
	st := c.s.cfg.Status()
	gauge(c.published, truth(st.Problem != ""))
	gauge(c.firstPass, truth(st.FirstPass))
	gauge(c.quarantined, float64(st.QuarantinedAll))
	gauge(c.queue, float64(st.Queue))
	gauge(c.repositories, float64(st.Repositories))
	gauge(c.passSeconds, st.PassTook.Seconds())
	gauge(c.lastPass, unixSeconds(st.LastPass))
	for name, w := range map[string]*watcher.Status{"trust": st.Trust, "storage": st.Storage} {
		if w != nil {
			gauge(c.polling, truth(w.Mode == watcher.ModePolling), name)
			count(c.overflows, float64(w.Overflows), name)
			count(c.watchErrors, float64(w.Errors), name)
		}
	}
	for kind, n := range map[string]int64{"pass": st.Work.Walks, "repository": st.Work.Scanned, "manifest": st.Work.Opened,
		"signature": st.Work.Verified, "verification": st.Work.Calls, "reread": st.Work.Reread, "commit": st.Work.Commits,
		"error": st.Work.Errors, "panic": st.Work.Panics} {
		count(c.work, float64(n), kind)
	}
	c.collectTrust(gauge)
}

func (c *daemonCollector) collectCache(gauge func(*prometheus.Desc, float64, ...string)) {
	snap, err := c.s.cfg.Reader.Snapshot()
	if err != nil {
		gauge(c.up, 0)
		return
	}
	defer snap.Close()
	gauge(c.up, truth(!snap.Stale()))
	gauge(c.generation, float64(snap.Generation().Number))
	gauge(c.leaseAge, c.s.cfg.Now().Sub(snap.AsOf()).Seconds())
	gauge(c.lease, snap.Lease().Seconds())
}

// collectTrust: the operator's directories bound the number of series.
func (c *daemonCollector) collectTrust(gauge func(*prometheus.Desc, float64, ...string)) {
	store := c.s.cfg.Trust.TrustStore()
	if store == nil {
		return
	}
	loaded := map[trust.Tool]int{trust.Cosign: 0, trust.Notation: 0}
	seen := map[trust.Signer]bool{}
	for _, f := range store.Loaded() {
		loaded[f.Signer.Tool]++
		if !f.NotAfter.IsZero() && !seen[f.Signer] {
			seen[f.Signer] = true
			gauge(c.expires, unixSeconds(f.NotAfter), f.Signer.Store(), f.Signer.Fingerprint.String())
		}
	}
	for tool, n := range loaded {
		gauge(c.loaded, float64(n), string(tool))
	}
	gauge(c.refused, float64(len(store.Refused())))
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
