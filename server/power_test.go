package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/powercut"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// uploaded is one request to a server: what it may bring in force, or ends.
type uploaded struct {
	Method, Path string
	Body         []byte
	Signers      []trust.Signer
}

// uploadHistory is keys and certificates that come and go, one of them out of a
// file that holds another as well.
func uploadHistory() (all []uploaded) {
	for range 4 {
		key := signtest.NewKey(signtest.P256)
		all = append(all, uploaded{"POST", pathCosign, key.PEM(), []trust.Signer{key.Signer()}})
	}
	for _, i := range []int{1, 2} {
		all = append(all, uploaded{"DELETE", pathCosign + "/" + all[i].Signers[0].Fingerprint.String(), nil, all[i].Signers})
	}
	all = append(all, all[1]) // once more
	a, b := signtest.NewRoot(signtest.CertOptions{CommonName: "A"}).Cert(), signtest.NewRoot(signtest.CertOptions{CommonName: "B"}).Cert()
	signers := []trust.Signer{signtest.CertSigner("ca", "acme", a), signtest.CertSigner("ca", "acme", b)}
	return append(all, uploaded{"POST", pathNotation + "?truststoreType=ca&truststoreName=acme", signtest.CertPEM(a, b), signers},
		uploaded{"DELETE", pathNotation + "/" + signers[0].Fingerprint.String(), nil, signers[:1]})
}

// A power cut at any moment loses no upload and no removal that was answered
// with 200, and leaves no part of a key in force (H3, H4).
func TestKillPowerUpload(t *testing.T) {
	const env = "TRUST_WORKER_POWER_INTO"
	if dir := os.Getenv(env); dir != "" {
		uploadAll(t, dir)
		return
	}
	powercut.Need(t)
	work := t.TempDir()
	before, live, trace := filepath.Join(work, "before"), filepath.Join(work, "live"), filepath.Join(work, "trace")
	for _, dir := range []string{before, live} {
		check(t, os.Mkdir(dir, 0o755))
	}
	history := uploadHistory()
	check(t, os.WriteFile(historyFile(live), must[[]byte](t)(json.Marshal(history)), 0o644))
	c := powercut.Command(trace, os.Args[0], "-test.run", "^TestKillPowerUpload$")
	c.Env = append(os.Environ(), env+"="+live)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ops := must[[]powercut.Op](t)(powercut.Read(trace, live))
	plan := powercut.Plan{Points: 30, Random: 1, Seed: 1, Always: func(o powercut.Op) bool { return o.Says("done") }}
	if os.Getenv("TRUST_WORKER_TORTURE") != "" {
		plan = powercut.Plan{Random: 20, Seed: 1}
	}
	states, cuts := powercut.Replay(before, ops, plan)
	opened, compared := 0, 0
	for s, err := range states {
		check(t, err)
		dir := filepath.Join(work, "cut")
		check(t, s.Write(dir))
		compared += checkUploads(t, dir, history, s.Said)
		if t.Failed() {
			t.Fatalf("%s; it had said:\n%s", s, s.Said)
		}
		check(t, os.RemoveAll(dir))
		opened++
	}
	t.Logf("%d operations, %d power cuts, %d states opened, %d answers compared, 0 wrongly trusted, 0 lost", len(ops), cuts, opened, compared)
	if opened < cuts/2 { // a state is opened once between two things said
		t.Errorf("only %d states of %d cuts", opened, cuts)
	}
}

// historyFile tells the child what to upload; it stands beside what is recorded.
func historyFile(live string) string { return live + ".json" }

// uploadAll serves the trust directories below dir and says what was accepted.
func uploadAll(t *testing.T, dir string) {
	// An operator's mkdir: nobody has synced its name.
	check(t, os.Mkdir(filepath.Join(dir, "_cosign"), 0o755))
	w := start(t, func(c *Config) {
		openUploads(c)
		c.CosignDir, c.NotationDir = filepath.Join(dir, "_cosign"), filepath.Join(dir, "_notation")
	})
	var history []uploaded
	check(t, json.Unmarshal(must[[]byte](t)(os.ReadFile(historyFile(dir))), &history))
	for i, u := range history {
		fmt.Println("begin", i)
		if a := w.call(u.Method, u.Path, u.Body); a.StatusCode != 200 {
			t.Fatalf("%s %s: %d %s", u.Method, u.Path, a.StatusCode, a.body)
		}
		fmt.Println("done", i)
	}
}

// checkUploads loads what is found as a daemon does and returns how many signers
// it asked about.
func checkUploads(t *testing.T, dir string, history []uploaded, said string) (compared int) {
	t.Helper()
	must, may := map[trust.Signer]bool{}, map[trust.Signer]bool{}
	for line := bufio.NewScanner(strings.NewReader(said)); line.Scan(); {
		var verb string
		var i int
		if n, _ := fmt.Sscan(line.Text(), &verb, &i); n < 2 {
			continue // the test's own end
		}
		for _, signer := range history[i].Signers {
			switch added := history[i].Method == "POST"; {
			case verb == "begin" && added:
				may[signer] = true
			case verb == "begin":
				delete(must, signer)
			case added:
				must[signer] = true
			default:
				delete(may, signer)
			}
		}
	}
	cosign, notation := filepath.Join(dir, "_cosign"), filepath.Join(dir, "_notation")
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: cosign, NotationDir: notation, Cosign: true, Notation: true, Revocation: truststore.RevocationOffline})
	check(t, err)
	store, err := loader.Load(context.Background(), time.Now())
	check(t, err)
	for _, u := range history {
		for _, signer := range u.Signers {
			compared++
			has := store.InForce().Has(signer.ID())
			if has && !may[signer] {
				t.Errorf("WRONGLY TRUSTED: %s is in force", signer.Fingerprint)
			}
			if !has && must[signer] {
				t.Errorf("the accepted upload of %s is lost", signer.Fingerprint)
			}
		}
	}
	if n := len(store.InForce().Terms().Materials); n > len(may) {
		t.Errorf("%d signers are in force, of %d at most", n, len(may))
	}
	for _, f := range store.Refused() {
		if strings.HasPrefix(filepath.Base(f.Path), "sha256:") { // half a file has the name of a whole one
			t.Errorf("%s is there and %s", f.Path, f.Reason)
		}
	}
	// And the next upload is accepted.
	for at, u := range map[string]uploaded{cosign: history[0], filepath.Join(notation, "truststore/x509/ca/acme"): history[len(history)-2]} {
		d := &directory{path: at}
		check(t, d.put(".", u.name(), u.Body))
	}
	return compared
}

// name is that of the file.
func (u *uploaded) name() string { return trust.SumOf(u.Body).String() }
