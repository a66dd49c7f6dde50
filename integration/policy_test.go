package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"trust-worker/trust"
)

func policyDocument(name, level, stores, identities string) string {
	return fmt.Sprintf(`{"version":"1.0","trustPolicies":[{"name":%q,"registryScopes":["*"],`+
		`"signatureVerification":{"level":%q},"trustStores":[%s],"trustedIdentities":[%s]}]}`, name, level, stores, identities)
}

// A policy that somebody wrote is honoured and left byte for byte as it is; only
// the default's shape is a mirror of what is in force.
func TestOperatorsPolicyIsNeverWritten(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(s.Dir, "_notation", "trustpolicy.json")
	mine := policyDocument("mine", "strict", `"ca:acme"`, `"x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=Release"`)
	s.Policy(mine)
	for range 2 {
		d := serve(t, s.Dir)
		open(t, d.state).becomes("app", "2", "trusted")
		s.TrustCert("ca:second", "root.pem", s.root.Cert()) // a mirror would name this store
		d.signal(t, syscall.SIGHUP)
		d.signal(t, syscall.SIGUSR1)
		if code := d.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != mine {
			t.Errorf("the operator's policy is now (%v) %s", err, b)
		}
	}
}

// A policy dropped in, changed and removed shows like a key does.
func TestPolicyChangesShow(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "2", "trusted")
	for _, c := range []struct {
		policy, state string
		reason        trust.Reason
	}{
		{policyDocument("p", "strict", `"ca:acme"`, `"x509.subject: C=US, ST=WA, O=Somebody"`), "untrusted", trust.IdentityNotTrusted},
		{policyDocument("p", "permissive", `"ca:acme"`, `"*"`), "trusted", ""},
		{policyDocument("p", "audit", `"ca:acme"`, `"*"`), "untrusted", trust.PolicyDoesNotVerify},
		{policyDocument("p", "strict", `"ca:acme"`, `"*"`), "trusted", ""},
		{policyDocument("p", "strict", `"ca:other"`, `"*"`), "untrusted", trust.PolicyInvalid},
	} {
		s.Policy(c.policy)
		eventually(t, fmt.Sprintf("%s: app:2 reads %s %s", c.policy, c.state, c.reason), func() bool {
			img := r.image("app", "2")
			return img.State() == c.state && slices.Equal(reasons(img), []trust.Reason{c.reason})
		})
		if state := r.state("app", "1"); state != "trusted" {
			t.Errorf("app:1, by cosign, reads %s under notation's policy %s", state, c.policy)
		}
	}
	if err := os.Remove(filepath.Join(s.Dir, "_notation", "trustpolicy.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Its absence widens nothing: the default comes back by an explicit act alone.
	eventually(t, "app:2 reads policy-invalid", func() bool {
		return slices.Equal(reasons(r.image("app", "2")), []trust.Reason{trust.PolicyInvalid})
	})
	if e := command(t, "verify", "app:2", "--root", s.Dir); e.code != trust.ExitNotTrusted || !strings.Contains(e.stdout, "trust-worker policy default") {
		t.Errorf("verify beside the daemon: exit code %d: %s", e.code, e.stdout)
	}
	d.stop(t, syscall.SIGTERM)
	serve(t, s.Dir)
	if state := r.state("app", "2"); state != "untrusted" {
		t.Errorf("after a restart app:2 reads %s", state)
	}
	s.Policy(command(t, "policy", "default", "--root", s.Dir).stdout)
	r.becomes("app", "2", "trusted")
}
