package store

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What the tests of this package share: a small world, and a store in a directory.

// A small world: one repository with one image, signed by one key.
var (
	keyA      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key A"))}
	keyB      = trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte("key B"))}
	image     = trust.SumOf([]byte("image"))
	signature = trust.SumOf([]byte("signature"))
)

func inForce(signers ...trust.Signer) *trust.InForce {
	t := trust.Terms{Cosign: true, Notation: true}
	for _, s := range signers {
		t.Materials = append(t.Materials, trust.Material{Signer: s, File: fileOf(s), Author: "PEM of " + s.Fingerprint.String()})
	}
	return trust.NewInForce(t)
}

func fileOf(s trust.Signer) string { return "_cosign/" + s.Fingerprint.Hex()[:8] + ".pub" }

func signedBy(s trust.Signer) Fact {
	return Fact{Subject: image, Signature: signature, Context: Context{Tool: trust.Cosign},
		Verdicts: []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: time.Now().Unix(), Epoch: trust.MinEpoch,
			Grounds: []trust.Ground{{Signers: []trust.SignerID{s.ID()}}}}}}
}

func world(facts ...Fact) Batch {
	stamp := "stamp"
	return Batch{Place: "team/app", SetTags: true, Complete: true, Tags: map[string]trust.Digest{"1.0": image},
		Update: &PlaceUpdate{Stamp: &stamp},
		Rows:   []Row{{Digest: image, MediaType: "m", Present: true, Tagged: true, References: []Reference{{Digest: signature, Carrier: 1}}}},
		Facts:  facts}
}

func openStore(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func setTrust(t testing.TB, s *Store, f *trust.InForce) TrustChange {
	t.Helper()
	change, err := s.SetTrust(f)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func mustCommit(t testing.TB, s *Store, batches ...Batch) {
	t.Helper()
	if _, err := s.Commit(batches...); err != nil {
		t.Fatal(err)
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

// status looks the image up as another process would.
func status(t *testing.T, r *cache.Reader) (trust.Status, trust.Reason) {
	t.Helper()
	s, err := r.Snapshot()
	if errors.Is(err, format.ErrNoCache) {
		return trust.Unknown, trust.NoCache
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img, err := s.Tag("team/app", "1.0")
	if err != nil {
		t.Fatal(err)
	}
	return img.SignatureInfo[0].Status, img.SignatureInfo[0].Reason
}

func want(t *testing.T, r *cache.Reader, st trust.Status, reason trust.Reason) {
	t.Helper()
	if s, why := status(t, r); s != st || why != reason {
		t.Errorf("read %s/%s, want %s/%s", s, why, st, reason)
	}
}

// closeChecked closes the store and holds it to Check.
func closeChecked(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	report, err := Check(context.Background(), s.dir)
	if err != nil || !report.OK() {
		t.Errorf("check: %v %+v", err, report)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
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
