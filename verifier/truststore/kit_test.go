package truststore

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"trust-worker/internal/signtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trustDirs are the trust directories of one test.
type trustDirs struct {
	t   testing.TB
	dir string
	cfg Config
}

func newDirs(t testing.TB) *trustDirs {
	t.Helper()
	d := t.TempDir()
	for _, sub := range []string{"_cosign", "_notation"} {
		if err := os.Mkdir(filepath.Join(d, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &trustDirs{t: t, dir: d, cfg: Config{CosignDir: filepath.Join(d, "_cosign"), NotationDir: filepath.Join(d, "_notation"),
		Cosign: true, Notation: true, Revocation: RevocationOffline}}
}

func (d *trustDirs) write(name string, b []byte) {
	d.t.Helper()
	p := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *trustDirs) key(name string, k *signtest.Key) *trustDirs {
	d.t.Helper()
	d.write("_cosign/"+name, k.PEM())
	return d
}

func (d *trustDirs) cert(store, name string, certs ...*x509.Certificate) *trustDirs {
	d.t.Helper()
	d.write("_notation/truststore/x509/"+store+"/"+name, signtest.CertPEM(certs...))
	return d
}

func (d *trustDirs) policy(doc string) *trustDirs {
	d.t.Helper()
	d.write("_notation/trustpolicy.json", []byte(doc))
	return d
}

func (d *trustDirs) loader() *Loader {
	d.t.Helper()
	l, err := NewLoader(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

func (d *trustDirs) load() *TrustStore {
	d.t.Helper()
	return load(d.t, d.loader(), time.Now())
}

func load(t testing.TB, l *Loader, now time.Time) *TrustStore {
	t.Helper()
	ts, err := l.Load(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
