package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/scheduler"
	"trust-worker/trust"
)

// What a gate lets through unjudged is a list; whatever a registry might read in another way
// is not on it.
func TestPassages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	judged := func(repository, reference string) passage {
		return passage{repository: repository, reference: reference, read: true, manifest: true}
	}
	for uri, want := range map[string]passage{
		"/v2/":                            {read: true},
		"/v2/a/b-c/blobs/" + digest:       {repository: "a/b-c", read: true},
		"/v2/a/tags/list?n=10&last=x%2fy": {repository: "a", read: true},
		"/v2/a/referrers/" + digest + "?artifactType=a%2": {repository: "a", read: true},
		"/v2/a/blobs/uploads/":                            {repository: "a", read: true, upload: true},
		"/v2/a/blobs/uploads/1b-2_3?digest=sha256%3a00":   {repository: "a", read: true, upload: true},
		"/v2/a/manifests/1.0":                             judged("a", "1.0"),
		"/v2/a/manifests/" + digest:                       judged("a", digest),
		"/v2/a/manifests/1.0?ns=docker.io":                judged("a", "1.0"),
		"/v2/a/manifests/1.0?":                            judged("a", "1.0"),
		"/v2/a/manifests/sha512:00":                       judged("a", "sha512:00"),
		"/v2/a/blobs/manifests/1":                         judged("a/blobs", "1"),
		"/v2/a/manifests/manifests/1":                     judged("a/manifests", "1"),
		"/v2/a/blobs/uploads/manifests/1":                 judged("a/blobs/uploads", "1"),
		"/v2/a/tags/manifests/list":                       judged("a/tags", "list"),
		"/v2/a/manifests/tags/list":                       {repository: "a/manifests", read: true}, // no registry has a tag with a slash
	} {
		got, ok := parsePassage("GET", uri)
		if want.upload {
			want.read = true
		}
		if !ok || got != want {
			t.Errorf("%s: %+v, %t", uri, got, ok)
		}
	}
	for _, uri := range []string{"", "/", "/v2", "v2/", "//v2/", "/v2//", "/V2/", "/v2/../v2/", "/v2/./", "/v2/?a b", "/v2/_catalog", "/v2/_zot/ext/search", "/gate",
		"/v2/a/manifests/", "/v2/a/manifests/1.0/", "/v2/a//manifests/1.0", "/v2/a/./manifests/1.0", "/v2/a/../b/manifests/1.0", "/v2/A/manifests/1",
		"/v2/a/manifests/%31.0", "/v2/a%2fb/manifests/1", "/v2/a/manifests/1.0%3fx", "/v2/a/manifests/1.0#x", "/v2/a/manifests/1.0;x", "/v2/a/manifests/1.0\x00",
		"/v2/a/manifests/1.0\n", "/v2/a/manifests/1.0?x=y", "/v2/a/manifests/1.0?ns=a&ns=b", "/v2/a/manifests/1.0?ns=%2f", "/v2/a/manifests/.", "/v2/a/manifests/..", "/v2/a/manifests/-",
		"/v2/a/manifests/sha256:" + strings.Repeat("0A", 32), "/v2/a/manifests/latest@sha256:00", "/v2/a/blobs/1.0", "/v2/a/blobs/sha256:00/x", "/v2/a/blobs/sha256:00%2f..%2fmanifests",
		"/v2/a/blobs/uploads", "/v2/a/blobs/uploads/../../manifests/1", "/v2/a/blobs/uploads/x/y", "/v2/a/tags/list/", "/v2/a/tags", "/v2/manifests/1", "/v2/a", "/v2/a/b",
		"http://registry/v2/", "/v2/a\\manifests/1", "/v2/a/manifests/" + strings.Repeat("x", 129), "/v2/" + strings.Repeat("x", 256) + "/manifests/1", "/v2/é/manifests/1"} {
		if got, ok := parsePassage("GET", uri); ok {
			t.Errorf("%q: %+v", uri, got)
		}
	}
	for method, open := range map[string]bool{"GET": true, "HEAD": true, "PUT": false, "DELETE": false, "POST": false, "get": false, "OPTIONS": false, "CONNECT": false, "": false} {
		p, ok := parsePassage(method, "/v2/a/tags/list")
		if p.open() && ok != open {
			t.Errorf("%s of tags: %t", method, ok)
		}
		if p, ok := parsePassage(method, "/v2/a/manifests/1"); ok && p.open() {
			t.Errorf("%s of a manifest is open", method)
		}
	}
	for _, method := range []string{"POST", "PATCH", "PUT", "DELETE"} {
		if p, ok := parsePassage(method, "/v2/a/blobs/uploads/1"); !ok || !p.open() {
			t.Errorf("%s of an upload: %t", method, ok)
		}
		if p, _ := parsePassage(method, "/v2/a/blobs/"+digest); p.open() {
			t.Errorf("%s of a blob is open", method)
		}
	}
}

