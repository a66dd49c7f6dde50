package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"trust-worker/internal/natstest"
	"trust-worker/internal/signtest"
)

// fill stores repositories with images that a key has signed, and trusts the key.
func fill(f *fleet, repositories, images int) (k *signtest.Key, all []signtest.Image) {
	k = signtest.NewKey(signtest.P256)
	f.st.TrustKey("team.pub", k)
	f.st.Batch(func() {
		for r := range repositories {
			for n := range images {
				img := f.st.Content(fmt.Sprintf("team/app%d", r), fmt.Sprint(n), fmt.Sprint(r, n))
				f.st.SignSimple(img, k, signtest.CosignOptions{})
				all = append(all, img)
			}
		}
	})
	return k, all
}

// Three workers answer as one that is alone, and one of them has verified each signature.
func TestEachIsVerifiedOnce(t *testing.T) {
	f := newFleet(t, 3, 3)
	f.startAll()
	f.together()
	_, all := fill(f, 30, 10)
	f.agree("after a push of all")
	verified, taken := int64(0), int64(0)
	for _, w := range f.workers {
		r := w.says("it is counted", func(r *report) bool { return r.Work.Verified+r.Work.Taken >= int64(len(all)) })
		verified, taken = verified+r.Work.Verified, taken+r.Work.Taken
	}
	// A worker that was held up by the machine for longer than a turn costs double work, and no
	// more than that.
	if verified < int64(len(all)) || verified+taken < 3*int64(len(all)) {
		t.Errorf("of %d signatures %d were verified and %d taken", len(all), verified, taken)
	}
	t.Logf("of %d signatures %d were verified, %d taken", len(all), verified, taken)
	if taken < int64(len(all)) {
		t.Errorf("only %d facts were taken by three workers", taken)
	}
	// One who comes later takes what is known; where the machine is slow, not all of it.
	late := f.worker("late")
	late.joins(natstest.URLs(f.servers))
	late.start()
	r := late.says("the first pass is over", func(r *report) bool { return r.FirstPass })
	if t.Logf("the late one has verified %d and taken %d", r.Work.Verified, r.Work.Taken); r.Work.Taken == 0 {
		t.Error("the late one has taken nothing")
	}
	f.workers = append(f.workers, late)
	f.agree("with the late one")
}

// A worker that is killed, or stopped, while it is its turn: others decide.
func TestAWorkerFailsDuringItsTurn(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		t.Run(sig.String(), func(t *testing.T) {
			f := newFleet(t, 3, 1)
			f.startAll()
			f.together()
			fill(f, 40, 20)
			victim := f.workers[0]
			eventually(t, "it has begun", func() bool { s, err := victim.answers(); return err == nil && len(s) > 0 })
			victim.signal(sig)
			f.workers = f.workers[1:]
			f.agree("without the first worker")
			if sig == syscall.SIGSTOP {
				victim.signal(syscall.SIGCONT)
				f.workers = append(f.workers, victim)
				f.agree("with it again")
			}
		})
	}
}

// Whatever fails between the workers, each answers by itself: a key counts everywhere, and one
// that is removed nowhere.
func TestNATSFails(t *testing.T) {
	f := newFleet(t, 3, 3)
	fill(f, 5, 4)
	f.startAll()
	f.together()
	f.agree("at the start")
	f.works("with all servers")
	f.servers[1].Kill()
	f.works("without one server")
	for _, s := range f.servers {
		s.Kill()
	}
	for _, w := range f.workers {
		w.says("it is alone", func(r *report) bool { return !r.Cluster.Connected })
	}
	f.works("without servers")
	for _, s := range f.servers {
		s.Start(t)
	}
	f.together()
	f.works("with the servers back")
}

// The line between one worker and the servers is cut, and mended.
func TestALineIsCut(t *testing.T) {
	f := newFleet(t, 2, 1) // one of several would tell where the others are
	line := newLine(t, f.servers[0].URL)
	f.workers[0].joins(line.url)
	fill(f, 5, 4)
	f.startAll()
	f.together()
	line.set(true)
	f.workers[0].says("it is alone", func(r *report) bool { return !r.Cluster.Connected && r.Cluster.Problem != "" })
	f.works("with the line cut")
	line.set(false)
	f.together()
	f.works("with the line mended")
}

