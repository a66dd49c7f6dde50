package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the daemon's, in a registry of their own. No label has a value
// that somebody who pushes images, or sends requests, can choose.
type metrics struct {
	handler  http.Handler
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	changes  *prometheus.CounterVec
	gate     *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trust_worker_http_requests_total",
			Help: "Requests by route."}, []string{"route"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "trust_worker_http_request_seconds",
			Help: "Time to answer a request, by route; streams of changes count when they end.", Buckets: []float64{.0005, .001, .0025, .005, .01, .05, .1, .5, 1, 5}}, []string{"route"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trust_worker_trust_changes_total",
			Help: "Changes to the trust directories asked for over HTTP, by action and result."}, []string{"action", "result"}),
	}
	m.gate = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trust_worker_gate_requests_total",
		Help: "Requests that reverse proxies asked about, by outcome: open (no manifest is read), trusted, listed (by a trusted index), evidence (a signature or attestation), push, denied, undecided."}, []string{"outcome"})
	for _, outcome := range []string{gateOpen, gateTrusted, gateListed, gateEvidence, gatePush, gateDenied, gateUnclear} {
		m.gate.WithLabelValues(outcome)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.requests, m.seconds, m.changes, m.gate, newDaemonCollector(s))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m
}

func (m *metrics) request(route string) (done func()) {
	m.requests.WithLabelValues(route).Inc()
	began := time.Now()
	return func() { m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds()) }
}

func (m *metrics) change(action, result string) { m.changes.WithLabelValues(action, result).Inc() }

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, _ identity) error {
	s.metrics.handler.ServeHTTP(w, r)
	return nil
}

// kinds of metric besides counters and gauges.
type metricKind int

const (
	gauge metricKind = iota
	counter
	histogram
)

// metric is one row of daemonMetrics.
type metric struct {
	name   string // after "trust_worker_"
	kind   metricKind
	help   string
	labels []string
}

