package verifier

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const defaultDoc = `{"version":"1.0","trustPolicies":[{"name":"default-config","registryScopes":["*"],
	"signatureVerification":{"level":"strict"%s},"trustStores":[%s],"trustedIdentities":["*"]}]}`

func TestPolicies(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	def := func(a, b string) string { return fmt.Sprintf(defaultDoc, a, b) }
	operator := policy("strict", "", "ca:acme")
	replaced := func(old, new string) string {
		if !strings.Contains(operator, old) {
			t.Fatal(old)
		}
		return strings.Replace(operator, old, new, 1)
	}
	for _, c := range []struct {
		name, doc string
		want      PolicySource
	}{
		{"default", def("", ""), PolicyDefault},
		{"default with stores", def("", `"ca:gone","tsa:x"`), PolicyDefault},
		{"default with timestamps", def(`,"verifyTimestamp":"afterCertExpiry"`, ""), PolicyDefault},
		{"default shape, level", strings.Replace(def("", `"ca:acme"`), "strict", "permissive", 1), PolicyOperator},
		{"default shape, override", def(`,"override":{"expiry":"log"}`, `"ca:acme"`), PolicyOperator},
		{"default shape, bad timestamp", def(`,"verifyTimestamp":"never"`, `"ca:acme"`), PolicyInvalid},
		{"operator", operator, PolicyOperator},
		{"operator without stores", policy("strict", ""), PolicyInvalid},
		{"unknown member", replaced(`"name"`, `"x":1,"name"`), PolicyInvalid},
		{"Z12 unknown member below", replaced(`"level"`, `"revocationCheck":true,"level"`), PolicyInvalid},
		{"duplicate", replaced(`"level":"strict"`, `"level":"audit","level":"strict"`), PolicyInvalid},
		{"spelling", replaced(`"level"`, `"Level"`), PolicyInvalid},
		{"unknown level", replaced("strict", "lax"), PolicyInvalid},
		{"unknown override", replaced(`"level":"strict"`, `"level":"strict","override":{"x":"log"}`), PolicyInvalid},
		{"version", replaced("1.0", "2.0"), PolicyInvalid},
		{"identity without attributes", replaced(`["*"]}]`, `["x509.subject: CN=a"]}]`), PolicyInvalid},
		{"store type", replaced("ca:acme", "xx:acme"), PolicyInvalid},
		{"scope with wildcard", replaced(`["*"]`, `["a/*"]`), PolicyInvalid},
		{"empty object", "{}", PolicyInvalid},
		{"null", "null", PolicyInvalid},
		{"empty file", "", PolicyInvalid},
		{"trailing", operator + "x", PolicyInvalid},
	} {
		ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.doc).load()
		terms := ts.InForce().Terms()
		if ts.Policy().Source != c.want || (terms.PolicyProblem == trust.PolicyInvalid) != (c.want == PolicyInvalid) ||
			(len(terms.Statements) == 0) != (c.want == PolicyInvalid) {
			t.Errorf("%s: %s, %d statements, want %s", c.name, ts.Policy(), len(terms.Statements), c.want)
		}
		if c.want == PolicyInvalid && !strings.HasPrefix(ts.Policy().String(), "invalid: trustpolicy.json ") {
			t.Errorf("%s: %q", c.name, ts.Policy())
		}
	}
}

