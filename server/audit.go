package server

import (
	"log/slog"
	"net/http"
	"strings"

	"trust-worker/trust"
)

// change is one change to the trust directories, for the audit log.
type change struct {
	action     string // upload or remove
	tool       trust.Tool
	store      string // type:name
	signers    []trust.Signer
	files      []string
	generation string
}

// audit logs a change that was made, or, with an error, one that was refused.
// Key material is never part of it.
func (s *Server) audit(r *http.Request, id identity, c change, err error) {
	if c.action == "" {
		c.action = map[string]string{http.MethodPost: "upload", http.MethodDelete: "remove"}[r.Method]
	}
	from := r.RemoteAddr
	if p := peerOf(r.Context()); p.endpoint.socket != "" {
		from = p.endpoint.name
	}
	prints := make([]string, 0, len(c.signers))
	for _, signer := range c.signers {
		prints = append(prints, signer.Fingerprint.String())
	}
	attrs := []slog.Attr{slog.Bool("audit", true), slog.String("action", c.action), slog.String("path", r.URL.Path),
		slog.String("who", id.name), slog.String("from", from),
		slog.String("tool", string(c.tool)), slog.String("store", c.store), slog.String("fingerprints", strings.Join(prints, " ")),
		slog.String("files", strings.Join(c.files, " ")), slog.String("generation", c.generation)}
	if err != nil {
		p := problemOf(err)
		attrs = append(attrs, slog.String("result", "refused"), slog.Int("status", p.status), slog.String("error", err.Error()))
		s.log.LogAttrs(r.Context(), slog.LevelWarn, "trust directory change", attrs...)
		s.metrics.change(c.action, "refused")
		return
	}
	attrs = append(attrs, slog.String("result", "done"))
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "trust directory change", attrs...)
	s.metrics.change(c.action, "done")
}
