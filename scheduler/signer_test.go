package scheduler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Keys and certificates that come and go.

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
	w.reason(img, trust.PolicyInvalid) // nothing is in the store that it names now
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
	here, away := w.st.Repository("repo"), filepath.Join(t.TempDir(), "repo")
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
	blob := w.st.BlobPath("repo", w.st.Signatures(signature)[0])
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
	if err := errors.Join(s.reloadTrust(ctx), s.followTrust()); err != nil {
		t.Fatal(err)
	}
	s.quarantine.open(w.store, s.log)
	r, err := s.scanTurn(ctx, "repo", &work{scan: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.commit([]result{r}); err != nil { // and the process ends
		t.Fatal(err)
	}
	w.st.TrustKey("key.pub", key)
	w.scan()
	w.want(img, "trusted")
}
