package truststore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// What the functions accept a load accepts, as the same signers; what they refuse
// a load refuses.
func TestValidateAgreesWithLoad(t *testing.T) {
	key := signtest.NewKey(signtest.P384)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	leaf := root.Leaf(signtest.CertOptions{CommonName: "Leaf"})
	both := signtest.CertPEM(root.Cert(), signtest.NewRoot(signtest.CertOptions{CommonName: "Other"}).Cert())
	for _, c := range []struct {
		name, store string // no store: a cosign key
		content     []byte
		signers     int
	}{
		{"a.pub", "", key.PEM(), 1},
		{trust.SumOf(key.PEM()).String(), "", key.PEM(), 1},
		{trust.SumOf(nil).String(), "", key.PEM(), 0},
		{"a.pub~", "", key.PEM(), 0},
		{"a.pub", "", key.PrivatePEM(), 0},
		{"a.pub", "", append(key.PEM(), key.PEM()...), 0},
		{"a.pub", "", make([]byte, MaxKeyFile+1), 0},
		{"a.crt", "ca:x", signtest.CertPEM(root.Cert()), 1},
		{"a.crt", "ca:x", root.Cert().Raw, 1},
		{"a.crt", "ca:x", both, 2},
		{"a.crt", "ca:x", signtest.CertPEM(leaf.Cert()), 0},
		{"a.crt", "tsa:x", signtest.CertPEM(root.Cert()), 1},
		{"a.crt", "other:x", signtest.CertPEM(root.Cert()), 0},
		{"a.crt", "ca:x.bak", signtest.CertPEM(root.Cert()), 0},
		{"a.crt", "ca:x y", signtest.CertPEM(root.Cert()), 0},
	} {
		dir := t.TempDir()
		cosign, notation := filepath.Join(dir, "_cosign"), filepath.Join(dir, "_notation")
		var signers []trust.Signer
		var err error
		at := cosign
		if c.store == "" {
			var s trust.Signer
			if s, err = ValidateKey(c.name, c.content); err == nil {
				signers = append(signers, s)
			}
		} else {
			storeType, name, _ := strings.Cut(c.store, ":")
			signers, err = ValidateCertificates(storeType, name, c.name, c.content)
			at = filepath.Join(notation, "truststore/x509", storeType, name)
		}
		if len(signers) != c.signers || (err == nil) != (c.signers > 0) {
			t.Errorf("%s %s: %d signers, %v", c.store, c.name, len(signers), err)
		}
		for _, d := range []string{cosign, at} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(at, c.name), c.content, 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := NewLoader(Config{CosignDir: cosign, NotationDir: notation, Cosign: true, Notation: true, Revocation: RevocationOffline})
		if err != nil {
			t.Fatal(err)
		}
		store, err := l.Load(context.Background(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := len(store.Loaded()); got != c.signers {
			t.Errorf("%s %s: %d loaded: %+v", c.store, c.name, got, store.Refused())
		}
		for _, s := range signers {
			if !store.InForce().Has(s.ID()) {
				t.Errorf("%s %s: %v is not in force", c.store, c.name, s)
			}
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../a", strings.Repeat("a", 256)} {
		if ValidateStore("ca", name) == nil {
			t.Errorf("store name %q was accepted", name)
		}
	}
}
