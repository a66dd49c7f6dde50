package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

var simple = signtest.CosignOptions{}

func TestRestartWithNothingChangedVerifiesNothing(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Image("a", "1")
	w.st.SignSimple(img, k, simple)
	w.st.SignBundle(img, signtest.NewKey(signtest.P384), simple)
	if work := w.scan(); work.Verified != 2 {
		t.Errorf("first pass: %+v", work)
	}
	w.want(img, "trusted")
	w.close()
	if work := w.scan(); work.Verified != 0 || work.Scanned != 0 || work.Opened != 0 || work.Commits != 0 {
		t.Errorf("second pass: %+v", work)
	}
	w.want(img, "trusted")
}

// A thousand co-signatures that replace a .sig manifest verify a thousand
// times, not half a million; here 40, trusted and not.
func TestCoSignaturesVerifyOnce(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		w := newWorld(t)
		k := signtest.NewKey(signtest.P256)
		if trusted {
			w.st.TrustKey("k.pub", k)
		}
		img := w.st.Image("a", "1")
		calls := int64(0)
		for i := range 40 {
			w.st.SignSimple(img, k, signtest.CosignOptions{Annotations: map[string]string{"n": fmt.Sprint(i)}})
			calls += w.scan().Calls
		}
		if n := len(w.image(img).SignatureInfo); n != 40 {
			t.Errorf("%d signatures", n)
		}
		if calls > 40 {
			t.Errorf("trusted %v: 40 co-signatures took %d verifications", trusted, calls)
		}
	}
}

func TestSignatureBeforeItsImage(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Image("a", "1")
	w.st.SignSimple(img, k, simple)
	w.st.Remove(img)
	w.scan()
	if _, err := w.get(img); err == nil {
		t.Error("an image that is not there is answered")
	}
	w.st.Tag(img, "1")
	w.scan()
	w.want(img, "trusted")
}

func TestWhatIsGoneLeavesTheAnswers(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Image("a", "1")
	sig := w.st.SignBundle(img, k, simple)
	w.scan()
	w.st.Remove(sig)
	w.scan()
	w.want(img, "unsigned")
	w.st.SignBundle(img, k, simple)
	w.scan()
	w.st.Remove(img)
	w.scan()
	if _, err := w.get(img); err == nil {
		t.Error("a removed image is answered")
	}
}

// One blob that is missing costs that signature, is retried, and a digest that
// is known from another place does not stand in for it.
func TestMissingBlob(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img, beside := w.st.Content("a", "1", "1"), w.st.Content("a", "2", "2")
	sig := w.st.SignBundle(img, k, simple)
	w.st.SignBundle(beside, k, simple)
	layer := w.st.Signatures(sig)[0]
	w.st.RemoveBlob("a", layer)
	w.scan()
	w.want(img, "unknown")
	w.reason(img, trust.BlobMissing)
	w.want(beside, "trusted")
	w.edit = func(c *Config) { c.ScanInterval = 50 * time.Millisecond }
	stop := w.run()
	w.st.Blob("a", signtest.BundleJSON(img.Trust(), k, simple)) // another bundle: not the missing one
	copied := w.st.Content("b", "1", "1")
	w.st.SignBundle(copied, k, simple)
	eventually(t, "the copy is trusted", func() bool { a, err := w.get(copied); return err == nil && a.State() == "trusted" })
	stop()
	w.want(img, "unknown")
}

// Trying again costs what was not decided: the layers beside a missing one, or
// those before the limit of layers, are read and hashed, and not verified anew.
func TestRetryVerifiesNothingTwice(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Image("a", "1")
	var sig signtest.Image
	for i := range 3 {
		payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":{"n":"%d"}}`, img.Digest, i)
		sig = w.st.SignSimple(img, k, signtest.CosignOptions{Payload: payload})
	}
	w.st.RemoveBlob("a", w.st.Signatures(sig)[1])
	if work := w.scan(); work.Calls != 2 {
		t.Errorf("first pass: %+v", work)
	}
	if work := w.scan(); work.Verified != 1 || work.Calls != 0 {
		t.Errorf("one more try: %+v", work)
	}
	w.reason(img, trust.BlobMissing)
	w.want(img, "trusted")
}

