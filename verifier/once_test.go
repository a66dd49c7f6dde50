package verifier

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	nrevocation "github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// What is fetched, read or made once instead of each time.

// Layers that share a payload cost one fetch; what one payload says is never taken
// for what another says, and a fetch that failed is tried again.
func TestLayersShareABlob(t *testing.T) {
	a, b, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("a", a).key("b", b).load()
	img, other := image("A"), image("B")
	fetched, fail := 0, 0
	verify := func(layers ...*request) []LayerOutcome {
		t.Helper()
		fetched = 0
		r := newRequest(img, Simple)
		for _, l := range layers {
			d := l.Signature.Layers[0]
			r.layer(d, l.blobs[must(trust.ParseDigest(string(d.Digest)))])
		}
		fetch := r.Fetch
		r.Fetch = func(ctx context.Context, d trust.Digest, s, l int64) ([]byte, error) {
			if fetched++; fetched == fail {
				return nil, errors.New("EIO")
			}
			return fetch(ctx, d, s, l)
		}
		return verify1(t, ts, r).Layers
	}
	by := func(s Subject, k *signtest.Key) *request { return simple(s, k, signtest.CosignOptions{}) }

	o := verify(by(img, a), by(img, stranger), by(img, b))
	want(t, o[0], "trusted")
	want(t, o[1], "no-trusted-key")
	want(t, o[2], "trusted")
	if fetched != 1 {
		t.Errorf("one blob was fetched %d times", fetched)
	}

	o = verify(by(img, a), by(other, a), by(other, b), by(img, b))
	want(t, o[0], "trusted")
	want(t, o[1], "subject-mismatch")
	want(t, o[2], "subject-mismatch")
	want(t, o[3], "trusted")
	if fetched != 3 {
		t.Errorf("%d fetches; want each blob once as long as it is the last", fetched)
	}

	fail = 1
	o = verify(by(img, a), by(img, b))
	want(t, o[0], "problem io-error")
	want(t, o[1], "trusted")

	// The same digest with another size is another blob, which there is not.
	fail = 0
	longer := by(img, b)
	longer.Signature.Layers[0].Size++
	o = verify(by(img, a), longer)
	want(t, o[0], "trusted")
	want(t, o[1], "problem digest-mismatch")
}

// What sigstore-go is given to verify is what it reads of the bundle by itself.
func TestReadBundle(t *testing.T) {
	for _, s := range []string{"A", "B"} {
		var b bundle.Bundle
		if err := b.UnmarshalJSON(signtest.BundleJSON(image(s).Digest, signtest.NewKey(signtest.P256), signtest.CosignOptions{})); err != nil {
			t.Fatal(err)
		}
		read, err := readStatement(&b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readBundle{&b, read}.SignatureContent()
		if err != nil {
			t.Fatal(err)
		}
		own, err := b.SignatureContent()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.EnvelopeContent().RawEnvelope(), own.EnvelopeContent().RawEnvelope()) ||
			!slices.Equal(got.Signature(), own.Signature()) || got.MessageSignatureContent() != nil {
			t.Errorf("content %+v, want %+v", got, own)
		}
		gotStatement, err := got.EnvelopeContent().Statement()
		ownStatement, ownErr := own.EnvelopeContent().Statement()
		if err != nil || ownErr != nil || !proto.Equal(gotStatement, ownStatement) {
			t.Errorf("statement %v, %v; want %v, %v", gotStatement, err, ownStatement, ownErr)
		}
	}
}

// One prepared verifier serves all runs under a statement: each sees its own
// anchor, and whoever asks outside of a run gets nothing.
func TestRunsAreApart(t *testing.T) {
	d := newDirs(t)
	type signed struct {
		root trust.Digest
		r    *request
	}
	var envelopes []signed
	for i := range 4 {
		root := signtest.NewRoot(signtest.CertOptions{CommonName: fmt.Sprint("Root ", i)})
		d.cert("ca/acme", fmt.Sprint(i, ".pem"), root.Cert())
		envelopes = append(envelopes, signed{fingerprintOf(root.Cert()), notated(image("A"), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{COSE: i%2 == 1})})
	}
	ts := d.load()
	var g errgroup.Group
	for i := range 40 {
		g.Go(func() error {
			s := envelopes[i%len(envelopes)]
			o, err := New(ts, Options{}).Verify(t.Context(), s.r.Request)
			if err != nil {
				return err
			}
			if v := o.Layers[0].Verdict; len(v.Grounds) != 1 || v.Grounds[0].Signers[0].Fingerprint != s.root {
				return fmt.Errorf("%+v, want a ground by %v", o.Layers[0], s.root)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if certs, err := (runStores{}).GetCertificates(t.Context(), truststore.TypeCA, anchorStore); err == nil || len(certs) != 0 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
	v := runRevocation{func(r *run) *revocationCheck { return r.code }}
	if results, err := v.ValidateContext(t.Context(), nrevocation.ValidateContextOptions{}); err == nil || results != nil {
		t.Errorf("%v, %v", results, err)
	}
	// Served are the anchor, as the type of store that it is in, and nothing else.
	in := context.WithValue(t.Context(), runKey{}, &run{anchor: &anchor{storeType: truststore.TypeCA, cert: signtest.NewRoot(signtest.CertOptions{}).Cert()}})
	for st, want := range map[truststore.Type]int{truststore.TypeCA: 1, truststore.TypeSigningAuthority: 0, truststore.TypeTSA: 0} {
		for _, name := range []string{anchorStore, tsaStore} {
			certs, err := runStores{}.GetCertificates(in, st, name)
			if name == tsaStore {
				want = 0
			}
			if len(certs) != want || (err == nil) != (want > 0) {
				t.Errorf("%s:%s serves %d, %v; want %d", st, name, len(certs), err, want)
			}
		}
	}
}
