package cache_test

import (
	"context"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// What the tests of this package share: a small world that the daemon's side has
// published in a directory. One repository with one image, signed by one key.

var (
	keyA      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key A"))}
	keyB      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key B"))}
	image     = trust.SumOf([]byte("image"))
	signature = trust.SumOf([]byte("signature"))
)

func inForce(signers ...trust.Signer) *trust.InForce {
	t := trust.Terms{Cosign: true, Notation: true}
	for _, s := range signers {
		t.Materials = append(t.Materials, trust.Material{Signer: s, Author: "PEM of " + s.Fingerprint.String()})
	}
	return trust.NewInForce(t)
}

func signedBy(s trust.Signer) store.Fact {
	return store.Fact{Subject: image, Signature: signature, Context: store.Context{Tool: trust.Cosign},
		Verdicts: []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: time.Now().Unix(), Epoch: trust.MinEpoch,
			Grounds: []trust.Ground{{Signers: []trust.SignerID{s.ID()}}}}}}
}

func world(facts ...store.Fact) store.Batch {
	return store.Batch{Place: "team/app", SetTags: true, Complete: true, Tags: map[string]trust.Digest{"1.0": image},
		Rows: []store.Row{{Digest: image, MediaType: "m", Present: true, Tagged: true,
			References: []store.Reference{{Digest: signature, Carrier: 1}}}},
		Facts: facts}
}

// writer is the daemon's side of a state directory.
type writer struct {
	*store.Store
	dir string
}

func openStore(t testing.TB, dir string, opts store.Options) *writer {
	t.Helper()
	s, err := store.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &writer{s, dir}
}

func publish(t testing.TB, s *writer) {
	t.Helper()
	if err := s.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// rebase makes a new base of everything that is published.
func rebase(t testing.TB, s *writer) {
	t.Helper()
	s.RenderAnew()
	if err := s.Fold(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func setTrust(t testing.TB, s *writer, f *trust.InForce) {
	t.Helper()
	if _, err := s.SetTrust(f); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t testing.TB, s *writer, batches ...store.Batch) {
	t.Helper()
	if _, err := s.Commit(batches...); err != nil {
		t.Fatal(err)
	}
}

// closeChecked closes the store and holds it to Check.
func closeChecked(t *testing.T, s *writer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	report, err := store.Check(context.Background(), s.dir)
	if err != nil || !report.OK() {
		t.Errorf("check: %v %+v", err, report)
	}
}

func openReader(t *testing.T, dir string, opts ...cache.Option) *cache.Reader {
	t.Helper()
	r, err := cache.OpenReader(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func snapshot(t *testing.T, r *cache.Reader) *cache.Snapshot {
	t.Helper()
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
