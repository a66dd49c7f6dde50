package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
	"trust-worker/verifier"
)

const (
	slsa = "https://slsa.dev/provenance/v1"
	spdx = "https://spdx.dev/Document"
)

// attested compares what is attested of an image.
func (w *world) attested(img signtest.Image, want ...string) {
	w.t.Helper()
	var got []string
	for _, a := range w.image(img).Attestations {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", a.PredicateType, a.Status, a.Reason)))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("attested of %s: %q, want %q", img.Repo, got, want)
	}
}

// An attestation whose bytes are gone at one place, or make a library panic there, does not
// turn into a signature: here, there, or at any later look.
func TestAnAttestationNeverBecomesASignature(t *testing.T) {
	for _, how := range []string{"gone", "panic", "damaged"} {
		w := newWorld(t)
		if how == "damaged" {
			w.bytesOfItsOwn()
		}
		k := signtest.NewKey(signtest.P256)
		w.st.TrustKey("k.pub", k)
		img := w.st.Content("a", "1", "x")
		att := w.st.SignBundle(img, k, signtest.CosignOptions{PredicateType: slsa})
		w.scan()
		w.want(img, "unsigned")
		w.attested(img, slsa+" trusted")
		w.copyOf("a", "copy", nil)
		blob := w.st.Signatures(att)[0]
		s := w.scheduler()
		switch how {
		case "gone":
			w.st.RemoveBlob("copy", blob)
		case "damaged":
			w.st.Corrupt("copy", blob)
		case "panic":
			s.verify = func(_ context.Context, _ *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
				return verifier.Outcome{Tool: trust.Cosign, Panics: 1, Layers: []verifier.LayerOutcome{{Problem: trust.LimitExceeded, Panicked: true}}}, nil
			}
			w.st.Content("a", "2", "y") // a, too
		}
		for range 4 {
			if err := s.Scan(context.Background(), true); err != nil {
				t.Fatal(err)
			}
			for _, repo := range []string{"a", "copy"} {
				if a := w.image(in(img, repo)); a.State() != "unsigned" || a.IsSigned {
					t.Errorf("%s: %s is %s: %+v", how, repo, a.State(), a.SignatureInfo)
				}
			}
			w.attested(img, slsa+" trusted")
			later := time.Now().Add(2 * time.Hour)
			verify := s.verify
			w.edit = func(c *Config) { c.Now = func() time.Time { return later } }
			s = w.scheduler()
			s.verify = verify
		}
	}
}

