package scheduler

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// A manifest that is no image and has a signature (an SBOM, an attestation, an
// artifact) is answered for by digest, in the repository that holds it. It is no image:
// no list and no count has it.
func TestSignedManifestsThatAreNoImages(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("r", "1", "x")
	sbom := w.st.AttachBlob(img, "application/spdx+json", "application/spdx+json", []byte("{}"))
	bare := w.st.AttachBlob(img, "application/spdx+json", "application/spdx+json", []byte("[]"))
	w.st.SignSimple(sbom, k, simple)
	w.st.SignBundle(sbom, signtest.NewKey(signtest.P256), simple)
	w.scan()
	ask := func(repo string, d trust.Digest) (cache.Image, error) {
		t.Helper()
		r, err := cache.OpenReader(w.state)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		listed := 0
		list := func(i cache.Image) error {
			listed++
			if i.Digest == sbom.Trust() && repo == "r" {
				t.Errorf("%s is listed as an image", i.Digest)
			}
			return nil
		}
		if err := errors.Join(snap.Images(repo, list), snap.Each(repo, list),
			snap.DigestsFrom(repo, trust.Digest{}, func(d trust.Digest, _ bool) error { return list(cache.Image{Digest: d}) })); err != nil || listed == 0 {
			t.Errorf("%d listed: %v", listed, err)
		}
		counts, err := snap.Count()
		if err != nil || counts.Images["trusted"] != 0 || len(counts.Signatures) != 0 && repo == "r" {
			t.Errorf("counted %+v: %v", counts, err)
		}
		return snap.Image(repo, d)
	}
	got, err := ask("r", sbom.Trust())
	if err != nil || got.State() != "trusted" || len(got.SignatureInfo) != 2 {
		t.Errorf("%+v: %v", got, err)
	}
	if _, err := ask("r", bare.Trust()); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("what is not signed: %v", err)
	}
	now := func(d trust.Digest) (cache.Image, error) {
		t.Helper()
		m := &model{world: w}
		root, store := m.root(), m.load()
		defer root.Close()
		return VerifyNow(context.Background(), []Storage{{Root: root, Dir: w.st.Dir}}, store, nil, "r", "", d)
	}
	for d, want := range map[trust.Digest]string{sbom.Trust(): "trusted", bare.Trust(): cache.Unsigned, img.Trust(): cache.Unsigned} {
		if got, err := now(d); err != nil || got.State() != want {
			t.Errorf("verified now: %s %v, want %s", got.State(), err, want)
		}
	}
	if _, err := now(trust.SumOf([]byte("none"))); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}

	// Another repository has the manifest with other bytes. What it is has not been read
	// there: it is listed, and unknown.
	other := w.st.Content("s", "1", "x")
	copied := w.st.AttachBlob(other, "application/spdx+json", "application/spdx+json", []byte("{}"))
	w.st.SignSimple(copied, k, simple)
	w.st.Corrupt("s", copied.Descriptor)
	w.scan()
	got, err = ask("s", copied.Trust())
	if copied.Digest != sbom.Digest || err != nil || got.State() == "trusted" || !got.Has(trust.DigestMismatch) {
		t.Errorf("with other bytes: %s %v", got.State(), err)
	}
	w.st.Remove(sbom)
	w.st.Remove(copied)
	w.scan()
	if _, err := ask("r", sbom.Trust()); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("what is gone: %v", err)
	}
}

// A key that lies in a file of another name now is the same key; the answers name the
// file that holds it.
func TestAnswersFollowAFileThatIsRenamed(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("r", "1", "x")
	w.st.SignSimple(img, k, simple)
	stop := w.run()
	defer stop()
	file := func() string {
		r, err := cache.OpenReader(w.state)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		snap, err := r.Snapshot()
		if err != nil {
			return ""
		}
		defer snap.Close()
		got, err := snap.Tag("r", "1")
		if err != nil || len(got.SignatureInfo) != 1 || !got.SignatureInfo[0].IsTrusted {
			return ""
		}
		return got.SignatureInfo[0].SignerFile
	}
	eventually(t, "the file is named", func() bool { return file() == "_cosign/k.pub" })
	calls := w.last.Work().Calls
	if err := os.Rename(filepath.Join(w.st.Dir, "_cosign", "k.pub"), filepath.Join(w.st.Dir, "_cosign", "z.pub")); err != nil {
		t.Fatal(err)
	}
	if err := w.last.ReloadNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := file(); got != "_cosign/z.pub" || w.last.Work().Calls != calls {
		t.Errorf("%q, %d verifications", got, w.last.Work().Calls-calls)
	}
}
