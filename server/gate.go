package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"trust-worker/cache"
	"trust-worker/layout"
	"trust-worker/trust"
)

// The gate answers a reverse proxy before it passes a request on to the registry: 200 lets it
// through, 403 refuses, 503 says that nothing has been decided. docs/gates.md has the
// proxies' side. It judges who pulls an image; it keeps nothing secret: blobs pass.

// Modes of the gate.
const (
	GateEnforce = "enforce"
	GateReport  = "report"
)

const (
	pathGate = "/gate"

	headerURI      = "X-Original-URI"
	headerMethod   = "X-Original-Method"
	headerPush     = "X-Trust-Worker-Push"
	headerDigest   = "Docker-Content-Digest"
	headerDecision = "X-Trust-Worker-Decision" // allow, deny or undecided
	headerReason   = "X-Trust-Worker-Reason"
	headerMessage  = "X-Trust-Worker-Message"
)

// decision is what the gate says of one request. Its reason is one of the image's, of
// gateReasons, or empty where the request passes.
type decision struct {
	status  int // 200, 403 or 503
	why     string
	reason  string
	message string
	digest  trust.Digest // of the manifest that was judged
}

// Why something passes or not, for metrics.
const (
	gateOpen     = "open"     // not a read of a manifest
	gateTrusted  = "trusted"  // the image is trusted
	gateListed   = "listed"   // a trusted index lists it
	gateEvidence = "evidence" // a signature or an attestation
	gatePush     = "push"     // the push right
	gateDenied   = "denied"
	gateUnclear  = "undecided"
)

// Reasons of the gate's own.
const (
	reasonPath    = "path-not-allowed"
	reasonUnknown = "not-found"
)

// gateRoutes registers the gate, which does not exist unless a mode is set.
func (s *Server) gateRoutes(t router) {
	if s.cfg.Gate.Mode != "" {
		t.handle("GET "+pathGate, toRead, s.gate)
	}
}

func (s *Server) gate(w http.ResponseWriter, r *http.Request, _ identity) error {
	d, err := s.passage(w, r)
	if r.URL.Query().Has("predicate") { // as /api/v1/check takes it; it is not to seem to be heeded
		d, err = denied(reasonPath, "the gate does not ask for attestations; /api/v1/check/REPO@DIGEST?predicate=URI does"), nil
	}
	if err != nil && s.cfg.Gate.Mode == GateReport { // everything passes
		d, err = unclear(string(trust.IOError), "%v", problemOf(err)), nil
	}
	if err != nil {
		return err
	}
	s.metrics.gate.WithLabelValues(d.why).Inc()
	h := w.Header()
	h.Set(headerDecision, map[int]string{http.StatusOK: "allow", http.StatusForbidden: "deny"}[d.status])
	if d.digest != (trust.Digest{}) {
		h.Set(headerDigest, d.digest.String())
	}
	if d.status == http.StatusOK {
		return nil
	}
	if d.status == http.StatusServiceUnavailable {
		h.Set(headerDecision, "undecided")
		h.Set("Retry-After", "1")
	}
	h.Set(headerReason, d.reason)
	h.Set(headerMessage, headerSafe(d.message))
	if s.gateLog.AllowN(s.cfg.Now(), 1) {
		s.log.Info("the gate refuses a request", "mode", s.cfg.Gate.Mode, "method", r.Header.Get(headerMethod), "uri", fmt.Sprintf("%.512q", r.Header.Get(headerURI)), "reason", d.reason, "digest", d.digest)
	}
	if s.cfg.Gate.Mode == GateReport {
		return nil
	}
	p := refuse(d.status, codeDenied, d.message, d.reason)
	if d.status == http.StatusServiceUnavailable {
		p.Code = "UNAVAILABLE"
	}
	writeJSON(w, d.status, map[string][]*problem{"errors": {p}})
	return nil
}

// gateLogRate bounds the lines that clients of a registry can make the daemon write.
var gateLogRate = rate.Every(100 * time.Millisecond)

func denied(reason, format string, args ...any) decision {
	return decision{status: http.StatusForbidden, why: gateDenied, reason: reason, message: fmt.Sprintf(format, args...)}
}

func unclear(reason, format string, args ...any) decision {
	return decision{status: http.StatusServiceUnavailable, why: gateUnclear, reason: reason, message: fmt.Sprintf(format, args...)}
}

// passage decides on the request that a proxy describes.
func (s *Server) passage(w http.ResponseWriter, r *http.Request) (decision, error) {
	uri, method := r.Header.Values(headerURI), r.Header.Values(headerMethod)
	if len(uri) != 1 || len(method) != 1 {
		return denied(reasonPath, "the proxy has to send %s and %s, each once; see docs/gates.md", headerURI, headerMethod), nil
	}
	p, ok := parsePassage(method[0], uri[0])
	switch {
	case !ok:
		return denied(reasonPath, "the gate lets only requests of the registry API through, in their plain form"), nil
	case p.open():
		return decision{status: http.StatusOK, why: gateOpen}, nil
	case s.mayPush(r):
		return decision{status: http.StatusOK, why: gatePush}, nil
	case !p.read || !p.manifest:
		return denied(reasonPath, "changing a registry through this gate needs the push right"), nil
	}
	return s.pull(w, r, &p)
}

