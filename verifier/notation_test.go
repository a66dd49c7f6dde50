package verifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Both envelopes, every algorithm, both schemes.
func TestNotationTrusted(t *testing.T) {
	img := image("A")
	for _, kind := range []signtest.Kind{signtest.P256, signtest.P384, signtest.P521, signtest.RSA2048, signtest.RSA3072, signtest.RSA4096} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
			leaf := root.Leaf(signtest.CertOptions{Key: pooled(kind, 0), CommonName: "Leaf"})
			ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).cert("signingAuthority/sa", "r.pem", root.Cert()).load()
			for _, cose := range []bool{false, true} {
				for _, sa := range []bool{false, true} {
					r := notated(img, leaf, signtest.NotationOptions{COSE: cose, SigningAuthority: sa})
					lo := one(t, ts, r)
					want(t, lo, "trusted")
					d := decide(ts, r, lo, time.Now())
					store := map[bool]string{false: "ca:acme", true: "signingAuthority:sa"}[sa]
					if d.Status != trust.Trusted || d.Author != "CN=Leaf,O=Notary,L=Seattle,ST=WA,C=US" || d.Signer.Store() != store {
						t.Errorf("%+v", d)
					}
					if f := lo.Verdict.Format; (f == trust.COSE) != cose || f == "" {
						t.Errorf("format %q", f)
					}
					if lo.Calls != 1 {
						t.Errorf("%d calls", lo.Calls)
					}
				}
			}
		})
	}
}

// Anchors: root, intermediate, leaf, self-signed; one ground for each certificate
// and store, so that rotating one leaves no gap.
func TestAnchors(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	mid := root.Intermediate(signtest.CertOptions{CommonName: "Mid"})
	leaf := mid.Leaf(signtest.CertOptions{})
	d := newDirs(t).cert("ca/a", "root.pem", root.Cert()).cert("ca/b", "mid.pem", mid.Cert()).cert("ca/b", "root.pem", root.Cert())
	r := notated(img, leaf, signtest.NotationOptions{})
	lo := one(t, d.load(), r)
	want(t, lo, "trusted")
	got := map[trust.SignerID]bool{}
	for _, g := range lo.Verdict.Grounds {
		got[g.Signers[0]] = true
	}
	for _, s := range []trust.Signer{signtest.CertSigner("ca", "a", root.Cert()), signtest.CertSigner("ca", "b", root.Cert()), signtest.CertSigner("ca", "b", mid.Cert())} {
		if !got[s.ID()] {
			t.Errorf("no ground for %v", s)
		}
	}
	if len(got) != 3 || len(lo.Verdict.Grounds) != 3 || len(lo.Hints) != 3 {
		t.Errorf("%d grounds, %d hints", len(lo.Verdict.Grounds), len(lo.Hints))
	}
	self := signtest.SelfSigned(signtest.CertOptions{})
	ts := newDirs(t).cert("ca/a", "self.pem", self.Cert()).load()
	want(t, one(t, ts, notated(img, self, signtest.NotationOptions{})), "trusted")
	want(t, one(t, ts, r), "no-trusted-key")
	// The same name and key in another certificate is another signer.
	twin := signtest.NewRoot(signtest.CertOptions{Key: root.Key})
	want(t, one(t, newDirs(t).cert("ca/a", "twin.pem", twin.Cert()).load(), r), "no-trusted-key")
	// The type of the store must be the one that the scheme wants.
	ts = newDirs(t).cert("signingAuthority/a", "root.pem", root.Cert()).load()
	want(t, one(t, ts, r), "no-trusted-key")
	want(t, one(t, ts, notated(img, leaf, signtest.NotationOptions{SigningAuthority: true})), "trusted")
	ts = newDirs(t).cert("tsa/a", "root.pem", root.Cert()).load()
	want(t, one(t, ts, r), "no-trusted-key")
}

