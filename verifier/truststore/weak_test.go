package truststore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
)

// smallOrder are all the ways to write a point of order 1, 2, 4 or 8 (the eight
// points, and those of them that have a second encoding, RFC 8032 section 5.1.3).
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	// Not canonical: x = 0 with its sign, or y not below p.
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func pemOf(t *testing.T, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// forgeable reports whether one signature verifies under k over some of a few
// messages that its holder has never seen.
func forgeable(k ed25519.PublicKey) bool {
	sig := make([]byte, ed25519.SignatureSize) // R the identity, S = 0
	sig[0] = 1
	for i := range 64 {
		if ed25519.Verify(k, []byte{byte(i)}, sig) {
			return true
		}
	}
	return false
}

// Keys that anyone can sign for are refused when they are loaded, and cost no other.
func TestWeakKeys(t *testing.T) {
	good := signtest.NewKey(signtest.P256)
	refused := func(name string, content []byte, want string) {
		t.Helper()
		d := newDirs(t).key("good.pub", good)
		d.write(name, content)
		ts := d.load()
		if got := refusal(ts, name); !strings.Contains(got, want) || got == "" {
			t.Errorf("%s: refused %q, want %q", name, got, want)
		}
		if len(ts.Loaded()) != 1 || ts.Loaded()[0].Signer != good.Signer() {
			t.Errorf("%s: loaded %v", name, ts.Loaded())
		}
	}
	forged := 0
	for _, h := range smallOrder {
		b, _ := hex.DecodeString(h)
		if forgeable(b) {
			forged++
		}
		refused("_cosign/"+h, pemOf(t, ed25519.PublicKey(b)), "Ed25519")
	}
	if forged < 8 {
		t.Errorf("%d of the points verify a forged signature: the test does not show what it is about", forged)
	}
	// Canonical, of large order, but for the encoding of y: no point has it.
	offCurve, _ := hex.DecodeString("0200000000000000000000000000000000000000000000000000000000000000")
	refused("_cosign/off", pemOf(t, ed25519.PublicKey(offCurve)), "not on its curve")

	n := signtest.NewKey(signtest.RSA2048).Public().(*rsa.PublicKey).N
	for _, e := range []int{1, 2, 65536} {
		refused("_cosign/rsa", pemOf(t, &rsa.PublicKey{N: n, E: e}), "exponent")
	}
	refused("_cosign/rsa", pemOf(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2100), E: 65537}), "even modulus")

	// x509 refuses these itself; if it ever does not, so do we.
	p := *good.Public().(*ecdsa.PublicKey)
	if p.Curve = elliptic.P384(); weakness(&p) == nil { // a point of P-256
		t.Error("a point off its curve is accepted")
	}
	for _, kind := range signtest.Kinds() {
		if err := weakness(signtest.NewKey(kind).Public()); err != nil {
			t.Errorf("kind %v: %v", kind, err)
		}
	}
}

// The same for the keys of certificates.
func TestWeakCertificates(t *testing.T) {
	issuer := signtest.NewRoot(signtest.CertOptions{})
	small, _ := hex.DecodeString(smallOrder[0])
	n := signtest.NewKey(signtest.RSA2048).Public().(*rsa.PublicKey).N
	for name, pub := range map[string]crypto.PublicKey{
		"small order": ed25519.PublicKey(small),
		"exponent 1":  &rsa.PublicKey{N: n, E: 1},
		"1024 bits":   signtest.NewKey(signtest.RSA1024).Public(),
	} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weak"}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert(), pub, issuer.Key.Private)
		if err != nil {
			t.Fatal(name, err)
		}
		d := newDirs(t).cert("ca/acme", "good.pem", issuer.Cert())
		d.write("_notation/truststore/x509/ca/acme/weak.der", der)
		ts := d.load()
		if got := refusal(ts, "_notation/truststore/x509/ca/acme/weak.der"); !strings.Contains(got, "whose key is") {
			t.Errorf("%s: refused %q", name, got)
		}
		if len(ts.Loaded()) != 1 {
			t.Errorf("%s: loaded %v", name, ts.Loaded())
		}
	}
}
