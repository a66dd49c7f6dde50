package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/cache"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier"
)

var torture = os.Getenv("TRUST_WORKER_TORTURE") == "1"

// foundBy are seeds that have found something.
var foundBy = []uint64{10624071111492931033, 12054702748620776764, 11998979905657873661}

// TestModel does anything to storage and trust directories, in any order, under a
// scheduler at work. At each step nothing is trusted but what was stored since the
// answers were last settled, by signers that are in force; once settled they are
// those of VerifyNow.
func TestModel(t *testing.T) {
	rounds, steps := 2, 60
	if torture {
		rounds, steps = 40, 400
	}
	for n := range rounds {
		seed := uint64(n)
		switch {
		case torture && n < len(foundBy):
			seed = foundBy[n]
		case torture:
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			for n := range steps {
				if m.step(); t.Failed() {
					t.Fatalf("step %d, the last of:\n%s", n, strings.Join(m.log[max(0, len(m.log)-60):], "\n"))
				}
			}
		})
	}
}

type model struct {
	*world
	rng    *rand.Rand
	ahead  atomic.Int64 // of the clock
	s      *Scheduler   // at work, or nil
	cancel func()
	ended  chan error
	log    []string

	keys   []*signtest.Key
	certs  []*signtest.Chain
	leaves []*signtest.Chain
	tsa    *signtest.TSA
	clouds []*signtest.Sigstore
	scopes []trust.Narrowing
	layers []ocispec.Descriptor // of signatures
	away   map[string][]byte    // blobs that are damaged
	rotten bool                 // since answers were last settled

	stored map[string]bool // references since answers were last settled
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{world: newWorld(t), rng: rand.New(rand.NewPCG(seed, 0)), away: map[string][]byte{}, stored: map[string]bool{}}
	for _, kind := range []signtest.Kind{signtest.P256, signtest.P256, signtest.P256, signtest.P384, signtest.Ed25519} {
		m.keys = append(m.keys, signtest.NewKey(kind))
	}
	one, two := signtest.NewRoot(signtest.CertOptions{CommonName: "one"}), signtest.NewRoot(signtest.CertOptions{CommonName: "two"})
	mid := one.Intermediate(signtest.CertOptions{CommonName: "mid"})
	stamp := signtest.NewRoot(signtest.CertOptions{CommonName: "stamp"})
	m.tsa = signtest.NewTSA(stamp, signtest.CertOptions{})
	m.certs = []*signtest.Chain{one, two, mid, stamp}
	m.leaves = []*signtest.Chain{one.Leaf(signtest.CertOptions{CommonName: "a"}), two.Leaf(signtest.CertOptions{CommonName: "b"}),
		mid.Leaf(signtest.CertOptions{CommonName: "c"}), one.Leaf(signtest.CertOptions{CommonName: "old", NotAfter: time.Now().AddDate(-5, 0, 0)})}
	m.clouds = []*signtest.Sigstore{signtest.NewSigstore("one"), signtest.NewSigstore("two")}
	m.opts.MaxFiled = []int64{1, 3, 8, 0}[m.rng.IntN(4)]
	m.opts.Now, m.opts.Lease = m.now, -1
	m.edit = func(c *Config) {
		c.Now, c.Workers = m.now, 1+m.rng.IntN(4)
		c.ScanInterval, c.ConfirmInterval, c.SlowInterval = 200*time.Millisecond, time.Second, -1
	}
	for _, d := range []string{"_cosign", "_notation"} {
		if err := os.MkdirAll(filepath.Join(m.st.Dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(m.stop)
	return m
}

func (m *model) now() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }

func (m *model) start() {
	m.s = m.scheduler()
	delay := time.Duration(m.rng.IntN(3)) * time.Millisecond
	m.s.verify = func(ctx context.Context, v *verifier.Verifier, r verifier.Request) (verifier.Outcome, error) {
		time.Sleep(delay)
		o, err := verifyOne(ctx, v, r)
		time.Sleep(delay)
		return o, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan error, 1)
	s := m.s
	s.cfg.Loader.SetScopes(m.scopes)
	go func() { m.ended <- s.Run(ctx) }()
	eventually(m.t, "something is published", func() bool {
		r, err := cache.OpenReader(m.state)
		if err == nil {
			err = r.Close()
		}
		return err == nil
	})
}

func (m *model) stop() {
	if m.s == nil {
		return
	}
	m.cancel()
	if err := <-m.ended; err != nil {
		m.t.Errorf("run: %v", err)
	}
	if w := m.s.Work(); w.Panics > 0 {
		m.t.Errorf("%+v", w)
	}
	m.s = nil
}

// some picks one of several.
func some[T any](m *model, of []T) T { return of[m.rng.IntN(len(of))] }

func (m *model) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

var modelRepositories = []string{"a", "b", "c/d"}

// images are the contents that any repository may have: each has the same digest
// wherever it is.
func (m *model) image(repo string) signtest.Image {
	if m.rng.IntN(6) == 0 {
		return m.st.Index(repo, "i", m.st.Content(repo, "1", "0"), m.st.Content(repo, "", "1"))
	}
	return m.st.Content(repo, some(m, []string{"1", "2", ""}), fmt.Sprint(m.rng.IntN(3)))
}

func (m *model) step() {
	type act struct {
		weight int
		name   string
		do     func() string
	}
	acts := []act{
		{3, "push", func() string {
			i := m.image(some(m, modelRepositories))
			return i.Repo + ":" + i.Tag + " " + i.Hex()[:6]
		}},
		{9, "sign", m.sign},
		{3, "copy", m.copy},
		{3, "remove", m.remove},
		{2, "rename", m.rename},
		{1, "contradict", m.contradictSome},
		{2, "rot", m.rot},
		{2, "heal", m.heal},
		{6, "trust", m.trustSome},
		{6, "untrust", m.untrustSome},
		{3, "policy", m.policy},
		{2, "narrow", m.narrow},
		{2, "clock", m.clock},
		{1, "prune", func() string {
			if m.store == nil {
				return "-"
			}
			m.ahead.Add(int64(40 * time.Hour))
			p, err := m.store.Prune(context.Background())
			return fmt.Sprintf("%+v %v", p, err)
		}},
		{2, "restart", func() string {
			m.stop()
			if m.rng.IntN(2) == 0 {
				m.close()
				m.opts.MaxFiled = []int64{1, 3, 8, 0}[m.rng.IntN(4)]
			}
			return ""
		}},
		{2, "down", func() string { m.stop(); return "" }},
		{8, "check", func() string { m.published(); return "" }},
		{6, "settle", func() string { m.settle(); return "" }},
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := m.rng.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			m.say("%s", a.name)
			at := len(m.log) - 1
			detail := a.do()
			m.log[at] += " " + detail
			if a.name == "down" {
				return
			}
			break
		}
	}
	m.list()
	if m.s == nil && m.rng.IntN(3) == 0 {
		m.start()
	}
	if m.s != nil {
		switch m.rng.IntN(4) {
		case 0:
			m.s.LookAt(some(m, modelRepositories))
		case 1:
			m.s.Reload()
		case 2:
			time.Sleep(time.Duration(m.rng.IntN(10)) * time.Millisecond)
		}
	}
}