// A tag that names another's manifest while its bytes are away makes no fact of it as something
// else, once they are back.
func TestWhatAManifestIsIsAskedAgain(t *testing.T) {
	for _, what := range []string{"signature", "attestation"} {
		w := newWorld(t)
		k := signtest.NewKey(signtest.P256)
		w.st.TrustKey("k.pub", k)
		img := w.st.Content("a", "1", "x")
		var m signtest.Image
		if what == "signature" {
			m = w.st.SignBundle(img, k, signtest.CosignOptions{})
		} else {
			m = w.st.Attest(img, k, signtest.CosignOptions{PredicateType: slsa})
		}
		right := func() {
			t.Helper()
			if what == "signature" {
				w.want(img, "trusted")
			} else {
				w.attested(img, slsa+" trusted")
			}
		}
		w.scan()
		right()
		w.copyOf("a", "evil", nil)
		w.st.Tag(in(m, "evil"), signtest.SigTag(img.Trust()))
		path := w.manifestPath(in(m, "evil"))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.scan()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		// A retry, before storage is read again.
		later := time.Now().Add(2 * time.Hour)
		w.edit = func(c *Config) { c.Now = func() time.Time { return later } }
		s := w.scheduler()
		if err := reload(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		r, err := s.visitTurn(context.Background(), "evil", &work{due: []trust.Digest{img.Trust()}})
		if err != nil {
			t.Fatal(err)
		}
		for _, batch := range r.batches {
			for _, f := range batch.Facts {
				t.Errorf("%s: a fact was made: %+v", what, f)
			}
			if _, err := w.store.Commit(batch); err != nil {
				t.Fatal(err)
			}
		}
		w.edit = nil
		w.scan()
		right()
	}
}

// A large attestation that has not changed is not said to have, by the slow pass or where it
// is known already, and is read once however often it is listed.
func TestLargeAttestationsAreReadAgain(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	statement := strings.Replace(string(signtest.Statement(img.Trust(), spdx)), `"predicate":{}`, `"predicate":{"a":"`+strings.Repeat("x", 2<<20)+`"}`, 1)
	w.st.Attest(img, k, signtest.CosignOptions{Payload: []byte(statement)})
	w.scan()
	w.attested(img, spdx+" trusted")
	s := w.scheduler()
	if err := s.oweRehash(); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	w.attested(img, spdx+" trusted")
	w.copyOf("a", "b", nil)
	w.scan()
	w.attested(in(img, "b"), spdx+" trusted")
	if strings.Contains(log.String(), "changed") {
		t.Error(log.String())
	}
}

// What is signed by a key is found at once where it is signed by a new key, as a signature is,
// and BuildKit's are there.
func TestAttestationsFollowTheirSigners(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	img := w.st.Content("a", "1", "x")
	w.st.Attest(img, k, signtest.CosignOptions{PredicateType: slsa})
	w.st.SignBundle(img, k, signtest.CosignOptions{PredicateType: spdx})
	w.st.BuildKit(img, slsa, "built")
	w.scan()
	w.attested(img, slsa+" unsigned", slsa+" untrusted no-trusted-key", spdx+" untrusted no-trusted-key")
	w.st.TrustKey("k.pub", k)
	if work := w.scan(); work.Verified != 2 {
		t.Errorf("%+v", work)
	}
	w.attested(img, slsa+" trusted", slsa+" unsigned", spdx+" trusted")
	w.want(img, "unsigned")
	w.st.Untrust("_cosign/k.pub")
	w.scan()
	w.attested(img, slsa+" unsigned", slsa+" untrusted signer-removed", spdx+" untrusted signer-removed")
}

// Copies of one attestation do not take the place of another type's.
func TestEveryTypeIsListed(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	layer := func(predicate string) ocispec.Descriptor {
		d := w.st.Blob("a", signtest.DSSE(img.Trust(), k, signtest.CosignOptions{PredicateType: predicate}))
		d.MediaType = "application/vnd.dsse.envelope.v1+json"
		return d
	}
	many := slices.Repeat([]ocispec.Descriptor{layer(slsa)}, 500)
	w.st.Layers("a", "sha256-"+img.Hex()+".att", append(many, layer(spdx))...)
	w.scan()
	a := w.image(img)
	kinds := map[string]int{}
	for _, one := range a.Attestations {
		kinds[one.PredicateType]++
	}
	if kinds[slsa] != 199 || kinds[spdx] != 1 || a.AttestationsOmitted != 301 {
		t.Errorf("%v, %d are left out", kinds, a.AttestationsOmitted)
	}
}

// So many attestations as anybody may push take no signature's place.
func TestAttestationsTakeNoSignaturesPlace(t *testing.T) {
	var refs []layout.Reference
	for i := range store.MaxReferences + 10 {
		refs = append(refs, layout.Reference{Digest: trust.Digest{0, byte(i >> 16), byte(i >> 8), byte(i)}, Carrier: trust.Attestations})
	}
	last := layout.Reference{Digest: trust.Digest{0xff}, Carrier: trust.CosignTag}
	first := firstReferences(append(refs, last))
	if len(first) != store.MaxReferences+1 || first[len(first)-1] != last || !slices.IsSortedFunc(first, func(a, b layout.Reference) int { return bytes.Compare(a.Digest[:], b.Digest[:]) }) {
		t.Errorf("%d references, the last %+v", len(first), first[len(first)-1])
	}
}

// What has crashed the daemon is not verified again for whoever asks a preview.
func TestAPreviewHeedsTheQuarantine(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	img := w.st.Content("a", "1", "x")
	sig := w.st.SignBundle(img, k, signtest.CosignOptions{})
	w.scan()
	w.st.TrustKey("k.pub", k)
	s := w.scheduler()
	if err := reload(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	then := s.trust.Load().store
	c := &cache.Candidate{Repository: "a", MediaType: img.MediaType, Subject: img.Trust(), Signature: sig.Trust(), Tool: trust.Cosign, Layers: 1}
	verdicts, err := s.VerifyCandidate(context.Background(), then, c)
	if err != nil || len(verdicts) != 1 || !verdicts[0].Matched() {
		t.Fatalf("%+v, %v", verdicts, err)
	}
	for range tolerated {
		s.quarantine.panicked(sig.Trust(), -1)
	}
	s.verify = func(context.Context, *verifier.Verifier, verifier.Request) (verifier.Outcome, error) {
		t.Error("it is verified")
		return verifier.Outcome{}, nil
	}
	if verdicts, err := s.VerifyCandidate(context.Background(), then, c); err == nil {
		t.Errorf("%+v", verdicts)
	}
}
