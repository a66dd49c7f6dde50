package recovery

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
)

// verdict is what sigstore must make of an encoding when the signature below it is good. Asserting it keeps
// the differential from passing because nothing was ever accepted, and records what sigstore does.
type verdict int

const (
	always verdict = iota
	never
	either
)

// input is a good signature: (r, s) by pub over msg hashed with hash. An encoding may also change everything but pub.
type input struct {
	pub  *ecdsa.PublicKey
	hash crypto.Hash
	msg  []byte
	r, s *big.Int
}

// encodings is every way in which the differential writes a signature down.
var encodings = []struct {
	name   string
	want   verdict
	encode func(tb testing.TB, rng *rand.Rand, in *input) []byte
}{
	{"der", always, func(tb testing.TB, _ *rand.Rand, in *input) []byte { return toDER(tb, in.r, in.s) }},
	{"der, other s", always, func(tb testing.TB, _ *rand.Rand, in *input) []byte {
		return toDER(tb, in.r, new(big.Int).Sub(in.pub.Params().N, in.s)) // high becomes low and the reverse
	}},
	{"p1363", always, func(_ testing.TB, _ *rand.Rand, in *input) []byte {
		return toP1363(in.r, in.s, (in.pub.Params().N.BitLen()+7)/8)
	}},
	{"p1363, shortest", always, func(_ testing.TB, _ *rand.Rand, in *input) []byte {
		return toP1363(in.r, in.s, in.width())
	}},
	{"p1363, padded", always, func(_ testing.TB, rng *rand.Rand, in *input) []byte {
		return toP1363(in.r, in.s, in.width()+rng.IntN(66-in.width()+1))
	}},
	{"p1363, other s", always, func(_ testing.TB, _ *rand.Rand, in *input) []byte {
		return toP1363(in.r, new(big.Int).Sub(in.pub.Params().N, in.s), 66)
	}},
	{"p1363, over 132", never, func(_ testing.TB, rng *rand.Rand, in *input) []byte {
		return toP1363(in.r, in.s, 67+rng.IntN(8))
	}},
	{"p1363, odd", never, func(_ testing.TB, rng *rand.Rand, in *input) []byte {
		sig := toP1363(in.r, in.s, in.width())
		if rng.IntN(2) == 0 {
			return append(sig, 0)
		}
		return sig[1:]
	}},
	{"der, garbage after", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		return append(toDER(tb, in.r, in.s), randomBytes(rng, 1+rng.IntN(4))...)
	}},
	{"der, third integer", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		der, err := asn1.Marshal(struct{ R, S, T *big.Int }{in.r, in.s, big.NewInt(rng.Int64N(1 << 20))})
		if err != nil {
			tb.Fatal(err)
		}
		return der
	}},
	{"der, padded integer", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		r, s := derInt(in.r), derInt(in.s)
		if rng.IntN(2) == 0 {
			return tlv(0x30, slices.Concat(tlv(2, append([]byte{0}, r...)), tlv(2, s)))
		}
		return tlv(0x30, slices.Concat(tlv(2, r), tlv(2, append([]byte{0}, s...))))
	}},
	{"der, long length", never, func(_ testing.TB, _ *rand.Rand, in *input) []byte {
		body := slices.Concat(tlv(2, derInt(in.r)), tlv(2, derInt(in.s)))
		if len(body) < 0x80 {
			return append([]byte{0x30, 0x81, byte(len(body))}, body...)
		}
		return append([]byte{0x30, 0x82, 0, byte(len(body))}, body...)
	}},
	{"ber, indefinite", never, func(_ testing.TB, _ *rand.Rand, in *input) []byte {
		return slices.Concat([]byte{0x30, 0x80}, tlv(2, derInt(in.r)), tlv(2, derInt(in.s)), []byte{0, 0})
	}},
	{"der, negative", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		r, s := new(big.Int).Set(in.r), new(big.Int).Set(in.s)
		pick(rng, r, s, func(x *big.Int) { x.Neg(x) })
		return toDER(tb, r, s)
	}},
	{"zero", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		r, s := new(big.Int).Set(in.r), new(big.Int).Set(in.s)
		pick(rng, r, s, func(x *big.Int) { x.SetInt64(0) })
		return oneOf(rng, toDER(tb, r, s), toP1363(r, s, 66))
	}},
	{"plus n", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		r, s := new(big.Int).Set(in.r), new(big.Int).Set(in.s)
		pick(rng, r, s, func(x *big.Int) { x.Add(x, in.pub.Params().N) })
		return oneOf(rng, toDER(tb, r, s), toP1363(r, s, 66)) // 522 bits still fit
	}},
	{"r and s swapped", either, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		return oneOf(rng, toDER(tb, in.s, in.r), toP1363(in.s, in.r, 66)) // good if a crafted r equals s
	}},
	{"bit flipped", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		sig := oneOf(rng, toDER(tb, in.r, in.s), toP1363(in.r, in.s, in.width()))
		sig[rng.IntN(len(sig))] ^= 1 << rng.IntN(8)
		return sig
	}},
	{"truncated", never, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		sig := toDER(tb, in.r, in.s)
		return sig[:rng.IntN(len(sig))]
	}},
	{"random", never, func(_ testing.TB, rng *rand.Rand, _ *input) []byte { return randomBytes(rng, rng.IntN(140)) }},
	{"other message", never, func(tb testing.TB, _ *rand.Rand, in *input) []byte {
		in.msg = append(slices.Clone(in.msg), '!')
		return toDER(tb, in.r, in.s)
	}},
	{"other hash", either, func(tb testing.TB, rng *rand.Rand, in *input) []byte {
		in.hash = hashes[rng.IntN(len(hashes))]
		return toDER(tb, in.r, in.s)
	}},
}

