package truststore

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// in reports whether a key or certificate is in force as material.
func in(ts *TrustStore, s trust.Signer) bool { return ts.InForce().Has(s.ID()) }

// refusal is why path was refused, or "".
func refusal(ts *TrustStore, path string) string {
	for _, r := range ts.Refused() {
		if r.Path == path {
			return r.Reason
		}
	}
	return ""
}

func TestMaterialRules(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	root, leaf := signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{}).Leaf(signtest.CertOptions{})
	mid := root.Intermediate(signtest.CertOptions{CommonName: "Mid"})
	self := signtest.SelfSigned(signtest.CertOptions{})
	pub := k.PEM()
	two := append(bytes.Clone(pub), signtest.NewKey(signtest.P256).PEM()...)
	certPEM := signtest.CertPEM(root.Cert())
	const store = "_notation/truststore/x509/"
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: nil})
	for _, c := range []struct {
		name    string
		content []byte
		refused string // part of the reason; "" for loaded
		signer  any    // what must or must not be in force
	}{
		{"_cosign/a.pub", pub, "", k.Signer()},
		{"_cosign/no-extension", pub, "", k.Signer()},
		{"_cosign/crlf.pub", bytes.ReplaceAll(pub, []byte("\n"), []byte("\r\n")), "", k.Signer()},
		{"_cosign/" + trust.SumOf(pub).String(), pub, "", k.Signer()},
		{"_cosign/" + trust.SumOf(nil).String(), pub, "does not hash to its name", k.Signer()},
		{"_cosign/two", two, "more than one", k.Signer()},
		{"_cosign/trailing", append(bytes.Clone(pub), "junk"...), "", k.Signer()},
		{"_cosign/second-begins", append(bytes.Clone(pub), pub[:10]...), "middle of a second", k.Signer()},
		{"_cosign/empty", nil, "is empty", nil},
		{"_cosign/prefix", pub[:len(pub)-10], "not a PEM", k.Signer()},
		{"_cosign/private", k.PrivatePEM(), "holds a PRIVATE key; remove it", k.Signer()},
		{"_cosign/both", append(k.PrivatePEM(), pub...), "holds a PRIVATE key", k.Signer()},
		{"_cosign/encrypted", []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), "holds a PRIVATE key", nil},
		{"_cosign/certificate", certPEM, "openssl x509 -pubkey -noout -in FILE", nil},
		{"_cosign/der", root.Cert().RawSubjectPublicKeyInfo, "openssl pkey -pubin -inform DER", nil},
		{"_cosign/pkcs1", pkcs1, "not a usable", nil},
		{"_cosign/rsa1024", signtest.NewKey(signtest.RSA1024).PEM(), "1024 bits", nil},
		{"_cosign/p224", signtest.NewKey(signtest.P224).PEM(), "P-224", nil},
		{"_cosign/large", append(bytes.Clone(pub), bytes.Repeat([]byte("\n"), maxKeyFile)...), "larger", k.Signer()},
		{store + "ca/acme/root.pem", certPEM, "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/root.der", root.Cert().Raw, "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/" + trust.SumOf(certPEM).String(), certPEM, "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/a.b-c_1/self", signtest.CertPEM(self.Cert()), "", signtest.CertSigner("ca", "a.b-c_1", self.Cert())},
		{store + "signingAuthority/x/mid", signtest.CertPEM(mid.Cert()), "", signtest.CertSigner("signingAuthority", "x", mid.Cert())},
		{store + "ca/acme/both.pem", signtest.CertPEM(root.Cert(), mid.Cert()), "", signtest.CertSigner("ca", "acme", mid.Cert())},
		{store + "ca/acme/comment.pem", append([]byte("subject=x\n"), append(certPEM, "the end\n"...)...), "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/s_client.pem", append(bytes.Clone(certPEM), "---\nServer certificate\nsubject=CN=a-b\n---\n"...), "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/hyphen.pem", append(bytes.Clone(certPEM), "# renew in 2030-01"...), "", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/begun.pem", append(bytes.Clone(certPEM), certPEM[:3]...), "middle of a PEM", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/header.pem", append(bytes.Clone(certPEM), certPEM[:27]...), "middle of a PEM", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/half.pem", append(bytes.Clone(certPEM), certPEM[:40]...), "middle of a PEM", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/leaf.pem", signtest.CertPEM(leaf.Cert()), "neither a CA nor self-signed", signtest.CertSigner("ca", "acme", leaf.Cert())},
		{store + "ca/acme/one-bad.pem", signtest.CertPEM(root.Cert(), leaf.Cert()), "neither a CA", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/key.pem", append(certPEM, root.Key.PrivatePEM()...), "PRIVATE", signtest.CertSigner("ca", "acme", root.Cert())},
		{store + "ca/acme/pub.pem", pub, "holds a public key", nil},
		{store + "ca/acme/garbage", []byte("garbage"), "neither a PEM nor a DER", nil},
		{store + "tsa/t/root", certPEM, "", signtest.CertSigner("tsa", "t", root.Cert())},
		{store + "tsa/t/mid", signtest.CertPEM(mid.Cert()), "not a root CA", signtest.CertSigner("tsa", "t", mid.Cert())},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDirs(t)
			d.write(c.name, c.content)
			ts := d.load()
			reason := refusal(ts, c.name)
			if (reason == "") != (c.refused == "") || !strings.Contains(reason, c.refused) {
				t.Errorf("refused %q, want %q; %v", reason, c.refused, ts.Refused())
			}
			if s, ok := c.signer.(trust.Signer); ok && in(ts, s) != (c.refused == "") {
				t.Errorf("in force: %v", in(ts, s))
			}
			if c.refused == "" && (len(ts.Loaded()) == 0 || ts.Loaded()[0].Path != c.name) {
				t.Errorf("loaded %v", ts.Loaded())
			}
			if c.refused != "" && len(ts.Loaded()) > 0 {
				t.Errorf("loaded %v", ts.Loaded())
			}
			// Z2: nothing of the content in what is said about it.
			for _, line := range strings.Split(string(c.content), "\n") {
				if len(line) > 30 && !strings.HasPrefix(line, "-----") && strings.Contains(fmt.Sprint(ts.Refused()), line) {
					t.Errorf("%q quotes the file", reason)
				}
			}
		})
	}
}

