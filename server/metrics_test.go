package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache/mirror"
	"trust-worker/changes/webhook"
	"trust-worker/cluster"
	"trust-worker/cluster/replica"
	"trust-worker/internal/signtest"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
	"trust-worker/watcher"
)

// full is a world in which every metric has something to say.
func full(t *testing.T) *world {
	w := start(t, func(c *Config) {
		openUploads(c)
		h := scheduler.Histogram{Bounds: []float64{0.1, 1}, Counts: []uint64{3, 2, 1}, Sum: 9}
		c.Measures = func() scheduler.Measures {
			return scheduler.Measures{Lag: h, Verifying: map[trust.Tool]scheduler.Histogram{trust.Cosign: h},
				Verifications: map[scheduler.Verification]uint64{{Tool: trust.Cosign, Outcome: "matched"}: 6}}
		}
		c.Webhooks = func() []webhook.Status {
			return []webhook.Status{{Target: "https://a", Delivered: 2, Dropped: 1}, {Target: "https://a", Delivered: 3}}
		}
		c.Limits.Heartbeat = time.Hour
	})
	w.d.status.Store(&scheduler.Status{FirstPass: true, Queue: 2, QueueAge: 3 * time.Second,
		Trust: &watcher.Status{Mode: watcher.ModePolling, Overflows: 4}, Storage: &watcher.Status{}, Revocation: &revocation.Stats{Good: 5}})
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/k.pub", key.PEM())
	w.put("_cosign/bad.pub", []byte("x"))
	w.put("_notation/truststore/x509/ca/team/root.pem", signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{CommonName: "Root"}).Cert()))
	w.image("team/app", "1.0", byKey(key))
	w.image("team/plain", "1.0")
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM()).want(t, 200)
	check(t, w.o.Look(t.Context()))
	return w
}

// aReplica is a server of what is published elsewhere.
func aReplica(c *Config) {
	c.Cosign, c.Notation = false, false
	c.Replica = func() replica.Status {
		return replica.Status{Source: "https://worker.example", Connected: true, Bytes: 7, State: mirror.State{CacheID: "1", Generation: 9, Data: 8, Published: true}}
	}
}

// inACluster is a server of a worker among others.
func inACluster(c *Config) {
	c.Cluster = func() *cluster.Status {
		return &cluster.Status{Node: "w1", Connected: true, Members: []cluster.MemberStatus{{Node: "w2", Alike: true, Heard: true}, {Node: "w3", Why: "not heard"}},
			Given: 4, Taken: 5, Refused: map[string]int64{"authentication": 1}, Left: map[string]int64{"trust-store": 2}}
	}
}

var family = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)

// The page of metrics is what the registry has, kind and labels included, and
// every name begins as it should.
func TestMetricsPage(t *testing.T) {
	w := full(t)
	w.get("/metrics").want(t, 200) // so that the route has been answered once
	body := w.get("/metrics").body + start(t, aReplica).get("/metrics").body + start(t, inACluster).get("/metrics").body
	rows := append(slices.Clone(daemonMetrics),
		metric{"http_requests_total", counter, "Requests by route.", []string{"route"}},
		metric{"http_request_seconds", histogram, "Time to answer a request, by route; streams of changes count when they end.", []string{"route"}},
		metric{"trust_changes_total", counter, "Changes to the trust directories asked for over HTTP, by action and result.", []string{"action", "result"}},
		metric{"gate_requests_total", counter, "Requests that reverse proxies asked about, by outcome: open (no manifest is read), trusted, listed (by a trusted index), evidence (a signature or attestation), push, denied, undecided.", []string{"outcome"}})
	kinds := map[string]string{}
	for _, m := range family.FindAllStringSubmatch(body, -1) {
		kinds[m[1]] = m[2]
	}
	words := map[metricKind]string{gauge: "gauge", counter: "counter", histogram: "histogram"}
	var page bytes.Buffer
	page.WriteString("# Metrics\n\n`/metrics` needs the right to read ([HTTP](http.md)). No label has a value that somebody who pushes images, or sends requests, can choose.\n\n" +
		"| name | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range rows {
		name := "trust_worker_" + m.name
		if kinds[name] != words[m.kind] {
			t.Errorf("%s is %q in the registry, %q in the table", name, kinds[name], words[m.kind])
		}
		if !strings.Contains(body, "# HELP "+name+" "+m.help+"\n") {
			t.Errorf("%s has another help text", name)
		}
		for _, label := range m.labels {
			if !regexp.MustCompile(`(?m)^` + name + `(_count)?\{(.*,)?` + label + `="`).MatchString(body) {
				t.Errorf("%s has no label %s", name, label)
			}
		}
		delete(kinds, name)
		labels := "`" + strings.Join(m.labels, "`, `") + "`"
		if m.labels == nil {
			labels = ""
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", name, words[m.kind], labels, m.help)
	}
	if len(kinds) > 0 {
		t.Errorf("not in the table: %v", kinds)
	}
	path := filepath.Join("..", "docs", "metrics.md")
	if *update {
		check(t, os.WriteFile(path, page.Bytes(), 0o644))
	}
	if got := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(got, page.Bytes()) {
		t.Error("docs/metrics.md is not what the table says: run the test with -update")
	}
}

func TestMetricValues(t *testing.T) {
	w := full(t)
	s := w.stream(t, pathAPI+"/events")
	s.want("ready")
	body := w.get("/metrics").body
	for _, line := range []string{
		`trust_worker_build_info{cosign="",go="",notation="",version="test"} 1`,
		`trust_worker_images{state="trusted"} 1`, `trust_worker_images{state="unsigned"} 1`, `trust_worker_images{state="pending"} 0`,
		`trust_worker_signatures{status="trusted"} 1`,
		`trust_worker_queue_items 2`, `trust_worker_queue_age_seconds 3`,
		`trust_worker_watch_polling{watch="trust"} 1`, `trust_worker_watch_overflows_total{watch="trust"} 4`,
		`trust_worker_trust_files_loaded{tool="cosign"} 2`, `trust_worker_trust_files_refused 1`,
		`trust_worker_verifications_total{outcome="matched",tool="cosign"} 6`,
		`trust_worker_publication_lag_seconds_bucket{le="0.1"} 3`, `trust_worker_publication_lag_seconds_bucket{le="1"} 5`,
		`trust_worker_publication_lag_seconds_bucket{le="+Inf"} 6`, `trust_worker_publication_lag_seconds_sum 9`,
		`trust_worker_webhook_delivered_total{target="https://a"} 5`, `trust_worker_webhook_dropped_total{target="https://a"} 1`,
		`trust_worker_change_streams 1`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("%s is not in\n%s", line, body)
		}
	}
	for _, name := range []string{`cache_bytes{part="private"}`, `cache_bytes{part="published"}`, "confirmation_age_seconds", "changes_total"} {
		if !regexp.MustCompile(`(?m)^trust_worker_` + regexp.QuoteMeta(name) + ` [0-9.]*[1-9]`).MatchString(body) {
			t.Errorf("%s is nothing", name)
		}
	}
}