// width is the shortest half that holds both r and s.
func (in *input) width() int { return (max(in.r.BitLen(), in.s.BitLen()) + 7) / 8 }

// derInt is the content of the INTEGER x, minimal.
func derInt(x *big.Int) []byte { return append(make([]byte, 1-min(1, x.BitLen()%8)), x.Bytes()...) }

func tlv(tag byte, content []byte) []byte {
	if len(content) >= 0x80 {
		return slices.Concat([]byte{tag, 0x81, byte(len(content))}, content)
	}
	return slices.Concat([]byte{tag, byte(len(content))}, content)
}

// pick changes r, s or both.
func pick(rng *rand.Rand, r, s *big.Int, change func(*big.Int)) {
	which := 1 + rng.IntN(3)
	if which&1 != 0 {
		change(r)
	}
	if which&2 != 0 {
		change(s)
	}
}

func oneOf(rng *rand.Rand, a, b []byte) []byte {
	if rng.IntN(2) == 0 {
		return a
	}
	return b
}

// refusedAsDER reports whether sigstore refuses sig for its encoding alone: encoding/asn1 reads it, so that it is not
// taken for P1363, but it is not what a DER encoder writes. These are the only bytes that recovery may read differently.
func refusedAsDER(tb testing.TB, sig []byte) bool {
	var v ints
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		return false
	}
	return v.R.Sign() < 0 || v.S.Sign() < 0 || !bytes.Equal(toDER(tb, v.R, v.S), sig)
}

// compare holds recovery against sigstore for one key and one signature, and returns sigstore's verdict.
func compare(tb testing.TB, pub *ecdsa.PublicKey, h crypto.Hash, msg, sig []byte) bool {
	tb.Helper()
	ok := accepts(tb, pub, h, msg, sig)
	fps, err := Candidates(pub.Curve, sig, sum(h, msg))
	if err != nil {
		tb.Errorf("R4: %s %x: %v", pub.Params().Name, sig, err)
	}
	proposed := slices.Contains(fps, fingerprint(tb, pub))
	if ok && !proposed {
		tb.Errorf("R1: sigstore accepts %x on %s with %v, but its signer is not among %d candidates", sig, pub.Params().Name, h, len(fps))
	}
	if proposed && !ok && !refusedAsDER(tb, sig) {
		tb.Errorf("R2: sigstore refuses %x on %s with %v, but the key is a candidate", sig, pub.Params().Name, h)
	}
	classes := Classify(sig)
	if ok && !slices.ContainsFunc(ClassesFor(pub), func(c Class) bool { return slices.Contains(classes, c) }) {
		tb.Errorf("R3: sigstore accepts %x, filed under %v, but %s looks in %v", sig, classes, pub.Params().Name, ClassesFor(pub))
	}
	return ok
}