// A passage that is open or judged is canonical: it is its own plain form.
func FuzzPassage(f *testing.F) {
	f.Add("GET", "/v2/a/b/manifests/1.0?ns=x")
	f.Add("PUT", "/v2/a/blobs/uploads/x?digest=y")
	f.Fuzz(func(t *testing.T, method, uri string) {
		p, ok := parsePassage(method, uri)
		path, _, _ := strings.Cut(uri, "?")
		switch {
		case !ok:
		case strings.ContainsAny(path, "%\\#;") || strings.Contains(path, "//") || strings.Contains(path, "/../") || filepath.Clean(path) != strings.TrimSuffix(path, "/"):
			t.Errorf("%q is not canonical", uri)
		case strings.Contains(path, "/manifests/") && p.open() && !strings.Contains(path[strings.LastIndex(path, "/manifests/"):], "/tags/") && !strings.Contains(path[strings.LastIndex(path, "/manifests/"):], "/blobs/") && !strings.Contains(path[strings.LastIndex(path, "/manifests/"):], "/referrers/"):
			t.Errorf("%q is open", uri)
		case p.manifest && path != "/v2/"+p.repository+"/manifests/"+p.reference:
			t.Errorf("%q is read as %+v", uri, p)
		}
	})
}

const pushToken = "0123456789abcdef-push"

// gated is a world with a gate, over storage of its own.
func gated(t *testing.T, mode string) (*world, *signtest.Storage) {
	t.Helper()
	dir := t.TempDir()
	storage := signtest.NewStorage(filepath.Join(dir, "root"))
	root := must[*layout.Root](t)(layout.Open(storage.Dir, layout.Options{}))
	t.Cleanup(func() { check(t, root.Close()) })
	token := filepath.Join(dir, "gate.token")
	check(t, os.WriteFile(token, []byte(pushToken+"\n"), 0o600))
	return start(t, func(c *Config) {
		c.Gate = Gate{Mode: mode, TokenFile: token, Open: func(name string) (*layout.Repository, error) {
			return scheduler.OpenRepository([]scheduler.Storage{{Root: root}}, name)
		}}
	}), storage
}

func (w *world) asks(method, uri string, headers ...string) *answer {
	w.t.Helper()
	return w.call("GET", pathGate, nil, append([]string{headerMethod, method, headerURI, uri}, headers...)...)
}

// passes holds the gate to an answer: 200, or 403 or 503 with a reason.
func (w *world) passes(uri string, status int, reason string, digest trust.Digest, headers ...string) {
	w.t.Helper()
	a := w.asks("GET", uri, headers...)
	decision := map[int]string{200: "allow", 403: "deny", 503: "undecided"}[status]
	given, _ := trust.ParseDigest(a.Header.Get(headerDigest))
	if a.StatusCode != status || a.Header.Get(headerReason) != reason || a.Header.Get(headerDecision) != decision || given != digest {
		w.t.Errorf("%s: %d, %v, want %d %s %s", uri, a.StatusCode, a.Header, status, reason, digest)
	}
	if status == 200 {
		return
	}
	if p := a.problem(w.t); p.Detail["reason"] != reason || p.Message == "" || status == 403 && p.Code != "DENIED" {
		w.t.Errorf("%s: %s", uri, a.body)
	}
	if retry := a.Header.Get("Retry-After") != ""; retry != (status == 503) || a.Header.Get(headerMessage) == "" {
		w.t.Errorf("%s: %v", uri, a.Header)
	}
}

