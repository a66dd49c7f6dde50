package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// provides asks as Gatekeeper does, and returns the items by key.
func (w *world) provides(keys ...string) (body providerBody, items map[string]providerItem) {
	w.t.Helper()
	b, err := json.Marshal(map[string]any{"apiVersion": gatekeeperVersion, "kind": "ProviderRequest", "request": map[string]any{"keys": keys}})
	check(w.t, err)
	a := w.call("POST", pathAPI+"/gatekeeper", b, "Content-Type", "application/json")
	a.want(w.t, 200, `"apiVersion":"externaldata.gatekeeper.sh/v1beta1"`, `"kind":"ProviderResponse"`)
	var out providerResponse
	check(w.t, json.Unmarshal([]byte(a.body), &out))
	items = map[string]providerItem{}
	for _, i := range out.Response.Items {
		items[i.Key] = i
	}
	return out.Response, items
}

// Each key has an answer of its own; an error is for what is not decided, and nothing else.
func TestGatekeeper(t *testing.T) {
	w := start(t, func(c *Config) { c.RegistryNames = []string{"r.example:5000"} })
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/team.pub", key.PEM())
	good := w.image("team/app", "1.0", byKey(key))
	bad := w.image("team/bad", "latest", claim{tool: trust.Cosign, reason: trust.NoTrustedKey})
	odd := w.image("team/odd", "1", claim{tool: trust.Cosign, reason: trust.RevocationUnknown})
	w.image("team/plain", "1")
	at := func(repo string, d trust.Digest) string { return repo + "@" + d.String() }
	body, items := w.provides("r.example:5000/team/app:1.0", at("r.example:5000/team/app", good), "team/app:1.0@"+good.String(), "team/bad", "team/plain:1",
		at("team/odd", odd), "team/app:none", "docker.io/team/app:1.0", "::", "")
	if body.Idempotent || body.SystemError != "" || len(items) != 10 {
		t.Errorf("%+v", body)
	}
	for k, want := range map[string]providerValue{
		"r.example:5000/team/app:1.0":       {State: "trusted", Digest: good.String(), Signers: []string{"_cosign/team.pub"}},
		at("r.example:5000/team/app", good): {State: "trusted", Digest: good.String(), Pinned: true, Signers: []string{"_cosign/team.pub"}},
		"team/app:1.0@" + good.String():     {State: "trusted", Digest: good.String(), Pinned: true, Signers: []string{"_cosign/team.pub"}},
		"team/bad":                          {State: "untrusted", Reason: trust.NoTrustedKey, Digest: bad.String()},
		"team/plain:1":                      {State: "unsigned", Digest: digestOf("team/plain:1").String()},
		"team/app:none":                     {State: "not-found"},
		"docker.io/team/app:1.0":            {State: "other-registry"},
		"::":                                {State: "invalid"},
		"":                                  {State: "invalid"},
	} {
		i := items[k]
		if i.Error != "" || i.Value == nil {
			t.Errorf("%q: %+v", k, i)
			continue
		}
		got := *i.Value
		if got.State != want.State || got.Reason != want.Reason || got.Digest != want.Digest || got.Pinned != want.Pinned || !slices.Equal(got.Signers, want.Signers) {
			t.Errorf("%q: %+v, want %+v", k, got, want)
		}
	}
	if i := items[at("team/odd", odd)]; i.Value != nil || !strings.Contains(i.Error, "revocation-unknown") {
		t.Errorf("not decided: %+v", i)
	}
	if body, _ := w.provides(at("team/app", good), at("team/bad", bad)); !body.Idempotent {
		t.Error("digests alone are not idempotent")
	}

	// Nothing is said of any key when nothing can be.
	var many []string
	for n := range maxKeys + 1 {
		many = append(many, fmt.Sprint("a:", n))
	}
	if body, items := w.provides(many...); body.SystemError == "" || len(items) != 0 {
		t.Errorf("%d keys: %+v", len(many), body)
	}
	if _, items := w.provides(many[1:]...); len(items) != maxKeys {
		t.Errorf("%d answers", len(items))
	}
	for _, wrong := range []string{"", "{", `{"apiVersion":"externaldata.gatekeeper.sh/v1alpha1","kind":"ProviderRequest","request":{"keys":["a"]}}`,
		`{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderResponse","request":{"keys":["a"]}}`, `"` + strings.Repeat("x", maxKeyBytes) + `"`} {
		w.call("POST", pathAPI+"/gatekeeper", []byte(wrong)).want(t, 200, `"systemError":"`, `"items":[]`)
	}
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	if body, items := w.provides("team/app:1.0"); body.SystemError == "" || len(items) != 0 {
		t.Errorf("nothing is published: %+v", body)
	}
}
