package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// sample is storage with a trusted key, a certificate, and an image by each.
type sample struct {
	*signtest.Storage
	team  *signtest.Key
	root  *signtest.Chain
	first signtest.Image // app:1, by team
}

func newSample(t *testing.T) *sample {
	t.Helper()
	s := &sample{Storage: signtest.NewStorage(filepath.Join(t.TempDir(), "registry")),
		team: signtest.NewKey(signtest.P256), root: signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})}
	s.TrustKey("team.pub", s.team)
	s.TrustCert("ca:acme", "root.pem", s.root.Cert())
	s.first = s.Image("app", "1")
	s.SignSimple(s.first, s.team, signtest.CosignOptions{})
	s.SignNotation(s.Image("app", "2"), s.root.Leaf(signtest.CertOptions{CommonName: "Release"}), signtest.NotationOptions{})
	return s
}

func TestKeyDroppedInReplacedAndRemoved(t *testing.T) {
	for _, kind := range []signtest.Kind{signtest.P256, signtest.P384, signtest.RSA2048, signtest.Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newSample(t)
			one, two := signtest.NewKey(kind), signtest.NewKey(kind)
			s.SignSimple(s.Image("app", "one"), one, signtest.CosignOptions{})
			s.SignBundle(s.Image("app", "two"), two, signtest.CosignOptions{})
			d := serve(t, s.Dir)
			r := open(t, d.state)
			r.becomes("app", "1", "trusted")
			r.becomes("app", "one", "untrusted")

			s.TrustKey("release.pub", one)
			r.becomes("app", "one", "trusted")
			if author := r.image("app", "one").SignatureInfo[0].Author; author != string(one.PEM()) {
				t.Errorf("author is %q, want the text of the key file", author)
			}
			s.TrustKey("release.pub", two)
			r.becomes("app", "two", "trusted")
			r.becomes("app", "one", "untrusted")
			if got := reasons(r.image("app", "one")); !slices.Equal(got, []trust.Reason{trust.SignerRemoved}) {
				t.Errorf("reasons %v, want signer-removed", got)
			}
			s.Untrust("_cosign/release.pub")
			r.becomes("app", "two", "untrusted")
			if img := r.image("app", "two"); img.SignatureInfo[0].Author != "" {
				t.Errorf("an author is shown without a signer in force: %q", img.SignatureInfo[0].Author)
			}
			r.becomes("app", "1", "trusted")
		})
	}
}

func TestCertificateDroppedInReplacedAndRemoved(t *testing.T) {
	s := newSample(t)
	other := signtest.NewRoot(signtest.CertOptions{CommonName: "Other"})
	s.SignNotation(s.Image("app", "other"), other.Leaf(signtest.CertOptions{CommonName: "Leaf"}), signtest.NotationOptions{COSE: true})
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "2", "trusted")
	r.becomes("app", "other", "untrusted")

	// Into a store that does not exist yet: directories and file at once.
	s.TrustCert("ca:new", "other.pem", other.Cert())
	r.becomes("app", "other", "trusted")
	if author := r.image("app", "other").SignatureInfo[0].Author; !strings.Contains(author, "CN=Leaf") {
		t.Errorf("author is %q, want the leaf's subject", author)
	}
	// Replaced: the root of one is now the root of the other.
	s.TrustCert("ca:acme", "root.pem", other.Cert())
	r.becomes("app", "2", "untrusted")
	s.Untrust("_notation/truststore/x509/ca/new/other.pem")
	s.TrustCert("ca:acme", "root.pem", s.root.Cert())
	r.becomes("app", "2", "trusted")
	r.becomes("app", "other", "untrusted")
}

// A trust directory that is gone is an empty one: nothing it held is trusted.
func TestTrustDirectoriesRemovedAltogether(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	r.becomes("app", "2", "trusted")

	if err := os.RemoveAll(filepath.Join(s.Dir, "_cosign")); err != nil {
		t.Fatal(err)
	}
	r.becomes("app", "1", "untrusted")
	if state := r.state("app", "2"); state != "trusted" {
		t.Errorf("app:2, by notation, reads %s when _cosign is gone", state)
	}
	// Again when the daemon has just put its copy of the policy there.
	eventually(t, "_notation can be removed", func() bool { return os.RemoveAll(filepath.Join(s.Dir, "_notation")) == nil })
	r.becomes("app", "2", "untrusted")
	for name, img := range r.all() {
		if img.Code() == trust.ExitTrusted {
			t.Errorf("%s is trusted by nobody", name)
		}
	}
	// Made again, they are noticed as before.
	s.TrustKey("team.pub", s.team)
	r.becomes("app", "1", "trusted")
}

func TestBrokenKeyFileCostsItselfAlone(t *testing.T) {
	s := newSample(t)
	d := serve(t, s.Dir)
	r := open(t, d.state)
	r.becomes("app", "1", "trusted")
	broken := filepath.Join(s.Dir, "_cosign", "broken.pub")
	if err := os.WriteFile(broken, []byte("-----BEGIN PUBLIC KEY-----\nnot base64\n-----END PUBLIC KEY-----\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spare := signtest.NewKey(signtest.P256)
	s.SignSimple(s.Image("app", "spare"), spare, signtest.CosignOptions{})
	s.TrustKey("spare.pub", spare)
	r.becomes("app", "spare", "trusted") // dropped in after the broken one
	r.becomes("app", "1", "trusted")

	d.status(t, "broken.pub is refused", func(r *report) bool {
		return len(r.Refused) == 1 && strings.HasSuffix(r.Refused[0].Path, "broken.pub") && r.Refused[0].Reason != ""
	})
	var keys struct {
		Loaded  []struct{ Path string }
		Refused []struct{ Path, Reason string }
	}
	must(t, &keys, "keys", "--root", s.Dir, "-o", "json")
	if len(keys.Loaded) != 3 || len(keys.Refused) != 1 || !strings.HasSuffix(keys.Refused[0].Path, "broken.pub") {
		t.Errorf("keys shows %+v, want three files loaded and broken.pub refused", keys)
	}
	if e := command(t, "status", "--root", s.Dir); e.code != 0 || !strings.Contains(e.stdout, "broken.pub") {
		t.Errorf("status ends with %d and does not name broken.pub:\n%s", e.code, e.stdout)
	}
}