// works holds everybody to a key that comes and goes.
func (f *fleet) works(when string) {
	f.t.Helper()
	k := signtest.NewKey(signtest.P256)
	img := f.st.Content("team/app0", "new", when)
	f.st.SignBundle(img, k, signtest.CosignOptions{})
	f.all(img, "untrusted")
	f.st.TrustKey("new.pub", k)
	f.all(img, "trusted")
	f.st.Untrust("_cosign/new.pub")
	f.all(img, "untrusted")
	f.agree(when)
}

// Workers over copies of the storage: each answers by its own, and what is whole in both is
// verified once.
func TestReplicatedStorage(t *testing.T) {
	f := newFleet(t, 2, 1)
	k, all := fill(f, 3, 3)
	damaged := f.st.Content("team/damaged", "1", "damaged")
	sig := f.st.SignSimple(damaged, k, signtest.CosignOptions{})
	copied := filepath.Join(f.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(f.st.Dir)); err != nil {
		t.Fatal(err)
	}
	second := signtest.NewStorage(copied)
	second.Corrupt(damaged.Repo, second.Signatures(sig)[0])
	f.workers[1].root = copied
	f.startAll()
	f.together()
	for _, img := range all {
		f.all(img, "trusted")
	}
	eventually(t, "it is trusted where it is whole", func() bool { return f.workers[0].stateOf(damaged) == "trusted" })
	eventually(t, "and not where it is not", func() bool { return f.workers[1].stateOf(damaged) == "untrusted" })
	only := second.Content("team/only", "1", "only here")
	second.SignBundle(only, k, signtest.CosignOptions{})
	eventually(t, "what is in one copy alone is decided there", func() bool { return f.workers[1].stateOf(only) == "trusted" })
	if state := f.workers[0].stateOf(only); state != "" {
		t.Errorf("it is %s where it is not", state)
	}
	second.Untrust("_cosign/team.pub") // in one copy
	eventually(t, "the key is gone where it was removed", func() bool { return f.workers[1].stateOf(all[0]) == "untrusted" })
	if state := f.workers[0].stateOf(all[0]); state != "trusted" {
		t.Errorf("it is %s where the key is", state)
	}
}

