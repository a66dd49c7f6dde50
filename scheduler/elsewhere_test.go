package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier"
)

// What one repository, or one moment, says of a signature must not decide what
// another reads, nor keep a signer from finding it.

// copyOf copies a repository, without the manifests that keep leaves out.
func (w *world) copyOf(from, to string, keep func(ocispec.Descriptor) bool) {
	w.t.Helper()
	w.st.Copy(from, to, keep)
}

func tagged(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] != "" }

func in(img signtest.Image, repo string) signtest.Image { img.Repo = repo; return img }

// contradict gives an image a second tag under another media type.
func (w *world) contradict(img signtest.Image) signtest.Image {
	w.t.Helper()
	b, err := os.ReadFile(w.st.BlobPath(img.Repo, img.Descriptor))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.st.Manifest(img.Repo, "contradicts", "application/vnd.docker.distribution.manifest.v2+json", b)
}

func TestAnAmbiguousImageIsSoWhereItIs(t *testing.T) {
	w := newWorld(t)
	w.bytesOfItsOwn()
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	w.st.SignSimple(img, k, simple)
	other := w.contradict(img)
	w.scan()
	w.want(img, "untrusted")
	w.reason(img, trust.Ambiguous)
	w.copyOf("a", "b", func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] != "contradicts" })
	w.scan()
	w.want(in(img, "b"), "trusted")
	w.want(img, "untrusted")
	w.st.Remove(other)
	w.scan()
	w.want(img, "trusted")
	w.contradict(img)
	w.scan()
	w.want(img, "untrusted")
	w.want(in(img, "b"), "trusted")
}

// A place that lacks a blob says nothing of the others, however often it is tried.
func TestAMissingBlobElsewhereDecidesNothing(t *testing.T) {
	w := newWorld(t)
	w.bytesOfItsOwn()
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	sig := w.st.SignSimple(img, k, simple)
	blob := w.st.Signatures(sig)[0]
	w.copyOf("a", "later", nil)
	away := filepath.Join(filepath.Dir(w.st.Dir), "away")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(w.st.Repository("later"), away)
	w.st.RemoveBlob("a", blob)
	w.scan()
	w.want(img, "unknown")
	move(away, w.st.Repository("b"))
	w.scan()
	w.want(in(img, "b"), "trusted")
	for range 3 {
		w.scan() // a is tried again
		w.want(in(img, "b"), "trusted")
		w.want(img, "unknown")
	}
	// One that comes to a signature that is known already is looked at as well.
	w.copyOf("b", "c", nil)
	w.st.RemoveBlob("c", blob)
	w.copyOf("b", "d", nil)
	w.st.Corrupt("d", blob)
	w.scan()
	w.want(in(img, "c"), "unknown")
	w.reason(in(img, "c"), trust.BlobMissing)
	w.want(in(img, "d"), "untrusted")
	w.reason(in(img, "d"), trust.DigestMismatch)
	w.want(in(img, "b"), "trusted")
	// So is one that was there before its image.
	w.copyOf("b", "e", func(d ocispec.Descriptor) bool { return d.Digest != img.Digest })
	w.st.RemoveBlob("e", blob)
	w.scan()
	w.st.Tag(in(img, "e"), "1")
	w.scan()
	w.want(in(img, "e"), "unknown")
}

// A layer that is malformed by its descriptor is not the genuine one.
func TestALayerWithAnotherSizeIsAnotherLayer(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	layer, blob := signtest.SimpleLayer(img.Trust(), k, simple)
	w.st.Blob("a", blob)
	bad := layer
	bad.Size = -1
	w.st.Attach(img, signtest.CosignArtifactType, bad)
	w.scan()
	w.want(img, "untrusted")
	w.st.Layers("a", signtest.SigTag(img.Trust()), layer)
	w.scan()
	w.want(img, "trusted")
	w.copyOf("a", "b", tagged) // without the attachment
	w.scan()
	w.want(in(img, "b"), "trusted")
}

