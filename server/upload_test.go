package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

const notationUpload = pathNotation + "?truststoreType=ca&truststoreName=upload-cert"

// The request of zot's documentation, and what it says follows.
func TestUploadKey(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	w.image("team/app", "1.0", byKey(key))
	if got := w.status("team/app", "1.0"); got != trust.Untrusted {
		t.Fatalf("before the upload: %s", got)
	}
	for range 2 { // idempotent
		a := w.call("POST", pathCosign, key.PEM(), "Content-Type", "application/x-www-form-urlencoded") // curl's
		a.want(t, http.StatusOK)
		if a.body != "" {
			t.Errorf("the body is %q", a.body)
		}
		if got := a.Header.Get(headerFingerprint); got != key.Fingerprint().String() {
			t.Errorf("%s: %s", headerFingerprint, got)
		}
		if got := a.Header.Get(headerGeneration); got != w.generation() {
			t.Errorf("%s: %q, reads see %s", headerGeneration, got, w.generation())
		}
		files := w.files()
		name := "_cosign/" + trust.SumOf(key.PEM()).String()
		if len(files) != 1 || files[name] != string(key.PEM()) {
			t.Errorf("on disk: %v", files)
		}
	}
	if got := w.status("team/app", "1.0"); got != trust.Trusted {
		t.Errorf("after the upload: %s", got)
	}
	if log := w.log.String(); !strings.Contains(log, "audit=true action=upload") || !strings.Contains(log, key.Fingerprint().String()) {
		t.Errorf("the audit log has no upload: %s", log)
	}
}

// TestUploadKeyForSomeRepositories: with ?scope= a key signs below that prefix alone.
func TestUploadKeyForSomeRepositories(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	w.image("team/app", "1.0", byKey(key))
	w.image("other", "1.0", byKey(key))
	w.call("POST", pathCosign+"?scope=team", key.PEM()).want(t, http.StatusOK)
	name := "_cosign/team/" + trust.SumOf(key.PEM()).String()
	if files := w.files(); len(files) != 1 || files[name] != string(key.PEM()) {
		t.Errorf("on disk: %v", files)
	}
	if got := w.status("team/app", "1.0"); got != trust.Trusted {
		t.Errorf("in its scope: %s", got)
	}
	if got := w.status("other", "1.0"); got != trust.Untrusted {
		t.Errorf("elsewhere: %s", got)
	}
	for _, query := range []string{"?scope=", "?scope=../x", "?scope=Team", "?scope=a&scope=b", "?scope=%zz", "?scope=_x", "?scope=/a"} {
		w.call("POST", pathCosign+query, key.PEM()).want(t, http.StatusBadRequest)
	}
	// A parameter that is misspelt would trust the key everywhere, or take it away everywhere.
	w.call("POST", pathCosign+"?scop=team", key.PEM()).want(t, http.StatusBadRequest, "is not known", "this route takes scope")
	w.call("POST", pathCosign, key.PEM()).want(t, http.StatusOK)
	remove := pathCosign + "/" + key.Fingerprint().String()
	w.call("DELETE", remove+"?Scope=team", nil).want(t, http.StatusBadRequest)
	w.call("DELETE", remove+"?scope=elsewhere", nil).want(t, http.StatusNotFound)
	if files := w.files(); len(files) != 2 {
		t.Errorf("on disk: %v", files)
	}
	w.call("DELETE", remove+"?scope=team", nil).want(t, http.StatusOK)
	if files := w.files(); len(files) != 1 || files[name] != "" {
		t.Errorf("on disk: %v", files)
	}
	w.call("DELETE", remove, nil).want(t, http.StatusOK)
	if files := w.files(); len(files) != 0 {
		t.Errorf("on disk: %v", files)
	}
}