// A single pass does not wait for the time of a retry: what could not be decided
// by the one before is tried again, once, and only that.
func TestNextPassTriesAgain(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	lost, rotten, beside := w.st.Image("a", "lost"), w.st.Image("a", "rotten"), w.st.Image("a", "beside")
	w.st.SignBundle(beside, k, simple)
	bundles := map[trust.Digest][]byte{}
	for _, img := range []signtest.Image{lost, rotten} {
		bundles[img.Trust()] = signtest.BundleJSON(img.Trust(), k, simple)
		sig := w.st.AttachBlob(img, signtest.BundleMediaType, signtest.BundleMediaType, bundles[img.Trust()])
		if img.Tag == "lost" {
			w.st.RemoveBlob("a", w.st.Signatures(sig)[0])
		} else {
			w.st.Corrupt("a", w.st.Signatures(sig)[0])
		}
	}
	w.scan()
	for range 5 { // by now the next try is half a minute away
		if work := w.scan(); work.Calls != 0 || work.Verified != 2 {
			t.Errorf("a pass with nothing changed: %+v", work)
		}
		w.reason(lost, trust.BlobMissing)
		w.reason(rotten, trust.DigestMismatch)
		w.close()
	}
	w.st.Blob("a", bundles[lost.Trust()])
	w.st.Blob("a", bundles[rotten.Trust()])
	w.scan()
	w.want(lost, "trusted")
	w.want(rotten, "trusted")
	w.want(beside, "trusted")
	w.close()
	if work := w.scan(); work.Verified != 0 {
		t.Errorf("all is decided: %+v", work)
	}
}

// While one repository holds many bad signatures, another's new one is decided
// after a bounded number of that one's: by work done, not by time.
func TestFairness(t *testing.T) {
	w := newWorld(t)
	w.edit = func(c *Config) { c.Workers = 1 }
	k, bad := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	const many = 20 * turnSize
	w.st.Batch(func() {
		img := w.st.Image("aaa", "1")
		for i := range many {
			w.st.SignBundle(img, bad, signtest.CosignOptions{Payload: signtest.Statement(trust.SumOf([]byte(fmt.Sprint(i))), signtest.SignPredicate)})
		}
	})
	victim := w.st.Image("zzz", "1")
	w.st.SignSimple(victim, k, simple)

	s := w.scheduler()
	var at int64 = -1
	done := make(chan struct{})
	go func() {
		defer close(done)
		for at < 0 {
			if a, err := w.get(victim); err == nil && a.State() == "trusted" {
				at = s.Work().Verified
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := s.Scan(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	<-done
	if total := s.Work().Verified; total != many+1 || at >= total/2 {
		t.Errorf("decided after %d of %d verifications", at, total)
	}
}

// A repository beyond its bound of unmatched rows is flagged, and still
// answered in the end.
func TestOverflowIsStillAnswered(t *testing.T) {
	w := newWorld(t)
	w.opts = store.Options{MaxFiled: 10}
	for i := range 2 {
		w.st.TrustKey(fmt.Sprintf("k%d.pub", i), signtest.NewKey(signtest.P256))
	}
	k := signtest.NewKey(signtest.P256)
	var images []signtest.Image
	for i := range 10 {
		img := w.st.Content("a", fmt.Sprint(i), fmt.Sprint(i))
		w.st.SignSimple(img, k, simple)
		images = append(images, img)
	}
	w.scan()
	if p, _, err := w.store.Place("a"); err != nil || !p.Overflow {
		t.Fatalf("not flagged: %+v %v", p, err)
	}
	w.scan()
	if over := w.last.Status().Overflowing; !slices.Equal(over, []string{"a"}) {
		t.Errorf("status shows %v", over)
	}
	// A new process knows that no key has come.
	w.close()
	w.st.SignSimple(w.st.Content("a", "new", "new"), k, simple)
	if work := w.scan(); work.Verified != 1 {
		t.Errorf("after a restart one new signature took %+v", work)
	}
	w.st.TrustKey("late.pub", k)
	w.scan()
	for _, img := range images {
		w.want(img, "trusted")
	}
	if p, _, err := w.store.Place("a"); err != nil || p.Overflow {
		t.Errorf("still flagged when all is matched: %+v %v", p, err)
	}
}
