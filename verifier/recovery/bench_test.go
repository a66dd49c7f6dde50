package recovery

import (
	"crypto"
	"crypto/ecdsa"
	"slices"
	"testing"
	"time"
)

// BenchmarkCandidates prints the cost of recovery as a multiple of its floor, one bare ecdsa.VerifyASN1 with the same
// curve, timed in turn with it in the same run. /2digests recovers under two hashes at once.
func BenchmarkCandidates(b *testing.B) {
	for _, c := range curves {
		for _, digests := range []int{1, 2} {
			name := c.Params().Name
			if digests == 2 {
				name += "/2digests"
			}
			b.Run(name, func(b *testing.B) { benchmarkCandidates(b, newSigner(b, newRand(1), c), digests) })
		}
	}
}

func benchmarkCandidates(b *testing.B, key *ecdsa.PrivateKey, digests int) {
	rng := newRand(2)
	const samples = 64
	var sums [samples][][]byte
	var sigs [samples][]byte
	for i := range samples {
		msg := randomBytes(rng, 200)
		sums[i] = [][]byte{sum(crypto.SHA256, msg), sum(crypto.SHA512, msg)}[:digests]
		sigs[i] = sign(b, key, crypto.SHA256, msg)
	}
	var floors, costs []time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := i % samples
		t0 := time.Now()
		ok := ecdsa.VerifyASN1(&key.PublicKey, sums[k][0], sigs[k])
		t1 := time.Now()
		fps, err := Candidates(key.Curve, sigs[k], sums[k]...)
		t2 := time.Now()
		if !ok || err != nil || len(fps) != 2*digests {
			b.Fatal(ok, err, len(fps))
		}
		floors, costs = append(floors, t1.Sub(t0)), append(costs, t2.Sub(t1))
	}
	// The first decile: other work on the machine only ever adds.
	slices.Sort(floors)
	slices.Sort(costs)
	floor, cost := floors[len(floors)/10], costs[len(costs)/10]
	b.ReportMetric(float64(cost)/float64(floor), "×verify")
	b.ReportMetric(float64(floor.Nanoseconds()), "ns/verify")
	b.ReportMetric(float64(cost.Nanoseconds()), "ns/op")
}

// BenchmarkClassify is what every signature costs, whatever its algorithm.
func BenchmarkClassify(b *testing.B) {
	key := newSigner(b, newRand(1), curves[1])
	sig := sign(b, key, crypto.SHA256, []byte("message"))
	b.ReportAllocs()
	for b.Loop() {
		if len(Classify(sig)) != 1 {
			b.Fatal("not one class")
		}
	}
}
