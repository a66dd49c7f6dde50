package imageverifier

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/trust"
)

var image = trust.SumOf([]byte("image"))

func load(t *testing.T, text string) *Settings {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image-verifier.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Only one answer allows an image; whatever is another refuses, but for what is not decided,
// where the settings say so.
func TestJudge(t *testing.T) {
	trusted := fmt.Sprintf(`{"State":"trusted","Digest":"%s"}`, image)
	var status int
	var body, asked, token string
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, token = r.URL.Path, r.Header.Get("Authorization")
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(worker.Close)
	dir := t.TempDir()
	secret := filepath.Join(dir, "token")
	if err := os.WriteFile(secret, []byte("a token that may read\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := func(undecided string) *Settings {
		return load(t, fmt.Sprintf("registries:\n  r.example:5000:\n    url: %s\n    tokenFile: %s\n    undecided: %s\notherRegistries: deny\n", worker.URL, secret, undecided))
	}
	for name, c := range map[string]struct {
		status        int
		body          string
		allowed, also bool // also: with undecided: allow
		says          string
	}{
		"trusted":                         {200, trusted, true, true, "is trusted"},
		"untrusted":                       {403, `{"State":"untrusted","Reason":"no-trusted-key"}`, false, false, "untrusted, no-trusted-key: No key in _cosign"},
		"unsigned":                        {403, `{"State":"unsigned"}`, false, false, "is unsigned"},
		"not there":                       {404, `{"State":"unknown"}`, false, false, "is not in the storage"},
		"pending":                         {503, `{"State":"pending","Reason":"new"}`, false, true, "is not decided (pending, new)"},
		"stale":                           {503, `{"State":"unknown","Reason":"stale"}`, false, true, "stale"},
		"another digest":                  {200, strings.Replace(trusted, "sha256:", "sha256:0", 1), false, false, "none of a trust-worker's"},
		"another state with 200":          {200, `{"State":"untrusted"}`, false, false, "none of a trust-worker's"},
		"a page with 200":                 {200, "<html>sign in</html>", false, false, "none of a trust-worker's"},
		"nothing with 200":                {200, "", false, false, "none of a trust-worker's"},
		"trusted, and refused":            {403, trusted, false, false, "none of a trust-worker's"},
		"trusted, and no success":         {503, trusted, false, false, "none of a trust-worker's"},
		"a redirect":                      {302, trusted, false, false, "none of a trust-worker's"},
		"a proxy's 403":                   {403, "forbidden", false, false, "none of a trust-worker's"},
		"no right":                        {401, "{}", false, false, "wants a credential"},
		"a proxy that reaches nobody":     {502, "", false, true, "does not answer"},
		"a proxy that is busy":            {503, "<html>", false, true, "does not answer"},
		"a worker of another kind":        {500, "", false, false, "none of a trust-worker's"},
		"an answer that is much too long": {200, strings.Repeat(" ", maxAnswer) + trusted, false, false, "none of a trust-worker's"},
	} {
		status, body = c.status, c.body
		for _, undecided := range []string{Deny, Allow} {
			j := settings(undecided).Judge(t.Context(), "r.example:5000/team/app:1.0", image.String())
			if want := c.allowed || c.also && undecided == Allow; j.Allowed != want || !strings.Contains(j.Line(), c.says) || strings.Contains(j.Line(), "\n") {
				t.Errorf("%s, undecided %s: %+v", name, undecided, j)
			}
		}
	}
	if want := "/api/v1/check/team/app@" + image.String(); asked != want || token != "Bearer a token that may read" {
		t.Errorf("asked %s with %q", asked, token)
	}
	asked = ""
	status, body = 200, trusted
	for _, c := range []struct{ name, digest string }{{"other.example/team/app:1", image.String()}, {"r.example/team/app:1", image.String()}, {"busybox", image.String()},
		{"r.example:5000/team/app:1", "sha512:00"}, {"r.example:5000/team/app:1", ""}, {"r.example:5000/../x:1", image.String()}, {"", image.String()}, {"\n", image.String()}} {
		if j := settings(Allow).Judge(t.Context(), c.name, c.digest); j.Allowed || j.Line() == "" || asked != "" {
			t.Errorf("%q %q: %+v, asked %q", c.name, c.digest, j, asked)
		}
	}
	others := settings(Deny)
	others.OtherRegistries = Allow
	if j := others.Judge(t.Context(), "registry.k8s.io/pause:3.10", image.String()); !j.Allowed {
		t.Errorf("another registry's: %+v", j)
	}
	// A digest in the name changes nothing: what was resolved counts.
	if j := others.Judge(t.Context(), "r.example:5000/team/app@"+trust.SumOf(nil).String(), image.String()); !j.Allowed || !strings.HasSuffix(asked, image.String()) {
		t.Errorf("%+v, asked %s", j, asked)
	}
	// The worker is gone, or hangs.
	worker.Close()
	for _, undecided := range []string{Deny, Allow} {
		if j := settings(undecided).Judge(t.Context(), "r.example:5000/team/app:1.0", image.String()); j.Allowed != (undecided == Allow) || !strings.Contains(j.Line(), "does not answer") {
			t.Errorf("no worker, undecided %s: %+v", undecided, j)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	slow := settings(Deny)
	slow.Registries["r.example:5000"].URL, slow.Registries["r.example:5000"].Timeout = "http://"+silent.Addr().String(), Duration(50*time.Millisecond)
	if j := slow.Judge(context.Background(), "r.example:5000/team/app:1.0", image.String()); j.Allowed || !strings.Contains(j.Line(), "does not answer") {
		t.Errorf("silence: %+v", j)
	}
}

// Who answers is checked: an impostor's word counts for nothing, and is no silence.
func TestJudgeOverTLSAndSockets(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"State":"trusted","Digest":"%s"}`, image)
	})
	worker := httptest.NewTLSServer(answer)
	t.Cleanup(worker.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: worker.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	go func() { _ = server.Serve(l) }() // ends at Close
	t.Cleanup(func() { server.Close() })
	for url, want := range map[string]bool{worker.URL + "\n    caFile: " + ca: true, worker.URL: false, "unix:" + socket: true, worker.URL + "\n    caFile: " + socket: false, worker.URL + "\n    caFile: " + os.DevNull: false} {
		s := load(t, "registries:\n  r.example:\n    undecided: allow\n    url: "+url+"\notherRegistries: deny\n")
		if j := s.Judge(t.Context(), "r.example/app:1", image.String()); j.Allowed != want {
			t.Errorf("%s: %+v", url, j)
		}
		for host, err := range s.Reach(t.Context(), time.Second) {
			if host != "r.example" || (err == nil) != want {
				t.Errorf("reaching %s: %s, %v", url, host, err)
			}
		}
	}
}

func TestSettings(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no word of others": "registries: {}\n", "a word of others that is none": "otherRegistries: yes\n",
		"an unknown key": "otherRegistries: deny\nregistry: {}\n", "a key given twice": "otherRegistries: deny\notherRegistries: allow\n",
		"no url": "otherRegistries: deny\nregistries:\n  r.example: {}\n", "no settings": "otherRegistries: deny\nregistries:\n  r.example:\n",
		"no URL": "otherRegistries: deny\nregistries:\n  r.example: {url: r.example}\n", "no host": "otherRegistries: deny\nregistries:\n  r.example/team: {url: 'http://x'}\n",
		"half a certificate": "otherRegistries: deny\nregistries:\n  r.example: {url: 'http://x', certFile: a}\n",
		"undecided":          "otherRegistries: deny\nregistries:\n  r.example: {url: 'http://x', undecided: maybe}\n",
		"a number of time":   "otherRegistries: deny\nregistries:\n  r.example: {url: 'http://x', timeout: 3}\n",
		"time below zero":    "otherRegistries: deny\nregistries:\n  r.example: {url: 'http://x', timeout: -3s}\n", "no YAML": "{",
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	r := load(t, "otherRegistries: allow\nregistries:\n  r.example: {url: 'http://x', timeout: 500ms}\n  s.example: {url: 'http://x'}\n").Registries
	if r["r.example"].Timeout != Duration(500*time.Millisecond) || r["s.example"].Timeout != Duration(3*time.Second) || r["s.example"].Undecided != Deny {
		t.Errorf("%+v %+v", r["r.example"], r["s.example"])
	}
}

// Each setting under which containerd goes past verifiers is named, and what it is by default
// is not.
func TestCheckContainerd(t *testing.T) {
	bin := t.TempDir()
	here := fmt.Sprintf("[plugins.'io.containerd.image-verifier.v1.bindir']\n  bin_dir = %q\n", bin)
	program := filepath.Join(bin, Program)
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	find := func(config string) (fatal, all string) {
		t.Helper()
		found, err := CheckContainerd([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			all += f.Setting + " "
			if f.Fatal {
				fatal += f.Setting + " "
			}
		}
		return fatal, all
	}
	const images = "[plugins.'io.containerd.cri.v1.images']\n"
	good := "version = 3\ndisabled_plugins = []\nimports = []\n" + images + "  use_local_image_pull = false\n  disable_snapshot_annotations = true\n  discard_unpacked_layers = false\n" +
		"  max_concurrent_downloads = 3\n  image_pull_with_sync_fs = false\n  [plugins.'io.containerd.cri.v1.images'.registry]\n    config_path = '/etc/containerd/certs.d'\n" + here + "  max_verifiers = 10\n"
	if fatal, all := find(good); all != "" {
		t.Errorf("a good one: %s, %s", fatal, all)
	}
	if fatal, all := find(here); all != "" {
		t.Errorf("all by default: %s, %s", fatal, all)
	}
	for setting, line := range map[string]string{
		"use_local_image_pull": "use_local_image_pull = true", "disable_snapshot_annotations": "disable_snapshot_annotations = false",
		"discard_unpacked_layers": "discard_unpacked_layers = true", "max_concurrent_downloads": "max_concurrent_downloads = 10",
		"image_pull_with_sync_fs": "image_pull_with_sync_fs = true", "registry.mirrors": "registry.mirrors.'docker.io'.endpoint = ['https://m']",
		"registry.configs": "registry.configs.'r'.tls.ca_file = 'x'", "registry.auths": "registry.auths.'r'.username = 'x'",
	} {
		if fatal, _ := find(images + line + "\n" + here); fatal != "io.containerd.cri.v1.images."+setting+" " {
			t.Errorf("%s: %s", line, fatal)
		}
	}
	old := "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\n  [plugins.'io.containerd.grpc.v1.cri'.containerd]\n    discard_unpacked_layers = true\n" + here
	if fatal, all := find(old); fatal != "io.containerd.grpc.v1.cri.discard_unpacked_layers " || !strings.Contains(all, "io.containerd.grpc.v1.cri ") {
		t.Errorf("version 2: %s, %s", fatal, all)
	}
	for _, c := range []struct{ config, fatal string }{
		{"disabled_plugins = ['io.containerd.image-verifier.v1.bindir']\n" + here, "disabled_plugins "},
		{"disabled_plugins = ['io.containerd.transfer.v1.local']\n" + here, "disabled_plugins "},
		{here + "  max_verifiers = 0\n", pluginVerifier + ".max_verifiers "},
		{here + "  max_verifiers = -1\n", ""},
		{fmt.Sprintf("[plugins.'%s']\n  bin_dir = %q\n", pluginVerifier, t.TempDir()), pluginVerifier + ".bin_dir "},
		{fmt.Sprintf("[plugins.'%s']\n  bin_dir = %q\n", pluginVerifier, filepath.Join(bin, "none")), pluginVerifier + ".bin_dir "},
	} {
		if fatal, _ := find(c.config); fatal != c.fatal {
			t.Errorf("%s: %q, want %q", c.config, fatal, c.fatal)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "another"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if fatal, _ := find(here + "  max_verifiers = 1\n"); fatal != pluginVerifier+".max_verifiers " {
		t.Errorf("the second of one: %q", fatal)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if fatal, _ := find(here); fatal != pluginVerifier+".bin_dir " {
		t.Errorf("another verifier alone: %q", fatal)
	}
	if _, err := CheckContainerd([]byte("version = ")); err == nil {
		t.Error("no TOML is taken")
	}
}