// One bad file in a trust store costs that file, not what its neighbours vouch for.
func TestBadFileInAStore(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).policy(signtest.Policy("strict", "", "ca:acme"))
	d.write("_notation/truststore/x509/ca/acme/bad.pem", []byte("garbage"))
	ts := d.load()
	if len(ts.Refused()) != 1 || !strings.HasSuffix(ts.Refused()[0].Path, "bad.pem") {
		t.Errorf("refused %v", ts.Refused())
	}
	if a := ts.Anchor("ca", FingerprintOf(root.Cert())); a == nil || !ts.InForce().Has(a.Signers()[0].ID()) {
		t.Errorf("%+v is not in force", a)
	}
}

func TestIgnoredNames(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t)
	names := []string{".hidden", "a.pub~", "a.swp", "a.swo", "a.tmp", "a.bak", "a.orig", "a.rej", "a.pub.dpkg-old", ".a.pub.swp", ".nfs0001"}
	for _, name := range names {
		d.write("_cosign/"+name, k.PEM())
	}
	ts := d.load()
	if len(ts.Loaded()) != 0 || len(ts.Refused()) != 0 || ts.Ignored() != len(names) {
		t.Errorf("loaded %v, refused %v, ignored %d", ts.Loaded(), ts.Refused(), ts.Ignored())
	}
}