func TestUploadCertificate(t *testing.T) {
	w := start(t, openUploads)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Upload Root"})
	pem := signtest.CertPEM(root.Cert())
	a := w.call("POST", notationUpload, pem)
	a.want(t, http.StatusOK)
	if a.body != "" || a.Header.Get(headerWarning) != "" {
		t.Errorf("body %q, warning %q", a.body, a.Header.Get(headerWarning))
	}
	name := "_notation/truststore/x509/ca/upload-cert/" + trust.SumOf(pem).String()
	if got := w.files()[name]; got != string(pem) {
		t.Errorf("on disk: %v", w.files())
	}
	if st, _ := w.d.TrustStore().InForce().Statement("any"); st == nil || len(st.Stores) != 1 || st.Stores[0] != "ca:upload-cert" {
		t.Errorf("the default policy does not name the store: %+v", st)
	}
	// The type defaults to ca; DER is taken as well.
	w.call("POST", pathNotation+"?truststoreName=der", root.Cert().Raw).want(t, http.StatusOK)
	// Self-signed certificates and TSA roots are accepted where notation does.
	self := signtest.SelfSigned(signtest.CertOptions{CommonName: "Self"})
	w.call("POST", pathNotation+"?truststoreType=signingAuthority&truststoreName=sa", signtest.CertPEM(self.Cert())).want(t, http.StatusOK)

	var m material
	a = w.get(pathNotation)
	a.want(t, http.StatusOK)
	check(t, json.Unmarshal([]byte(a.body), &m))
	if len(m.Loaded) != 3 || len(m.Refused) != 0 || m.Policy != "default (computed)" || m.Loaded[0].Store != "ca:der" {
		t.Errorf("listed: %s", a.body)
	}
}

func TestUploadLeavesOperatorsPolicyAlone(t *testing.T) {
	w := start(t, openUploads)
	policy := `{"version":"1.0","trustPolicies":[{"name":"ours","registryScopes":["*"],"signatureVerification":{"level":"strict"},` +
		`"trustStores":["ca:release"],"trustedIdentities":["*"]}]}`
	w.put("_notation/trustpolicy.json", []byte(policy))
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Upload Root"})
	a := w.call("POST", notationUpload, signtest.CertPEM(root.Cert()))
	a.want(t, http.StatusOK)
	if !strings.Contains(a.Header.Get(headerWarning), "ca:upload-cert") {
		t.Errorf("warning: %q", a.Header.Get(headerWarning))
	}
	if w.files()["_notation/trustpolicy.json"] != policy {
		t.Error("the policy was changed")
	}
	w.call("POST", pathNotation+"?truststoreName=release", signtest.CertPEM(root.Cert())).want(t, http.StatusOK)
}

func TestDefaultStoreName(t *testing.T) {
	w := start(t, func(c *Config) { openUploads(c); c.DefaultStore = "default" })
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	w.call("POST", pathNotation, signtest.CertPEM(root.Cert())).want(t, http.StatusOK)
	if s := w.d.TrustStore().Loaded(); len(s) != 1 || s[0].Signer.Store() != "ca:default" {
		t.Errorf("loaded: %+v", s)
	}
}

