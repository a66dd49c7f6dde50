package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
)

// pullVerdict runs the verifier as containerd does (pkg/imageverifier/bindir), with nothing
// of the environment but what a service has.
func pullVerdict(t *testing.T, program, name, digest string) (code int, reason string) {
	t.Helper()
	c := exec.Command(program, "-name", name, "-digest", digest, "-stdin-media-type", "application/vnd.oci.descriptor.v1+json")
	c.Stdin = strings.NewReader(fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}`+"\n", digest))
	c.Env, c.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	out, err := c.Output()
	if c.ProcessState == nil {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), strings.TrimSpace(string(out))
}

// A node asks a worker about what it is about to pull, by a link in containerd's bin_dir and
// with the settings that docs/gates.md prints.
func TestImageVerifier(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := signtest.NewStorage(filepath.Join(dir, "registry"))
	key := signtest.NewKey(signtest.P256)
	st.TrustKey("team.pub", key)
	good, bad := st.Image("team/app", "good"), st.Image("team/app", "bad")
	st.SignSimple(good, key, signtest.CosignOptions{})
	token := filepath.Join(dir, "read.token")
	if err := os.WriteFile(token, []byte("a token of some length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, st.Dir, "--listen", "127.0.0.1:0", "--http-reads", "credential", "--http-read-token-file", token)

	// The node, with the program under its link and settings that it finds by themselves only
	// at the usual place: the test gives the place.
	settings := filepath.Join(dir, "image-verifier.yaml")
	var text string
	for _, b := range blocksOf(pages(t)["docs/gates.md"]) {
		if strings.HasPrefix(b.text, "registries:") {
			text = b.text
		}
	}
	text = strings.NewReplacer("https://worker.example:8428", "http://"+d.address(t), "/etc/trust-worker/read.token", token,
		"    caFile: /etc/trust-worker/worker-ca.crt\n", "").Replace(text)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	link := filepath.Join(bin, "trust-worker-image-verifier")
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s image-verifier \"$@\" --settings %s\n", binary, settings)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, link); err != nil {
		t.Fatal(err)
	}
	if code, reason := pullVerdict(t, link, "registry.example:5000/team/app:good", good.Digest.String()); code != 1 || !strings.Contains(reason, "/etc/trust-worker/image-verifier.yaml") {
		t.Errorf("without settings: %d %s", code, reason)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(link, []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, digest string
		code         int
		reason       string
	}{
		{"registry.example:5000/team/app:good", good.Digest.String(), 0, "is trusted"},
		{"registry.example:5000/team/app@" + good.Digest.String(), good.Digest.String(), 0, "is trusted"},
		{"registry.example:5000/team/app:good", bad.Digest.String(), 1, "unsigned"}, // the digest counts
		{"registry.example:5000/team/other:good", good.Digest.String(), 1, "not in the storage"},
		{"registry.k8s.io/pause:3.10", bad.Digest.String(), 0, "not among the registries"},
		{"registry.example:5000/team/app:good", "sha256:0", 1, "digest"},
	} {
		if code, reason := pullVerdict(t, link, c.name, c.digest); code != c.code || !strings.Contains(reason, c.reason) || strings.Contains(reason, "\n") {
			t.Errorf("%s %s: %d %s", c.name, c.digest, code, reason)
		}
	}

	// containerd's own configuration, as the page prints it, and with a setting that makes it
	// go past verifiers.
	check := func(config string) (string, int) {
		c := exec.Command(binary, "image-verifier", "check", "-", "--settings", settings)
		c.Stdin = strings.NewReader(config)
		out, _ := c.CombinedOutput() // the code tells
		return string(out), c.ProcessState.ExitCode()
	}
	config := strings.ReplaceAll(recipe(t, "toml"), "/opt/containerd/image-verifier/bin", bin)
	if out, code := check(config); code != 0 || !strings.Contains(out, "its trust-worker answers") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := check(config + "[plugins.'io.containerd.cri.v1.images']\n  max_concurrent_downloads = 10\n"); code != 1 || !strings.Contains(out, "max_concurrent_downloads") {
		t.Errorf("%d %s", code, out)
	}

	d.kill()
	if code, reason := pullVerdict(t, link, "registry.example:5000/team/app:good", good.Digest.String()); code != 1 || !strings.Contains(reason, "does not answer") {
		t.Errorf("without a worker: %d %s", code, reason)
	}
}

// Gatekeeper's requests, as its source makes them, over HTTPS with a client certificate.
func TestGatekeeperOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := signtest.NewStorage(filepath.Join(dir, "registry"))
	key := signtest.NewKey(signtest.P256)
	st.TrustKey("team.pub", key)
	good, bad := st.Image("team/app", "good"), st.Image("team/app", "bad")
	st.SignSimple(good, key, signtest.CosignOptions{})
	files := map[string][]byte{}
	pair := func(name string) (certFile, keyFile string, cert tls.Certificate) {
		root := signtest.NewRoot(signtest.CertOptions{CommonName: name})
		leaf := root.Leaf(signtest.CertOptions{CommonName: name, Change: func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}})
		c, k := signtest.CertPEM(leaf.Certs...), leaf.Key.PrivatePEM()
		files[name+"-ca.crt"] = signtest.CertPEM(root.Cert())
		files[name+".crt"], files[name+".key"] = c, k
		cert, err := tls.X509KeyPair(c, k)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), cert
	}
	serverCert, serverKey, _ := pair("server")
	_, _, client := pair("gatekeeper")
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := serve(t, st.Dir, "--listen", "127.0.0.1:0", "--http-reads", "credential", "--tls-cert", serverCert, "--tls-key", serverKey,
		"--tls-client-ca", filepath.Join(dir, "gatekeeper-ca.crt"), "--registry-name", "registry.example:5000")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(files["server-ca.crt"])
	ask := func(certs []tls.Certificate, keys ...string) (int, string) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs, ServerName: "localhost"}}
		defer transport.CloseIdleConnections()
		b, err := json.Marshal(map[string]any{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": keys}})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Post("https://"+d.address(t)+"/api/v1/gatekeeper", "application/json", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	status, body := ask([]tls.Certificate{client}, "registry.example:5000/team/app@"+good.Digest.String(), "registry.example:5000/team/app:bad")
	for _, part := range []string{`"state":"trusted"`, good.Digest.String(), `"state":"unsigned"`, bad.Digest.String(), `"idempotent":false`, `"systemError":""`, "_cosign/team.pub"} {
		if status != 200 || !strings.Contains(body, part) {
			t.Errorf("%d %s, want %s", status, body, part)
		}
	}
	if status, body := ask(nil, "registry.example:5000/team/app:good"); status != 401 || strings.Contains(body, "trusted") {
		t.Errorf("without a certificate: %d %s", status, body)
	}
}
