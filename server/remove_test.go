package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// After an accepted DELETE the very next read is not trusted (H4). make torture
// takes more turns.
func TestTortureRemoveKey(t *testing.T) {
	w := start(t, openUploads)
	key, stays := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.image("team/app", "1.0", byKey(key))
	w.image("team/app2", "1.0", byKey(stays))
	turns := 20
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		turns = 2000
	}
	w.put("_cosign/stays.pub", stays.PEM())
	for i := range turns {
		w.call("POST", pathCosign, key.PEM()).want(t, http.StatusOK)
		w.put("_cosign/again.pub", key.PEM()) // the same key in two files
		if got := w.status("team/app", "1.0"); got != trust.Trusted {
			t.Fatalf("turn %d: before the removal: %s", i, got)
		}
		a := w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil)
		a.want(t, http.StatusOK, "again.pub")
		if got := w.status("team/app", "1.0"); got != trust.Untrusted {
			t.Fatalf("turn %d: after the removal: %s", i, got)
		}
		if got := a.Header.Get(headerGeneration); got != w.generation() {
			t.Errorf("%s: %s, want %s", headerGeneration, got, w.generation())
		}
	}
	t.Logf("%d removals, none was still trusted at the next read", turns)
	if got := w.status("team/app2", "1.0"); got != trust.Trusted {
		t.Errorf("of the key that stays: %s", got)
	}
	w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil).want(t, http.StatusNotFound)
	for _, bad := range []string{"x", "sha256:12", strings.ToUpper(key.Fingerprint().String()), "..%2f..%2fetc"} {
		if a := w.call("DELETE", pathCosign+"/"+bad, nil); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, a.StatusCode)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "audit=true action=remove") {
		t.Error("the audit log has no removal")
	}
}

// One certificate of a file with several goes; the others stay in force.
func TestRemoveOneOfSeveral(t *testing.T) {
	w := start(t, openUploads)
	a, b := signtest.NewRoot(signtest.CertOptions{CommonName: "A"}), signtest.NewRoot(signtest.CertOptions{CommonName: "B"})
	w.put("_notation/truststore/x509/ca/one/both.pem", signtest.CertPEM(a.Cert(), b.Cert()))
	w.put("_notation/truststore/x509/ca/two/a.pem", signtest.CertPEM(a.Cert()))
	signer := func(store string, c *signtest.Chain) trust.Signer { return signtest.CertSigner("ca", store, c.Cert()) }
	has := func(s trust.Signer) bool { return w.d.TrustStore().InForce().Has(s.ID()) }

	fingerprint := signer("one", a).Fingerprint.String()
	w.call("DELETE", pathNotation+"/"+fingerprint+"?truststoreName=one", nil).want(t, http.StatusOK, "both.pem")
	if has(signer("one", a)) || !has(signer("one", b)) || !has(signer("two", a)) {
		t.Errorf("in force: %+v", w.d.TrustStore().InForce().Terms().Materials)
	}
	w.call("DELETE", pathNotation+"/"+fingerprint, nil).want(t, http.StatusOK)
	if has(signer("two", a)) || !has(signer("one", b)) {
		t.Errorf("in force: %+v", w.d.TrustStore().InForce().Terms().Materials)
	}
}

// A mounted volume shows the key again: the removal says that it had no effect.
func TestRemoveFromVolume(t *testing.T) {
	w := start(t, openUploads)
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/..2026/key.pub", key.PEM())
	dir := filepath.Join(w.root, "_cosign")
	check(t, os.Symlink("..2026", filepath.Join(dir, "..data")))
	check(t, os.Symlink("..data/key.pub", filepath.Join(dir, "key.pub")))
	check(t, w.d.ReloadNow(t.Context()))
	if !w.d.TrustStore().InForce().Has(key.Signer().ID()) {
		t.Fatal("the volume was not loaded")
	}
	w.call("DELETE", pathCosign+"/"+key.Fingerprint().String(), nil).want(t, http.StatusConflict, codeStillInForce)
}