// craft returns a good signature by nobody: r and s of random size are chosen first, and then a key under which they
// verify. This reaches what no honest signer does: tiny r and s, and r whose point has the x-coordinate r + n.
func craft(tb testing.TB, rng *rand.Rand, curve elliptic.Curve, h crypto.Hash, msg []byte) *input {
	tb.Helper()
	limit := func() *big.Int {
		bits := []int{8, 64, 100, 200, 255, 256, 383, 384, curve.Params().N.BitLen()}[rng.IntN(9)]
		return new(big.Int).Lsh(big.NewInt(1), uint(min(bits, curve.Params().N.BitLen())))
	}
	for {
		r, s := randomInt(rng, limit()), randomInt(rng, limit())
		want := wantCandidates(curve, r, s)
		if want == 0 {
			continue
		}
		keys, err := candidateKeys(curve, toDER(tb, r, s), [][]byte{sum(h, msg)})
		if err != nil || len(keys) != want {
			tb.Fatalf("R1: r=%x s=%x on %s: %d candidates of %d (%v)", r, s, curve.Params().Name, len(keys), want, err)
		}
		return &input{parseKey(tb, keys[rng.IntN(want)]), h, msg, r, s}
	}
}

// TestDifferential asks sigstore's verifier and recovery about the same signatures, in all encodings, honest and
// crafted: recovery never proposes fewer keys than sigstore accepts (R1, R3), nor more where both read the bytes alike
// (R2). TRUST_WORKER_TORTURE=1 runs 20,000 cases instead of 4,000; TRUST_WORKER_SEED picks others.
func TestDifferential(t *testing.T) {
	cases, seed := 4000, uint64(1)
	if os.Getenv("TRUST_WORKER_TORTURE") == "1" {
		cases = 20000
	} else if testing.Short() {
		cases = 800
	}
	if v := os.Getenv("TRUST_WORKER_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	const shards = 8
	for shard := range shards {
		t.Run(fmt.Sprint("shard", shard), func(t *testing.T) {
			t.Parallel()
			differential(t, newRand(seed*shards+uint64(shard)), cases/shards)
		})
	}
}

func differential(t *testing.T, rng *rand.Rand, cases int) {
	// Every curve and encoding meets every hash; the slow curves come up less often, since their code is the same.
	weights := []int{0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3}
	signers := make([][]*ecdsa.PrivateKey, len(curves))
	for i, c := range curves {
		signers[i] = []*ecdsa.PrivateKey{newSigner(t, rng, c), newSigner(t, rng, c)}
	}
	accepted := make([]int, len(encodings))
	for i := range cases {
		which := i % len(encodings) // the rest is drawn
		curve := weights[rng.IntN(len(weights))]
		key, h, msg := signers[curve][rng.IntN(2)], hashes[rng.IntN(len(hashes))], randomBytes(rng, rng.IntN(64))
		var in *input
		if rng.IntN(3) == 0 {
			in = craft(t, rng, key.Curve, h, msg)
		} else {
			r, s := fromDER(t, sign(t, key, h, msg))
			in = &input{&key.PublicKey, h, msg, r, s}
		}
		e := encodings[which]
		sig := e.encode(t, rng, in)
		ok := compare(t, in.pub, in.hash, in.msg, sig)
		if ok {
			accepted[which]++
		}
		if ok && e.want == never || !ok && e.want == always {
			t.Errorf("%s: sigstore's verdict on %x over %x with %v, %s, is %v", e.name, sig, in.msg, in.hash, in.pub.Params().Name, ok)
		}
	}
	for i, e := range encodings {
		t.Logf("%-20s %3d of %d accepted", e.name, accepted[i], (cases+len(encodings)-1-i)/len(encodings))
	}
}
