package server

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// zot's events say where to look, in both modes; nothing else does, and the token
// for it is good for nothing else.
func TestZotEvents(t *testing.T) {
	var mu sync.Mutex
	var looked []string
	hints := filepath.Join(t.TempDir(), "hints")
	check(t, os.WriteFile(hints, []byte("a token for the registry\n"), 0o600))
	w := start(t, func(c *Config) {
		c.Auth.HintTokens = []string{hints}
		c.Auth.Reads = "credential"
		c.LookAt = func(name string) { mu.Lock(); defer mu.Unlock(); looked = append(looked, name) }
	})
	path, token := pathAPI+"/events/zot", "Bearer a token for the registry"
	binary := []string{"Authorization", token, "Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "zotregistry.dev", "Ce-Type", "zotregistry.image.updated"}
	data := `{"name":"team/app","reference":"1.0","digest":"sha256:12","manifest":"{}","actor":{"name":"x"}}`
	w.call("POST", path, []byte(data), binary...).want(t, 202)
	structured := []string{"Authorization", token, "Content-Type", "application/cloudevents+json; charset=utf-8"}
	w.call("POST", path, []byte(`{"specversion":"1.0","type":"zotregistry.repository.created","data":{"name":"team/new"}}`), structured...).want(t, 202)
	w.call("POST", path, []byte(data), append([]string{"Authorization", "Bearer " + w.token()}, binary[2:]...)...).want(t, 202)
	if want := []string{"team/app", "team/new", "team/app"}; !slices.Equal(looked, want) {
		t.Errorf("looked at %v", looked)
	}

	looked = nil
	for body, headers := range map[string][]string{
		"no event": {"Authorization", token}, "{": binary, "[]": binary, `{"name":"../x"}`: binary, `{"name":"Upper"}`: binary, `{}`: binary,
		`{"type":"zotregistry.x"}`: structured, `{"type":"other","data":{"name":"a"}}`: structured, "null": structured,
		data: append(slices.Clone(binary[:len(binary)-1]), "other.type"),
	} {
		w.call("POST", path, []byte(body), headers...).want(t, 400)
	}
	w.call("POST", path, []byte(strings.Repeat(" ", 10<<20+1)), binary...).want(t, 413)
	w.call("POST", path, []byte(data), binary[2:]...).want(t, 401)
	w.call("POST", path, []byte(data), append([]string{"Origin", "https://elsewhere.example"}, binary...)...).want(t, 403)
	if looked != nil {
		t.Errorf("looked at %v", looked)
	}
	w.call("POST", pathCosign, []byte("x"), "Authorization", token).want(t, 403)
	w.call("GET", pathAPI+"/images", nil, "Authorization", token).want(t, 403)
}

// Without the switch there is no such path.
func TestZotEventsOff(t *testing.T) {
	w := start(t, openUploads)
	w.call("POST", pathAPI+"/events/zot", nil).want(t, 404)
}

// What zot's client asks of the registry's own API is answered with who serves it.
func TestRegistryAPI(t *testing.T) {
	w := start(t, nil)
	for _, path := range []string{"/v2/", "/v2/_catalog", "/v2/team/app/tags/list", "/v2/team/app/manifests/1.0", "/v2/team/app/referrers/" + digestOf("x").String()} {
		w.get(path).want(t, http.StatusNotFound, "this is the registry's own API", "ask the registry itself", pathSearch)
	}
	a := w.get("/else")
	a.want(t, http.StatusNotFound, "there is nothing here")
}

// distribution's envelopes and Harbor's webhooks say where to look: pushes and deletions do.
func TestOtherRegistriesEvents(t *testing.T) {
	var mu sync.Mutex
	var looked []string
	hints := filepath.Join(t.TempDir(), "hints")
	check(t, os.WriteFile(hints, []byte("a token for the registry\n"), 0o600))
	w := start(t, func(c *Config) {
		c.Auth.HintTokens = []string{hints}
		c.LookAt = func(name string) { mu.Lock(); defer mu.Unlock(); looked = append(looked, name) }
	})
	v2 := "application/vnd.docker.distribution.events.v2+json"
	event := func(action, repository string) string {
		return `{"id":"1","action":"` + action + `","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:12","repository":"` + repository + `","tag":"1"},"actor":{"name":"x"}}`
	}
	for _, c := range []struct {
		registry, contentType, body string
		status                      int
		looked                      []string
	}{
		{"distribution", v2, `{"events":[` + event("push", "team/app") + "," + event("delete", "other") + "," + event("pull", "pulled") + "," + event("push", "team/app") + `]}`, 202, []string{"other", "team/app"}},
		{"distribution", strings.Replace(v2, "v2", "v1", 1), `{"events":[` + event("push", "a") + `]}`, 202, []string{"a"}},
		{"distribution", v2, `{"events":[]}`, 202, nil},
		// distribution sends what is refused again, and everybody's events wait behind it. It
		// takes names that are none here.
		{"distribution", v2, `{"events":[` + event("push", "a") + "," + event("push", "../x") + "," + event("push", "EVIL/app") + `]}`, 202, []string{"a"}},
		{"distribution", v2, `{"events":[` + event("push", "") + `]}`, 202, nil},
		{"distribution", v2, `{}`, 400, nil},
		{"distribution", v2, `[]`, 400, nil},
		{"distribution", v2, `{`, 400, nil},
		{"distribution", "text/plain", `{"events":[]}`, 400, nil},
		{"distribution", v2, strings.Repeat(" ", 8<<20) + `{"events":[]}`, 202, nil},
		{"harbor", "application/json", `{"type":"PUSH_ARTIFACT","occur_at":1,"operator":"admin","event_data":{"resources":[{"digest":"sha256:12","tag":"1"}],"repository":{"name":"app","namespace":"team","repo_full_name":"team/app","repo_type":"private"}}}`, 202, []string{"team/app"}},
		{"harbor", "application/json", `{"type":"PULL_ARTIFACT","event_data":{"repository":{"repo_full_name":"team/app"}}}`, 202, nil},
		{"harbor", "application/json", `{"type":"QUOTA_EXCEED"}`, 202, nil},
		{"harbor", "application/json", `{"type":"PUSH_ARTIFACT","event_data":{"repository":{"repo_full_name":"/etc"}}}`, 202, nil},
		{"harbor", "application/json", `{}`, 400, nil},
		{"harbor", "application/json", `null`, 400, nil},
	} {
		looked = nil
		a := w.call("POST", pathAPI+"/events/"+c.registry, []byte(c.body), "Authorization", "Bearer a token for the registry", "Content-Type", c.contentType)
		if a.want(t, c.status); !slices.Equal(looked, c.looked) {
			t.Errorf("%s %.200s: looked at %v, want %v", c.registry, c.body, looked, c.looked)
		}
		if len(c.body) < 1<<20 { // else the connection is closed on it
			w.call("POST", pathAPI+"/events/"+c.registry, []byte(c.body), "Content-Type", c.contentType).want(t, 401)
		}
	}
}

// Over NATS events come with headers or without (CloudEvents 1.0, NATS protocol binding).
func TestZotEventsOverNATS(t *testing.T) {
	structured := `{"specversion":"1.0","id":"1","source":"http://registry.example","type":"zotregistry.image.updated","data":{"name":"team/app","reference":"1.0"}}`
	for name, c := range map[string]struct {
		body   string
		header map[string][]string
		want   string
	}{
		"structured, as zot sends it":      {structured, nil, "team/app"},
		"structured, with a content type":  {structured, map[string][]string{"content-type": {"application/cloudevents+json"}}, "team/app"},
		"binary":                           {`{"name":"team/app"}`, map[string][]string{"ce-specversion": {"1.0"}, "ce-type": {"zotregistry.image.deleted"}}, "team/app"},
		"of somebody else":                 {strings.Replace(structured, "zotregistry", "other", 1), nil, ""},
		"no event":                         {`{"name":"team/app"}`, nil, ""},
		"no JSON":                          {`team/app`, nil, ""},
		"nothing":                          {``, nil, ""},
		"with a content type of something": {structured, map[string][]string{"Content-Type": {"text/plain"}}, ""},
	} {
		got, err := ReadZotEvent([]byte(c.body), c.header)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