// The gate judges what is pulled: images by their answers, an index's children by the index,
// and nothing else passes but what could not be run.
func TestGate(t *testing.T) {
	w, s := gated(t, GateEnforce)
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/team.pub", key.PEM())
	const repo = "team/app"
	good, bad := s.Image(repo, "good"), s.Image(repo, "bad")
	amd, arm, loose := s.Content(repo, "", "amd64"), s.Content(repo, "", "arm64"), s.Content(repo, "", "loose")
	multi, other := s.Index(repo, "multi", amd, arm), s.Index(repo, "other", loose)
	sig := s.Manifest(repo, "sha256-"+good.Hex()+".sig", "application/vnd.oci.image.manifest.v1+json", simpleSigning(s, repo, good.Trust(), key))
	dressed := s.Content(repo, "sha256-"+bad.Hex()+".sig", "dressed")
	referrers := s.Index(repo, "sha256-"+good.Hex(), loose, good)
	row := func(img signtest.Image, mediaType string, children ...signtest.Image) store.Row {
		r := store.Row{Digest: img.Trust(), MediaType: mediaType, Present: true, Tagged: img.Tag != ""}
		for _, c := range children {
			r.Children = append(r.Children, store.Child{Digest: c.Trust()})
		}
		return r
	}
	rows := []store.Row{row(good, "m"), row(bad, "m"), row(amd, "m"), row(arm, "m"), row(loose, "m"), row(multi, "i", amd, arm), row(other, "i", loose)}
	facts := append(w.claims(&rows[0], "good", []claim{byKey(key)}), w.claims(&rows[5], "multi", []claim{byKey(key)})...)
	facts = append(facts, w.claims(&rows[1], "bad", []claim{{tool: trust.Cosign, reason: trust.NoTrustedKey}})...)
	commit := func(repository string) {
		w.commit(repository, map[string]trust.Digest{"good": good.Trust(), "bad": bad.Trust(), "multi": multi.Trust(), "other": other.Trust()}, rows, facts)
	}
	commit(repo)
	at := func(reference string) string { return "/v2/" + repo + "/manifests/" + reference }
	of := func(i signtest.Image) string { return at(i.Digest.String()) }

	w.passes(at("good"), 200, "", good.Trust())
	w.call("GET", pathGate+"?predicate=a:b", nil, headerMethod, "GET", headerURI, at("good")).want(t, 403, "does not ask for attestations")
	w.passes(of(good), 200, "", good.Trust())
	w.passes(at("bad"), 403, "no-trusted-key", bad.Trust())
	w.passes(of(bad), 403, "no-trusted-key", bad.Trust())
	w.passes(at("multi"), 200, "", multi.Trust())
	w.passes(of(amd), 200, "", amd.Trust())
	w.passes(of(arm), 200, "", arm.Trust())
	w.passes(of(loose), 403, "unsigned", loose.Trust()) // its index is not trusted, and an index of referrers does not count
	w.passes(at("other"), 403, "unsigned", other.Trust())
	w.passes(at("none"), 403, "not-found", trust.Digest{})
	w.passes(at("sha512:00"), 403, "not-found", trust.Digest{}) // the gate gives no digest that only stands for another
	unknown := digestOf("unknown")
	w.passes(at(unknown.String()), 403, "not-found", unknown)

	// Signatures pass by what they are, whatever names them; what dresses as one does not.
	w.passes(at("sha256-"+good.Hex()+".sig"), 200, "", sig.Trust())
	w.passes(of(sig), 200, "", sig.Trust())
	w.passes(at("sha256-"+bad.Hex()+".sig"), 403, "not-found", dressed.Trust())
	w.passes(at("sha256-"+good.Hex()), 200, "", referrers.Trust())
	w.passes(of(referrers), 403, "not-found", referrers.Trust()) // by its tag alone
	w.passes(at("sha256-"+bad.Hex()), 403, "not-found", trust.Digest{})
	w.passes(at("sha256-"+good.Hex()+".att"), 403, "not-found", trust.Digest{})
	moved := s.Manifest(repo, "sha256-"+good.Hex()+".sig", "application/vnd.oci.image.manifest.v1+json", simpleSigning(s, repo, bad.Trust(), key))
	w.passes(at("sha256-"+good.Hex()+".sig"), 200, "", moved.Trust())
	w.passes("/v2/elsewhere/manifests/"+sig.Digest.String(), 403, "not-found", sig.Trust()) // remembered, and not in that repository

	// Another repository's index says nothing about this one's images.
	w.commit("team/copy", map[string]trust.Digest{"arm": arm.Trust()}, rows[3:4], nil)
	s.Content("team/copy", "arm", "arm64")
	w.passes("/v2/team/copy/manifests/"+arm.Digest.String(), 403, "unsigned", arm.Trust())

	// The key leaves, and takes everything with it.
	check(t, os.Remove(filepath.Join(w.root, "_cosign/team.pub")))
	check(t, w.d.ReloadNow(t.Context()))
	for _, i := range []signtest.Image{good, multi} {
		w.passes(of(i), 403, "signer-removed", i.Trust())
	}
	w.passes(of(arm), 403, "unsigned", arm.Trust())
	w.passes(of(sig), 200, "", sig.Trust())

	// Storage that cannot be read refuses nothing for good, and lets nothing pass.
	open := w.srv.evidence.open
	w.srv.evidence.open = func(string) (*layout.Repository, error) { return nil, syscall.EIO }
	w.passes(of(sig), 503, "io-error", sig.Trust())
	w.passes(of(arm), 503, "io-error", arm.Trust())
	w.passes(at("sha256-"+good.Hex()+".sig"), 503, "io-error", trust.Digest{})
	w.srv.evidence.open = open

	// What may be in storage and is not known is not refused for ever.
	check(t, w.d.store.SetWhole(false))
	w.passes(at("none"), 503, "new", trust.Digest{})
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	w.passes(at("good"), 503, "no-cache", trust.Digest{})
	w.passes("/v2/", 200, "", trust.Digest{})
}