// noEvidence is why a replica lets no signature through: it has no storage to tell one
// from an image.
const noEvidence = "a replica cannot tell signatures and attestations from images: ask the gate beside the storage for them"

// mayPush reports whether the proxy vouches that its client may push: such a client may
// read images that nobody has signed yet, and write.
func (s *Server) mayPush(r *http.Request) bool {
	given := r.Header.Values(headerPush)
	return s.gateToken != nil && len(given) == 1 && s.gateToken.has(given[0])
}

// pull judges the read of a manifest. Every way to 200 is in here: the image is trusted, an
// index that is lists it, or it is no image.
func (s *Server) pull(w http.ResponseWriter, r *http.Request, p *passage) (decision, error) {
	var d trust.Digest
	var referrers, foreign bool
	var err error
	switch companion := layout.IsCompanion(p.reference); {
	case strings.Contains(p.reference, ":"):
		if d, err = trust.ParseDigest(p.reference); err != nil {
			if d, foreign = trust.ForeignDigest(p.reference); !foreign {
				return denied(reasonPath, "%s is no digest", p.reference), nil
			}
		}
	case companion && s.evidence == nil:
		return denied(reasonUnknown, "%s", noEvidence), nil
	case companion:
		if d, referrers, err = s.evidence.resolve(r.Context(), p.repository, p.reference); err != nil || d == (trust.Digest{}) {
			return p.unread(d, err), nil
		}
	}
	var c checked
	var why string
	err = s.readingFor(s.gates, p.repository, w, r, func(snap *cache.Snapshot) (err error) {
		if d == (trust.Digest{}) {
			if d, err = snap.Resolve(p.repository, p.reference); err != nil {
				return err
			}
		}
		if c, err = judge(snap, p.repository, d, map[bool]string{true: p.reference}[foreign]); err != nil {
			return err
		}
		if c.status == http.StatusOK {
			why = gateTrusted
			return nil
		}
		_, listed, _, err := snap.ListedByTrusted(p.repository, d)
		if listed {
			why = gateListed
		}
		return err
	})
	if err != nil {
		if err := c.undecided(err); err != nil {
			return decision{}, err
		}
	}
	if why == "" && s.evidence == nil && c.status == http.StatusNotFound && d != (trust.Digest{}) {
		return denied(reasonUnknown, "%s@%s is not among the images that are known here; %s", p.repository, d, noEvidence), nil
	}
	if why == "" && !foreign && d != (trust.Digest{}) && s.evidence != nil {
		is, err := s.evidence.is(r.Context(), p.repository, d, referrers)
		switch {
		case is && err == nil:
			why = gateEvidence
		case err != nil && (c.status == http.StatusForbidden || c.status == http.StatusNotFound):
			return p.unread(d, err), nil
		}
	}
	if why != "" {
		return decision{status: http.StatusOK, why: why, digest: d}, nil
	}
	if foreign {
		d = trust.Digest{} // it only stands for the reference
	}
	return p.refused(d, &c), nil
}

// refused is the answer about an image that is not trusted.
func (p *passage) refused(d trust.Digest, c *checked) (out decision) {
	name := p.repository + ":" + p.reference
	if strings.Contains(p.reference, ":") {
		name = p.repository + "@" + p.reference
	}
	explained, reason, state := c.Reason.Explain(), string(c.Reason), fmt.Sprintf("%s (%s)", c.State, c.Reason)
	if c.State == cache.Unsigned {
		explained, reason, state = trust.Unsigned, c.State, c.State
	}
	switch c.status {
	case http.StatusNotFound:
		out = denied(reasonUnknown, "%s is not among the images that are known here; what was just pushed is known in a moment", name)
	case http.StatusForbidden:
		out = denied(reason, "%s is %s: %s", name, state, explained.What)
	default:
		out = unclear(reason, "%s is %s: %s", name, state, explained.What)
	}
	out.digest = d
	return out
}

// unread is the answer about a manifest that has to be looked at in storage and could not be,
// or is not there.
func (p *passage) unread(d trust.Digest, err error) (out decision) {
	var re *trust.ReasonError
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, layout.ErrName):
		out = denied(reasonUnknown, "%s has no manifest %s", p.repository, p.reference)
	case errors.As(err, &re) && re.Reason.Status() == trust.Untrusted:
		out = denied(string(re.Reason), "%s of %s cannot be read: %s", p.reference, p.repository, re.Reason.Explain().What)
	case errors.As(err, &re):
		out = unclear(string(re.Reason), "%s of %s cannot be read: %s", p.reference, p.repository, re.Reason.Explain().What)
	default:
		out = unclear(string(trust.IOError), "%s of %s cannot be read at present", p.reference, p.repository)
	}
	out.digest = d
	return out
}

// headerSafe is a message as a header may carry it, and as a proxy may put it between the
// quotes of a JSON string: printable ASCII without quotes and backslashes.
func headerSafe(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}