// The default is computed from the stores on disk, and only those that hold a
// certificate.
func TestComputedDefault(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t)
	stores := func(ts *TrustStore) string {
		return fmt.Sprint(ts.InForce().Terms().Statements[0].Stores)
	}
	ts := d.load()
	if ts.Policy().String() != "default (computed)" || stores(ts) != "[]" {
		t.Errorf("%s, stores %s", ts.Policy(), stores(ts))
	}
	id := ts.InForce().Terms().Statements[0].Policy
	d.cert("ca/b", "r", root.Cert()).cert("ca/a", "r", root.Cert()).cert("signingAuthority/a", "r", root.Cert())
	if err := os.MkdirAll(filepath.Join(d.dir, "_notation/truststore/x509/tsa/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	ts = d.load()
	if stores(ts) != "[ca:a ca:b signingAuthority:a]" || ts.InForce().Terms().Statements[0].Policy != id {
		t.Errorf("stores %s", stores(ts))
	}
	// Without a TSA "always" means nothing. With one it changes the meaning;
	// where nothing is written, a TSA only adds what it vouches for.
	d.policy(fmt.Sprintf(defaultDoc, `,"verifyTimestamp":"always"`, ""))
	if ts = d.load(); ts.InForce().Terms().Statements[0].Policy != id {
		t.Error("always changes the meaning without a TSA")
	}
	d.cert("tsa/t", "r", root.Cert())
	if ts = d.load(); ts.InForce().Terms().Statements[0].Policy == id || !strings.Contains(stores(ts), "tsa:t") {
		t.Error("always does not change the meaning with a TSA")
	}
	d.policy(fmt.Sprintf(defaultDoc, "", ""))
	if ts = d.load(); ts.InForce().Terms().Statements[0].Policy != id || !strings.Contains(stores(ts), "tsa:t") {
		t.Error("a TSA changes the meaning of the default")
	}
}

// W9: zot truncates the file when it starts; editors remove and write it anew.
func TestPolicyGrace(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(policy("permissive", "", "ca:acme"))
	file := filepath.Join(d.dir, "_notation/trustpolicy.json")
	l, t0 := d.loader(), time.Now()
	load(t, l, t0)
	expect := func(after time.Duration, want PolicySource, problem bool) {
		t.Helper()
		ts := load(t, l, t0.Add(after))
		if ts.Policy().Source != want || (ts.Policy().Problem != "") != problem {
			t.Errorf("after %s: %s %q, want %s", after, ts.Policy(), ts.Policy().Problem, want)
		}
	}
	d.policy("")
	expect(0, PolicyOperator, true)
	expect(Grace-1, PolicyOperator, true)
	if at, ok := l.RetryAt(t0); !ok || !at.Equal(t0.Add(Grace)) {
		t.Errorf("retry at %s, %v", at, ok)
	}
	expect(Grace, PolicyInvalid, true)
	expect(time.Hour, PolicyInvalid, true)
	d.policy(policy("strict", "", "ca:acme"))
	expect(time.Hour, PolicyOperator, false)
	// Complete and wrong is not in the middle of a write.
	d.policy("{}")
	expect(time.Hour, PolicyInvalid, true)
	// Vanished: the default, which may allow more, waits a moment.
	d.policy(policy("strict", "", "ca:acme"))
	expect(2*time.Hour, PolicyOperator, false)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expect(2*time.Hour, PolicyOperator, true)
	expect(2*time.Hour+goneGrace, PolicyDefault, false)
	// A default that vanishes is the default.
	d.policy(fmt.Sprintf(defaultDoc, `,"verifyTimestamp":"afterCertExpiry"`, ""))
	expect(3*time.Hour, PolicyDefault, false)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expect(3*time.Hour, PolicyDefault, false)
	if _, ok := l.RetryAt(t0); ok {
		t.Error("a retry with nothing to wait for")
	}
}

func TestMirror(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert())
	file := filepath.Join(d.dir, "_notation/trustpolicy.json")
	l := d.loader()
	mirror := func() string {
		t.Helper()
		if err := l.MirrorDefaultPolicy(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	storesOf := func(doc string) string {
		var p struct {
			TrustPolicies []struct{ TrustStores []string }
		}
		if err := json.Unmarshal([]byte(doc), &p); err != nil || len(p.TrustPolicies) != 1 {
			t.Fatal(err, doc)
		}
		return fmt.Sprint(p.TrustPolicies[0].TrustStores)
	}
	if s := storesOf(mirror()); s != "[ca:acme]" {
		t.Errorf("stores %s", s)
	}
	if ts := load(t, l, time.Now()); ts.Policy().Source != PolicyDefault {
		t.Errorf("the mirror reads %s", ts.Policy())
	}
	// As it should be: not written again.
	before, _ := os.Stat(file)
	mirror()
	if after, _ := os.Stat(file); !os.SameFile(before, after) {
		t.Error("written anew with nothing different")
	}
	d.cert("ca/b", "r.pem", root.Cert())
	d.policy(fmt.Sprintf(defaultDoc, `,"verifyTimestamp":"afterCertExpiry"`, `"ca:zot"`))
	if doc := mirror(); storesOf(doc) != "[ca:acme ca:b]" || !strings.Contains(doc, "afterCertExpiry") {
		t.Errorf("mirror %s", doc)
	}
	// The operator's, and what cannot be read, are left alone.
	for _, doc := range []string{policy("strict", "", "ca:acme"), "{}", "", "{"} {
		d.policy(doc)
		if got := mirror(); got != doc {
			t.Errorf("%q became %q", doc, got)
		}
	}
	entries, _ := os.ReadDir(filepath.Join(d.dir, "_notation"))
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	// A link is a volume's business.
	if err := os.Rename(file, filepath.Join(d.dir, "_notation/elsewhere.json")); err != nil {
		t.Fatal(err)
	}
	d.write("_notation/elsewhere.json", []byte(fmt.Sprintf(defaultDoc, "", `"ca:old"`)))
	if err := os.Symlink("elsewhere.json", file); err != nil {
		t.Fatal(err)
	}
	if got := mirror(); storesOf(got) != "[ca:old]" {
		t.Errorf("wrote through a link: %s", got)
	}
	// Nothing to mirror into.
	if err := os.RemoveAll(filepath.Join(d.dir, "_notation")); err != nil {
		t.Fatal(err)
	}
	if err := l.MirrorDefaultPolicy(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "_notation")); err == nil {
		t.Error("made the trust directory")
	}
}
