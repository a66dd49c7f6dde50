package server

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"trust-worker/layout"
)

// zot's events (pkg/extensions/events, at 6d19b445fed1) are CloudEvents in the
// HTTP binding's binary mode: the type in a header, the data in the body. Each
// names the repository that it is about; nothing else in them is read, and it is
// taken as no more than a hint to look there.

const (
	zotEventTypes = "zotregistry."
	// maxZotEvent: an event brings the image's manifest along, quoted.
	maxZotEvent = 10 << 20
)

// zotEvent takes an event: 202 once the look is owed.
func (s *Server) zotEvent(w http.ResponseWriter, r *http.Request, _ identity) error {
	kind, name, err := readZotEvent(http.MaxBytesReader(w, r.Body, maxZotEvent), r.Header)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(kind, zotEventTypes) {
		return refuse(http.StatusBadRequest, codeInvalid, "this is not an event of zot's", "its type does not begin with "+zotEventTypes)
	}
	if !layout.ValidName(name) {
		return refuse(http.StatusBadRequest, codeNameInvalid, "the event names no repository", "")
	}
	s.cfg.LookAt(name)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// readZotEvent reads an event in binary or in structured mode (CloudEvents 1.0,
// HTTP protocol binding, section 3).
func readZotEvent(body io.Reader, h http.Header) (kind, name string, err error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return "", "", err
	}
	bad := func(err error) error {
		return refuse(http.StatusBadRequest, codeInvalid, "this is not a CloudEvent", err.Error())
	}
	type data struct {
		Name string `json:"name"`
	}
	var d data
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && t == "application/cloudevents+json" {
		var e struct {
			Type string `json:"type"`
			Data *data  `json:"data"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			return "", "", bad(err)
		}
		if e.Data == nil {
			return "", "", bad(errors.New("it has no data"))
		}
		return e.Type, e.Data.Name, nil
	}
	if h.Get("Ce-Specversion") == "" {
		return "", "", bad(errors.New("give the header ce-specversion, or the content type application/cloudevents+json"))
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return "", "", bad(err)
	}
	return h.Get("Ce-Type"), d.Name, nil
}

// limitedHints bounds how often one client may give a hint: a registry under
// load sends one for each push, and the passes find what is left out.
func (s *Server) limitedHints(h handlerFunc) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request, id identity) error {
		if !s.hints.allow(clientOf(r), s.cfg.Now()) {
			return tooMany("events")
		}
		return h(w, r, id)
	}
}
