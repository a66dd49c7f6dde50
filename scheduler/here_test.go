package scheduler

import (
	"bytes"
	"os"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// alterations of a stored manifest, and what its signatures read then.
var alterations = map[string]struct {
	alter  func(path string, b []byte) error
	reason trust.Reason
}{
	"altered in place": {func(path string, b []byte) error {
		return os.WriteFile(path, bytes.Replace(b, []byte("application"), []byte("applicatioN"), 1), 0o644)
	}, trust.DigestMismatch},
	"longer": {func(path string, b []byte) error { return os.WriteFile(path, append(bytes.Clone(b), ' '), 0o644) }, trust.DigestMismatch},
	"empty":  {func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o644) }, trust.DigestMismatch},
	"gone":   {func(path string, _ []byte) error { return os.Remove(path) }, trust.BlobMissing},
}

func (w *world) manifestPath(img signtest.Image) string {
	return w.st.BlobPath(img.Repo, img.Descriptor)
}

// An image manifest that is altered or gone is noticed: by the slow pass, by USR1 and
// by a single pass, also across restarts; and it is as good as before once it is back.
func TestAnAlteredImageIsNoticed(t *testing.T) {
	for name, a := range alterations {
		for _, how := range []string{"slow pass", "scan", "changed index", "rescan"} {
			w := newWorld(t)
			k := signtest.NewKey(signtest.P256)
			w.st.TrustKey("k.pub", k)
			img := w.st.Content("r", "1", "x")
			w.st.SignSimple(img, k, simple)
			w.scan()
			w.want(img, "trusted")
			path := w.manifestPath(img)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.alter(path, good); err != nil {
				t.Fatal(err)
			}
			look := func() { w.scan() }
			switch how {
			case "changed index":
				look = func() { w.st.Content("r", "more", "more"); w.scan() }
			case "slow pass", "rescan":
				stop := w.run()
				s := w.last
				look = func() {
					before := s.Work().Reread
					if how == "rescan" {
						s.Rescan()
					} else if err := s.oweRehash(); err != nil {
						t.Fatal(err)
					}
					eventually(t, "stored bytes were read again", func() bool {
						return s.Work().Reread > before || stateOf(w.image(img)) != "trusted"
					})
					<-s.agenda.quiet()
					if err := w.store.Publish(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				defer stop()
			}
			look()
			w.reason(img, a.reason)
			if got := stateOf(w.image(img)); got == "trusted" {
				t.Errorf("%s, %s: trusted", name, how)
			}
			look() // and it stays so
			w.reason(img, a.reason)
			if err := os.WriteFile(path, good, 0o644); err != nil {
				t.Fatal(err)
			}
			if how == "scan" || how == "changed index" {
				look()
				w.want(img, "trusted")
			}
		}
	}
}

// A slow pass that is due is made by the next process, and what was altered while none
// ran is noticed.
func TestASlowPassIsDueAcrossRestarts(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("r", "1", "x")
	w.st.SignSimple(img, k, simple)
	w.edit = func(c *Config) { c.SlowInterval = 24 * time.Hour }
	w.run()()
	w.want(img, "trusted")
	path := w.manifestPath(img)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := alterations["altered in place"].alter(path, good); err != nil {
		t.Fatal(err)
	}
	stop := w.run() // not due yet
	if got := w.last.Work().Reread; got != 0 {
		t.Errorf("%d signatures read again", got)
	}
	if err := w.store.NoteSlowPass(time.Now().Add(-25 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	stop()
	defer w.run()()
	eventually(t, "it is noticed", func() bool { return stateOf(w.image(img)) != "trusted" })
	eventually(t, "the pass is noted", func() bool {
		at, err := w.store.SlowPass()
		return err == nil && time.Since(at) < time.Hour
	})
}

// What a digest is may be known from elsewhere; that its bytes are here may not: a
// second repository that lists a trusted image and its signature and has other bytes,
// or none, is not trusted.
func TestAnImageThatIsListedAndNotHere(t *testing.T) {
	for name, a := range alterations {
		w := newWorld(t)
		w.bytesOfItsOwn()
		k := signtest.NewKey(signtest.P256)
		w.st.TrustKey("k.pub", k)
		img := w.st.Content("r", "1", "x")
		w.st.SignSimple(img, k, simple)
		w.scan()
		w.copyOf("r", "copy", nil)
		copied := img
		copied.Repo = "copy"
		path := w.manifestPath(copied)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.alter(path, good); err != nil {
			t.Fatal(err)
		}
		w.scan()
		w.want(img, "trusted")
		w.reason(copied, a.reason)
		w.scan()
		if got := stateOf(w.image(copied)); got == "trusted" {
			t.Errorf("%s: trusted", name)
		}
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
		w.scan()
		w.want(copied, "trusted")
	}
}

func stateOf(img cache.Image) string { return img.State() }
