package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Two mechanisms at once: each leaves the other's work alone.

// A policy is edited while the first scan of a repository verifies under the old one.
func TestAPolicyThatIsEditedDuringAFirstScan(t *testing.T) {
	w := newWorld(t)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "root"})
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.st.Content("a", "1", "x")
	h, s, stop := w.held()
	defer stop()
	h.hold.Store(1)
	img := w.st.Content("b", "1", "y")
	w.st.SignNotation(img, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	s.LookAt("b")
	<-h.reached
	w.st.Policy(`{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],"signatureVerification":{"level":"permissive"},
		"trustStores":["ca:acme"],"trustedIdentities":["*"]}]}`)
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	close(h.release)
	<-s.agenda.quiet()
	if err := s.cfg.Store.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(img, "trusted")
}

// Work on a repository's rows that comes while the slow pass is in the middle of
// them begins at the first one.
func TestRowsAreSettledFromTheFirstDuringTheSlowPass(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.Batch(func() {
		for i := range turnSize + 1 {
			w.st.SignSimple(w.st.Content("a", fmt.Sprint("t", i), fmt.Sprint(i)), k, simple)
		}
	})
	w.scan()
	s := w.last
	s.agenda = newAgenda() // that of the pass is shut down
	if err := s.oweRehash(); err != nil {
		t.Fatal(err)
	}
	i, owed, _ := s.agenda.get(ordinary)
	r, err := s.turn(context.Background(), i, owed)
	if err != nil {
		t.Fatal(err)
	}
	r.item = i
	s.agenda.add(i, fresh, func(w *work) { w.settle, w.at.after = true, trust.Digest{} })
	if _, err := s.commit([]result{r}); err != nil {
		t.Fatal(err)
	}
	if _, owed, _ = s.agenda.get(ordinary); !owed.settle || owed.at.after != (trust.Digest{}) {
		t.Errorf("settling begins at %s", owed.at.after)
	}
}

// What is known to be missing stays so when a scan has more to look at than a turn
// takes.
func TestWhatIsMissingStaysSoBeyondATurn(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	var sig signtest.Image
	for range turnSize + 2 {
		sig = w.st.SignSimple(img, k, signtest.CosignOptions{Referrer: true})
	}
	w.scan()
	w.want(img, "trusted")
	w.copyOf("a", "b", nil)
	w.st.RemoveBlob("b", w.st.Signatures(sig)[0])
	w.scan()
	w.want(in(img, "b"), "unknown")
	w.st.Content("b", "2", "y")
	w.scan()
	w.want(in(img, "b"), "unknown")
	for _, s := range w.image(in(img, "b")).SignatureInfo {
		if s.Reason != trust.BlobMissing {
			t.Fatalf("%+v", s)
		}
	}
	blob := w.st.Blob("b", signtest.Payload(img.Trust()))
	if blob.Digest != w.st.Signatures(sig)[0].Digest {
		t.Fatal("not the same payload")
	}
	w.scan()
	for _, s := range w.image(in(img, "b")).SignatureInfo {
		if !s.IsTrusted {
			t.Fatalf("%+v", s)
		}
	}
}

// A process ends after a scan has counted what a key signed and before the key's
// pass is over; the next one begins without the key.
func TestAKeyThatLeavesWhileNobodyLooks(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	img := w.st.Content("a", "1", "x")
	w.scan()
	w.st.SignSimple(img, k, simple)
	w.st.TrustKey("k.pub", k)
	s := w.scheduler()
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.agenda = newAgenda() // without the pass
	s.oweScan("a", false)
	i, owed, _ := s.agenda.get(ordinary)
	r, err := s.turn(t.Context(), i, owed)
	if r.item = i; err != nil {
		t.Fatal(err)
	}
	if _, err := s.commit([]result{r}); err != nil {
		t.Fatal(err)
	}
	w.close()
	w.st.Untrust("_cosign/k.pub")
	w.scan()
	w.want(img, "untrusted")
}