// What must not get in: nothing of it is on disk, in the answer or in the log.
func TestUploadRefused(t *testing.T) {
	w := start(t, openUploads)
	key, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	leaf := root.Leaf(signtest.CertOptions{CommonName: "Leaf"})
	pem := func(certs ...*x509.Certificate) []byte { return signtest.CertPEM(certs...) }
	sigstorePrivate := strings.ReplaceAll(string(key.PrivatePEM()), "PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY")
	for _, c := range []struct {
		name, path string
		body       []byte
		status     int
		code, says string
	}{
		{"empty", pathCosign, nil, 400, codeSizeInvalid, "empty"},
		{"blank", pathCosign, []byte(" \n"), 400, codeSizeInvalid, "empty"},
		{"not a key", pathCosign, []byte("hello"), 400, codeKey, ""},
		{"two keys", pathCosign, append(key.PEM(), other.PEM()...), 400, codeKey, "more than one"},
		{"a certificate as a key", pathCosign, pem(root.Cert()), 400, codeKey, ""},
		{"private key", pathCosign, key.PrivatePEM(), 400, codeKey, "PRIVATE"},
		{"cosign's private key", pathCosign, []byte(sigstorePrivate), 400, codeKey, "PRIVATE"},
		{"private key beside a public one", pathCosign, append(key.PEM(), key.PrivatePEM()...), 400, codeKey, "PRIVATE"},
		{"oversized key", pathCosign, append(key.PEM(), make([]byte, truststore.MaxKeyFile)...), 413, codeSizeInvalid, "at most"},
		{"oversized certificate", notationUpload, make([]byte, truststore.MaxCertificateFile+1), 413, codeSizeInvalid, "at most"},
		{"leaf as ca", notationUpload, pem(leaf.Cert()), 400, codeCertificate, "neither a CA nor self-signed"},
		{"root and leaf", notationUpload, pem(root.Cert(), leaf.Cert()), 400, codeCertificate, ""},
		{"certificate with its private key", notationUpload, append(pem(root.Cert()), key.PrivatePEM()...), 400, codeCertificate, "PRIVATE"},
		{"a key as a certificate", notationUpload, key.PEM(), 400, codeCertificate, ""},
		{"no store name", pathNotation + "?truststoreType=ca", pem(root.Cert()), 400, codeStore, "mandatory"},
		{"no parameters", pathNotation, pem(root.Cert()), 400, codeStore, "mandatory"},
		{"empty store name", pathNotation + "?truststoreName=", pem(root.Cert()), 400, codeStore, "mandatory"},
		{"two store names", pathNotation + "?truststoreName=a&truststoreName=b", pem(root.Cert()), 400, codeStore, "more than once"},
		{"unknown type", pathNotation + "?truststoreType=root&truststoreName=a", pem(root.Cert()), 400, codeStore, "signingAuthority"},
		{"empty type", pathNotation + "?truststoreType=&truststoreName=a", pem(root.Cert()), 400, codeStore, ""},
		{"escaping type", pathNotation + "?truststoreType=../../_cosign&truststoreName=a", pem(root.Cert()), 400, codeStore, ""},
		{"bad query", pathNotation + "?truststoreName=%zz", pem(root.Cert()), 400, codeStore, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := w.call("POST", c.path, c.body)
			a.want(t, c.status)
			if p := a.problem(t); p.Code != c.code || !strings.Contains(p.Message+p.Detail["reason"], c.says) {
				t.Errorf("answer: %s", a.body)
			}
		})
	}
	for _, name := range []string{"..", ".", "../up", "../../../_cosign", "a/b", "a%2fb", "..%2f..", "%2e%2e", ".hidden", "old~", "x.bak", "a%00b", "a%0ab", "a b", "%F0%9F%94%91"} {
		a := w.call("POST", pathNotation+"?truststoreName="+strings.ReplaceAll(name, " ", "%20"), pem(root.Cert()))
		a.want(t, 400, codeStore)
	}
	long := w.call("POST", pathNotation+"?truststoreName="+strings.Repeat("a", 300), pem(root.Cert()))
	long.want(t, 400, codeStore)
	if files := w.files(); len(files) != 0 {
		t.Errorf("on disk: %v", files)
	}
	if entries, _ := os.ReadDir(filepath.Dir(w.root)); len(entries) != 2 {
		t.Errorf("beside the root: %v", entries)
	}
	secret := strings.Split(string(key.PrivatePEM()), "\n")[1]
	if strings.Contains(w.log.String(), secret) {
		t.Error("the log holds a private key")
	}
	if got := strings.Count(w.log.String(), "result=refused"); got < 30 {
		t.Errorf("%d refusals in the audit log", got)
	}
}

// What people send by mistake is answered with the right command, and not stored.
func TestUploadsThatAreNoFile(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	cert := signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{CommonName: "Root"}).Cert())
	form := func(b []byte) []byte {
		return []byte("--------------------------d74496d66958873e\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pub\"\r\n" +
			"Content-Type: application/octet-stream\r\n\r\n" + string(b) + "\r\n--------------------------d74496d66958873e--\r\n")
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		name, path, contentType string
		body                    []byte
		says                    string
	}{
		{"-F", pathCosign, "multipart/form-data; boundary=------------------------d74496d66958873e", form(key.PEM()), "curl -F sends forms; send the file itself: curl --data-binary @FILE"},
		{"-F without its type", pathCosign, "application/octet-stream", form(key.PEM()), "curl -F sends forms"},
		{"-F of a certificate", notationUpload, "multipart/form-data; boundary=x", form(cert), "curl -F sends forms"},
		{"-F of a certificate without its type", notationUpload, "", form(cert), "curl -F sends forms"},
		{"--data", pathCosign, urlencoded, []byte(strings.ReplaceAll(string(key.PEM()), "\n", "")), "curl --data takes the ends of lines away"},
		{"--data of a certificate", notationUpload, urlencoded, []byte(strings.ReplaceAll(string(cert), "\n", "")), "curl --data takes the ends of lines away"},
		{"no @", pathCosign, urlencoded, []byte("key.pub"), `put @ before it, so that curl sends its content: curl --data-binary "@key.pub"`},
		{"no @, a path", notationUpload, urlencoded, []byte("/etc/certs/root"), `"@/etc/certs/root"`},
		{"present zot", pathNotation + "?truststoreType=ca", urlencoded, cert, "?truststoreType=ca&truststoreName=NAME, or give uploads a default with --truststore-name (http.truststoreName)"},
	} {
		a := w.call("POST", c.path, c.body, "Content-Type", c.contentType)
		a.want(t, http.StatusBadRequest)
		if p := a.problem(t); !strings.Contains(p.Detail["reason"], c.says) {
			t.Errorf("%s: %s", c.name, a.body)
		}
	}
	if files := w.files(); len(files) != 0 {
		t.Errorf("on disk: %v", files)
	}
}

