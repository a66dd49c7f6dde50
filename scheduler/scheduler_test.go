package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"trust-worker/cache"
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

// A removal needs no verification to be safe; what follows looks whether
// another signer verifies, and a signer that comes back is believed again.
func TestRemovalIsAJoin(t *testing.T) {
	w := newWorld(t)
	a, b := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.st.TrustKey("a.pub", a)
	w.st.TrustKey("b.pub", b)
	img := w.st.Image("a", "1")
	w.st.SignSimple(img, a, simple)
	w.scan()
	w.want(img, "trusted")
	w.st.Untrust("_cosign/a.pub")
	w.scan()
	w.want(img, "untrusted")
	w.reason(img, trust.SignerRemoved)
	w.st.TrustKey("again.pub", a)
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("a signer that comes back cost %d verifications", work.Calls)
	}
	w.want(img, "trusted")
}

// Adding a key costs what it signed: here 3 of 60 signatures.
func TestAddingAKeyVerifiesItsCandidatesAlone(t *testing.T) {
	w := newWorld(t)
	trusted := []*signtest.Key{signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)}
	for i, k := range trusted {
		w.st.TrustKey(fmt.Sprintf("k%d.pub", i), k)
	}
	late := signtest.NewKey(signtest.P256)
	var its []signtest.Image
	for i := range 20 {
		img := w.st.Content(fmt.Sprintf("r%d", i%5), fmt.Sprint(i), fmt.Sprint(i))
		for range 2 {
			w.st.SignSimple(img, signtest.NewKey(signtest.P256), simple)
		}
		if i < 3 {
			w.st.SignBundle(img, late, simple)
			its = append(its, img)
		}
	}
	w.scan()
	w.want(its[0], "untrusted")
	w.st.TrustKey("late.pub", late)
	if work := w.scan(); work.Verified != 3 || work.Calls != 3 {
		t.Errorf("%+v, want the 3 signatures that the key made", work)
	}
	for _, img := range its {
		w.want(img, "trusted")
	}
}

// The first key of a curve is a pass over its class, and finds everything.
func TestTheFirstKeyOfEachKind(t *testing.T) {
	for _, kind := range signtest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			w.st.TrustKey("other.pub", signtest.NewKey(signtest.P256))
			w.st.TrustKey("other2.pub", signtest.NewKey(signtest.P256))
			k := signtest.NewKey(kind)
			one, two, three := w.st.Content("a", "1", "1"), w.st.Content("a", "2", "2"), w.st.Content("b", "1", "3")
			w.st.SignSimple(one, k, simple)
			w.st.SignBundle(two, k, simple)
			w.st.SignSimple(three, k, signtest.CosignOptions{Referrer: true})
			w.scan()
			w.want(one, "untrusted")
			w.st.TrustKey("first.pub", k)
			w.scan()
			for _, img := range []signtest.Image{one, two, three} {
				w.want(img, "trusted")
			}
		})
	}
}

// A second key of a curve needs no pass over the class.
func TestTheSecondKeyOfACurveIsFoundByItsCandidates(t *testing.T) {
	w := newWorld(t)
	first, second := signtest.NewKey(signtest.P384), signtest.NewKey(signtest.P384)
	img, other := w.st.Content("a", "1", "1"), w.st.Content("a", "2", "2")
	w.st.SignSimple(img, second, simple)
	for range 10 {
		w.st.SignSimple(other, signtest.NewKey(signtest.P384), simple)
	}
	w.scan()
	w.st.TrustKey("first.pub", first)
	w.scan()
	w.st.TrustKey("second.pub", second)
	if work := w.scan(); work.Verified != 1 {
		t.Errorf("%+v, want the one signature that the key made", work)
	}
	w.want(img, "trusted")
}

func TestACertificateConcernsTheChainsThatHoldIt(t *testing.T) {
	w := newWorld(t)
	root, stranger := signtest.NewRoot(signtest.CertOptions{CommonName: "root"}), signtest.NewRoot(signtest.CertOptions{CommonName: "stranger"})
	leaf := root.Intermediate(signtest.CertOptions{CommonName: "ca"}).Leaf(signtest.CertOptions{CommonName: "leaf"})
	img, other := w.st.Content("a", "1", "1"), w.st.Content("b", "1", "2")
	w.st.SignNotation(img, leaf, signtest.NotationOptions{})
	for range 5 {
		w.st.SignNotation(other, stranger.Leaf(signtest.CertOptions{}), signtest.NotationOptions{COSE: true})
	}
	w.scan()
	w.want(img, "untrusted")
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.scan()
	w.want(img, "trusted")
	w.want(other, "untrusted")
	if got := w.image(img).SignatureInfo[0].Author; got != leaf.Cert().Subject.String() {
		t.Errorf("author %q", got)
	}
	w.st.TrustCert("ca:acme", "ca.pem", leaf.Certs[1]) // another anchor of the same chain
	if work := w.scan(); work.Verified != 1 {
		t.Errorf("%+v, want the one chain that holds it", work)
	}
	w.st.Untrust("_notation/truststore/x509/ca/acme/root.pem")
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("rotating one of two anchors cost %+v", work)
	}
	w.want(img, "trusted")
}