// A store that the statement does not name: the ground is there, the join refuses
// it, and no verification is needed when it is named.
func TestNamingIsTheJoins(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).cert("ca/other", "r.pem", root.Cert()).
		cert("ca/acme", "r.pem", signtest.NewRoot(signtest.CertOptions{}).Cert()).policy(signtest.Policy("strict", "", "ca:acme"))
	ts := d.load()
	r := notated(image("A"), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	lo := one(t, ts, r)
	want(t, lo, "trusted")
	if d := decide(ts, r, lo, time.Now()); d.Status != trust.Untrusted || d.Reason != trust.SignerRemoved || d.Author != "" {
		t.Errorf("%+v", d)
	}
	named := d.policy(signtest.Policy("strict", "", "ca:acme", "ca:other")).load()
	if d := decide(named, r, lo, time.Now()); d.Status != trust.Trusted {
		t.Errorf("%+v", d)
	}
}

func TestNotationReasons(t *testing.T) {
	img := image("A")
	root, stranger := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{})
	leaf, eLeaf := root.Leaf(signtest.CertOptions{}), stranger.Leaf(signtest.CertOptions{})
	small := root.Leaf(signtest.CertOptions{Kind: signtest.RSA1024})
	p224 := root.Leaf(signtest.CertOptions{Kind: signtest.P224})
	ed := root.Leaf(signtest.CertOptions{Kind: signtest.Ed25519})
	rsa := root.Leaf(signtest.CertOptions{Kind: signtest.RSA2048})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).load()
	n := func(c *signtest.Chain, o signtest.NotationOptions) *request { return notated(img, c, o) }
	jws := func(c *signtest.Chain, f func(h map[string]any), payload []byte) *request {
		h := signtest.Protected("ES256", time.Now())
		if f != nil {
			f(h)
		}
		if payload == nil {
			payload = signtest.Target(img.descriptor())
		}
		return newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS(must(json.Marshal(h)), payload, c))
	}
	alg := func(a string) func(map[string]any) { return func(h map[string]any) { h["alg"] = a } }
	// N9: duplicates, in both orders, by T and by E.
	dup := func(c *signtest.Chain, old, new string) *request {
		h := string(must(json.Marshal(signtest.Protected("ES256", time.Now()))))
		if !strings.Contains(h, old) {
			panic(h)
		}
		return newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, signtest.RawJWS([]byte(strings.Replace(h, old, new, 1)), signtest.Target(img.descriptor()), c))
	}
	outer := func(c *signtest.Chain, f func(e map[string]any)) *request {
		_, b := signtest.Envelope(img.descriptor(), c, signtest.NotationOptions{})
		var e map[string]any
		if err := json.Unmarshal(b, &e); err != nil {
			panic(err)
		}
		f(e)
		return newRequest(img, trust.NotationReferrer).blob(signtest.JWSMediaType, must(json.Marshal(e)))
	}
	payload := func(f func(d *ocispec.Descriptor)) *request {
		d := img.descriptor()
		f(&d)
		return n(leaf, signtest.NotationOptions{Payload: signtest.Target(d)})
	}
	plugin := func(c *signtest.Chain, name string, cose bool) *request {
		return n(c, signtest.NotationOptions{COSE: cose, Attributes: []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: name}}})
	}
	long := root
	for range MaxChain - 1 {
		long = long.Intermediate(signtest.CertOptions{})
	}
	long = long.Leaf(signtest.CertOptions{})
	media := func(mt string, b []byte) *request { return newRequest(img, trust.NotationReferrer).blob(mt, b) }
	_, goodJWS := signtest.Envelope(img.descriptor(), leaf, signtest.NotationOptions{})
	_, goodCOSE := signtest.Envelope(img.descriptor(), leaf, signtest.NotationOptions{COSE: true})
	for _, c := range []struct {
		name string
		r    *request
		want string
	}{
		{"stranger jws", n(eLeaf, signtest.NotationOptions{}), "no-trusted-key"},
		{"stranger cose", n(eLeaf, signtest.NotationOptions{COSE: true}), "no-trusted-key"},
		{"N1 other digest", payload(func(d *ocispec.Descriptor) { d.Digest = "sha256:" + "00" }), "subject-mismatch"},
		{"N1 other size", payload(func(d *ocispec.Descriptor) { d.Size++ }), "subject-mismatch"},
		{"N1 other media type", payload(func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageIndex }), "subject-mismatch"},
		{"payload with annotations", n(leaf, signtest.NotationOptions{Payload: []byte(strings.Replace(string(signtest.Target(img.descriptor())),
			`"digest"`, `"annotations":{"a":"1","A":"2"},"digest"`, 1))}), "trusted"},
		{"payload doubled", jws(leaf, nil, []byte(strings.Replace(string(signtest.Target(img.descriptor())), `"targetArtifact"`, `"targetArtifact":{},"targetArtifact"`, 1))), "ambiguous"},
		{"payload spelling", jws(leaf, nil, []byte(strings.Replace(string(signtest.Target(img.descriptor())), `"targetArtifact"`, `"TargetArtifact"`, 1))), "ambiguous"},
		{"payload not JSON", jws(leaf, nil, []byte("hello")), "malformed"},
		{"payload empty", jws(leaf, nil, []byte(" ")), "malformed"},
		{"payload null", jws(leaf, nil, []byte("null")), "subject-mismatch"},
		{"other content type", jws(leaf, func(h map[string]any) { h["cty"] = "application/json" }, nil), "malformed"},
		{"raw good", jws(leaf, nil, nil), "trusted"},
		{"N9 alg twice, E", dup(eLeaf, `"alg"`, `"alg":"PS256","alg"`), "ambiguous"},
		{"N9 alg twice, T", dup(leaf, `"alg":"ES256"`, `"alg":"ES256","alg":"none"`), "ambiguous"},
		{"N9 Alg", dup(leaf, `"alg"`, `"Alg":"PS256","alg"`), "ambiguous"},
		{"N9 Alg alone", dup(leaf, `"alg"`, `"Alg"`), "ambiguous"},
		{"N9 crit twice", dup(leaf, `"crit"`, `"crit":[],"crit"`), "ambiguous"},
		{"N9 scheme twice", dup(leaf, `"io.cncf.notary.signingScheme":`, `"io.cncf.notary.signingScheme":"notary.x509.signingAuthority","io.cncf.notary.signingScheme":`), "ambiguous"},
		{"N9 outer twice", media(signtest.JWSMediaType, bytes.Replace(goodJWS, []byte(`"payload"`), []byte(`"payload":"","payload"`), 1)), "ambiguous"},
		{"J2 general serialisation", outer(leaf, func(e map[string]any) { e["signatures"] = []any{} }), "ambiguous"},
		{"J3 jwk, x5u, jku", jws(eLeaf, func(h map[string]any) {
			h["jwk"], h["x5u"], h["jku"] = map[string]any{"kty": "EC"}, "http://127.0.0.1:1/x", "http://127.0.0.1:1/y"
		}, nil), "no-trusted-key"},
		{"J1 dots", outer(leaf, func(e map[string]any) { e["protected"] = strings.Repeat(".", 900_000) }), "malformed"},
		{"N10 alg none", jws(leaf, alg("none"), nil), "unsupported-algorithm"},
		{"N10 alg HS256", jws(leaf, alg("HS256"), nil), "unsupported-algorithm"},
		{"N10 ES384 with P-256", jws(leaf, alg("ES384"), nil), "malformed"},
		{"N10 ES256 with RSA", jws(rsa, alg("ES256"), nil), "malformed"},
		{"N10 RS256", jws(rsa, alg("RS256"), nil), "unsupported-algorithm"},
		{"PS256", jws(rsa, alg("PS256"), nil), "trusted"},
		{"RSA 1024", jws(small, alg("PS256"), nil), "key-too-small"},
		{"P-224", jws(p224, nil, nil), "unsupported-algorithm"},
		{"signature altered", outer(leaf, func(e map[string]any) { e["signature"] = "AAAA" + e["signature"].(string)[4:] }), "malformed"},
		{"signature altered, stranger", outer(eLeaf, func(e map[string]any) { e["signature"] = "AAAA" + e["signature"].(string)[4:] }), "no-trusted-key"},
		{"no signature", outer(leaf, func(e map[string]any) { e["signature"] = "" }), "malformed"},
		{"no chain", outer(leaf, func(e map[string]any) { e["header"] = map[string]any{} }), "malformed"},
		{"N11 DSA and other keys: Ed25519 leaf", outer(leaf, func(e map[string]any) {
			e["header"].(map[string]any)["x5c"] = [][]byte{ed.Cert().Raw, root.Cert().Raw}
		}), "unsupported-algorithm"},
		{"E signs, T's root in the chain", outer(eLeaf, func(e map[string]any) {
			e["header"].(map[string]any)["x5c"] = [][]byte{eLeaf.Cert().Raw, root.Cert().Raw}
		}), "certificate-invalid"},
		{"E signs, T's chain", outer(eLeaf, func(e map[string]any) {
			e["header"].(map[string]any)["x5c"] = [][]byte{leaf.Cert().Raw, root.Cert().Raw}
		}), "malformed"},
		{"N11 loop", outer(leaf, func(e map[string]any) {
			e["header"].(map[string]any)["x5c"] = [][]byte{leaf.Cert().Raw, root.Cert().Raw, root.Cert().Raw}
		}), "certificate-invalid"},
		{"signing agent in another case", outer(leaf, func(e map[string]any) {
			h := e["header"].(map[string]any)
			h["io.cncf.notary.SigningAgent"] = h["io.cncf.notary.signingAgent"]
			delete(h, "io.cncf.notary.signingAgent")
		}), "trusted"},
		{"chain in another case", outer(leaf, func(e map[string]any) {
			h := e["header"].(map[string]any)
			h["X5c"] = h["x5c"]
			delete(h, "x5c")
		}), "ambiguous"},
		{"no root", outer(leaf, func(e map[string]any) { e["header"].(map[string]any)["x5c"] = [][]byte{leaf.Cert().Raw} }), "no-trusted-key"},
		{"garbage certificate", outer(leaf, func(e map[string]any) { e["header"].(map[string]any)["x5c"] = [][]byte{[]byte("x"), root.Cert().Raw} }), "malformed"},
		{"N11 ten thousand certificates", outer(leaf, func(e map[string]any) {
			var x5c [][]byte
			for range 1000 {
				x5c = append(x5c, root.Cert().Raw)
			}
			e["header"].(map[string]any)["x5c"] = x5c
		}), "problem limit-exceeded"},
		{"N11 eleven certificates", n(long, signtest.NotationOptions{}), "problem limit-exceeded"},
		{"N5 plugin, E", plugin(eLeaf, "canary", false), "no-trusted-key"},
		{"N5 plugin, T", plugin(leaf, "../../canary", false), "plugin-required"},
		{"N5 plugin, T, cose", plugin(leaf, "/bin/canary", true), "plugin-required"},
		{"critical attribute that nobody knows", n(leaf, signtest.NotationOptions{Attributes: []signature.Attribute{{Key: "x", Critical: true, Value: "y"}}}), "plugin-required"},
		{"the same in cose", n(leaf, signtest.NotationOptions{COSE: true, Attributes: []signature.Attribute{{Key: "x", Critical: true, Value: "y"}}}), "plugin-required"},
		{"attribute that may be ignored", n(leaf, signtest.NotationOptions{Attributes: []signature.Attribute{{Key: "x", Value: "y"}}}), "trusted"},
		{"jws as cose", media(signtest.COSEMediaType, goodJWS), "malformed"},
		{"cose as jws", media(signtest.JWSMediaType, goodCOSE), "malformed"},
		{"other media type", media("application/json", goodJWS), "malformed"},
		{"N12 cose empty", media(signtest.COSEMediaType, []byte{}), "malformed"},
		{"N12 indefinite map", media(signtest.COSEMediaType, []byte{0xd2, 0x84, 0xbf, 0xff}), "malformed"},
		{"N12 nested tags", media(signtest.COSEMediaType, bytes.Repeat([]byte{0xd2}, 10_000)), "malformed"},
		{"N12 nested arrays", media(signtest.COSEMediaType, bytes.Repeat([]byte{0x81}, 10_000)), "malformed"},
		{"S18 nil payload", media(signtest.COSEMediaType, coseWithoutPayload(goodCOSE)), "malformed"},
		{"two layers", media(signtest.JWSMediaType, goodJWS).blob(signtest.COSEMediaType, goodCOSE), "ambiguous"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := verify1(t, ts, c.r)
			if len(o.Layers) != 1 || o.Panics > 0 {
				t.Fatalf("%+v", o)
			}
			want(t, o.Layers[0], c.want)
			if lo := o.Layers[0]; !lo.Verdict.Matched() && lo.Verdict.Author != "" {
				t.Errorf("author %q of an unproven signer", lo.Verdict.Author)
			}
		})
	}
}

