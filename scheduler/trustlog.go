package scheduler

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// What the log says of the trust directories: one line for each change.

// logPolicy tells when another trust policy rules, or something else is wrong with it,
// also when what is trusted stays the same. trustMu is held.
func (s *Scheduler) logPolicy(p truststore.PolicySummary) {
	said := p.String()
	switch {
	case said == s.policySaid:
	case p.Source == truststore.PolicyInvalid:
		s.log.Warn("no trust policy can be used; no notation signature is trusted", "problem", p.Problem)
	case p.Problem != "" || len(p.Lacking) > 0:
		s.log.Warn("the trust policy is in force, but not as it should be", "policy", said)
	case s.policySaid != "":
		s.log.Info("another trust policy rules", "policy", said)
	}
	s.policySaid = said
}

// logFiles has one line for each trust file that came, went, holds something else, is
// refused, or no longer is; also when what is trusted stays the same. trustMu is held.
func (s *Scheduler) logFiles(was, is *truststore.TrustStore) {
	for _, r := range is.Refused() {
		if !slices.Contains(s.refused, r) {
			s.log.Warn("trust file refused", "path", r.Path, "reason", r.Reason)
		}
	}
	for _, w := range is.Warnings() {
		if was == nil || !slices.Contains(was.Warnings(), w) {
			s.log.Warn("trust file in force, with a warning", "path", w.Path, "warning", w.Reason)
		}
	}
	refused := s.refused
	s.refused = is.Refused()
	var scopes []string
	if was != nil {
		scopes = was.Scopes()
	}
	for n, scope := range slices.DeleteFunc(is.Scopes(), func(scope string) bool { return slices.Contains(scopes, scope) }) {
		if n == maxFileLines {
			s.log.Info("and more directories of cosign's are scopes")
			break
		}
		s.log.Info("a directory of cosign's is a scope: what lies in it may sign in these repositories alone", "repositories", scope+", "+scope+"/…")
	}
	if was == nil {
		return // the first load; the line about what is in force has the numbers
	}
	before, after := heldBy(was), heldBy(is)
	isAt := func(path string) func(truststore.Refusal) bool {
		return func(r truststore.Refusal) bool { return r.Path == path }
	}
	isRefused := func(path string) func(truststore.Refusal) bool {
		return func(r truststore.Refusal) bool { return r.Path == path && !r.Grace }
	}
	lines := 0
	line := func(level slog.Level, message, path string, signers []trust.Signer) {
		if lines++; lines > maxFileLines {
			return
		}
		attrs := []any{"path", path}
		for _, signer := range signers[:min(len(signers), 10)] {
			attrs = append(attrs, "signer", signer.Fingerprint.String())
		}
		if more := len(signers) - 10; more > 0 {
			attrs = append(attrs, "more", more)
		}
		s.log.Log(context.Background(), level, message, attrs...)
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		switch now, still := after[path]; {
		case !still && slices.ContainsFunc(s.refused, isRefused(path)): // said above
		case !still:
			left := slices.DeleteFunc(slices.Clone(before[path]), func(x trust.Signer) bool { return is.InForce().Has(x.ID()) })
			if message := "trust file removed"; len(left) > 0 {
				line(slog.LevelInfo, message, path, left)
			} else {
				line(slog.LevelInfo, message+"; another file holds what it held, maybe for other repositories or under another name", path, before[path])
			}
		case !slices.Equal(now, before[path]):
			line(slog.LevelInfo, "trust file replaced", path, now)
		}
	}
	for _, r := range refused {
		if _, loaded := after[r.Path]; !loaded && !slices.ContainsFunc(s.refused, isAt(r.Path)) && before[r.Path] == nil {
			line(slog.LevelInfo, "trust file is no longer refused", r.Path, nil)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		switch was, known := before[path]; {
		case known && !slices.Equal(was, after[path]): // said above
		case known && slices.ContainsFunc(refused, isAt(path)) && !slices.ContainsFunc(s.refused, isAt(path)):
			line(slog.LevelInfo, "trust file mended", path, nil) // within its grace
		case known:
		case slices.ContainsFunc(refused, isRefused(path)):
			line(slog.LevelInfo, "trust file mended", path, after[path])
		default:
			line(slog.LevelInfo, "trust file added", path, after[path])
		}
	}
	if lines > maxFileLines {
		s.log.Info("more trust files came, went or were replaced", "files", lines-maxFileLines)
	}
}

// maxFileLines is how many files one look at the trust directories names in the log.
const maxFileLines = 100

// heldBy is what each trust file holds.
func heldBy(t *truststore.TrustStore) map[string][]trust.Signer {
	files := map[string][]trust.Signer{}
	for _, f := range t.Loaded() {
		files[f.Path] = append(files[f.Path], f.Signer)
	}
	return files
}
