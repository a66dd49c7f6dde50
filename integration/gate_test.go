package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
)

// The gate behind real proxies, configured as docs/gates.md prints it.

// layoutRegistry serves what is in storage, as a registry does: pulls alone.
type layoutRegistry struct {
	root string
	// before is called before an answer about a manifest is looked up.
	before atomic.Pointer[func()]
	asked  atomic.Pointer[http.Request]
}

func (l *layoutRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.asked.Store(r)
	if f := l.before.Load(); f != nil {
		(*f)()
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if r.URL.Path == "/v2/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return
	}
	if repo, blob, ok := strings.Cut(name, "/blobs/"); ok {
		name, rest = repo, blob
	}
	b, err := os.ReadFile(filepath.Join(l.root, name, "index.json"))
	var index ocispec.Index
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	mediaType := ocispec.MediaTypeImageManifest
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == rest {
			rest, mediaType = m.Digest.String(), m.MediaType
		}
	}
	if err == nil {
		b, err = os.ReadFile(filepath.Join(l.root, name, "blobs", "sha256", strings.TrimPrefix(rest, "sha256:")))
	}
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", rest)
	_, _ = w.Write(b)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const gateToken = "a token of the file that --gate-token-file names"

// recipe is the block of a language in docs/gates.md.
func recipe(t *testing.T, language string) string {
	t.Helper()
	for _, b := range blocksOf(pages(t)["docs/gates.md"]) {
		if b.language == language {
			return b.text
		}
	}
	t.Fatalf("docs/gates.md has no recipe for %s", language)
	return ""
}

// runProxy starts a proxy, and waits until it answers.
func runProxy(t *testing.T, address, dir, config string, command ...string) {
	t.Helper()
	path := filepath.Join(dir, "proxy.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	c := exec.Command(command[0], append(command[1:], path)...)
	c.Stdout, c.Stderr, c.Dir = log, log, dir
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", command[0], log)
		}
	})
	eventually(t, command[0]+" answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func TestGateBehindNginx(t *testing.T) {
	testGate(t, "nginx", func(t *testing.T, dir, address, config string) {
		config = strings.Replace(config, "10.20.0.0/16", "127.0.0.7/32", 1)
		config = fmt.Sprintf("daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n"+
			"client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;\n%[2]s\n}\n", dir, config)
		runProxy(t, address, dir, config, "nginx", "-e", "stderr", "-p", dir, "-c")
	})
}

func TestGateBehindCaddy(t *testing.T) {
	testGate(t, "caddyfile", func(t *testing.T, dir, address, config string) {
		runProxy(t, address, dir, "{\n\tadmin off\n}\n"+config, "caddy", "run", "--adapter", "caddyfile", "--config")
	})
}