// A key finds what is beyond the bounds of the index wherever it is, and what a
// repository had filed that is gone.
func TestAKeyFindsWhatAnotherRepositoryFiled(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		w := newWorld(t)
		maker := signtest.NewKey(signtest.P256)
		img := w.st.Content("a", "1", "x")
		w.st.SignSimple(img, maker, simple)
		w.scan()
		w.copyOf("a", "b", nil)
		w.scan()
		if err := os.RemoveAll(w.st.Repository("a")); err != nil {
			t.Fatal(err)
		}
		w.scan()
		w.st.TrustKey("first.pub", signtest.NewKey(signtest.P256)) // of its curve
		w.scan()
		w.want(in(img, "b"), "untrusted")
		w.st.TrustKey("maker.pub", maker)
		w.scan()
		w.want(in(img, "b"), "trusted")
		if n, err := w.store.Unfiled(); n != 0 || err != nil {
			t.Errorf("%d facts are still unfiled: %v", n, err)
		}
	})
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("full, restarted ", restarted), func(t *testing.T) {
			w := newWorld(t)
			w.opts.MaxFiled = 1
			maker := signtest.NewKey(signtest.P256)
			for _, n := range []string{"0", "9"} {
				w.st.SignSimple(w.st.Content("a", n, n), signtest.NewKey(signtest.P256), simple)
			}
			w.scan()
			img := w.st.Content("a", "1", "x")
			sig := w.st.SignSimple(img, maker, simple)
			w.scan()
			w.copyOf("a", "b", func(d ocispec.Descriptor) bool { return d.Digest == img.Digest || d.Digest == sig.Digest })
			w.scan()
			w.st.Remove(img)
			w.st.Remove(sig)
			w.scan()
			if restarted {
				w.close()
			}
			w.st.TrustKey("maker.pub", maker)
			w.scan()
			w.want(in(img, "b"), "trusted")
		})
	}
}

// A layer that no key verified when it was last looked at is filed again with the
// manifest that replaces it.
func TestAKeyFindsACoSignedLayer(t *testing.T) {
	w := newWorld(t)
	late := signtest.NewKey(signtest.P256)
	for _, n := range []string{"0", "1"} {
		w.st.TrustKey(n+".pub", signtest.NewKey(signtest.P256))
	}
	img := w.st.Content("a", "1", "x")
	w.st.SignSimple(img, late, simple)
	w.scan()
	w.want(img, "untrusted")
	w.st.SignSimple(img, signtest.NewKey(signtest.P384), simple) // the tag's manifest has two layers now
	w.scan()
	w.st.TrustKey("late.pub", late)
	w.scan()
	w.want(img, "trusted")
}

// Several first keys of a curve at once, over more signatures than a turn takes.
func TestAKeyAfterManyFirstKeys(t *testing.T) {
	w := newWorld(t)
	w.edit = func(c *Config) { c.Workers = 1 }
	late := signtest.NewKey(signtest.P256)
	var images []signtest.Image
	w.st.Batch(func() {
		for i := range 300 {
			img := w.st.Content("a", fmt.Sprint("t", i), fmt.Sprint(i))
			w.st.SignSimple(img, late, simple)
			images = append(images, img)
		}
	})
	w.scan()
	for i := range 8 {
		w.st.TrustKey(fmt.Sprint(i, ".pub"), signtest.NewKey(signtest.P256))
	}
	w.scan()
	w.st.TrustKey("late.pub", late)
	w.scan()
	for _, img := range images {
		w.want(img, "trusted")
	}
}

// held is a daemon whose verifications wait for release once hold is set.
type held struct {
	hold    atomic.Int32 // how many are still to be held
	reached chan struct{}
	release chan struct{}
}

func (w *world) held() (*held, *Scheduler, func()) {
	w.t.Helper()
	h := &held{reached: make(chan struct{}, 100), release: make(chan struct{})}
	w.edit = func(c *Config) { c.Workers = 4 }
	s := w.scheduler()
	s.verify = func(ctx context.Context, v *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
		o, err := verifyOne(ctx, v, r)
		if h.hold.Add(-1) >= 0 {
			h.reached <- struct{}{}
			<-h.release
		}
		return o, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.FirstPass()
	return h, s, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.close()
		w.scan()
	}
}

