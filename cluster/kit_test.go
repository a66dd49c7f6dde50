package cluster

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"trust-worker/cache/store"
	"trust-worker/internal/natstest"
	"trust-worker/trust"
)

const epoch = 7

// deadline is for what must happen; only a fault waits for it.
const deadline = 60 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func key(t *testing.T, n byte) (k Key) {
	t.Helper()
	for i := range k.secret {
		k.secret[i] = n + byte(i)
	}
	return k
}

// listener notes what it is told.
type listener struct {
	mu     sync.Mutex
	facts  []trust.Digest
	names  []string
	trusts int
	load   Member
}

func (l *listener) FactArrived(d trust.Digest) { l.note(func() { l.facts = append(l.facts, d) }) }
func (l *listener) HintRepository(name string, _ bool) {
	l.note(func() { l.names = append(l.names, name) })
}
func (l *listener) HintTrust() { l.note(func() { l.trusts++ }) }
func (l *listener) Load() (m Member) {
	l.note(func() { m = l.load })
	return m
}

func (l *listener) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *listener) heard(name string) (has bool) {
	l.note(func() { has = slices.Contains(l.names, name) })
	return has
}

// join starts a worker that takes part.
func join(t *testing.T, url, node string, k Key, edit ...func(*Config)) (*Worker, *listener) {
	t.Helper()
	cfg := Config{URLs: []string{url}, Key: k, Node: node, Epoch: epoch, Log: slog.New(slog.DiscardHandler)}
	for _, e := range edit {
		e(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", node, err)
		}
	})
	return w, l
}

// together waits until two workers hear each other and the stream is there.
func together(t *testing.T, all ...*Worker) {
	t.Helper()
	for _, w := range all {
		eventually(t, "all are heard", func() bool {
			st := w.Status()
			alike := 0
			for _, m := range st.Members {
				if m.Alike {
					alike++
				}
			}
			return st.Connected && st.StreamReplicas > 0 && w.prepared.Load() && alike == len(all)-1
		})
	}
}

// aFact is a fact about the n-th image.
func aFact(n byte) *store.Shared {
	s := &store.Shared{Carrier: trust.CosignTag, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 400 + int64(n), TrustStore: trust.SumOf([]byte("trust"))}
	s.Subject, s.Signature = trust.SumOf([]byte{n}), trust.SumOf([]byte{n, n})
	s.Context.Tool, s.Epoch = trust.Cosign, epoch
	s.Verdicts = []trust.Verdict{{Format: trust.SimpleSigning, Grounds: []trust.Ground{{Signers: []trust.SignerID{{n}}}}, Layer: trust.LayerID{n}, VerifiedAt: 1_700_000_000, Epoch: epoch}}
	s.Hints = []store.Hint{{store.HintSigner, n}}
	return s
}

func TestMain(m *testing.M) {
	natstest.Main()
	m.Run()
}
