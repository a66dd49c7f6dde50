package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"trust-worker/layout"
)

// Registries tell of pushes by HTTP, each in its own form. All that is read of an event is
// which repository it is about, and it is taken as no more than a hint to look there.

// registryEvents are the forms, by the last element of their route.
var registryEvents = []struct {
	name string
	max  int64 // bytes of one request
	read func(body []byte, h http.Header) (names []string, err error)
	// patient registries send an event again until it is taken, and those of all others wait
	// behind it: what a pusher can make of an event never lets it be refused.
	patient bool
}{
	{"zot", 10 << 20, readZotEvent, false}, // an event brings the image's manifest along, quoted
	{"distribution", 8 << 20, readDistributionEvents, true},
	{"harbor", 1 << 20, readHarborEvent, true},
}

// maxNamed bounds the repositories of one request: distribution sends what has come together
// while nobody answered. The passes find the others.
const maxNamed = 1000

func (s *Server) registryEvent(max int64, read func(body []byte, h http.Header) ([]string, error), patient bool) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request, _ identity) error {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
		var large *http.MaxBytesError
		if errors.As(err, &large) && patient {
			s.cfg.Log.Warn("a registry's event is too large and was not read; the next pass finds what it told of", "bytes", max)
			w.WriteHeader(http.StatusAccepted)
			return nil
		}
		if err != nil {
			return err
		}
		names, err := read(body, r.Header)
		if err != nil {
			return err
		}
		slices.Sort(names)
		names = slices.Compact(names)
		for _, name := range names {
			if !layout.ValidName(name) && !patient {
				return refuse(http.StatusBadRequest, codeNameInvalid, "the event names no repository", "")
			}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !layout.ValidName(name) })
		names = names[:min(len(names), maxNamed)]
		if len(names) > 0 && !s.hints.allow(clientOf(r), s.cfg.Now()) {
			return tooMany("events")
		}
		for _, name := range names {
			s.cfg.LookAt(name)
		}
		w.WriteHeader(http.StatusAccepted) // the looks are owed
		return nil
	}
}

// notAnEvent is the answer to what is in another form than it should be.
func notAnEvent(of string, err error) error {
	return refuse(http.StatusBadRequest, codeInvalid, "this is not "+of, err.Error())
}

// readZotEvent reads an event of zot's (pkg/extensions/events, at 6d19b445fed1): a CloudEvent in
// binary or in structured mode (CloudEvents 1.0, HTTP protocol binding, section 3).
func readZotEvent(body []byte, h http.Header) ([]string, error) {
	kind, name, err := readCloudEvent(body, h)
	if err != nil {
		return nil, notAnEvent("a CloudEvent", err)
	}
	if !strings.HasPrefix(kind, "zotregistry.") {
		return nil, notAnEvent("an event of zot's", errors.New("its type does not begin with zotregistry"))
	}
	return []string{name}, nil
}

// ReadZotEvent finds the repository in an event of zot's that came over NATS. Without headers
// it is in structured mode (CloudEvents 1.0, NATS protocol binding, section 3).
func ReadZotEvent(body []byte, header map[string][]string) (repository string, err error) {
	h := http.Header{}
	for name, values := range header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	if h.Get("Ce-Specversion") == "" && h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/cloudevents+json")
	}
	names, err := readZotEvent(body, h)
	if err != nil || len(names) != 1 {
		return "", errors.Join(err, errors.New("no event of zot's"))
	}
	return names[0], nil
}

func readCloudEvent(body []byte, h http.Header) (kind, name string, err error) {
	type data struct {
		Name string `json:"name"`
	}
	var d data
	if isMediaType(h, "application/cloudevents+json") {
		var e struct {
			Type string `json:"type"`
			Data *data  `json:"data"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return "", "", err
		}
		if e.Data == nil {
			return "", "", errors.New("it has no data")
		}
		return e.Type, e.Data.Name, nil
	}
	if h.Get("Ce-Specversion") == "" {
		return "", "", errors.New("give the header ce-specversion, or the content type application/cloudevents+json")
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return "", "", err
	}
	return h.Get("Ce-Type"), d.Name, nil
}

func isMediaType(h http.Header, want ...string) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && slices.Contains(want, t)
}

// readDistributionEvents reads an envelope of CNCF distribution's (notifications/event.go, in
// 2.8.2 and 3.1.1 alike but for the media type). Pulls are of no interest.
func readDistributionEvents(body []byte, h http.Header) (names []string, err error) {
	if !isMediaType(h, "application/vnd.docker.distribution.events.v1+json", "application/vnd.docker.distribution.events.v2+json", "application/json") {
		return nil, notAnEvent("an envelope of distribution's events", fmt.Errorf("its content type is %.100q, and not application/vnd.docker.distribution.events.v2+json or application/json", h.Get("Content-Type")))
	}
	var envelope struct {
		Events []struct {
			Action string `json:"action"`
			Target struct {
				Repository string `json:"repository"`
			} `json:"target"`
		} `json:"events"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, notAnEvent("an envelope of distribution's events", err)
	}
	if envelope.Events == nil {
		return nil, notAnEvent("an envelope of distribution's events", errors.New("it has no events"))
	}
	for _, e := range envelope.Events {
		if e.Action == "push" || e.Action == "delete" {
			names = append(names, e.Target.Repository)
		}
	}
	return names, nil
}

// readHarborEvent reads what a webhook of Harbor's sends about an artifact (goharbor.io,
// "Configure Webhook Notifications", payload format Default).
func readHarborEvent(body []byte, _ http.Header) ([]string, error) {
	var e struct {
		Type string `json:"type"`
		Data struct {
			Repository struct {
				Name string `json:"repo_full_name"`
			} `json:"repository"`
		} `json:"event_data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, notAnEvent("a webhook of Harbor's", err)
	}
	switch e.Type {
	case "":
		return nil, notAnEvent("a webhook of Harbor's", errors.New("it has no type"))
	case "PUSH_ARTIFACT", "DELETE_ARTIFACT", "REPLICATION":
		if e.Data.Repository.Name != "" {
			return []string{e.Data.Repository.Name}, nil
		}
	}
	return nil, nil // Harbor's other events change nothing here
}
