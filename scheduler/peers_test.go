package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// group is what the workers of a test tell each other. Package cluster's tests are about how
// that travels.
type group struct {
	mu    sync.Mutex
	facts map[store.FactKey]*store.Shared
	all   []*peer
}

// peer is one worker's place in a group.
type peer struct {
	*group
	s       *Scheduler
	wait    func(repository string) time.Duration
	took    int
	refused map[string]int
	hints   []string
}

func (p *peer) Ask(_ context.Context, keys []store.FactKey) map[store.FactKey]*store.Shared {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[store.FactKey]*store.Shared{}
	for _, k := range keys {
		if f := p.facts[k]; f != nil {
			found[k] = f
		}
	}
	return found
}

func (p *peer) Tell(f *store.Shared) {
	b, err := f.Marshal()
	if err != nil {
		panic(err)
	}
	if f, err = store.UnmarshalShared(b); err != nil {
		panic(err)
	}
	p.mu.Lock()
	p.facts[f.Key()] = f
	all := slices.Clone(p.all)
	p.mu.Unlock()
	for _, other := range all {
		if other != p && other.s != nil {
			other.s.FactArrived(f.Subject)
		}
	}
}

func (p *peer) Wait(repository string, _ time.Time, _ bool) time.Duration {
	if p.wait == nil {
		return 0
	}
	return p.wait(repository)
}

func (p *peer) Rank(repository string) int {
	if p.Wait(repository, time.Time{}, false) > 0 {
		return 1
	}
	return 0
}

func (p *peer) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *peer) Took()               { p.note(func() { p.took++ }) }
func (p *peer) Leave(reason string) { p.note(func() { p.refused[reason]++ }) }
func (p *peer) HintTrust()          { p.note(func() { p.hints = append(p.hints, "") }) }

func (p *peer) HintRepository(name string, hurry bool) {
	p.note(func() { p.hints = append(p.hints, name) })
	for _, other := range p.all {
		if other != p && other.s != nil {
			other.s.HintRepository(name, hurry)
		}
	}
}

// join makes a world over the storage of the first that takes part in a group.
func (g *group) join(t *testing.T, st *signtest.Storage) (*world, *peer) {
	t.Helper()
	w := newWorld(t)
	if st != nil {
		w.st = st
	}
	if g.facts == nil {
		g.facts = map[store.FactKey]*store.Shared{}
	}
	p := &peer{group: g, refused: map[string]int{}}
	g.all = append(g.all, p)
	w.edit = func(c *Config) { c.Peers = p }
	return w, p
}

