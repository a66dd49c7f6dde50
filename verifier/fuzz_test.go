package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// The invariant of the fuzz targets for signatures: without T's private key, no
// input yields a ground. T's own signatures are over another subject, so seeds
// may contain them, and every edit of them.
func checkNoGround(t *testing.T, ts *truststore.TrustStore, r *request) {
	t.Helper()
	o := verify1(t, ts, r)
	if o.Panics > 0 {
		t.Errorf("a library panicked")
	}
	for _, lo := range o.Layers {
		if lo.Verdict.Matched() || lo.Verdict.Author != "" {
			t.Errorf("ground without T's key: %+v", lo.Verdict)
		}
		if says(lo) == "" {
			t.Errorf("neither ground nor reason: %+v", lo)
		}
	}
	if len(o.Layers) == 0 && !o.Attachment {
		t.Errorf("nothing said: %+v", o)
	}
}

// The processes of a fuzz test must have the same keys and certificates, or T's
// signatures among the seeds are a stranger's to all but one.
func fuzzChain(seed string) (root, leaf *signtest.Chain) {
	options := func(name string, serial int64) signtest.CertOptions {
		return signtest.CertOptions{CommonName: name, Key: signtest.FixedKey(seed + name),
			Change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(serial) }}
	}
	root = signtest.NewRoot(options("root", 1))
	return root, root.Leaf(options("leaf", 2))
}

func TestFuzzMaterialIsFixed(t *testing.T) {
	a, _ := fuzzChain("T")
	b, leaf := fuzzChain("T")
	if !a.Cert().Equal(b.Cert()) || leaf.Cert().Equal(b.Cert()) {
		t.Error("another certificate each time")
	}
}

var (
	fuzzSubject = image("fuzz")
	fuzzOther   = image("signed by T")
)

// fixtures calls add for the signatures that the real tools made, at most a few of
// each repository: all of them strangers' here.
func fixtures(f *testing.F, mediaType string, add func(layer ocispec.Descriptor, blob []byte)) {
	f.Helper()
	n := 0
	for _, root := range []string{"cosign2", "cosign3", "notation"} {
		repos, err := filepath.Glob("../integration/testdata/storage/" + root + "/*/*/blobs/sha256")
		if err != nil {
			f.Fatal(err)
		}
		for _, dir := range repos {
			files, err := os.ReadDir(dir)
			if err != nil {
				f.Fatal(err)
			}
			here := 0
			for _, e := range files {
				var m ocispec.Manifest
				b, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil || json.Unmarshal(b, &m) != nil || len(m.Layers) == 0 || m.Layers[0].MediaType != mediaType || here == 2 {
					continue
				}
				if b, err := os.ReadFile(filepath.Join(dir, m.Layers[0].Digest.Encoded())); err == nil {
					add(m.Layers[0], b)
					here, n = here+1, n+1
				}
			}
		}
	}
	if n < 4 {
		f.Fatalf("only %d fixtures of %s", n, mediaType)
	}
}

func FuzzPayload(f *testing.F) {
	k := signtest.FixedKey("T")
	ts := newDirs(f).key("k", k).key("k2", signtest.FixedKey("T2")).key("ed", signtest.NewKey(signtest.Ed25519)).
		key("rsa", signtest.NewKey(signtest.RSA2048)).load()
	for _, s := range []struct {
		Subject
		*signtest.Key
	}{{fuzzOther, k}, {fuzzSubject, signtest.FixedKey("E")}, {fuzzSubject, signtest.NewKey(signtest.Ed25519)}} {
		d, b := signtest.SimpleLayer(s.Subject.Digest, s.Key, signtest.CosignOptions{})
		f.Add(b, d.Annotations[signtest.SignatureAnnotation], "")
	}
	fixtures(f, signtest.SimpleMediaType, func(d ocispec.Descriptor, b []byte) {
		f.Add(b, d.Annotations[signtest.SignatureAnnotation], d.Annotations[signtest.CertificateAnnotation])
	})
	f.Fuzz(func(t *testing.T, payload []byte, sig, cert string) {
		checkNoGround(t, ts, newRequest(fuzzSubject, trust.CosignTag).layer(ocispec.Descriptor{Digest: digest.FromBytes(payload), Size: int64(len(payload)),
			Annotations: map[string]string{signtest.SignatureAnnotation: sig, signtest.CertificateAnnotation: cert}}, payload))
	})
}

