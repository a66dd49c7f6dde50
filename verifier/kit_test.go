package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"trust-worker/internal/inert"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	repo              = "team/app"
	manifestMediaType = ocispec.MediaTypeImageManifest
)

// keyPool keeps keys between tests: a large RSA key takes seconds to make.
var keyPool sync.Map

// pooled returns the i-th key of its kind.
func pooled(kind signtest.Kind, i int) *signtest.Key {
	type id struct {
		signtest.Kind
		int
	}
	f, _ := keyPool.LoadOrStore(id{kind, i}, sync.OnceValue(func() *signtest.Key { return signtest.NewKey(kind) }))
	return f.(func() *signtest.Key)()
}

// trustDirs are the trust directories of one test.
type trustDirs struct {
	t   testing.TB
	st  *signtest.Storage
	cfg truststore.Config
}

func newDirs(t testing.TB) *trustDirs {
	t.Helper()
	st := signtest.NewStorage(t.TempDir())
	return &trustDirs{t: t, st: st, cfg: truststore.Config{CosignDir: filepath.Join(st.Dir, "_cosign"), NotationDir: filepath.Join(st.Dir, "_notation"),
		Cosign: true, Notation: true, Revocation: truststore.RevocationOffline}}
}

func (d *trustDirs) key(name string, k *signtest.Key) *trustDirs {
	d.st.TrustKey(name, k)
	return d
}

// cert drops certificates into a store, for example "ca/acme".
func (d *trustDirs) cert(store, name string, certs ...*x509.Certificate) *trustDirs {
	d.st.TrustCert(store, name, certs...)
	return d
}

func (d *trustDirs) policy(doc string) *trustDirs {
	d.st.Policy(doc)
	return d
}

func (d *trustDirs) loader() *truststore.Loader {
	d.t.Helper()
	l, err := truststore.NewLoader(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

func (d *trustDirs) load() *truststore.TrustStore {
	d.t.Helper()
	return load(d.t, d.loader(), time.Now())
}

func load(t testing.TB, l *truststore.Loader, now time.Time) *truststore.TrustStore {
	t.Helper()
	ts, err := l.Load(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// blobs is a blob store for Fetch.
type blobs map[trust.Digest][]byte

func (b blobs) put(content []byte) trust.Digest {
	d := trust.SumOf(content)
	b[d] = content
	return d
}

func (b blobs) fetch(_ context.Context, d trust.Digest, _, limit int64) ([]byte, error) {
	c, ok := b[d]
	switch {
	case !ok:
		return nil, &trust.ReasonError{Reason: trust.BlobMissing, Err: errors.New("no such blob")}
	case int64(len(c)) > limit:
		return nil, &trust.ReasonError{Reason: trust.LimitExceeded, Err: errors.New("too large")}
	}
	return c, nil
}

// image is some manifest.
func image(content string) Subject {
	return Subject{Repository: repo, Digest: trust.SumOf([]byte(content)), MediaType: manifestMediaType, Size: int64(len(content))}
}

// request builds requests and keeps their blobs.
type request struct {
	Request
	blobs blobs
}

func newRequest(s Subject, carrier trust.Carrier) *request {
	r := &request{blobs: blobs{}}
	r.Request = Request{Subject: s, Signature: Signature{Digest: trust.SumOf([]byte("signature manifest")), Carrier: carrier}, Fetch: r.blobs.fetch}
	return r
}

func (r *request) layer(d ocispec.Descriptor, blob []byte) *request {
	r.blobs.put(blob)
	r.Signature.Layers = append(r.Signature.Layers, d)
	return r
}

func (r *request) blob(mediaType string, b []byte) *request {
	return r.layer(ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}, b)
}

func simple(s Subject, k *signtest.Key, o signtest.CosignOptions) *request {
	d, b := signtest.SimpleLayer(s.Digest, k, o)
	return newRequest(s, trust.CosignTag).layer(d, b)
}

func bundled(s Subject, k *signtest.Key, o signtest.CosignOptions) *request {
	return newRequest(s, trust.CosignBundle).blob(signtest.BundleMediaType, signtest.BundleJSON(s.Digest, k, o))
}

func notated(s Subject, c *signtest.Chain, o signtest.NotationOptions) *request {
	return newRequest(s, trust.NotationReferrer).blob(signtest.Envelope(s.descriptor(), c, o))
}

func verify1(t testing.TB, ts *truststore.TrustStore, r *request) Outcome {
	t.Helper()
	o, err := New(ts, Options{}).Verify(t.Context(), r.Request)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// one verifies a request with one signature.
func one(t testing.TB, ts *truststore.TrustStore, r *request) LayerOutcome {
	t.Helper()
	o := verify1(t, ts, r)
	if len(o.Layers) != 1 {
		t.Fatalf("%d layers, skipped %q, attachment %v; want one layer", len(o.Layers), o.Skipped, o.Attachment)
	}
	return o.Layers[0]
}

// says is a layer's reason or problem, or "trusted" when it has a ground.
func says(lo LayerOutcome) string {
	switch {
	case lo.Problem != "":
		return "problem " + string(lo.Problem)
	case lo.Verdict.Matched() && lo.Verdict.Reason == "":
		return "trusted"
	case lo.Verdict.Matched():
		return "BOTH " + string(lo.Verdict.Reason)
	}
	return string(lo.Verdict.Reason)
}

func want(t testing.TB, lo LayerOutcome, want string) {
	t.Helper()
	if got := says(lo); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	switch detail := lo.Verdict.Detail; {
	case len(detail) > trust.MaxVerdictDetail || inert.Text(detail) != detail || strings.HasSuffix(detail, "."):
		t.Errorf("detail %q", detail)
	case detail == "" && explained[lo.Verdict.Reason]:
		t.Errorf("%s is not explained", want)
	case lo.Problem != "" && detail != "":
		t.Errorf("a problem with the detail %q", detail)
	}
}

// explained are the reasons that an envelope or a payload has in itself: there is
// always something to say of what was found.
var explained = map[trust.Reason]bool{trust.Malformed: true, trust.SubjectMismatch: true, trust.PayloadTypeUnknown: true, trust.CertificateInvalid: true,
	trust.UnsupportedAlgorithm: true, trust.KeyTooSmall: true, trust.PluginRequired: true, trust.IdentityNotTrusted: true}

// decide joins a layer with the trust store, as a reader does.
func decide(ts *truststore.TrustStore, r *request, lo LayerOutcome, now time.Time) trust.Decision {
	return ts.InForce().Decide(r.Subject.Repository, r.Signature.Carrier.Tool(), &lo.Verdict, now)
}
