package server

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const monitoring = "../packaging/monitoring"

// query is a PromQL expression of the alert rules or the dashboard; text is what
// is written about its result.
type query struct{ where, expr, text string }

func queries(t *testing.T) (all []query, alerts []string) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	check(t, yaml.UnmarshalStrict(must[[]byte](t)(os.ReadFile(filepath.Join(monitoring, "alerts.yaml"))), &rules))
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s does not say what it means", r.Alert)
			}
			alerts = append(alerts, r.Alert)
			all = append(all, query{"alert " + r.Alert, r.Expr, r.Annotations["summary"] + r.Annotations["description"]})
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	check(t, json.Unmarshal(must[[]byte](t)(os.ReadFile(filepath.Join(monitoring, "dashboard.json"))), &dashboard))
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, target.Expr, target.LegendFormat})
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Definition != "" {
			all = append(all, query{"variable " + v.Name, v.Definition, ""})
		}
	}
	return all, alerts
}

// exposed are the labels and their values that the registry has, by metric.
func exposed(body string) map[string]map[string][]string {
	sample := regexp.MustCompile(`(?m)^(trust_worker_\w+)(?:\{(.*)\})? \S+$`)
	pair := regexp.MustCompile(`(\w+)="([^"]*)"`)
	found := map[string]map[string][]string{}
	for _, m := range sample.FindAllStringSubmatch(body, -1) {
		if found[m[1]] == nil {
			found[m[1]] = map[string][]string{"instance": nil, "job": nil} // what a scrape adds
		}
		for _, p := range pair.FindAllStringSubmatch(m[2], -1) {
			found[m[1]][p[1]] = append(found[m[1]][p[1]], p[2])
		}
	}
	return found
}

var (
	selector = regexp.MustCompile(`\b(trust_worker_\w+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on|without)\s*\(([^)]*)\)`)
	inText   = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}`)
)

// Every metric, label and value that an alert or a panel asks for is one that
// the daemon has, and every alert is explained.
func TestAlertsAndDashboardAskForWhatThereIs(t *testing.T) {
	w := full(t)
	w.get("/metrics").want(t, 200) // so that the route has been answered once
	metrics := exposed(w.get("/metrics").body + start(t, aReplica).get("/metrics").body + start(t, inACluster).get("/metrics").body)
	metrics["up"] = map[string][]string{"instance": nil, "job": nil}
	all, alerts := queries(t)
	if len(all) < 20 {
		t.Fatalf("only %d queries", len(all))
	}
	for _, q := range all {
		known := map[string]bool{"le": true}
		selectors := selector.FindAllStringSubmatch(q.expr, -1)
		if len(selectors) == 0 {
			t.Errorf("%s asks for nothing: %s", q.where, q.expr)
		}
		for _, s := range selectors {
			labels, ok := metrics[s[1]]
			if !ok {
				t.Errorf("%s: there is no metric %s", q.where, s[1])
			}
			for label := range labels {
				known[label] = true
			}
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				values, ok := labels[m[1]]
				if !ok {
					t.Errorf("%s: %s has no label %s", q.where, s[1], m[1])
				}
				for _, v := range strings.Split(m[3], "|") {
					if values != nil && !slices.Contains(values, v) {
						t.Errorf("%s: %s never has %s=%q", q.where, s[1], m[1], v)
					}
				}
			}
		}
		for _, g := range grouping.FindAllStringSubmatch(q.expr, -1) {
			for _, label := range strings.Split(g[1], ",") {
				if label = strings.TrimSpace(label); !known[label] {
					t.Errorf("%s groups by %s, which nothing there has", q.where, label)
				}
			}
		}
		for _, m := range inText.FindAllStringSubmatch(q.text, -1) {
			if !known[m[1]] {
				t.Errorf("%s writes label %s, which nothing there has", q.where, m[1])
			}
		}
	}
	page := string(must[[]byte](t)(os.ReadFile(filepath.Join("..", "docs", "operations.md"))))
	for _, alert := range alerts {
		if !strings.Contains(page, "`"+alert+"`") {
			t.Errorf("docs/operations.md does not explain %s", alert)
		}
	}
}

// Prometheus itself takes the rules, and they fire when they should.
func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus): the alert rules are checked against the metrics, but not run")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		c := exec.Command(promtool, args...)
		c.Dir = monitoring
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", c, err, out)
		}
	}
}
