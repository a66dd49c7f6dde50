package server

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"trust-worker/cache"
)

// Codes of errors: those of the OCI distribution specification where it has one,
// else ours.
const (
	codeUnauthorized = "UNAUTHORIZED"
	codeDenied       = "DENIED"
	codeTooMany      = "TOOMANYREQUESTS"
	codeNameInvalid  = "NAME_INVALID"
	codeNameUnknown  = "NAME_UNKNOWN"
	codeSizeInvalid  = "SIZE_INVALID"
	codeUnsupported  = "UNSUPPORTED"
	codeKey          = "KEY_INVALID"
	codeCertificate  = "CERTIFICATE_INVALID"
	codeStore        = "TRUSTSTORE_INVALID"
	codeStorage      = "STORAGE"
	codeNotInForce   = "NOT_IN_FORCE"
	codeStillInForce = "STILL_IN_FORCE"
	codeNoCache      = "NO_CACHE"
	codeUnlisted     = "UNLISTED"
	codeWithdrawn    = "WITHDRAWN"
	codeInvalid      = "INVALID"
	codeInternal     = "INTERNAL"
)

// problem is an answer that is an error, in the form of zot's and the OCI
// distribution specification's (section "Error codes").
type problem struct {
	status  int
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Detail  map[string]string `json:"detail"`
}

func (p *problem) Error() string {
	if reason := p.Detail["reason"]; reason != "" {
		return p.Message + ": " + reason
	}
	return p.Message
}

// refuse makes a problem; reason is shown to the client and in the audit log.
func refuse(status int, code, message, reason string) *problem {
	p := &problem{status: status, Code: code, Message: message, Detail: map[string]string{}}
	if reason != "" {
		p.Detail["reason"] = reason
	}
	return p
}

// problemOf is the problem that err is, or the one that it means.
func problemOf(err error) *problem {
	var p *problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "the body is too large",
			fmt.Sprintf("at most %d bytes are accepted", large.Limit))
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return refuse(http.StatusInsufficientStorage, codeStorage, "there is no space left for it", "")
	case errors.Is(err, cache.ErrUnlisted):
		return refuse(http.StatusServiceUnavailable, codeUnlisted, "it is not known: its repository could not be listed", "the daemon's log and trust-worker status say why")
	case errors.Is(err, cache.ErrPartial):
		return refuse(http.StatusServiceUnavailable, codeUnlisted, "it is not known yet: the first pass over storage is not over", "")
	case errors.Is(err, cache.ErrNotFound):
		return refuse(http.StatusNotFound, codeNameUnknown, "it is not in the cache", "")
	case errors.Is(err, cache.ErrNoCache), errors.Is(err, cache.ErrDamaged), errors.Is(err, cache.ErrClosed):
		return refuse(http.StatusServiceUnavailable, codeNoCache, "there are no answers now: nothing is published", "")
	}
	// What else went wrong is for the log: it may name paths.
	return refuse(http.StatusInternalServerError, codeInternal, "it failed; the daemon's log says why", "")
}

// fail answers with err.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Code == codeInternal {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if p.status == http.StatusServiceUnavailable || p.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if forPeople(r) {
		s.failPage(w, p)
		return
	}
	writeJSON(w, p.status, map[string][]*problem{"errors": {p}})
}

// sendJSON is writeJSON for answers that may be large: it is counted among those on
// their way.
func (s *Server) sendJSON(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	end, err := s.sending.begin(r, len(b))
	if err != nil {
		return err
	}
	defer end()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client is gone
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := encode(v)
	if err != nil { // our own types; a failure is a programming error
		http.Error(w, "cannot encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client is gone
}