// marked waits until so many marks begin with what.
func marked(t *testing.T, s *Scheduler, what string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " marks ", what), func() bool {
		marks, err := s.cfg.Store.Marks()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for m := range marks {
			if strings.HasPrefix(m, what) {
				got++
			}
		}
		return got == n
	})
}

// A TSA's certificate comes while the pass of the CA's is at work, which does not
// know of it.
func TestACertificateThatComesDuringAPass(t *testing.T) {
	w := newWorld(t)
	root, tsaRoot := signtest.NewRoot(signtest.CertOptions{CommonName: "root"}), signtest.NewRoot(signtest.CertOptions{CommonName: "tsa root"})
	end := time.Now().Add(-time.Hour)
	leaf := root.Leaf(signtest.CertOptions{NotAfter: end})
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, leaf, signtest.NotationOptions{Time: end.Add(-time.Hour), TSA: signtest.NewTSA(tsaRoot, signtest.CertOptions{})})
	h, s, stop := w.held()
	h.hold.Store(1)
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	<-h.reached
	w.st.TrustCert("tsa:stamp", "tsa.pem", tsaRoot.Cert())
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	marked(t, s, "applied ", 1)
	close(h.release)
	marked(t, s, "applied ", 2)
	<-s.agenda.quiet()
	stop()
	w.want(img, "trusted")
}

// A certificate is replaced while a scan verifies under the old one.
func TestACertificateThatIsReplacedDuringAScan(t *testing.T) {
	w := newWorld(t)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	mid := root.Intermediate(signtest.CertOptions{CommonName: "mid"})
	w.st.Content("a", "1", "x")
	w.st.TrustCert("ca:acme", "ca.pem", root.Cert())
	h, s, stop := w.held()
	h.hold.Store(1)
	img := w.st.Content("a", "2", "y")
	w.st.SignNotation(img, mid.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	s.Rescan()
	<-h.reached
	w.st.TrustCert("ca:acme", "ca.pem", mid.Cert())
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	marked(t, s, "applied ", 1)
	marked(t, s, "gone ", 0)
	close(h.release)
	<-s.agenda.quiet()
	stop()
	w.want(img, "trusted")
}

// The pass of a certificate during which trust changed begins again, also when the
// process ends before that.
func TestAPassThatBeginsAgainIsOwed(t *testing.T) {
	w := newWorld(t)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	h, s, stop := w.held()
	h.hold.Store(1)
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	<-h.reached
	w.st.TrustKey("k.pub", signtest.NewKey(signtest.P256))
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	h.hold.Store(1)
	h.release <- struct{}{}
	<-h.reached // again
	applied := markApplied(signtest.CertSigner("ca", "acme", root.Cert()).ID())
	marked(t, s, applied, 0)
	close(h.release)
	marked(t, s, applied, 1)
	stop()
	w.want(img, "trusted")
}

// A start at which nothing can be published waits, says so, and goes on by itself:
// with the key that came meanwhile, too.
func TestAKeyThatWasAwayWhileNothingCouldBePublished(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	for _, n := range []string{"0", "1"} {
		w.st.TrustKey(n+".pub", signtest.NewKey(signtest.P256))
	}
	w.st.TrustKey("k.pub", k)
	w.scan()
	w.close()
	w.st.Untrust("_cosign/k.pub")
	img := w.st.Content("a", "1", "x")
	w.st.SignSimple(img, k, simple)
	s := w.scheduler()
	block := filepath.Join(w.state, "published", "CURRENT.new")
	if err := os.MkdirAll(filepath.Join(block, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "it says that nothing can be published", func() bool { return s.Status().Problem != "" })
	w.st.TrustKey("k.pub", k)
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	eventually(t, "the signature is trusted", func() bool { a, err := w.get(img); return err == nil && a.State() == "trusted" })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