// Who has an account at the servers and not the key makes nothing trusted.
func TestNobodyElseTellsFacts(t *testing.T) {
	f := newFleet(t, 2, 1)
	f.startAll()
	f.together()
	k, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	f.st.TrustKey("team.pub", k)
	good, bad := f.st.Content("team/good", "1", "good"), f.st.Content("team/bad", "1", "bad")
	nc, err := nats.Connect(f.servers[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	facts := make(chan *nats.Msg, 100)
	if _, err := nc.ChanSubscribe("trust-worker.*.fact.>", facts); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	f.st.SignSimple(good, k, signtest.CosignOptions{})
	f.st.SignSimple(bad, stranger, signtest.CosignOptions{})
	f.all(good, "trusted")
	f.all(bad, "untrusted")
	one, other := <-facts, <-facts
	// Each of the two facts under the other's name, and with a byte changed under its own.
	for _, m := range []*nats.Msg{{Subject: one.Subject, Data: other.Data}, {Subject: other.Subject, Data: one.Data}} {
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []*nats.Msg{one, other} {
		data := append([]byte{}, m.Data...)
		data[len(data)/2] ^= 1
		if err := nc.Publish(m.Subject, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range f.workers {
		w.says("four are refused", func(r *report) bool { return r.Cluster.Refused["authentication"] >= 4 })
	}
	late := f.worker("late")
	late.joins(f.servers[0].URL)
	late.start()
	f.workers = append(f.workers, late)
	f.all(good, "trusted")
	f.all(bad, "untrusted")
	f.agree("after the forged facts")
	if r := late.says("the first pass is over", func(r *report) bool { return r.FirstPass }); r.Work.Verified != 2 || r.Work.Taken != 0 {
		t.Errorf("it has verified %d and taken %d", r.Work.Verified, r.Work.Taken)
	}
}

// history is a random history of everything that operators and pushers do.
type history struct {
	f      *fleet
	rng    *rand.Rand
	keys   map[string]*signtest.Key // in _cosign, by file
	former []*signtest.Key
	ca     *signtest.Chain
	images []signtest.Image
	steps  int
}

func (h *history) step() string {
	f, n := h.f, h.steps
	h.steps++
	pick := func() signtest.Image { return h.images[h.rng.IntN(len(h.images))] }
	k := signtest.NewKey([]signtest.Kind{signtest.P256, signtest.P384, signtest.Ed25519}[h.rng.IntN(3)])
	for _, known := range h.keys {
		if h.rng.IntN(2) == 0 {
			k = known
		}
	}
	switch what := h.rng.IntN(10); {
	case what < 3 || len(h.images) == 0:
		img := f.st.Content(fmt.Sprintf("team/app%d", h.rng.IntN(4)), fmt.Sprint(n), fmt.Sprint(n))
		h.images = append(h.images, img)
		h.former = append(h.former, k)
		f.st.SignSimple(img, k, signtest.CosignOptions{Referrer: h.rng.IntN(2) == 0})
		return "a signed image"
	case what == 3:
		h.former = append(h.former, k)
		f.st.SignBundle(pick(), k, signtest.CosignOptions{})
		return "another signature"
	case what == 4:
		f.st.SignNotation(pick(), h.ca.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
		return "a notation signature"
	case what < 7 && len(h.former) > 0:
		name := fmt.Sprintf("key%d.pub", n)
		h.keys[name] = h.former[h.rng.IntN(len(h.former))]
		f.st.TrustKey(name, h.keys[name])
		return "a key added"
	case what == 7 && len(h.keys) > 0:
		for name := range h.keys {
			f.st.Untrust("_cosign/" + name)
			delete(h.keys, name)
			break
		}
		return "a key removed"
	case what == 8:
		levels := []string{"strict", "permissive", "audit"}
		policy := fmt.Sprintf(`{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],"signatureVerification":{"level":%q},"trustStores":["ca:acme"],"trustedIdentities":["*"]}]}`, levels[h.rng.IntN(3)])
		path := filepath.Join(f.st.Dir, "_notation", "trustpolicy.json")
		if err := os.WriteFile(path+".new", []byte(policy), 0o644); err != nil {
			f.t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			f.t.Fatal(err)
		}
		return "a policy"
	default:
		i := h.rng.IntN(len(h.images))
		f.st.Remove(h.images[i])
		h.images = append(h.images[:i], h.images[i+1:]...)
		return "an image removed"
	}
}

func newHistory(t *testing.T, workers, servers int) *history {
	f := newFleet(t, workers, servers)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	h := &history{f: f, rng: rand.New(rand.NewPCG(seed, 1)), keys: map[string]*signtest.Key{}, ca: signtest.NewRoot(signtest.CertOptions{CommonName: "acme"})}
	f.st.TrustCert("ca:acme", "root.pem", h.ca.Cert())
	f.startAll()
	f.together()
	return h
}

// Every worker answers as one that is alone, after each step of a random history.
func TestHistory(t *testing.T) {
	h := newHistory(t, 3, 3)
	steps := 6
	if torture {
		steps = 300
	}
	for range steps {
		h.f.agree("after " + h.step())
	}
}

// Kills of workers and servers at any moment of a random history.
func TestKills(t *testing.T) {
	h := newHistory(t, 3, 3)
	kills := 3
	if torture {
		kills = 1000
	}
	for n := range kills {
		what := h.step()
		time.Sleep(time.Duration(h.rng.IntN(300)) * time.Millisecond)
		if h.rng.IntN(3) == 0 {
			s := h.f.servers[h.rng.IntN(len(h.f.servers))]
			s.Kill()
			what += ", a server killed"
			h.f.agree(fmt.Sprint(n, ": after ", what))
			s.Start(t)
			continue
		}
		w := h.f.workers[h.rng.IntN(len(h.f.workers))]
		w.kill()
		what += ", " + w.node + " killed"
		if h.rng.IntN(2) == 0 {
			h.f.agree(fmt.Sprint(n, ": after ", what))
		}
		w.start()
		h.f.agree(fmt.Sprint(n, ": after ", what, " and started"))
	}
}