func FuzzBundle(f *testing.F) {
	k := signtest.FixedKey("T")
	ts := newDirs(f).key("k", k).key("ed", signtest.NewKey(signtest.Ed25519)).load()
	f.Add(signtest.BundleJSON(fuzzOther.Digest, k, signtest.CosignOptions{}))
	f.Add(signtest.BundleJSON(fuzzSubject.Digest, signtest.FixedKey("E"), signtest.CosignOptions{}))
	f.Add(signtest.BundleJSON(fuzzSubject.Digest, k, signtest.CosignOptions{PayloadType: "text/plain"}))
	f.Add(signtest.BundleJSON(fuzzOther.Digest, k, signtest.CosignOptions{PredicateType: "https://spdx.dev/Document"}))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AAAA"},"tlogEntries":[{}]},"dsseEnvelope":{"signatures":[null]}}`))
	fixtures(f, signtest.BundleMediaType, func(_ ocispec.Descriptor, b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		checkNoGround(t, ts, newRequest(fuzzSubject, trust.CosignBundle).blob(signtest.BundleMediaType, b))
	})
}

func fuzzEnvelope(f *testing.F, cose bool) {
	root, leaf := fuzzChain("T")
	_, stranger := fuzzChain("E")
	ts := newDirs(f).cert("ca/acme", "r.pem", root.Cert()).cert("signingAuthority/acme", "r.pem", root.Cert()).load()
	for _, sa := range []bool{false, true} {
		o := signtest.NotationOptions{COSE: cose, SigningAuthority: sa, Time: date(2005), Expiry: date(2050)}
		_, b := signtest.Envelope(fuzzOther.descriptor(), leaf, o)
		f.Add(b)
		_, b = signtest.Envelope(fuzzSubject.descriptor(), stranger, o)
		f.Add(b)
	}
	mt := signtest.JWSMediaType
	if cose {
		mt = signtest.COSEMediaType
	}
	fixtures(f, mt, func(_ ocispec.Descriptor, b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		checkNoGround(t, ts, newRequest(fuzzSubject, trust.NotationReferrer).blob(mt, b))
	})
}

func FuzzJWS(f *testing.F)  { fuzzEnvelope(f, false) }
func FuzzCOSE(f *testing.F) { fuzzEnvelope(f, true) }

// FuzzProtected varies what a stranger signs: the protected header and the payload
// of a JWS, with a good signature.
func FuzzProtected(f *testing.F) {
	root, _ := fuzzChain("T")
	_, stranger := fuzzChain("E")
	ts := newDirs(f).cert("ca/acme", "r.pem", root.Cert()).load()
	// With T's root at the end of the chain, so that an anchor is found.
	stranger.Certs = append(stranger.Certs, root.Cert())
	f.Add(must(json.Marshal(signtest.Protected("ES256", date(2005)))), signtest.Target(fuzzSubject.descriptor()))
	f.Add([]byte(`{"alg":"ES256","crit":[]}`), []byte(`{"targetArtifact":{}}`))
	f.Fuzz(func(t *testing.T, protected, payload []byte) {
		checkNoGround(t, ts, newRequest(fuzzSubject, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(protected, payload, stranger)))
	})
}

// FuzzPAE holds our encoding to the one that signtest has by another way.
func FuzzPAE(f *testing.F) {
	f.Add("application/vnd.in-toto+json", []byte("{}"))
	f.Fuzz(func(t *testing.T, payloadType string, payload []byte) {
		if a, b := pae(payloadType, payload), signtest.PAE(payloadType, payload); string(a) != string(b) {
			t.Errorf("%q, want %q", a, b)
		}
	})
}

// A JWS's claims are what notation-core-go reads: the two readings never differ on
// an envelope that it accepts.
func TestClaimsAgree(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	leaf := root.Leaf(signtest.CertOptions{})
	tsa := signtest.NewTSA(signtest.NewRoot(signtest.CertOptions{}), signtest.CertOptions{})
	for _, o := range []signtest.NotationOptions{{}, {Expiry: date(2050), Time: date(2005)}, {SigningAuthority: true}, {Time: date(2005), TSA: tsa}} {
		_, b := signtest.Envelope(fuzzSubject.descriptor(), leaf, o)
		c, f := readJWS(b)
		env := must(signature.ParseEnvelope(signtest.JWSMediaType, b))
		content := must(env.Verify())
		if f.found() || c.scheme != content.SignerInfo.SignedAttributes.SigningScheme || c.contentType != content.Payload.ContentType ||
			string(c.payload) != string(content.Payload.Content) || !bytes.Equal(c.stamp, content.SignerInfo.UnsignedAttributes.TimestampSignature) ||
			c.plugin != needsPlugin(&content.SignerInfo) || len(c.prints) != 2 || c.prints[0] != truststore.FingerprintOf(leaf.Cert()) || c.prints[1] != truststore.FingerprintOf(root.Cert()) {
			t.Errorf("%+v: %+v, %v", o, c, f)
		}
		// parseOnly must reach the inner envelope, or every COSE signature
		// costs two verifications more.
		if parseOnly(env) == env {
			t.Error("the inner envelope is out of reach")
		}
	}
}
