package server

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"trust-worker/watcher"
)

// What health is asked for by. It is answered when everything else is refused.
const (
	pathLive    = "/livez"
	pathStarted = "/startupz"
	pathReady   = "/readyz"
)

func isHealth(path string) bool { return path == pathLive || path == pathStarted || path == pathReady }

// healthCheck is one condition; an empty problem means that it holds.
type healthCheck struct {
	name    string
	problem func() string
}

// healthRoutes registers the three probes, which anyone may ask for a word and
// readers for the reasons, and the metrics.
func (s *Server) healthRoutes(t router) {
	started := healthCheck{"published", s.published}
	ready := []healthCheck{started, {"confirmed", s.confirmed}, {"trust watcher", s.watching}, {"first pass", s.firstPass}, {"not draining", s.notDraining}}
	for path, checks := range map[string][]healthCheck{pathLive: {}, pathStarted: {started}, pathReady: ready} {
		t.handle("GET "+path, toNone, func(w http.ResponseWriter, r *http.Request, _ identity) error {
			return s.probe(w, r, checks)
		})
	}
	t.handle("GET /metrics", toRead, s.serveMetrics)
}

// probe answers 200 "ok" or 503 "not ok"; with ?verbose, and the right to read,
// one line for each condition.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, checks []healthCheck) error {
	verbose := r.URL.Query().Has("verbose")
	if verbose {
		if _, err := s.authorize(r, toRead); err != nil {
			return err
		}
	}
	status, word := http.StatusOK, "ok"
	var lines strings.Builder
	for _, c := range checks {
		if problem := c.problem(); problem != "" {
			status, word = http.StatusServiceUnavailable, "not ok"
			fmt.Fprintf(&lines, "[-] %s: %s\n", c.name, problem)
		} else {
			fmt.Fprintf(&lines, "[+] %s\n", c.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if verbose {
		_, _ = w.Write([]byte(lines.String())) // the client is gone
	}
	_, _ = w.Write([]byte(word + "\n"))
	return nil
}

func (s *Server) published() string {
	snap, err := s.cfg.Reader.Snapshot()
	if err != nil {
		return err.Error()
	}
	snap.Close()
	return ""
}

func (s *Server) confirmed() string {
	snap, err := s.cfg.Reader.Snapshot()
	if err != nil {
		return err.Error()
	}
	defer snap.Close()
	if snap.Stale() {
		return fmt.Sprintf("last confirmed %s ago, which is longer than the lease", s.cfg.Now().Sub(snap.AsOf()).Round(time.Second))
	}
	return s.cfg.Status().Problem
}

// watching: the trust directories are watched, by events or by polling. Without
// a watcher the periodic look has to do.
func (s *Server) watching() string {
	t := s.cfg.Status().Trust
	switch {
	case t == nil:
		return ""
	case t.Mode == watcher.ModeOff:
		return "not running"
	case t.Interval > 0 && !t.LastReconcile.IsZero() && s.cfg.Now().Sub(t.LastReconcile) > 3*max(t.Interval, 10*time.Second):
		return fmt.Sprintf("no reconciliation since %s", t.LastReconcile.Format(time.RFC3339))
	}
	return ""
}

func (s *Server) firstPass() string {
	if !s.cfg.Status().FirstPass {
		return "running"
	}
	return ""
}

func (s *Server) notDraining() string {
	if s.draining.Load() {
		return "shutting down"
	}
	return ""
}