// simpleSigning is a signature as cosign sign attaches it: its config is an image's.
func simpleSigning(s *signtest.Storage, repo string, subject trust.Digest, key *signtest.Key) []byte {
	layer, payload := signtest.SimpleLayer(subject, key, signtest.CosignOptions{})
	s.Blob(repo, payload)
	config := s.Blob(repo, []byte(`{"architecture":"","os":""}`))
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		config.Digest, config.Size, layer.MediaType, layer.Digest, layer.Size)
}

// The push right belongs to whom the proxy vouches for, and to nobody else.
func TestGatePushRight(t *testing.T) {
	w, s := gated(t, GateEnforce)
	img := s.Image("a", "1")
	row := store.Row{Digest: img.Trust(), MediaType: "m", Present: true, Tagged: true}
	w.commit("a", map[string]trust.Digest{"1": img.Trust()}, []store.Row{row}, nil)
	for _, c := range []struct {
		method, uri, token string
		status             int
	}{
		{"GET", "/v2/a/manifests/1", "", 403}, {"GET", "/v2/a/manifests/1", pushToken, 200}, {"GET", "/v2/a/manifests/1", pushToken + "x", 403},
		{"PUT", "/v2/a/manifests/1", "", 403}, {"PUT", "/v2/a/manifests/1", pushToken, 200}, {"PUT", "/v2/a/manifests/1", w.token(), 403},
		{"DELETE", "/v2/a/manifests/1", "", 403}, {"DELETE", "/v2/a/manifests/1", pushToken, 200}, {"DELETE", "/v2/a/blobs/sha256:00", "", 403},
		{"PUT", "/v2/a/%6danifests/1", pushToken, 403}, {"GET", "/v2/_catalog", pushToken, 403},
		{"POST", "/v2/a/blobs/uploads/?mount=sha256:00&from=b", "", 200}, {"PATCH", "/v2/a/blobs/uploads/7", "", 200},
	} {
		if a := w.asks(c.method, c.uri, headerPush, c.token); a.StatusCode != c.status {
			t.Errorf("%s %s with %q: %d %s", c.method, c.uri, c.token, a.StatusCode, a.body)
		}
	}
	// The token is good for nothing else, and a client cannot add a second header.
	w.call("POST", pathCosign, signtest.NewKey(signtest.P256).PEM(), "Authorization", "Bearer "+pushToken).want(t, 401)
	req := w.request("GET", pathGate, nil, headerMethod, "GET", headerURI, "/v2/a/manifests/1")
	req.Header[headerPush] = []string{"", pushToken}
	w.do(req).want(t, 403)
	for _, missing := range []string{headerMethod, headerURI} {
		req := w.request("GET", pathGate, nil, headerMethod, "GET", headerURI, "/v2/")
		req.Header.Add(missing, req.Header.Get(missing))
		w.do(req).want(t, 403, "path-not-allowed")
		req.Header.Del(missing)
		w.do(req).want(t, 403, "path-not-allowed")
	}
}

// In the mode report everything passes, and what would not says so.
func TestGateReports(t *testing.T) {
	w, s := gated(t, GateReport)
	img := s.Image("a", "1")
	row := store.Row{Digest: img.Trust(), MediaType: "m", Present: true, Tagged: true}
	w.commit("a", map[string]trust.Digest{"1": img.Trust()}, []store.Row{row}, nil)
	for uri, reason := range map[string]string{"/v2/a/manifests/1": "unsigned", "/v2/_catalog": reasonPath} {
		a := w.asks("GET", uri)
		a.want(t, 200)
		if a.Header.Get(headerDecision) != "deny" || a.Header.Get(headerReason) != reason || !strings.Contains(w.log.String(), "reason="+reason) {
			t.Errorf("%s: %v", uri, a.Header)
		}
	}
	if a := w.asks("GET", "/v2/a/manifests/1"); a.Header.Get(headerDigest) != img.Digest.String() {
		t.Errorf("%v", a.Header)
	}
	w.get("/metrics").want(t, 200, `trust_worker_gate_requests_total{outcome="denied"} 3`)
}

// There is no gate unless it is asked for, and one that cannot be made as asked for is not
// made.
func TestGateSettings(t *testing.T) {
	start(t, nil).asks("GET", "/v2/").want(t, http.StatusNotFound)
	for _, g := range []Gate{{Mode: "on"}, {TokenFile: "x"}} {
		if g.Check() == nil {
			t.Errorf("%+v is taken", g)
		}
	}
	if _, err := newTokenFile(filepath.Join(t.TempDir(), "none"), toNone, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a token file that is not there is taken")
	}
}
