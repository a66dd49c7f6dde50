package verifier

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/verifier/truststore"
)

// The benchmarks print the cost of one verification as a multiple of its floor, a
// bare ecdsa.VerifyASN1 on P-256, timed in turn with it in the same run. The
// targets are in docs/performance.md. BenchmarkLibrary is the second floor: what
// cosign and notation-go cost by themselves. Run with
//
//	go test -run '^$' -bench . -benchmem ./verifier/
func benchmark(b *testing.B, ts *truststore.TrustStore, trusted bool, requests []*request) {
	b.Helper()
	v := New(ts, Options{})
	beside(b, func(i int) error {
		o, err := v.Verify(b.Context(), requests[i%len(requests)].Request)
		if err == nil && o.Layers[0].Verdict.Matched() != trusted {
			err = fmt.Errorf("%+v", o.Layers[0])
		}
		return err
	})
}

// beside times verify in turn with the floor.
func beside(b *testing.B, verify func(i int) error) {
	b.Helper()
	k := signtest.NewKey(signtest.P256)
	digest := sha256.Sum256([]byte("floor"))
	sig := k.Sign([]byte("floor"), k.CosignHash())
	pub := k.Public().(*ecdsa.PublicKey)
	var floors, costs []time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t0 := time.Now()
		ok := ecdsa.VerifyASN1(pub, digest[:], sig)
		t1 := time.Now()
		err := verify(i)
		t2 := time.Now()
		if !ok || err != nil {
			b.Fatal(ok, err)
		}
		floors, costs = append(floors, t1.Sub(t0)), append(costs, t2.Sub(t1))
	}
	floor, cost := undisturbed(floors), undisturbed(costs)
	b.ReportMetric(cost/floor, "×bare")
	b.ReportMetric(floor, "ns/bare")
	b.ReportMetric(cost, "ns/verification")
}

// undisturbed is the first decile: other work on the machine only ever adds, to the
// longer of two intervals more often.
func undisturbed(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/10])
}

const samples = 64

// benchKeys is a trust store of n keys, cached: making them takes longer than
// the benchmark.
var benchKeys = sync.OnceValue(func() []*signtest.Key {
	keys := make([]*signtest.Key, 1000)
	for i := range keys {
		keys[i] = signtest.NewKey(signtest.P256)
	}
	return keys
})

func BenchmarkCosign(b *testing.B) {
	for _, format := range []string{"simple", "bundle"} {
		for _, n := range []int{1, 1000} {
			for _, trusted := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/keys=%d/trusted=%v", format, n, trusted), func(b *testing.B) {
					d := newDirs(b)
					keys := benchKeys()[:n]
					for i, k := range keys {
						d.key(fmt.Sprint(i), k)
					}
					signers := keys
					if !trusted {
						signers = []*signtest.Key{signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)}
					}
					var requests []*request
					for i := range samples {
						s, k := image(fmt.Sprint(i)), signers[i*7%len(signers)]
						if format == "simple" {
							requests = append(requests, simple(s, k, signtest.CosignOptions{}))
						} else {
							requests = append(requests, bundled(s, k, signtest.CosignOptions{}))
						}
					}
					benchmark(b, d.load(), trusted, requests)
				})
			}
		}
	}
}

// BenchmarkCosignGuessed is what a repository costs that one of 1,000 keys signs.
func BenchmarkCosignGuessed(b *testing.B) {
	d := newDirs(b)
	for i, k := range benchKeys() {
		d.key(fmt.Sprint(i), k)
	}
	var requests []*request
	guesses := &Guesses{}
	for i := range samples {
		r := simple(image(fmt.Sprint(i)), benchKeys()[7], signtest.CosignOptions{})
		r.Guesses = guesses
		requests = append(requests, r)
	}
	benchmark(b, d.load(), true, requests)
}

// Keyless signatures under one trusted root. BenchmarkLibrary has what cosign and
// sigstore-go take for the same bytes.
func BenchmarkKeyless(b *testing.B) {
	s := signtest.NewSigstore("bench")
	ts := newDirs(b).root("trusted_root.json", s.Root()).load()
	for _, carrier := range []string{"layer", "bundle"} {
		b.Run(carrier, func(b *testing.B) {
			var requests []*request
			for i := range samples {
				requests = append(requests, keylessly(image(fmt.Sprint(i)), s, signtest.KeylessOptions{})[carrier])
			}
			benchmark(b, ts, true, requests)
		})
	}
}

func BenchmarkNotation(b *testing.B) {
	for _, cose := range []bool{false, true} {
		for _, n := range []int{1, 1000} {
			for _, trusted := range []bool{true, false} {
				format := map[bool]string{false: "jws", true: "cose"}[cose]
				b.Run(fmt.Sprintf("%s/certificates=%d/trusted=%v", format, n, trusted), func(b *testing.B) {
					d := newDirs(b)
					roots := make([]*signtest.Chain, n)
					for i := range roots {
						roots[i] = signtest.NewRoot(signtest.CertOptions{Key: benchKeys()[i], CommonName: fmt.Sprint("Root ", i)})
						d.cert("ca/acme", fmt.Sprint(i, ".pem"), roots[i].Cert())
					}
					root := roots[n/2]
					if !trusted {
						root = signtest.NewRoot(signtest.CertOptions{})
					}
					leaf := root.Leaf(signtest.CertOptions{}) // a chain of two costs three verifications
					var requests []*request
					for i := range samples {
						requests = append(requests, notated(image(fmt.Sprint(i)), leaf, signtest.NotationOptions{COSE: cose}))
					}
					benchmark(b, d.load(), trusted, requests)
				})
			}
		}
	}
}

// BenchmarkNotationSelfSigned is the shortest chain, which costs two verifications.
func BenchmarkNotationSelfSigned(b *testing.B) {
	self := signtest.SelfSigned(signtest.CertOptions{})
	var requests []*request
	for i := range samples {
		requests = append(requests, notated(image(fmt.Sprint(i)), self, signtest.NotationOptions{}))
	}
	benchmark(b, newDirs(b).cert("ca/acme", "self.pem", self.Cert()).load(), true, requests)
}

// BenchmarkLoad is a reload with nothing changed, which stands between the removal
// of a key and the end of its trust.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			d := newDirs(b)
			for i := range n {
				d.key(fmt.Sprint(i), benchKeys()[i])
			}
			l := d.loader()
			for b.Loop() {
				load(b, l, time.Now())
			}
		})
	}
}