// Nothing of a tool that is off exists.
func TestRoutesOfToolsThatAreOff(t *testing.T) {
	w := start(t, func(c *Config) { openUploads(c); c.Notation = false })
	w.call("POST", notationUpload, []byte("x")).want(t, http.StatusNotFound)
	w.get(pathNotation).want(t, http.StatusNotFound)
	w.get(pathCosign).want(t, http.StatusOK)
	a := w.call("PUT", pathCosign, []byte("x"))
	a.want(t, http.StatusMethodNotAllowed, codeUnsupported)
	if !strings.Contains(a.Header.Get("Allow"), "POST") {
		t.Errorf("Allow: %q", a.Header.Get("Allow"))
	}
	w.get("/v2/").want(t, http.StatusNotFound, codeNameUnknown)
}

// A link at the place of a store must not be followed out of the directory.
func TestUploadStaysInDirectory(t *testing.T) {
	w := start(t, openUploads)
	outside := t.TempDir()
	stores := filepath.Join(w.root, "_notation/truststore/x509/ca")
	check(t, os.MkdirAll(stores, 0o755))
	check(t, os.Symlink(outside, filepath.Join(stores, "upload-cert")))
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	w.call("POST", notationUpload, signtest.CertPEM(root.Cert())).want(t, http.StatusInternalServerError)
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("outside: %v", entries)
	}
}

// A crash can leave a temporary file; it is never loaded, and goes with the next
// upload.
func TestLeftoversGo(t *testing.T) {
	w := start(t, openUploads)
	old, key := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.put("_cosign/"+temporary+"dead", old.PEM())
	if w.d.TrustStore().InForce().Has(old.Signer().ID()) {
		t.Fatal("a temporary file was loaded")
	}
	w.call("POST", pathCosign, key.PEM()).want(t, http.StatusOK)
	if files := w.files(); len(files) != 1 {
		t.Errorf("on disk: %v", files)
	}
}

// When the publication fails the client is told so, and what it said is true
// once the daemon can publish again.
func TestUploadNotPublished(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	err := error(errTest)
	w.d.fail.Store(&err)
	w.call("POST", pathCosign, key.PEM()).want(t, http.StatusServiceUnavailable, "takes effect as soon as")
	w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil).want(t, http.StatusServiceUnavailable)
	err = syscall.ENOSPC
	w.call("POST", pathCosign, key.PEM()).want(t, http.StatusInsufficientStorage)
	w.d.fail.Store(nil)
	check(t, w.d.ReloadNow(context.Background()))
	if !w.d.TrustStore().InForce().Has(key.Signer().ID()) {
		t.Error("the key was not stored")
	}
}

func TestFullDisk(t *testing.T) {
	p := problemOf(notWritten(&os.PathError{Op: "write", Path: "/secret/path", Err: syscall.ENOSPC}))
	if p.status != http.StatusInsufficientStorage || strings.Contains(p.Error(), "secret") {
		t.Errorf("%d %v", p.status, p)
	}
	p = problemOf(notWritten(&os.PathError{Op: "open", Path: "/secret/path", Err: syscall.EROFS}))
	if p.status != http.StatusInternalServerError || p.Detail["reason"] != "read-only file system" {
		t.Errorf("%d %v", p.status, p)
	}
}