// W16: a key is known by what it is, not by its file's name.
func TestSameKeyInSeveralFiles(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t).key("b.pub", k)
	d.write("_cosign/a.pub", append([]byte("# first\n"), k.PEM()...))
	if err := os.Link(filepath.Join(d.dir, "_cosign/b.pub"), filepath.Join(d.dir, "_cosign/c.pub")); err != nil {
		t.Fatal(err)
	}
	d.write("_cosign/\xff\xfe.pub", k.PEM())
	ts := d.load()
	if len(ts.Loaded()) != 4 || len(ts.InForce().Terms().Materials) != 1 {
		t.Errorf("%d files, %d signers", len(ts.Loaded()), len(ts.InForce().Terms().Materials))
	}
	if a := ts.InForce().Terms().Materials[0].Author; !strings.HasPrefix(a, "# first\n") {
		t.Errorf("author %q is not the first file by name, as it is", a)
	}
	l := d.loader()
	load(t, l, time.Now())
	if err := os.Remove(filepath.Join(d.dir, "_cosign/a.pub")); err != nil {
		t.Fatal(err)
	}
	if ts = load(t, l, time.Now()); !in(ts, k.Signer()) || ts.InForce().Terms().Materials[0].Author != string(k.PEM()) {
		t.Error("the key left with one of its files")
	}
}