func testGate(t *testing.T, language string, run func(t *testing.T, dir, address, config string)) {
	program := strings.TrimSuffix(language, "file")
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("there is no %s here", program)
	}
	t.Parallel()
	dir := t.TempDir()
	st := signtest.NewStorage(filepath.Join(dir, "registry"))
	key, removed := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	st.TrustKey("team.pub", key)
	st.TrustKey("removed.pub", removed)
	const repo = "team/app"
	good, bad, soon := st.Image(repo, "good"), st.Image(repo, "bad"), st.Image(repo, "soon")
	st.SignSimple(good, key, signtest.CosignOptions{})
	st.SignSimple(soon, removed, signtest.CosignOptions{})
	child := st.Content(repo, "", "amd64")
	multi := st.Index(repo, "multi", child)
	st.SignSimple(multi, key, signtest.CosignOptions{})
	st.Content(repo, "sha256-"+bad.Hex()+".sig", "dressed as a signature")

	token := filepath.Join(dir, "gate.token")
	if err := os.WriteFile(token, []byte(gateToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, st.Dir, "--listen", "127.0.0.1:0", "--gate", "enforce", "--gate-token-file", token)
	registry := &layoutRegistry{root: st.Dir}
	backend := httptest.NewServer(registry)
	t.Cleanup(backend.Close)
	address := freeAddress(t)
	config := strings.NewReplacer("127.0.0.1:5000", backend.Listener.Addr().String(), "127.0.0.1:8428", d.address(t), "127.0.0.1:8080", address).Replace(recipe(t, language))
	run(t, dir, address, config)

	ask := func(c *http.Client, method, path string, headers ...string) (status int, body string, h http.Header) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path // as it is, also where that is no proper path
		req.Header.Set("Authorization", "Bearer a token of the registry")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	want := func(method, path string, status int, part string, headers ...string) {
		t.Helper()
		got, body, _ := ask(client, method, path, headers...)
		if got != status || !strings.Contains(body, part) {
			t.Errorf("%s %s: %d %s, want %d %q", method, path, got, body, status, part)
		}
	}
	at := func(reference string) string { return "/v2/" + repo + "/manifests/" + reference }
	want("GET", "/v2/", 200, "")
	want("GET", at("good"), 200, "layers")
	want("HEAD", at("good"), 200, "")
	want("GET", at(good.Digest.String()), 200, "layers")
	want("GET", at("multi"), 200, child.Digest.String())
	want("GET", at(child.Digest.String()), 200, "layers")
	want("GET", at("sha256-"+good.Hex()+".sig"), 200, "simplesigning")
	want("GET", at("bad"), 403, `"reason":"malformed"`)
	want("HEAD", at("bad"), 403, "")
	want("GET", at("sha256-"+bad.Hex()+".sig"), 403, "not-found")
	want("GET", "/v2/_catalog", 403, "path-not-allowed")
	want("GET", "/v2/team/app/%6danifests/bad", 403, "")
	want("GET", "/v2/team/app/tags/../manifests/bad", 403, "")
	want("GET", "/v2/team/app/blobs/"+good.Digest.String(), 200, "layers")
	want("PUT", at("bad"), 403, "push right")
	// A client's own headers decide nothing.
	for _, header := range []string{"X-Trust-Worker-Push", "X-Trust-Worker-Digest", "X-Original-URI", "X-Original-Method", "Docker-Content-Digest"} {
		value := map[string]string{"X-Trust-Worker-Push": gateToken, "X-Original-URI": "/v2/", "X-Original-Method": "GET"}[header]
		if value == "" {
			value = bad.Digest.String()
		}
		want("GET", at("bad"), 403, `"reason":"malformed"`, header, value)
		want("PUT", at("bad"), 403, "push right", header, value)
		want("GET", at("good"), 200, "layers", header, value)
		want("GET", "/v2/"+repo+"/blobs/"+good.Digest.String(), 200, "layers", header, value)
	}
	if !strings.HasSuffix(registry.asked.Load().URL.Path, good.Digest.String()) || registry.asked.Load().Header.Get("Authorization") == "" {
		t.Errorf("the registry was asked for %s with %v", registry.asked.Load().URL, registry.asked.Load().Header)
	}

	// The tag moves after the gate has judged, and before the registry has answered.
	move := func() { st.Content(repo, "good", "moved here by somebody") }
	registry.before.Store(&move)
	status, body, h := ask(client, "GET", at("good"))
	registry.before.Store(nil)
	if status != 200 || h.Get("Docker-Content-Digest") != good.Digest.String() || !strings.Contains(body, "layers") {
		t.Errorf("after the tag moved: %d, %v, %s", status, h, body)
	}
	eventually(t, "the moved tag is judged", func() bool { status, _, _ := ask(client, "GET", at("good")); return status == 403 })

	// A key that is removed ends pulls at once, with the reason.
	want("GET", at("soon"), 200, "layers")
	if err := os.Remove(filepath.Join(st.Dir, "_cosign", "removed.pub")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pull is refused", func() bool {
		status, body, _ := ask(client, "GET", at("soon"))
		return status == 403 && strings.Contains(body, `"reason":"signer-removed"`)
	})
	want("GET", at("multi"), 200, child.Digest.String())

	if language == "nginx" { // it knows its clients by address
		signer := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}).DialContext}}
		t.Cleanup(signer.CloseIdleConnections)
		for method, path := range map[string]string{"GET": at("bad"), "PUT": at("new")} {
			if status, body, _ := ask(signer, method, path); status != 200 {
				t.Errorf("%s %s by who may push: %d %s", method, path, status, body)
			}
		}
	}

	// Without the daemon nothing passes.
	d.kill()
	status, body, _ = ask(client, "GET", at("multi"))
	if status != map[string]int{"nginx": 503, "caddyfile": 502}[language] || language == "nginx" && !strings.Contains(body, "trust-worker does not answer") {
		t.Errorf("without the daemon: %d %s", status, body)
	}
}