// sample is an image of each kind, in repositories of their own.
func sample(w *world) (all []signtest.Image) {
	k, stranger, c := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P384), signtest.NewRoot(signtest.CertOptions{CommonName: "acme"})
	w.st.TrustKey("k.pub", k)
	w.st.TrustCert("ca:acme", "root.pem", c.Cert())
	sign := []func(signtest.Image){
		func(img signtest.Image) { w.st.SignSimple(img, k, simple) },
		func(img signtest.Image) { w.st.SignBundle(img, k, simple) },
		func(img signtest.Image) {
			w.st.SignNotation(img, c.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
		},
		func(img signtest.Image) { w.st.SignSimple(img, stranger, simple) },
		func(img signtest.Image) {
			w.st.SignNotation(img, signtest.NewRoot(signtest.CertOptions{CommonName: "acme"}).Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
		},
		func(img signtest.Image) { w.st.Attest(img, k, simple) },
		func(img signtest.Image) { w.st.SignSimple(img, k, simple); w.st.SignSimple(img, stranger, simple) },
		func(signtest.Image) {},
	}
	for n, f := range sign {
		img := w.st.Content("team/app"+string(rune('a'+n)), "1", string(rune('a'+n)))
		f(img)
		all = append(all, img)
	}
	return all
}

// answers are all answers of a world, without what differs between workers by right.
func (w *world) answers() string {
	w.t.Helper()
	r, err := cache.OpenReader(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	defer snap.Close()
	var all []cache.Image
	err = snap.Repositories(func(repo string) error {
		return snap.Each(repo, func(img cache.Image) error {
			img.AsOf = time.Time{}
			for i := range img.SignatureInfo {
				sig := &img.SignatureInfo[i]
				sig.Since, sig.VerifiedAt = nil, nil
				if sig.Reason == trust.SignerRemoved { // which depends on what was verified before it left
					sig.Reason, sig.Detail = trust.NoTrustedKey, ""
				}
				if sig.Reason == trust.NoTrustedKey {
					sig.Detail = ""
				}
			}
			all = append(all, img)
			return nil
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// stateOf is the state of an image's answer.
func (w *world) stateOf(img signtest.Image) string {
	a := w.image(img)
	return a.State()
}

func TestWhatOthersHaveVerifiedIsTaken(t *testing.T) {
	g := &group{}
	first, _ := g.join(t, nil)
	sample(first)
	stop := first.run()
	verified := first.last.Work().Verified
	stop()
	second, p := g.join(t, first.st)
	stop = second.run()
	if work := second.last.Work(); work.Verified != 0 || work.Taken != verified || verified == 0 || p.took != int(verified) || len(p.refused) > 0 {
		t.Errorf("of %d: %+v, refused %v", verified, work, p.refused)
	}
	stop()
	if a, b := first.answers(), second.answers(); a != b {
		t.Errorf("answers differ:\n%s\n%s", a, b)
	}
	// What was taken leads a new key to its signatures, as what was verified does.
	k := signtest.NewKey(signtest.P256)
	img := second.st.Content("late", "1", "late")
	second.st.SignSimple(img, k, simple)
	alone := newWorld(t)
	alone.st = first.st
	alone.scan()
	for _, w := range []*world{first, second} {
		stop := w.run()
		w.want(img, "untrusted")
		w.st.TrustKey("late.pub", k)
		if err := w.last.ReloadNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new key counts", func() bool { return w.stateOf(img) == "trusted" })
		stop()
		w.st.Untrust("_cosign/late.pub")
	}
}

// A fact that is about something else than what is here, or says what only holds elsewhere, is
// not taken: the signature is verified here.
func TestWhatIsNotTaken(t *testing.T) {
	type edit func(s *store.Shared)
	lie := func(s *store.Shared) { // it says the opposite
		v := &s.Verdicts[0]
		if v.Matched() {
			v.Grounds, v.Reason = nil, trust.NoTrustedKey
		}
	}
	for name, c := range map[string]struct {
		edit   edit
		reason string
	}{
		"another size":                  {func(s *store.Shared) { s.Size++ }, refusedPlace},
		"another media type":            {func(s *store.Shared) { s.MediaType = "application/vnd.docker.distribution.manifest.v2+json" }, refusedPlace},
		"another carrier":               {func(s *store.Shared) { s.Carrier = trust.CosignReferrer }, refusedPlace},
		"another layer":                 {func(s *store.Shared) { s.Verdicts[0].Layer[0]++ }, refusedPlace},
		"one layer more":                {func(s *store.Shared) { s.Verdicts = append(s.Verdicts, s.Verdicts[0]) }, refusedPlace},
		"no layer":                      {func(s *store.Shared) { s.Verdicts = nil }, refusedPlace},
		"another policy":                {func(s *store.Shared) { s.Verdicts[0].Policy[0]++ }, refusedPlace},
		"another epoch":                 {func(s *store.Shared) { s.Epoch++ }, refusedUndecided},
		"a verdict of another epoch":    {func(s *store.Shared) { s.Verdicts[0].Epoch-- }, refusedPlace},
		"no, under another trust store": {func(s *store.Shared) { lie(s); s.TrustStore[0]++ }, refusedTrust},
		"a signer that is not in force": {func(s *store.Shared) { s.Verdicts[0].Grounds[0].Signers[0][0]++ }, refusedSigner},
		"a second one that is not": {func(s *store.Shared) {
			s.Verdicts[0].Grounds[0].Signers = append(s.Verdicts[0].Grounds[0].Signers, trust.SignerID{1})
		}, refusedSigner},
		"nothing":                          {func(s *store.Shared) { s.Verdicts[0].Grounds = nil }, refusedUndecided},
		"a ground without a signer":        {func(s *store.Shared) { s.Verdicts[0].Grounds[0].Signers = nil }, refusedSigner},
		"yes and no":                       {func(s *store.Shared) { s.Verdicts[0].Reason = trust.Malformed }, refusedUndecided},
		"what belongs to a place, missing": {func(s *store.Shared) { lie(s); s.Verdicts[0].Reason = trust.BlobMissing }, refusedUndecided},
		"what belongs to a place, other":   {func(s *store.Shared) { lie(s); s.Verdicts[0].Reason = trust.DigestMismatch }, refusedUndecided},
		"what belongs to a place, error":   {func(s *store.Shared) { lie(s); s.Verdicts[0].Reason = trust.IOError }, refusedUndecided},
		"a limit":                          {func(s *store.Shared) { lie(s); s.Verdicts[0].Reason = trust.LimitExceeded }, refusedUndecided},
	} {
		t.Run(name, func(t *testing.T) {
			g := &group{}
			first, _ := g.join(t, nil)
			k := signtest.NewKey(signtest.P256)
			first.st.TrustKey("k.pub", k)
			img := first.st.Content("a", "1", "x")
			first.st.SignSimple(img, k, simple)
			first.run()()
			for _, f := range g.facts {
				c.edit(f)
			}
			second, p := g.join(t, first.st)
			second.run()()
			second.want(img, "trusted")
			if work := second.last.Work(); work.Verified != 1 || work.Taken != 0 || !maps.Equal(p.refused, map[string]int{c.reason: 1}) {
				t.Errorf("%+v, refused %v", work, p.refused)
			}
		})
	}
}

// Yes by a key counts whatever else the other worker trusts; no, and what may have further
// grounds here, does not.
func TestFactsUnderAnotherTrustStore(t *testing.T) {
	g := &group{}
	first, _ := g.join(t, nil)
	images := sample(first)
	first.run()()
	first.st.TrustKey("other.pub", signtest.NewKey(signtest.P256))
	second, p := g.join(t, first.st)
	second.run()()
	if work := second.last.Work(); work.Taken == 0 || work.Verified == 0 || p.refused[refusedTrust] == 0 || len(p.refused) != 1 {
		t.Errorf("%+v, refused %v", work, p.refused)
	}
	second.want(images[0], "trusted")
	second.want(images[1], "trusted")
	alone := newWorld(t)
	alone.st = first.st
	alone.scan()
	if a, b := alone.answers(), second.answers(); a != b {
		t.Errorf("answers differ:\n%s\n%s", a, b)
	}
}

// What is stored here counts, whatever was stored there.
func TestWhatIsTakenIsReadHere(t *testing.T) {
	for name, damage := range map[string]func(w *world, img signtest.Image, layer ocispec.Descriptor){
		"a layer is missing":       func(w *world, img signtest.Image, layer ocispec.Descriptor) { w.st.RemoveBlob(img.Repo, layer) },
		"a layer has other bytes":  func(w *world, img signtest.Image, layer ocispec.Descriptor) { w.st.Corrupt(img.Repo, layer) },
		"the image is other bytes": func(w *world, img signtest.Image, _ ocispec.Descriptor) { w.st.Corrupt(img.Repo, img.Descriptor) },
	} {
		t.Run(name, func(t *testing.T) {
			g := &group{}
			first, _ := g.join(t, nil)
			k := signtest.NewKey(signtest.P256)
			first.st.TrustKey("k.pub", k)
			img := first.st.Content("a", "1", "x")
			sig := first.st.SignSimple(img, k, simple)
			first.run()()
			first.want(img, "trusted")
			damage(first, img, first.st.Signatures(sig)[0])
			second, _ := g.join(t, first.st)
			second.run()()
			alone := newWorld(t)
			alone.st = first.st
			alone.scan()
			if state := second.stateOf(img); state == "trusted" || state != alone.stateOf(img) {
				t.Errorf("%s; alone it is %s", state, alone.stateOf(img))
			}
		})
	}
}

// Where it is another's turn a signature waits, for no longer than it is told, also over a
// restart; other work goes on meanwhile.
func TestWhatIsAnothersTurnWaits(t *testing.T) {
	g := &group{}
	first, _ := g.join(t, nil)
	images := sample(first)
	second, p := g.join(t, first.st)
	var mu sync.Mutex
	wait := time.Hour
	p.wait = func(name string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if name == images[0].Repo {
			return wait
		}
		return 0
	}
	s := second.scheduler()
	p.s = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "the others are decided", func() bool {
		a, err := second.get(images[1])
		return err == nil && a.State() == "trusted"
	})
	eventually(t, "it waits", func() bool { return s.Waiting() == 1 })
	eventually(t, "it reads pending", func() bool {
		a, err := second.get(images[0])
		return err == nil && a.State() == "pending" && a.SignatureInfo[0].Reason == trust.New
	})
	select {
	case <-s.FirstPass():
		t.Error("the first pass is over before all is decided")
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if place, _, err := second.store.Place(images[0].Repo); err != nil || !place.Unsettled {
		t.Errorf("what waits is forgotten at a restart: %+v, %v", place, err)
	}

	// Started again, it still waits; then the other tells.
	s = second.scheduler()
	p.s = s
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	eventually(t, "it waits again", func() bool { return s.Waiting() == 1 })
	first.run()()
	eventually(t, "what was told is taken", func() bool { return second.stateOf(images[0]) == "trusted" })
	if work := s.Work(); work.Verified != 0 || work.Taken == 0 {
		t.Errorf("%+v", work)
	}
	<-s.FirstPass()
	eventually(t, "nothing waits", func() bool { return s.Waiting() == 0 })

	// Nobody tells of a new one: it is verified here when the wait is over.
	img := second.st.Content(images[0].Repo, "2", "new")
	k := signtest.NewKey(signtest.P256)
	second.st.SignSimple(img, k, simple)
	s.LookAt(img.Repo)
	eventually(t, "it waits", func() bool { return s.Waiting() == 1 })
	mu.Lock()
	wait = 0
	mu.Unlock()
	s.FactArrived(img.Trust()) // some fact: it looks again, and the wait is over
	eventually(t, "it is decided", func() bool { a, err := second.get(img); return err == nil && a.State() == "untrusted" })
	if work := s.Work(); work.Verified != 1 {
		t.Errorf("%+v", work)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What a worker knows of revocation is not overridden, nor made worse.
func TestWhatIsKnownHereStays(t *testing.T) {
	w, _ := (&group{}).join(t, nil)
	c := signtest.NewRoot(signtest.CertOptions{CommonName: "acme"})
	w.st.TrustCert("ca:acme", "root.pem", c.Cert())
	img := w.st.Content("a", "1", "x")
	w.st.SignNotation(img, c.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	w.run()()
	s := w.scheduler()
	if err := s.ReloadNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	row, _, err := w.store.Row("a", img.Trust())
	if err != nil {
		t.Fatal(err)
	}
	in, ref := s.trust.Load(), &row.References[0]
	r, err := s.open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := &opened{Repository: r, name: "a", in: in}
	manifest, err := r.Manifest(t.Context(), ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	context, _ := in.context("a", &row, ref)
	good, ok, err := w.store.Fact(img.Trust(), ref.Digest, context)
	if err != nil || !ok || !good.Matched() {
		t.Fatal(good, ok, err)
	}
	now := time.Now().Unix()
	until := func(f *store.Fact, at int64) store.Fact { // it rests on an answer
		out := *f
		out.Verdicts = slices.Clone(f.Verdicts)
		out.Verdicts[0].Grounds = slices.Clone(f.Verdicts[0].Grounds)
		out.Verdicts[0].Grounds[0].Until, out.Verdicts[0].Grounds[0].Limit = at, trust.RevocationUnknown
		return out
	}
	says := func(f *store.Fact, r trust.Reason, until int64) store.Fact {
		out := *f
		out.Verdicts = slices.Clone(f.Verdicts)
		out.Verdicts[0].Grounds, out.Verdicts[0].Reason, out.Verdicts[0].RevocationUntil = nil, r, until
		return out
	}
	ofEpoch := func(f store.Fact) store.Fact {
		f.Epoch--
		return f
	}
	for name, c := range map[string]struct {
		here, there store.Fact
		refused     string
	}{
		"the same":                       {good, good, ""},
		"what a service said there":      {good, until(&good, now+2000), refusedUndecided},
		"and nothing is known here":      {says(&good, "", 0), until(&good, now+2000), refusedUndecided},
		"what a service said here":       {until(&good, now+2000), good, refusedService},
		"and it is over":                 {until(&good, now-2000), good, refusedService},
		"revoked here":                   {says(&good, trust.Revoked, now+1000), good, refusedRevoked},
		"revoked here, long ago":         {says(&good, trust.Revoked, now-1000), good, refusedRevoked},
		"revoked here, by another epoch": {ofEpoch(says(&good, trust.Revoked, 0)), good, refusedRevoked},
		"by another epoch, no":           {ofEpoch(says(&good, trust.Malformed, 0)), good, ""},
		"revoked there":                  {says(&good, "", 0), says(&good, trust.Revoked, now+2000), refusedUndecided},
		"no there, and yes here":         {good, says(&good, trust.Malformed, 0), refusedWorse},
		"yes there, and no here":         {says(&good, trust.NoTrustedKey, 0), good, ""},
		"nothing here, no there":         {says(&good, "", 0), says(&good, trust.NoTrustedKey, 0), ""},
	} {
		c.here.Trust = in.generation
		if _, err := w.store.Commit(store.Batch{Facts: []store.Fact{c.here}}); err != nil {
			t.Fatal(err)
		}
		shared := &store.Shared{Fact: c.there, Carrier: ref.Carrier, MediaType: row.MediaType, Size: row.Size, TrustStore: in.store.ID()}
		refused, err := s.refuses(o, &row, ref, manifest, shared)
		if err != nil || refused != c.refused {
			t.Errorf("%s: refused %q, %v, want %q", name, refused, err, c.refused)
		}
	}
}

// What revocation services have a say in is told to nobody, also where the certificate or the
// signature ends before their answer does, so that its dates do not show it.
func TestWhatServicesSayIsToldToNobody(t *testing.T) {
	g := &group{}
	w, p := g.join(t, nil)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "acme"})
	r := signtest.NewResponder(root)
	w.asks = by(r)
	soon := time.Now().Add(20 * time.Minute)
	w.st.TrustCert("ca:acme", "root.pem", root.Cert())
	var images []signtest.Image
	for i, leaf := range []*signtest.Chain{root.Leaf(signtest.CertOptions{OCSP: responder}), root.Leaf(signtest.CertOptions{OCSP: responder, NotAfter: soon})} {
		for k, o := range []signtest.NotationOptions{{}, {Expiry: soon}} {
			img := w.st.Content(fmt.Sprint("r", i), fmt.Sprint(k), fmt.Sprint(i, k))
			w.st.SignNotation(img, leaf, o)
			images = append(images, img)
		}
	}
	plain := w.st.Content("plain", "1", "plain")
	w.st.SignNotation(plain, root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	stop := w.run()
	for _, img := range append(images, plain) {
		eventually(t, "it is decided", func() bool { a, err := w.get(img); return err == nil && a.State() == "trusted" })
	}
	stop()
	if len(r.Served()) == 0 {
		t.Error("nobody was asked")
	}
	p.note(func() {
		if len(p.facts) != 1 {
			t.Errorf("%d facts are told, not the one about the chain without services", len(p.facts))
		}
	})
}

// Three workers that take turns answer as one alone after each step of a random history, with
// clocks that jump.
func TestAGroupAnswersAsOneAlone(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	g := &group{}
	var members []*world
	var clocks []*atomic.Int64
	alone := newWorld(t)
	for i := range 3 {
		w, p := g.join(t, alone.st)
		clock := &atomic.Int64{}
		now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
		p.wait = func(name string) time.Duration { // one in three is this one's turn, the others' for a moment
			if int(name[len(name)-1])%3 == i {
				return 0
			}
			return time.Duration(rand.IntN(200)) * time.Millisecond
		}
		edit := w.edit
		w.edit = func(c *Config) { edit(c); c.Now = now }
		w.opts.Now, w.opts.Lease = now, -1 // the reader's clock, which the lease counts by, does not jump
		members, clocks = append(members, w), append(clocks, clock)
	}
	alone.st.Content("team/app0", "first", "first") // or nobody knows which layout it is
	for i, w := range append(members, alone) {
		w.run()
		if i < 3 {
			g.all[i].note(func() { g.all[i].s = w.last })
		}
	}
	keys := []*signtest.Key{signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P384), signtest.NewKey(signtest.Ed25519)}
	c := signtest.NewRoot(signtest.CertOptions{CommonName: "acme"})
	steps := 25
	if os.Getenv("TRUST_WORKER_TORTURE") == "1" {
		steps = 1000
	}
	trusted := map[string]bool{}
	for n := range steps {
		repo := fmt.Sprintf("team/app%d", rng.IntN(6))
		what := ""
		switch rng.IntN(6) {
		case 0, 1:
			img := alone.st.Content(repo, fmt.Sprint(n), fmt.Sprint(n))
			alone.st.SignSimple(img, keys[rng.IntN(3)], signtest.CosignOptions{Referrer: rng.IntN(2) == 0})
			if rng.IntN(3) == 0 {
				alone.st.SignNotation(img, c.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
			}
			what = "a push"
		case 2, 3:
			name := fmt.Sprintf("key%d.pub", rng.IntN(3))
			if what = "key removed"; trusted[name] {
				alone.st.Untrust("_cosign/" + name)
			} else {
				what = "key added"
				alone.st.TrustKey(name, keys[name[3]-'0'])
			}
			trusted[name] = !trusted[name]
		case 4:
			if what = "certificate removed"; trusted["root.pem"] {
				alone.st.Untrust("_notation/truststore/x509/ca/acme/root.pem")
			} else {
				what = "certificate added"
				alone.st.TrustCert("ca:acme", "root.pem", c.Cert())
			}
			trusted["root.pem"] = !trusted["root.pem"]
		case 5:
			i := rng.IntN(3)
			clocks[i].Store(int64(time.Duration(rng.IntN(7200)-3600) * time.Second))
			what = "a clock that jumps"
		}
		for _, w := range append(members, alone) {
			if err := w.last.ReloadNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.last.LookAt(repo)
		}
		end := time.Now().Add(time.Minute)
		for {
			want := alone.answers()
			agree := !strings.Contains(want, `"pending"`)
			for _, w := range members {
				agree = agree && w.answers() == want
			}
			if agree {
				break
			}
			if time.Now().After(end) {
				for i, w := range members {
					if got := w.answers(); got != want {
						t.Logf("member %d (clock %v) answers\n%s\nand the one alone\n%s", i, time.Duration(clocks[i].Load()), got, want)
					}
				}
				t.Fatalf("step %d, %s: they never agree", n, what)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	var verified, taken int64
	for _, w := range members {
		verified, taken = verified+w.last.Work().Verified, taken+w.last.Work().Taken
	}
	t.Logf("%d verified by three, %d taken; %d verified by the one alone", verified, taken, alone.last.Work().Verified)
	if taken == 0 {
		t.Error("nothing was taken")
	}
}

// Changes of trust, and of repositories after the first pass, are told to the others by whoever
// noticed them, and by nobody who was told.
func TestHintsToOthers(t *testing.T) {
	g := &group{}
	w, p := g.join(t, nil)
	w.st.Content("a", "1", "x")
	other, _ := g.join(t, w.st)
	defer w.run()()
	defer other.run()()
	g.all[1].note(func() { g.all[1].s = other.last })
	g.all[0].note(func() { g.all[0].s = w.last })
	told := func(p *peer, what string) (n int) {
		p.note(func() {
			for _, hint := range p.hints {
				if hint == what {
					n++
				}
			}
		})
		return n
	}
	for _, p := range g.all {
		if told(p, "")+told(p, "a") > 0 {
			t.Errorf("the first load and the first pass are told: %q", p.hints)
		}
	}
	w.st.TrustKey("k.pub", signtest.NewKey(signtest.P256))
	if err := w.last.ReloadNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change of trust is told once", func() bool { return told(p, "") == 1 })
	other.last.HintTrust()
	same := func() bool { return other.last.TrustStore().ID() == w.last.TrustStore().ID() }
	eventually(t, "the other has the same trust", same)
	img := w.st.Content("a", "2", "y")
	w.last.LookAt("a") // as an event of the registry would
	eventually(t, "the other has it", func() bool { _, err := other.get(img); return err == nil })
	if told(p, "a") != 1 || told(g.all[1], "a") != 0 {
		t.Errorf("told %q and %q", p.hints, g.all[1].hints)
	}

	// An index of which a child is not there has no stamp: it is read again at each look, and
	// the looks make no further ones.
	w.st.Batch(func() {
		child := w.st.Content("sparse", "child", "z")
		w.st.Index("sparse", "index", child)
		if !w.st.Distribution {
			w.st.RemoveBlob("sparse", child.Descriptor)
		}
	})
	w.last.LookAt("sparse")
	eventually(t, "both have read it", func() bool {
		_, known, err := w.store.Place("sparse")
		_, too, err2 := other.store.Place("sparse")
		return known && too && err == nil && err2 == nil
	})
	time.Sleep(time.Second) // for the looks that follow
	if n := told(p, "sparse") + told(g.all[1], "sparse"); n != 1 {
		t.Errorf("it was told of %d times", n)
	}
	w.last.LookAt("none") // no repository
	if told(p, "none") != 0 {
		t.Error("a name that is no repository is told")
	}
}

// A fact that came between the question and the wait ends the wait, one that came before does
// not; each of several repositories with the image is woken.
func TestAFactBetweenQuestionAndWait(t *testing.T) {
	w, _ := (&group{}).join(t, nil)
	s := w.scheduler()
	img := trust.SumOf([]byte("x"))
	owed := func(name string) bool {
		s.agenda.mu.Lock()
		defer s.agenda.mu.Unlock()
		return s.agenda.owed[item{repository: name}] != nil
	}
	before := time.Now()
	s.FactArrived(img)
	for _, name := range []string{"a", "b"} {
		s.await(&deferred{name: name, since: before, asked: before, wait: time.Hour, images: []trust.Digest{img}}, bulk)
	}
	s.await(&deferred{name: "c", since: before, asked: time.Now(), wait: time.Hour, images: []trust.Digest{img}}, bulk)
	eventually(t, "both are looked at", func() bool { return owed("a") && owed("b") })
	if owed("c") || s.Waiting() != 1 {
		t.Errorf("%d wait", s.Waiting())
	}
	s.FactArrived(trust.SumOf([]byte("y")))
	left := func() int {
		s.waits.mu.Lock()
		defer s.waits.mu.Unlock()
		return len(s.waits.about) + len(s.waits.by)
	}
	if n := left(); n != 2 {
		t.Errorf("%d waits and images of them", n)
	}
	s.FactArrived(img)
	eventually(t, "the third is looked at", func() bool { return owed("c") })
	eventually(t, "nothing is left of the waits", func() bool { return left() == 0 })
}

// What cannot be read when its wait is over ends no wait, and keeps nothing waiting.
func TestWhatWaitsMayBecomeUnreadable(t *testing.T) {
	g := &group{}
	w, p := g.join(t, nil)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("a", "1", "x")
	w.st.SignSimple(img, k, simple)
	here, away := w.st.Repository("a"), filepath.Join(w.st.Dir, "_away")
	var once sync.Once
	p.wait = func(string) time.Duration {
		wait := time.Duration(0)
		once.Do(func() { // the first time, and by then it is a link that leads out
			wait = 50 * time.Millisecond
			if err := os.Rename(here, away); err != nil {
				t.Error(err)
			}
			if err := os.Symlink("/", here); err != nil {
				t.Error(err)
			}
		})
		return wait
	}
	s := w.scheduler()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.FirstPass()
	if s.Waiting() != 0 {
		t.Errorf("%d wait", s.Waiting())
	}
	if err := os.Remove(here); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, here); err != nil {
		t.Fatal(err)
	}
	s.Rescan()
	eventually(t, "it is decided", func() bool { a, err := w.get(img); return err == nil && a.State() == "trusted" })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