// What is gone is gone at once, and a trust directory that was there is missed.
func TestVanishedDirectories(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t).key("k", k)
	l := d.loader()
	load(t, l, time.Now())
	for _, name := range []string{"_cosign", "_notation"} {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		ts := load(t, l, time.Now())
		if len(ts.Loaded()) != 0 || refusal(ts, "_cosign") != vanished || refusal(ts, "_notation") != vanished || len(ts.Missing()) > 0 {
			t.Errorf("loaded %v, refused %v, missing %v", ts.Loaded(), ts.Refused(), ts.Missing())
		}
	}
	if _, ok := l.RetryAt(time.Now()); ok {
		t.Error("what is gone is gone at once")
	}
	if err := os.WriteFile(filepath.Join(d.dir, "_cosign"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if ts := load(t, l, time.Now()); len(ts.Loaded()) != 0 || !strings.Contains(refusal(ts, "_cosign"), "not a directory") {
		t.Errorf("refused %v", ts.Refused())
	}
	if err := os.Remove(filepath.Join(d.dir, "_cosign")); err != nil {
		t.Fatal(err)
	}
	d.key("k", k)
	if ts := load(t, l, time.Now()); !in(ts, k.Signer()) || refusal(ts, "_cosign") != "" || refusal(ts, "_notation") != vanished {
		t.Errorf("after one is back: loaded %v, refused %v", ts.Loaded(), ts.Refused())
	}
	// Also between being opened and being listed.
	p := l.newPass(time.Now())
	err := p.inTree(d.cfg.CosignDir, l.cosignLabel, func(tr *tree) error {
		return errors.Join(os.RemoveAll(d.cfg.CosignDir), p.readCosign(t.Context(), tr, ".", ""))
	})
	if ts := p.build(); err != nil || refusal(ts, "_cosign") != vanished {
		t.Errorf("while it was read: %v, refused %v", err, ts.Refused())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ts, err := l.Load(ctx, time.Now()); !errors.Is(err, context.Canceled) || ts != nil {
		t.Errorf("%v, %v", ts, err)
	}
}

// A site that signs with one tool has one directory, and nothing is wrong with
// that; but one that was named, or that is a link to nothing, is missed.
func TestDirectoriesThatNeverWere(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t).key("k", k)
	notation := filepath.Join(d.dir, "_notation")
	if err := os.Remove(notation); err != nil {
		t.Fatal(err)
	}
	l := d.loader()
	for range 2 {
		if ts := load(t, l, time.Now()); !in(ts, k.Signer()) || len(ts.Refused()) > 0 || fmt.Sprint(ts.Missing()) != "[_notation]" {
			t.Errorf("loaded %v, refused %v, missing %v", ts.Loaded(), ts.Refused(), ts.Missing())
		}
	}
	d.cfg.NotationExpected = true
	if ts := d.load(); refusal(ts, "_notation") != notThere || len(ts.Missing()) > 0 {
		t.Errorf("named: refused %v, missing %v", ts.Refused(), ts.Missing())
	}
	d.cfg.NotationExpected = false
	if err := os.Symlink("nothing", notation); err != nil {
		t.Fatal(err)
	}
	if ts := d.load(); !strings.Contains(refusal(ts, "_notation"), "link to nothing") {
		t.Errorf("a link to nothing: refused %v", ts.Refused())
	}
}

// FIFOs, directories, links out: skipped and listed, without blocking.
func TestOddEntries(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	d := newDirs(t).key("good.pub", k)
	outside := filepath.Join(t.TempDir(), "outside.pub")
	if err := os.WriteFile(outside, signtest.NewKey(signtest.P256).PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(d.dir, "_cosign")
	if err := errors.Join(
		syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
		os.Symlink("fifo", filepath.Join(dir, "to-fifo")),
		os.Mkdir(filepath.Join(dir, "directory"), 0o755),
		os.Symlink(outside, filepath.Join(dir, "absolute")),
		os.Symlink("../../../../../../../../../etc/hostname", filepath.Join(dir, "escape")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
		os.Symlink("nothing", filepath.Join(dir, "dangling")),
		os.Symlink("good.pub", filepath.Join(dir, "link.pub")),
		os.Symlink("/dev/zero", filepath.Join(dir, "device")),
		syscall.Mkfifo(filepath.Join(d.dir, "_notation/trustpolicy.json"), 0o644),
		os.MkdirAll(filepath.Join(d.dir, "_notation/truststore/x509/ca/acme/nested"), 0o755),
		os.MkdirAll(filepath.Join(d.dir, "_notation/truststore/x509/other/acme"), 0o755),
		os.MkdirAll(filepath.Join(d.dir, "_notation/truststore/x509/ca/bad name"), 0o755),
		os.WriteFile(filepath.Join(d.dir, "_notation/truststore/x509/ca/stray.pem"), nil, 0o644),
	); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ts := d.load()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	var loaded []string
	for _, f := range ts.Loaded() {
		loaded = append(loaded, f.Path)
	}
	if fmt.Sprint(loaded) != "[_cosign/good.pub _cosign/link.pub]" {
		t.Errorf("loaded %v", loaded)
	}
	for _, name := range []string{"_cosign/fifo", "_cosign/to-fifo", "_cosign/absolute", "_cosign/escape", "_cosign/loop",
		"_cosign/dangling", "_cosign/device", "_notation/trustpolicy.json", "_notation/truststore/x509/ca/acme/nested",
		"_notation/truststore/x509/other", "_notation/truststore/x509/ca/bad name", "_notation/truststore/x509/ca/stray.pem"} {
		if refusal(ts, name) == "" {
			t.Errorf("%s is not listed: %v", name, ts.Refused())
		}
	}
	if ts.Policy().Source != PolicyInvalid {
		t.Errorf("policy %s", ts.Policy())
	}
}

// A certificate that was put beside the stores is refused by name: whoever put it
// there expects it to be in force.
func TestCertificateBesideTheStores(t *testing.T) {
	d := newDirs(t)
	root := signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{}).Cert())
	want := []string{"_notation/acme.crt", "_notation/truststore/acme.pem"}
	for _, name := range append(want, "_notation/config.json", "_notation/acme.crt~") {
		path := filepath.Join(d.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, root, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range d.load().Refused() {
		got = append(got, r.Path)
		if !strings.Contains(r.Reason, "move it to truststore/x509/ca/NAME") {
			t.Errorf("%s: %s", r.Path, r.Reason)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
}

// The trust directory itself may be a link.
func TestLinkedDirectory(t *testing.T) {
	k, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	d := newDirs(t)
	for name, key := range map[string]*signtest.Key{"one": k, "two": other} {
		d.write(name+"/k.pub", key.PEM())
	}
	link := filepath.Join(d.dir, "link")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	d.cfg.CosignDir = link
	l := d.loader()
	if ts := load(t, l, time.Now()); !in(ts, k.Signer()) || ts.Loaded()[0].Path != "link/k.pub" {
		t.Errorf("loaded %v", ts.Loaded())
	}
	if err := errors.Join(os.Symlink("two", link+".new"), os.Rename(link+".new", link)); err != nil {
		t.Fatal(err)
	}
	if ts := load(t, l, time.Now()); in(ts, k.Signer()) || !in(ts, other.Signer()) {
		t.Errorf("loaded %v", ts.Loaded())
	}
}

// W2: a file that does not parse keeps its last good content, for Grace.
func TestGrace(t *testing.T) {
	k, other := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	root := signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).key("k", k).cert("ca/acme", "r.pem", root.Cert())
	l := d.loader()
	t0 := time.Now()
	load(t, l, t0)
	if at, ok := l.RetryAt(t0); ok {
		t.Errorf("retry at %s with nothing wrong", at)
	}
	d.write("_cosign/k", k.PEM()[:30])
	d.write("_notation/truststore/x509/ca/acme/r.pem", nil)
	cert := signtest.CertSigner("ca", "acme", root.Cert())
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second, true}, {Grace - 1, true}, {Grace, false}, {Grace + time.Hour, false}} {
		ts := load(t, l, t0.Add(c.after))
		if in(ts, k.Signer()) != c.want || in(ts, cert) != c.want {
			t.Errorf("after %s: in force %v %v, want %v", c.after, in(ts, k.Signer()), in(ts, cert), c.want)
		}
		if refusal(ts, "_cosign/k") == "" || ts.Refused()[0].Grace != c.want {
			t.Errorf("after %s: refused %v", c.after, ts.Refused())
		}
		at, ok := l.RetryAt(t0)
		if ok != c.want || ok && !at.Equal(t0.Add(Grace)) {
			t.Errorf("after %s: retry at %s %v", c.after, at, ok)
		}
	}
	// Never has an ended grace another beginning.
	if ts := load(t, l, t0.Add(time.Second)); in(ts, k.Signer()) {
		t.Error("the grace began anew")
	}
	d.key("k", other)
	if ts := load(t, l, t0.Add(time.Minute)); !in(ts, other.Signer()) || in(ts, k.Signer()) {
		t.Error("the new content is not in force")
	}
}

func TestNoGrace(t *testing.T) {
	k := signtest.NewKey(signtest.P256)
	for name, change := range map[string]func(d *trustDirs){
		"gone":        func(d *trustDirs) { _ = os.Remove(filepath.Join(d.dir, "_cosign/k")) },
		"private key": func(d *trustDirs) { d.write("_cosign/k", k.PrivatePEM()) },
		"too small":   func(d *trustDirs) { d.key("k", signtest.NewKey(signtest.RSA1024)) },
		"directory": func(d *trustDirs) {
			_ = os.Remove(filepath.Join(d.dir, "_cosign/k"))
			_ = os.Mkdir(filepath.Join(d.dir, "_cosign/k"), 0o755)
		},
		"other key": func(d *trustDirs) { d.key("k", signtest.NewKey(signtest.P256)) },
	} {
		d := newDirs(t).key("k", k)
		l := d.loader()
		load(t, l, time.Now())
		change(d)
		if ts := load(t, l, time.Now()); in(ts, k.Signer()) {
			t.Errorf("%s: still in force", name)
		}
	}
	// The clock went back: a grace is not prolonged by it.
	d := newDirs(t).key("k", k)
	l := d.loader()
	load(t, l, time.Now())
	d.write("_cosign/k", nil)
	load(t, l, time.Now())
	if ts := load(t, l, time.Now().Add(-time.Hour)); in(ts, k.Signer()) {
		t.Error("in force an hour before its grace began")
	}
}

// A writer that takes its time: no prefix of a file is ever a key, and the last
// state is loaded when it is done.
func TestSlowWriter(t *testing.T) {
	k, root, mid := signtest.NewKey(signtest.P256), signtest.NewRoot(signtest.CertOptions{}), signtest.NewRoot(signtest.CertOptions{})
	for name, content := range map[string][]byte{"_cosign/k": k.PEM(), "_notation/truststore/x509/ca/a/r.pem": signtest.CertPEM(root.Cert(), mid.Cert()),
		"_notation/truststore/x509/ca/a/r.der": root.Cert().Raw, "_notation/trustpolicy.json": []byte(signtest.Policy("strict", "", "ca:a"))} {
		d := newDirs(t)
		l := d.loader()
		first := signtest.CertPEM(root.Cert())
		for n := range len(content) + 1 {
			d.write(name, content[:n])
			ts := load(t, l, time.Now())
			whole := n >= len(bytes.TrimSpace(content)) ||
				// one whole certificate of two is one certificate
				strings.HasSuffix(name, ".pem") && n >= len(first)-1 && n <= len(first)
			if got := len(ts.Loaded()) > 0 || ts.Policy().Source == PolicyOperator; got != whole {
				t.Fatalf("%s: %d of %d bytes: loaded %v, policy %s", name, n, len(content), ts.Loaded(), ts.Policy())
			}
			l = d.loader() // without memory
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{CosignDir: "a", NotationDir: "b", Cosign: true, Notation: true, Revocation: RevocationOffline}
	for name, f := range map[string]func(*Config){
		"mode":           func(c *Config) { c.Revocation = "" },
		"no cosign dir":  func(c *Config) { c.CosignDir = "" },
		"no notation":    func(c *Config) { c.NotationDir = "" },
		"same directory": func(c *Config) { c.NotationDir = "a/." },
	} {
		c := good
		f(&c)
		if _, err := NewLoader(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Two directories of one name do not share memory.
	d := newDirs(t)
	d.write("x/keys/trustpolicy.json", signtest.NewKey(signtest.P256).PEM())
	d.write("y/keys/trustpolicy.json", []byte(signtest.Policy("strict", "", "ca:acme")))
	d.cfg.CosignDir, d.cfg.NotationDir = filepath.Join(d.dir, "x/keys"), filepath.Join(d.dir, "y/keys")
	l := d.loader()
	for range 2 {
		if ts := load(t, l, time.Now()); len(ts.Loaded()) != 1 || ts.Policy().Source != PolicyOperator {
			t.Errorf("loaded %v, policy %s", ts.Loaded(), ts.Policy())
		}
	}
	if _, err := NewLoader(Config{Revocation: RevocationOnline}); err != nil {
		t.Errorf("with both tools off: %v", err)
	}
}

// Two loads of the same are the same; every change that matters shows.
func TestID(t *testing.T) {
	k, root := signtest.NewKey(signtest.P256), signtest.NewRoot(signtest.CertOptions{})
	d := newDirs(t).key("k", k)
	l := d.loader()
	last := load(t, l, time.Now())
	same := func(what string, want bool) {
		t.Helper()
		ts := load(t, l, time.Now())
		if (ts.ID() == last.ID()) != want {
			t.Errorf("%s: same ID %v", what, !want)
		}
		last = ts
	}
	same("nothing", true)
	d.write("_cosign/garbage", []byte("x"))
	same("a refused file", true)
	d.key("another name", k)
	same("the same key again", true)
	d.key("k2", signtest.NewKey(signtest.P256))
	same("a key", false)
	d.cert("ca/a", "r", root.Cert())
	same("a certificate", false)
	d.cert("ca/b", "r", root.Cert())
	same("a store", false)
	d.policy(signtest.Policy("strict", "", "ca:a"))
	same("a policy", false)
	d.policy("{}")
	same("an invalid policy", false)
	d.cfg.Revocation = RevocationIgnore
	l = d.loader()
	same("the revocation mode", false)
}

func TestLoadedFiles(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Acme", Kind: signtest.P384, NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)})
	ts := newDirs(t).cert("ca/acme", "r.pem", root.Cert()).key("rsa.pub", signtest.NewKey(signtest.RSA2048)).load()
	got := ts.Loaded()
	if len(got) != 2 || got[0].Algorithm != "RSA 2048" || got[0].Kind != "public key" || got[1].Kind != "certificate" || got[1].Algorithm != "P-384" ||
		got[1].Subject != "CN=Acme,O=Notary,L=Seattle,ST=WA,C=US" || !got[1].NotBefore.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) || !got[1].NotAfter.Equal(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", got)
	}
	got[0].Path = "changed"
	if ts.Loaded()[0].Path == "changed" {
		t.Error("the trust store can be changed through what it returns")
	}
}
