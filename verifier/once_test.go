package verifier

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/bundle"
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
		r := newRequest(img, trust.CosignTag)
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
	if fetched != 2 {
		t.Errorf("%d fetches; want each blob once", fetched)
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
		read, err := readStatement(&b, statementHeader{})
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