// coseWithoutPayload replaces the payload's byte string by nil: it begins with {"t.
func coseWithoutPayload(b []byte) []byte {
	i := bytes.Index(b, []byte(`{"targetArtifact"`))
	end := i + bytes.LastIndex(b[i:], []byte("}}")) + 2
	return append(append(bytes.Clone(b[:i-2]), 0xf6), b[end:]...)
}

func TestIdentities(t *testing.T) {
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	leaf := root.Leaf(signtest.CertOptions{CommonName: "build"})
	hash := root.Leaf(signtest.CertOptions{CommonName: "=#00"})
	doc := func(identities string) string {
		return strings.Replace(signtest.Policy("strict", "", "ca:acme"), `["*"]}]`, identities+"}]", 1)
	}
	for identities, w := range map[string]string{
		`["*"]`: "trusted",
		`["x509.subject: C=US, ST=WA, O=Notary"]`:                                     "trusted",
		`["x509.subject: C=US, ST=WA, O=Notary, CN=build"]`:                           "trusted",
		`["x509.subject: C=US, ST=WA, O=Notary, CN=other"]`:                           "identity-not-trusted",
		`["x509.subject: C=US, ST=WA, O=Acme","x509.subject: C=US, ST=WA, O=Notary"]`: "trusted",
		`["other:thing"]`: "identity-not-trusted",
	} {
		ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(doc(identities)).load()
		lo := one(t, ts, notated(img, leaf, signtest.NotationOptions{}))
		if says(lo) != w {
			t.Errorf("%s: %s, want %s (policy %s)", identities, says(lo), w, ts.Policy())
		}
		if lo.Verdict.Author != "" && w != "trusted" {
			t.Errorf("%s: author %q", identities, lo.Verdict.Author)
		}
		// N7
		if identities != `["*"]` {
			want(t, one(t, ts, notated(img, hash, signtest.NotationOptions{})), "identity-not-trusted")
		}
	}
}

