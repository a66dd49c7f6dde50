package recovery

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
)

// TestKnownAnswers recovers the keys of RFC 6979, appendix A.2.5 to A.2.7, from the RFC's signatures over "sample".
func TestKnownAnswers(t *testing.T) {
	for _, tt := range []struct {
		curve elliptic.Curve
		hash  crypto.Hash
		key   string // uncompressed point
		sig   string // DER
	}{
		{elliptic.P256(), crypto.SHA256, rfc6979P256, "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"},
		{elliptic.P256(), crypto.SHA384, rfc6979P256, "304402200eafea039b20e9b42309fb1d89e213057cbf973dc0cfc8f129edddc800ef771902204861f0491e6998b9455193e34e7b0d284ddd7149a74b95b9261f13abde940954"},
		{elliptic.P256(), crypto.SHA512, rfc6979P256, "30450221008496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f0002202362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe"},
		{elliptic.P384(), crypto.SHA256, rfc6979P384, "3065023021b13d1e013c7fa1392d03c5f99af8b30c570c6f98d4ea8e354b63a21d3daa33bde1e888e63355d92fa2b3c36d8fb2cd023100f3aa443fb107745bf4bd77cb3891674632068a10ca67e3d45db2266fa7d1feebefdc63eccd1ac42ec0cb8668a4fa0ab0"},
		{elliptic.P384(), crypto.SHA384, rfc6979P384, "306602310094edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe4602310099ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8"},
		{elliptic.P521(), crypto.SHA256, rfc6979P521, "308187024201511bb4d675114fe266fc4372b87682baecc01d3cc62cf2303c92b3526012659d16876e25c7c1e57648f23b73564d67f61c6f14d527d54972810421e7d87589e1a702414a171143a83163d6df460aaf61522695f207a58b95c0644d87e52aa1a347916e4f7a72930b1bc06dbe22ce3f58264afd23704cbb63b29b931f7de6c9d949a7ecfc"},
		{elliptic.P521(), crypto.SHA512, rfc6979P521, "308187024200c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa0241617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a"},
	} {
		t.Run(tt.curve.Params().Name+"/"+tt.hash.String(), func(t *testing.T) {
			point, err := hex.DecodeString(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := ecdsa.ParseUncompressedPublicKey(tt.curve, point)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := hex.DecodeString(tt.sig)
			if err != nil {
				t.Fatal(err)
			}
			fps, err := Candidates(tt.curve, sig, sum(tt.hash, []byte("sample")))
			if err != nil || len(fps) != 2 || !slices.Contains(fps, fingerprint(t, pub)) {
				t.Fatalf("the RFC's key is not among %x, %v", fps, err)
			}
		})
	}
}

const (
	rfc6979P256 = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6" +
		"7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
	rfc6979P384 = "04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13" +
		"8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720"
	rfc6979P521 = "0401894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4" +
		"00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5"
)

// TestRoundTrip signs with every curve and hash and finds the signer, in the encodings that honest tools write.
func TestRoundTrip(t *testing.T) {
	rng := newRand(1)
	for _, curve := range curves {
		for _, h := range hashes {
			key, msg := newSigner(t, rng, curve), randomBytes(rng, 100)
			der := sign(t, key, h, msg)
			r, s := fromDER(t, der)
			fixed := toP1363(r, s, (curve.Params().N.BitLen()+7)/8)
			for _, sig := range [][]byte{der, fixed} {
				if !compare(t, &key.PublicKey, h, msg, sig) {
					t.Errorf("sigstore refuses %x on %s with %v", sig, curve.Params().Name, h)
				}
				checkCandidates(t, curve, r, s, sum(h, msg))
			}
		}
	}
}

// checkCandidates holds the candidates for (r, s) against the count that theory gives (R1), and each one against
// crypto/ecdsa (R2).
func checkCandidates(tb testing.TB, curve elliptic.Curve, r, s *big.Int, digest []byte) int {
	tb.Helper()
	der := toDER(tb, r, s)
	keys, err := candidateKeys(curve, der, [][]byte{digest})
	if err != nil {
		tb.Errorf("R4: %v", err)
	}
	if want := wantCandidates(curve, r, s); len(keys) != want {
		tb.Errorf("R1: r=%x s=%x on %s: %d candidates, want %d", r, s, curve.Params().Name, len(keys), want)
	}
	for i, spki := range keys {
		pub := parseKey(tb, spki)
		if !ecdsa.VerifyASN1(pub, digest, der) {
			tb.Errorf("R2: r=%x s=%x on %s does not verify under candidate %d", r, s, curve.Params().Name, i)
		}
		if got := fingerprint(tb, pub); got != sha256.Sum256(spki) {
			tb.Errorf("%s: crypto/x509 encodes candidate %d differently", curve.Params().Name, i)
		}
		if slices.ContainsFunc(keys[:i], func(k []byte) bool { return bytes.Equal(k, spki) }) {
			tb.Errorf("R2: candidate %d comes twice", i)
		}
	}
	return len(keys)
}

// TestSecondX: a verifier reduces the x-coordinate modulo n, so below p − n there are two that give r.
func TestSecondX(t *testing.T) {
	for _, curve := range curves {
		t.Run(curve.Params().Name, func(t *testing.T) {
			n, p := curve.Params().N, curve.Params().P
			gap := new(big.Int).Sub(p, n)
			s, digest := randomInt(newRand(1), n), sum(crypto.SHA256, []byte("message"))
			counts := map[int]int{}
			for _, base := range []*big.Int{new(big.Int), gap, n} {
				for d := int64(-6); d <= 6; d++ {
					if r := new(big.Int).Add(base, big.NewInt(d)); r.Sign() >= 0 {
						counts[checkCandidates(t, curve, r, s, digest)]++
					}
				}
			}
			// Enough small r for both x-coordinates, one alone and neither to occur.
			for r := int64(7); r < 1000 && (counts[0] == 0 || counts[2] == 0 || counts[4] == 0); r++ {
				counts[checkCandidates(t, curve, big.NewInt(r), s, digest)]++
			}
			if counts[0] == 0 || counts[2] == 0 || counts[4] == 0 {
				t.Errorf("not all cases occurred: %v", counts)
			}
		})
	}
}

// TestHashToInt signs digests of lengths around every order's, which is where truncation and the shift of P-521 show.
func TestHashToInt(t *testing.T) {
	for _, curve := range curves {
		key := newSigner(t, newRand(1), curve)
		for _, size := range []int{1, 20, 27, 28, 29, 31, 32, 33, 47, 48, 49, 64, 65, 66, 67, 80} {
			digest := bytes.Repeat([]byte{0xff}, size) // all bits matter, and z exceeds n
			sig, err := ecdsa.SignASN1(rand.Reader, key, digest)
			if err != nil {
				t.Fatal(err)
			}
			fps, err := Candidates(curve, sig, digest)
			if err != nil || !slices.Contains(fps, fingerprint(t, &key.PublicKey)) {
				t.Errorf("%s: signer of a digest of %d bytes not found (%v)", curve.Params().Name, size, err)
			}
			if !bytes.Equal(digest, bytes.Repeat([]byte{0xff}, size)) {
				t.Errorf("%s: the digest was altered", curve.Params().Name)
			}
		}
	}
}

// TestDigestsTogether: several digests give what each gives alone, in order (R5).
func TestDigestsTogether(t *testing.T) {
	msg := []byte("message")
	for _, curve := range curves {
		sig := sign(t, newSigner(t, newRand(1), curve), crypto.SHA256, msg)
		digests := [][]byte{sum(crypto.SHA256, msg), sum(crypto.SHA384, msg), sum(crypto.SHA512, msg)}
		var want []Fingerprint
		for _, d := range digests {
			fps, err := Candidates(curve, sig, d)
			if err != nil || len(fps) != 2 {
				t.Fatal(fps, err)
			}
			want = append(want, fps...)
		}
		if got, err := Candidates(curve, sig, digests...); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: together %x, one by one %x (%v)", curve.Params().Name, got, want, err)
		}
		if got, err := Candidates(curve, sig); err != nil || got != nil {
			t.Errorf("%s: no digest gave %x, %v", curve.Params().Name, got, err)
		}
	}
}

