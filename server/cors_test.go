package server

import (
	"net/http"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
)

func TestCORS(t *testing.T) {
	const named, other = "https://search.example", "https://elsewhere.example"
	headers := func(a *answer) string {
		var out []string
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				out = append(out, name)
			}
		}
		return strings.Join(out, " ")
	}
	for _, origins := range [][]string{nil, {named}} {
		w := start(t, func(c *Config) { openUploads(c); c.Auth.CORSOrigins = origins })
		on := origins != nil
		for _, path := range []string{pathAPI + "/summary", pathSearch + "?query={__typename}", "/livez"} {
			a := w.call("GET", path, nil, "Origin", named)
			a.want(t, 200)
			if got := a.Header.Get("Access-Control-Allow-Origin"); (got == named) != on {
				t.Errorf("%v: %s: allowed origin %q", origins, path, got)
			}
			if a.Header.Get("Access-Control-Allow-Credentials") != "" || on && a.Header.Get("Vary") != "Origin" {
				t.Errorf("%v: %s: %v", origins, path, a.Header)
			}
			a = w.call("GET", path, nil, "Origin", other)
			if got := headers(a); got != "" {
				t.Errorf("%v: %s: another origin gets %s", origins, path, got)
			}
		}
		// What changes something is refused whoever is named, asked for or not.
		key := signtest.NewKey(signtest.P256).PEM()
		for _, origin := range []string{named, other} {
			a := w.call("POST", pathCosign, key, "Origin", origin)
			a.want(t, http.StatusForbidden)
			if got := headers(a); got != "" {
				t.Errorf("%v: POST from %s gets %s", origins, origin, got)
			}
			w.call("DELETE", pathCosign+"/"+signtest.NewKey(signtest.P256).Fingerprint().String(), nil, "Origin", origin).want(t, http.StatusForbidden)
			w.call("POST", pathSearch, []byte(`{"query":"{__typename}"}`), "Origin", origin, "Content-Type", "application/json").want(t, http.StatusForbidden)
			for _, method := range []string{"POST", "DELETE", "PUT"} {
				a := w.call("OPTIONS", pathCosign, nil, "Origin", origin, "Access-Control-Request-Method", method)
				if got := headers(a); a.StatusCode/100 == 2 || got != "" {
					t.Errorf("%v: preflight for %s from %s: %d %s", origins, method, origin, a.StatusCode, got)
				}
			}
			a = w.call("OPTIONS", pathAPI+"/summary", nil, "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization")
			if ok := a.StatusCode == http.StatusNoContent && a.Header.Get("Access-Control-Allow-Methods") == "GET"; ok != (on && origin == named) {
				t.Errorf("%v: preflight from %s: %d %s", origins, origin, a.StatusCode, headers(a))
			}
		}
		if len(w.files()) != 0 {
			t.Errorf("stored %v", w.files())
		}
	}
	for _, bad := range []string{"*", "null", "search.example", "https://search.example/", "https://search.example/x", "HTTPS://search.example", "ftp://x", "https://u@x", ""} {
		if err := checkOrigin(bad); err == nil {
			t.Errorf("%q is taken for an origin", bad)
		}
	}
}