// N6: nothing is ever dialled; addresses read as the mode says.
func TestRevocation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(dialled)
		}
	}()
	defer func() { l.Close(); <-done }()
	url := "http://" + l.Addr().String()
	img := image("A")
	root := signtest.NewRoot(signtest.CertOptions{})
	plain, revocable := root.Leaf(signtest.CertOptions{}), root.Leaf(signtest.CertOptions{OCSP: url, CRL: url + "/crl"})
	eLeaf := signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{CRL: url})
	for _, mode := range []truststore.RevocationMode{truststore.RevocationOnline, truststore.RevocationOffline, truststore.RevocationIgnore} {
		for policyText, w := range map[string]string{
			signtest.Policy("strict", "", "ca:acme"):                                         "problem revocation-unknown",
			signtest.Policy("strict", `,"override":{"revocation":"log"}`, "ca:acme"):         "trusted",
			signtest.Policy("strict", `,"override":{"revocation":"skip"}`, "ca:acme"):        "trusted",
			signtest.Policy("permissive", "", "ca:acme"):                                     "trusted",
			signtest.Policy("permissive", `,"override":{"revocation":"enforce"}`, "ca:acme"): "problem revocation-unknown",
		} {
			d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(policyText)
			d.cfg.Revocation = mode
			ts := d.load()
			if mode == truststore.RevocationIgnore {
				w = "trusted"
			}
			want(t, one(t, ts, notated(img, plain, signtest.NotationOptions{})), "trusted")
			want(t, one(t, ts, notated(img, eLeaf, signtest.NotationOptions{})), "no-trusted-key")
			lo := one(t, ts, notated(img, revocable, signtest.NotationOptions{}))
			if says(lo) != w {
				t.Errorf("%s, %s: %s, want %s", mode, policyText, says(lo), w)
			}
			if note := lo.Verdict.RevocationNotChecked; note != (w == "trusted" && !strings.Contains(policyText, "skip")) {
				t.Errorf("%s, %s: not-checked %v", mode, policyText, note)
			}
		}
	}
	select {
	case <-dialled:
		t.Error("dialled an address from a certificate")
	default:
	}
}