// TestInfinity crafts s = z/k for R = k·G: one of the two keys is then d = (s·k − z)/r = 0, which is none.
func TestInfinity(t *testing.T) {
	for _, curve := range curves {
		n := curve.Params().N
		digest := sum(crypto.SHA224, []byte("message"))
		k := randomInt(newRand(1), n)
		R, err := rawSigner(t, curve, k).PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := (len(R) - 1) / 2
		r := new(big.Int).SetBytes(R[1 : 1+size])
		s := new(big.Int).ModInverse(k, n)
		s.Mul(s, new(big.Int).SetBytes(digest)).Mod(s, n) // SHA-224 is shorter than every order
		sig := toDER(t, r.Mod(r, n), s)
		keys, err := candidateKeys(curve, sig, [][]byte{digest})
		if err != nil || len(keys) != 1 {
			t.Errorf("%s: %d candidates, want 1 (%v)", curve.Params().Name, len(keys), err)
			continue
		}
		if !ecdsa.VerifyASN1(parseKey(t, keys[0]), digest, sig) {
			t.Errorf("R2: %s: the other candidate does not verify", curve.Params().Name)
		}
	}
}

// TestNoCandidates: whatever cannot be a signature has none, and no error either (R4).
func TestNoCandidates(t *testing.T) {
	one, digest := big.NewInt(1), sum(crypto.SHA256, []byte("message"))
	for _, curve := range curves {
		n := curve.Params().N
		good := new(big.Int)
		for good.Add(good, one); !onCurve(curve, good); good.Add(good, one) {
		}
		for name, sig := range map[string][]byte{
			"empty":         {},
			"nil":           nil,
			"r zero":        toDER(t, new(big.Int), one),
			"s zero":        toDER(t, good, new(big.Int)),
			"r = n":         toDER(t, n, one),
			"s = n":         toDER(t, good, n),
			"s = n, P1363":  toP1363(good, n, 66),
			"r = 0, P1363":  toP1363(new(big.Int), one, 66),
			"P1363, odd":    toP1363(good, one, 66)[1:],
			"P1363, long":   toP1363(good, one, 67),
			"huge integers": toDER(t, new(big.Int).Lsh(one, 1<<20), one),
		} {
			if fps, err := Candidates(curve, sig, digest); fps != nil || err != nil {
				t.Errorf("%s, %s: %x, %v", curve.Params().Name, name, fps, err)
			}
		}
	}
}

func TestErrCurve(t *testing.T) {
	params := *elliptic.P256().Params() // equal is not enough: crypto/ecdsa takes another path for it
	for _, curve := range []elliptic.Curve{nil, &params} {
		if fps, err := Candidates(curve, []byte{1, 1}, nil); !errors.Is(err, ErrCurve) || fps != nil {
			t.Errorf("%v: %x, %v", curve, fps, err)
		}
	}
}

func TestFingerprintOf(t *testing.T) {
	if fp, err := FingerprintOf("not a key"); err == nil || fp != (Fingerprint{}) {
		t.Errorf("%x, %v", fp, err)
	}
}

func ExampleCandidates() {
	message := []byte("what was signed: the payload of a simple signature, or the DSSE PAE of a bundle")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}

	trusted, err := FingerprintOf(&key.PublicKey)
	if err != nil {
		panic(err)
	}
	fps, err := Candidates(elliptic.P256(), sig, digest[:])
	if err != nil {
		panic(err)
	}
	fmt.Println(Classify(sig), len(fps), slices.Contains(fps, trusted))
	// Output: [ecdsa-256] 2 true
}
