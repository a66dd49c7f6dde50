package truststore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

const defaultShape = `{"version":"1.0","trustPolicies":[{"name":"default-config","registryScopes":["*"],
	"signatureVerification":{"level":"strict"%s},"trustStores":[%s],"trustedIdentities":["*"]}]}`

func TestPolicies(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	def := func(a, b string) string { return fmt.Sprintf(defaultShape, a, b) }
	operator := signtest.Policy("strict", "", "ca:acme")
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
		{"the default, byte for byte", string(defaultDocument([]string{"ca:acme"})), PolicyDefault},
		{"the default with a blank more", string(defaultDocument([]string{"ca:acme"})) + " ", PolicyOperator},
		{"the default of other stores", string(defaultDocument([]string{"ca:acme", "ca:b"})), PolicyOperator},
		{"default shape", def("", `"ca:acme"`), PolicyOperator},
		{"default shape without stores", def("", ""), PolicyInvalid},
		{"default shape, level", strings.Replace(def("", `"ca:acme"`), "strict", "permissive", 1), PolicyOperator},
		{"default shape, override", def(`,"override":{"expiry":"log"}`, `"ca:acme"`), PolicyOperator},
		{"default shape, bad timestamp", def(`,"verifyTimestamp":"never"`, `"ca:acme"`), PolicyInvalid},
		{"operator", operator, PolicyOperator},
		{"operator without stores", signtest.Policy("strict", ""), PolicyInvalid},
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
	// A TSA only adds what it vouches for.
	d.cert("tsa/t", "r", root.Cert())
	if ts = d.load(); ts.InForce().Terms().Statements[0].Policy != id || !strings.Contains(stores(ts), "tsa:t") {
		t.Error("a TSA changes the meaning of the default")
	}
	// Where an operator wrote "always", it wants a time stamp as soon as a store
	// of that type is named, and means nothing before.
	always := func(stores string) trust.PolicyID {
		d.policy(fmt.Sprintf(defaultShape, `,"verifyTimestamp":"always"`, stores))
		return d.load().InForce().Terms().Statements[0].Policy
	}
	if always(`"ca:a"`) != id || always(`"ca:a","tsa:t"`) == id {
		t.Error("always means something else")
	}
}

// W9: zot truncates the file when it starts.
func TestPolicyGrace(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(signtest.Policy("permissive", "", "ca:acme"))
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
	if at, ok := l.RetryAt(t0.Add(time.Hour)); ok {
		t.Errorf("waits until %s for a file that stays as it is", at)
	}
	d.policy(signtest.Policy("strict", "", "ca:acme"))
	expect(time.Hour, PolicyOperator, false)
	// Complete and wrong is not in the middle of a write.
	d.policy("{}")
	expect(time.Hour, PolicyInvalid, true)
}