// A TSA's certificate comes while another policy is in force than the one under
// which a signature was found expired.
func TestATimestampThatComesUnderAnotherPolicy(t *testing.T) {
	w := newWorld(t)
	root, stamp := signtest.NewRoot(signtest.CertOptions{CommonName: "root"}), signtest.NewRoot(signtest.CertOptions{CommonName: "stamp"})
	end := time.Now().Add(-time.Hour)
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, root.Leaf(signtest.CertOptions{NotAfter: end}),
		signtest.NotationOptions{Time: end.Add(-time.Hour), TSA: signtest.NewTSA(stamp, signtest.CertOptions{})})
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.scan()
	w.want(img, "expired")
	w.st.Policy(`{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],"signatureVerification":{"level":"audit"},
		"trustStores":["ca:acme"],"trustedIdentities":["*"]}]}`)
	w.scan()
	w.st.TrustCert("tsa:stamp", "stamp.pem", stamp.Cert())
	w.scan()
	document, err := w.last.cfg.Loader.DefaultPolicy(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.st.Policy(string(document))
	w.scan()
	w.want(img, "trusted")
}

// A repository that becomes unsettled while a turn of it reads stays so on disk: a
// kill before the next turn loses nothing.
func TestWhatBecomesUnsettledDuringATurnStaysSo(t *testing.T) {
	w := newWorld(t)
	w.st.SignSimple(w.st.Content("a", "1", "x"), signtest.NewKey(signtest.P256), simple)
	w.scan()
	s := w.last
	yes := true
	unsettle := func() {
		t.Helper()
		if _, err := w.store.Commit(store.Batch{Place: "a", Update: &store.PlaceUpdate{Unsettled: &yes}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, turn := range map[string]*work{"settle": {settle: true}, "scan": {scan: true, force: true}} {
		for _, meanwhile := range []bool{true, false} {
			s.agenda = newAgenda()
			unsettle()
			r, err := s.turn(t.Context(), item{repository: "a"}, turn)
			if err != nil {
				t.Fatal(err)
			}
			if meanwhile {
				unsettle()
			}
			if _, err := w.store.Commit(r.batches...); err != nil {
				t.Fatal(err)
			}
			if p, _, err := w.store.Place("a"); err != nil || p.Unsettled != meanwhile {
				t.Errorf("%s: unsettled %v, meanwhile %v: %v", name, p.Unsettled, meanwhile, err)
			}
		}
	}
}

// A signer that has come back is owed a pass also when an earlier pass of it has
// just noted its end.
func TestASignerThatIsBackIsOwedAPass(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	w.scan()
	s := w.last
	for _, first := range []bool{true, false} {
		s.agenda = newAgenda()
		if err := s.owePasses(s.trust.Load(), store.TrustChange{First: first, Added: []trust.SignerID{k.Signer().ID()}}, nil); err != nil {
			t.Fatal(err)
		}
		if owed := s.agenda.size() == 1; owed == first {
			t.Errorf("at the start %v: owed %v", first, owed)
		}
	}
}

// A repository that is away while a signer's pass comes by, and back before any walk
// has missed it, looks unchanged: what the pass could not read is read then.
func TestARepositoryThatIsAwayForAMoment(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	img := w.st.Content("a", "1", "x")
	w.st.SignSimple(img, k, simple)
	w.st.TrustKey("k.pub", k)
	w.scan()
	w.want(img, "trusted")
	s := w.last
	s.agenda = newAgenda()
	here, away := w.st.Repository("a"), filepath.Join(w.st.Dir, "_away")
	if err := os.Rename(here, away); err != nil {
		t.Fatal(err)
	}
	f, ok, err := w.store.Fact(w.image(img).Digest, w.image(img).SignatureInfo[0].Digest, store.Context{Tool: trust.Cosign})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	w.st.Untrust("_cosign/k.pub")
	if err := reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	batches, err := s.verifyAgain(t.Context(), s.trust.Load(), &f, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(batches...); err != nil {
		t.Fatal(err)
	}
	if p, _, err := w.store.Place("a"); err != nil || !p.Unsettled {
		t.Errorf("unsettled %v, %v", p.Unsettled, err)
	}
	s.agenda = newAgenda()
	s.settleWhereItIs(f.Subject)
	if s.agenda.size() != 1 {
		t.Errorf("%d items owed", s.agenda.size())
	}
}