// N4 and the reasons that need no verification.
func TestSkipped(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	r := notated(image("A"), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})
	scoped := func(scopes ...string) string {
		var s []string
		for i, scope := range scopes {
			s = append(s, fmt.Sprintf(`{"name":"s%d","registryScopes":[%q],"signatureVerification":{"level":"strict"},"trustStores":["ca:acme"],"trustedIdentities":["*"]}`, i, scope))
		}
		return `{"version":"1.0","trustPolicies":[` + strings.Join(s, ",") + `]}`
	}
	for _, c := range []struct {
		policy string
		want   trust.Reason
	}{
		{signtest.Policy("audit", "", "ca:acme"), trust.PolicyDoesNotVerify},
		{signtest.Policy("audit", `,"override":{"authenticity":"enforce","authenticTimestamp":"enforce","expiry":"enforce","revocation":"enforce"}`, "ca:acme"), trust.PolicyDoesNotVerify},
		{`{"version":"1.0","trustPolicies":[{"name":"a","registryScopes":["*"],"signatureVerification":{"level":"skip"}}]}`, trust.PolicyDoesNotVerify},
		{scoped("host/other"), trust.NoPolicy},
		{scoped("one.example/" + repo), ""},
		{scoped("one.example/"+repo, "two.example/"+repo), trust.PolicyAmbiguous},
		{"{}", trust.PolicyInvalid},
	} {
		ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(c.policy).load()
		o := verify1(t, ts, r)
		if o.Skipped != c.want || (len(o.Layers) == 0) != (c.want != "") {
			t.Errorf("%s: %+v", c.policy, o)
		}
	}
	// C2: the statement of one repository says nothing about another.
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(scoped("one.example/" + repo)).load()
	lo := one(t, ts, r)
	if d := ts.InForce().Decide("team/other", trust.Notation, &lo.Verdict, time.Now()); d.Status == trust.Trusted {
		t.Errorf("%+v", d)
	}
}