func TestPolicyEdits(t *testing.T) {
	w := newWorld(t)
	root := signtest.NewRoot(signtest.CertOptions{})
	expired := signtest.NotationOptions{Time: time.Now().Add(-2 * time.Hour), Expiry: time.Now().Add(-time.Hour)}
	img, other := w.st.Content("a", "1", "1"), w.st.Content("b", "1", "2")
	w.st.SignNotation(img, root.Leaf(signtest.CertOptions{}), expired)
	w.st.SignNotation(other, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	w.scan()
	w.want(img, "expired")
	w.want(other, "trusted")
	policy := func(level, stores, scopes string) {
		w.st.Policy(fmt.Sprintf(`{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":[%s],"signatureVerification":{"level":%q},
			"trustStores":[%s],"trustedIdentities":["*"]}]}`, scopes, level, stores))
	}
	policy("permissive", `"ca:acme"`, `"*"`)
	w.scan()
	w.want(img, "trusted")
	if notes := w.image(img).SignatureInfo[0].Notes; !slices.Contains(notes, trust.ExpiryLogged) {
		t.Errorf("notes %v", notes)
	}
	policy("permissive", `"ca:acme"`, `"registry.example/a"`)
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("scopes alone cost %+v", work)
	}
	w.want(img, "trusted")
	w.reason(other, trust.NoPolicy)
	policy("permissive", `"ca:other"`, `"*"`)
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("un-naming a store cost %+v", work)
	}
	w.reason(img, trust.SignerRemoved)
	policy("audit", `"ca:acme"`, `"*"`)
	w.scan()
	w.reason(img, trust.PolicyDoesNotVerify)
	w.st.Policy("{")
	w.scan()
	w.reason(img, trust.PolicyInvalid)
	policy("strict", `"ca:acme"`, `"*"`)
	if work := w.scan(); work.Calls != 0 {
		t.Errorf("going back to a known meaning cost %+v", work)
	}
	w.want(img, "expired")
	w.want(other, "trusted")
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
// after a bounded number of that one's (I4): by work done, not by time.
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
	w.opts = cache.Options{MaxFiled: 10}
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

// A key that comes while the repository is away concerns what the repository
// held as well: its facts are kept, but not what they say of that key.
func TestKeyThatComesWhileTheRepositoryIsAway(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("other.pub", signtest.NewKey(signtest.P256)) // so that signatures are filed for the curve
	img := w.st.Image("repo", "1")
	w.st.SignSimple(img, key, signtest.CosignOptions{})
	w.scan()
	w.want(img, "untrusted")
	here, away := filepath.Join(w.st.Dir, "repo"), filepath.Join(t.TempDir(), "repo")
	if err := os.Rename(here, away); err != nil {
		t.Fatal(err)
	}
	w.scan()
	w.st.TrustKey("key.pub", key)
	w.scan()
	if err := os.Rename(away, here); err != nil {
		t.Fatal(err)
	}
	w.scan()
	w.want(img, "trusted")
}

// The same when its bytes cannot be read at that moment.
func TestKeyThatComesWhileTheSignatureCannotBeRead(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("other.pub", signtest.NewKey(signtest.P256))
	img := w.st.Image("repo", "1")
	signature := w.st.SignSimple(img, key, signtest.CosignOptions{})
	stop := w.run()
	w.want(img, "untrusted")
	blob := filepath.Join(w.st.Dir, "repo", "blobs", "sha256", w.st.Signatures(signature)[0].Digest.Encoded())
	if err := os.Rename(blob, blob+".away"); err != nil {
		t.Fatal(err)
	}
	w.st.TrustKey("key.pub", key)
	w.last.Reload()
	eventually(t, "it reads blob-missing", func() bool {
		a := w.image(img)
		return a.SignatureInfo[0].Reason == trust.BlobMissing
	})
	if err := os.Rename(blob+".away", blob); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is trusted once it can be read", func() bool { a := w.image(img); return a.State() == "trusted" })
	stop()
}

// A key that leaves and is back before the pass of its leaving was made is a new
// one: what was pushed meanwhile is its as well.
func TestKeyThatIsBackBeforeItsLeavingWasWorkedOff(t *testing.T) {
	w := newWorld(t)
	key := signtest.NewKey(signtest.P256)
	w.st.TrustKey("other.pub", signtest.NewKey(signtest.P256))
	w.st.TrustKey("key.pub", key)
	w.st.SignSimple(w.st.Image("repo", "1"), key, signtest.CosignOptions{})
	w.scan()
	w.st.Untrust("_cosign/key.pub")
	img := w.st.Image("repo", "2")
	w.st.SignSimple(img, key, signtest.CosignOptions{})
	s, ctx := w.scheduler(), context.Background()
	if err := s.reloadTrust(ctx); err != nil {
		t.Fatal(err)
	}
	s.quarantine.open(w.store)
	r, err := s.scanTurn(ctx, "repo", &work{scan: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commit([]result{r}); err != nil { // and the process ends
		t.Fatal(err)
	}
	w.st.TrustKey("key.pub", key)
	w.scan()
	w.want(img, "trusted")
}
