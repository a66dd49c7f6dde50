package recovery

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

func TestClassify(t *testing.T) {
	bitsOf := func(n uint) *big.Int { // the smallest number of n bits
		return new(big.Int).Lsh(big.NewInt(1), n-1)
	}
	one := big.NewInt(1)
	ecdsaOf := func(r, s *big.Int) []byte { return toDER(t, r, s) }
	high := bytes.Repeat([]byte{0xff}, 70000)
	for _, tt := range []struct {
		name string
		sig  []byte
		want []Class
	}{
		{"nil", nil, nil},
		{"P-256", ecdsaOf(bitsOf(256), one), []Class{ECDSA256}},
		{"tiny", ecdsaOf(one, one), []Class{ECDSA256}},
		{"257 bits in r", ecdsaOf(bitsOf(257), one), []Class{ECDSA384}},
		{"257 bits in s", ecdsaOf(one, bitsOf(257)), []Class{ECDSA384}},
		{"384 bits", ecdsaOf(bitsOf(384), one), []Class{ECDSA384}},
		{"385 bits", ecdsaOf(one, bitsOf(385)), []Class{ECDSA521}},
		{"521 bits", ecdsaOf(one, bitsOf(521)), []Class{ECDSA521}},
		{"522 bits", ecdsaOf(one, bitsOf(522)), nil},
		{"s zero", ecdsaOf(one, new(big.Int)), nil},
		{"P1363, 2 bytes", []byte{1, 1}, []Class{ECDSA256}},
		{"P1363, 3 bytes", []byte{1, 1, 1}, nil},
		{"P1363, padded", toP1363(one, one, 66), []Class{ECDSA256, RSA(132)}},
		{"P1363, over 132", toP1363(one, one, 67), []Class{RSA(134)}},
		{"64 bytes, high", high[:64], []Class{ECDSA256}},
		{"64 bytes, S below 2^253", append(slices.Clone(high[:63]), 0x1f), []Class{ECDSA256, Ed25519}},
		{"64 zeros", make([]byte, 64), []Class{Ed25519}},
		{"127 bytes", high[:127], nil},
		{"128 bytes", high[:128], []Class{ECDSA521, RSA(128)}},
		{"256 bytes", high[:256], []Class{RSA(256)}},
		{"257 bytes", high[:257], []Class{RSA(257)}},
		{"70000 bytes", high, []Class{65535}},
	} {
		if got := Classify(tt.sig); !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestClassesFor(t *testing.T) {
	rng := newRand(1)
	for i, want := range [][]Class{{ECDSA256}, {ECDSA256}, {ECDSA384, ECDSA256}, {ECDSA521, ECDSA384, ECDSA256}} {
		if got := ClassesFor(&newSigner(t, rng, curves[i]).PublicKey); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", curves[i].Params().Name, got, want)
		}
	}
	for _, pub := range []crypto.PublicKey{
		nil, "text", (*ecdsa.PublicKey)(nil), &ecdsa.PublicKey{}, (*rsa.PublicKey)(nil), &rsa.PublicKey{},
		&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 511), E: 65537},
	} {
		if got := ClassesFor(pub); got != nil {
			t.Errorf("%T: %v", pub, got)
		}
	}
}

// TestClassNumbers: the numbers are stored in indexes.
func TestClassNumbers(t *testing.T) {
	for number, want := range map[Class]struct {
		c    Class
		name string
	}{
		0: {RSA(127), "none"}, 1: {ECDSA256, "ecdsa-256"}, 2: {ECDSA384, "ecdsa-384"}, 3: {ECDSA521, "ecdsa-521"},
		4: {Ed25519, "ed25519"}, 128: {RSA(128), "rsa-1024"}, 512: {RSA(512), "rsa-4096"}, 65535: {RSA(1 << 20), "rsa-524280"},
	} {
		if number != want.c || number.String() != want.name {
			t.Errorf("%d: %d, %s", number, want.c, want.c)
		}
	}
}

// TestOtherAlgorithms holds R3 and R6 against sigstore for RSA and Ed25519, pure and prehashed.
func TestOtherAlgorithms(t *testing.T) {
	msg := []byte("message")
	check := func(name string, pub crypto.PublicKey, v signature.Verifier, sig []byte) bool {
		t.Helper()
		ok := v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(msg)) == nil
		classes := Classify(sig)
		if ok && !slices.ContainsFunc(ClassesFor(pub), func(c Class) bool { return slices.Contains(classes, c) }) {
			t.Errorf("R3: %s: accepted, filed under %v, looked for in %v", name, classes, ClassesFor(pub))
		}
		if pub, isRSA := pub.(*rsa.PublicKey); ok && isRSA && !RSAFits(pub, sig) {
			t.Errorf("R6: %s: accepted and does not fit", name)
		}
		return ok
	}

	for _, bits := range []int{1024, 1032, 2047, 2048, 2049} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hashes[1:] {
			v, err := signature.LoadVerifier(&key.PublicKey, h)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := rsa.SignPKCS1v15(nil, key, h, sum(h, msg))
			if err != nil {
				t.Fatal(err)
			}
			if !check("rsa", &key.PublicKey, v, sig) {
				t.Errorf("rsa %d %v: refused", bits, h)
			}
			// The same value in another length, or plus the modulus, is no signature.
			longer := append([]byte{0}, sig...)
			plusN := new(big.Int).SetBytes(sig)
			plusN.Add(plusN, key.N)
			for _, sig := range [][]byte{longer, sig[1:], plusN.Bytes(), key.N.Bytes()} {
				if check("rsa", &key.PublicKey, v, sig) || RSAFits(&key.PublicKey, sig) {
					t.Errorf("rsa %d: %d bytes fit", bits, len(sig))
				}
			}
		}
		if below := new(big.Int).Sub(key.N, big.NewInt(1)); !RSAFits(&key.PublicKey, below.Bytes()) {
			t.Error("N − 1 does not fit")
		}
	}
	if RSAFits(nil, nil) || RSAFits(&rsa.PublicKey{}, nil) {
		t.Error("something fits no key")
	}

	rng := newRand(1)
	for range 200 {
		key := ed25519.NewKeyFromSeed(randomBytes(rng, ed25519.SeedSize))
		pub := key.Public()
		for name, opts := range map[string]struct {
			load []signature.LoadOption
			sign crypto.SignerOpts
			data []byte
		}{
			"ed25519":   {nil, crypto.Hash(0), msg},
			"ed25519ph": {[]signature.LoadOption{options.WithED25519ph()}, crypto.SHA512, sum(crypto.SHA512, msg)},
		} {
			v, err := signature.LoadVerifierWithOpts(pub, opts.load...)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := key.Sign(nil, opts.data, opts.sign)
			if err != nil {
				t.Fatal(err)
			}
			if !check(name, pub, v, sig) {
				t.Errorf("%s: refused", name)
			}
			sig[63] ^= 1 << rng.IntN(8)
			check(name, pub, v, sig)
		}
	}
}