// daemonMetrics are those that are read from the daemon's condition when they
// are asked for; docs/metrics.md is held to this table and those above.
var daemonMetrics = []metric{
	{"build_info", gauge, "1; the labels are the program's version and those of what it verifies with.", []string{"version", "go", "cosign", "notation"}},

	{"answers_believed", gauge, "1 while answers are published and not stale.", nil},
	{"cache_generation", gauge, "Number of the publication in force.", nil},
	{"confirmation_age_seconds", gauge, "Seconds since the daemon last confirmed that the published trust matches the trust directories; answers are believed while this is below lease_seconds.", nil},
	{"lease_seconds", gauge, "How long answers are believed without confirmation; 0 for ever.", nil},
	{"problem", gauge, "1 while something keeps the answers from being kept up to date.", nil},
	{"cache_bytes", gauge, "Bytes of the private store, and of what is published.", []string{"part"}},
	{"signatures_expiring", gauge, "Trusted signatures that expire within this many days (UTC; 0: today).", []string{"days"}},
	{"images", gauge, "Images by state; absent until everything has been counted once after a start.", []string{"state"}},
	{"signatures", gauge, "Signatures by status; absent as those are.", []string{"status"}},
	{"attestations", gauge, "Attestations by status, unsigned are those in no envelope; absent as those are. They are no signatures.", []string{"status"}},
	{"signatures_not_trusted", gauge, "Signatures that are not trusted, by reason; absent as those are. Many with no-trusted-root, not-logged or sct-missing: a trusted root may be too old, or was never there.", []string{"reason"}},
	{"repositories", gauge, "Repositories found by the last pass over storage.", nil},

	{"verifications_total", counter, "Signature manifests verified, by tool and outcome: matched (some signer makes it good), unmatched, undecided, attachment (no signature).", []string{"tool", "outcome"}},
	{"verification_seconds", histogram, "Time to verify one signature manifest, reading included.", []string{"tool"}},
	{"publication_lag_seconds", histogram, "Time from the beginning of the turn that saw a signature until its answer could be read.", nil},
	{"work_total", counter, "Work done since the start, by kind: pass, repository, manifest, signature, verification, reread, taken (a fact of another worker), commit, error, panic.", []string{"kind"}},
	{"quarantined", gauge, "Signatures that are not verified because that crashed twice.", nil},
	{"queue_items", gauge, "Repositories and signers with pending work.", nil},
	{"queue_age_seconds", gauge, "Age of the oldest pending work.", nil},
	{"first_pass_done", gauge, "1 once the first pass over storage is over.", nil},
	{"pass_seconds", gauge, "Duration of the last pass over storage.", nil},
	{"pass_timestamp_seconds", gauge, "Time of the last pass over storage.", nil},

	{"revocation_checks_total", counter, "Certificate chains that revocation services were asked about, by outcome; dropped: too many waited.", []string{"outcome"}},
	{"revocation_requests_total", counter, "Requests sent to OCSP responders and CRL distribution points.", nil},
	{"revocation_waiting", gauge, "Certificate chains that wait for revocation services.", nil},

	{"trust_files_loaded", gauge, "Pieces of trust material in force, by tool.", []string{"tool"}},
	{"trusted_roots_ended", gauge, "Trusted roots that vouch for no certificate authority at present: newer keyless signatures are not trusted by them.", nil},
	{"trust_files_refused", gauge, "Trust files and directories that are not loaded.", nil},
	{"certificate_expiry_timestamp_seconds", gauge, "End of validity of a trusted certificate.", []string{"store", "fingerprint"}},

	{"watch_polling", gauge, "1 while a watcher polls because events cannot be had.", []string{"watch"}},
	{"watch_overflows_total", counter, "Times that the kernel dropped events.", []string{"watch"}},
	{"watch_errors_total", counter, "Errors of the event source.", []string{"watch"}},

	{"changes_total", counter, "Number of the last change of trust that was told; it goes on over restarts.", nil},
	{"change_streams", gauge, "Clients that follow the stream of changes.", nil},
	{"replicas", gauge, "Requests of replicas that wait for news: one each.", nil},
	{"replica_connected", gauge, "On a replica: 1 while the source answers.", nil},
	{"replica_generation", gauge, "On a replica: the source's generation of the trust, and of the data, that are here.", []string{"part"}},
	{"replica_behind_seconds", gauge, "On a replica: how long there have been newer data at the source; 0 if there are none.", nil},
	{"replica_bytes_total", counter, "On a replica: bytes of published files fetched since the start.", nil},
	{"replica_publications_total", counter, "On a replica: publications whose data were taken over since the start.", nil},
	{"cluster_connected", gauge, "In a cluster: 1 while facts can be shared over NATS; else this worker verifies everything itself.", nil},
	{"cluster_members", gauge, "In a cluster: other workers that are heard; alike are those that verify by the same rules and trust, and are counted on.", []string{"alike"}},
	{"cluster_facts_total", counter, "In a cluster: facts given to others, heard from them, taken instead of a verification, double (verified by this worker and another), lost (could not be told).", []string{"kind"}},
	{"cluster_refused_total", counter, "In a cluster: messages that were not believed, by reason. Those with authentication are not by a holder of the key.", []string{"reason"}},
	{"cluster_not_taken_total", counter, "In a cluster: facts of others that were not taken, and verified here, by reason; scale.md explains them.", []string{"reason"}},
	{"cluster_lag_seconds", gauge, "In a cluster: how long the last fact that was heard was on its way, by two machines' clocks.", nil},
	{"cluster_waiting", gauge, "In a cluster: repositories in which another worker's fact is waited for.", nil},
	{"webhook_delivered_total", counter, "Changes delivered to a webhook since the start.", []string{"target"}},
	{"webhook_retries_total", counter, "Attempts that failed and were or will be repeated.", []string{"target"}},
	{"webhook_refused_total", counter, "Changes that a webhook did not want, given up.", []string{"target"}},
	{"webhook_dropped_total", counter, "Changes that a webhook was too far behind for.", []string{"target"}},
	{"webhook_waiting", gauge, "Changes that wait for a webhook.", []string{"target"}},
}
