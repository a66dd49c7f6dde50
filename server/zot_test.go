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
	w.call("POST", path, []byte(strings.Repeat(" ", maxZotEvent+1)), binary...).want(t, 413)
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