// authenticity may be overridden to "log"; that makes no stranger trusted.
func TestAuthenticityLogged(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(signtest.Policy("strict", `,"override":{"authenticity":"log"}`, "ca:acme")).load()
	if ts.Policy().Source != truststore.PolicyOperator {
		t.Fatal(ts.Policy())
	}
	e := signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{})
	want(t, one(t, ts, notated(image("A"), e, signtest.NotationOptions{})), "no-trusted-key")
	want(t, one(t, ts, notated(image("A"), root.Leaf(signtest.CertOptions{}), signtest.NotationOptions{})), "trusted")
}

// Nothing that is not signed makes an envelope better: every bit of a JWS and of
// a COSE envelope by a stranger and by T over another subject.
func TestEnvelopeMutations(t *testing.T) {
	img, other := image("A"), image("B")
	root := signtest.NewRoot(signtest.CertOptions{})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).load()
	leaf := root.Leaf(signtest.CertOptions{})
	for _, cose := range []bool{false, true} {
		mt, good := signtest.Envelope(img.descriptor(), leaf, signtest.NotationOptions{COSE: cose})
		for i := 0; i < len(good); i += 3 {
			b := bytes.Clone(good)
			b[i] ^= 1 << (i % 8)
			if lo := one(t, ts, newRequest(other, trust.NotationReferrer).blob(mt, b)); lo.Verdict.Matched() {
				t.Fatalf("byte %d: trusted over another subject", i)
			}
		}
	}
}
