package truststore

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"golang.org/x/crypto/ssh"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

func utf16Text(order binary.AppendByteOrder, mark bool, b []byte) []byte {
	var out []byte
	if mark {
		out = order.AppendUint16(out, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(string(b))) {
		out = order.AppendUint16(out, u)
	}
	return out
}

// Each message about a file that holds the right thing in another form says what it
// is, and its command makes a file of it that is loaded.
func TestOddFilesAndWhatMendsThem(t *testing.T) {
	root := signtest.NewRoot(signtest.CertOptions{})
	k := signtest.NewKey(signtest.P256)
	pub, cert := k.PEM(), signtest.CertPEM(root.Cert())
	der := must(cryptoutils.MarshalPublicKeyToDER(k.Public()))
	sshPub := ssh.MarshalAuthorizedKey(must(ssh.NewPublicKey(k.Public())))
	ed := ssh.MarshalAuthorizedKey(must(ssh.NewPublicKey(signtest.NewKey(signtest.Ed25519).Public())))
	certKey := trust.Digest(trust.SumOf(root.Cert().RawSubjectPublicKeyInfo))
	block, _ := pem.Decode(k.PrivatePEM())
	private := block.Bytes
	keyPrint, certPrint := must(ValidateKey("a", pub)).Fingerprint, FingerprintOf(root.Cert())

	for _, c := range []struct {
		name, says string
		content    []byte
		certs      bool         // for a trust store
		mended     trust.Digest // what the command's file holds; zero: there is no command
		read       bool         // as it is
	}{
		{"text before and after", "", append(append([]byte("Key of the team\n"), pub...), "the end\n"...), false, keyPrint, true},
		{"byte order mark", "byte order mark", append([]byte("\ufeff"), pub...), false, keyPrint, false},
		{"UTF-16 LE", "UTF-16", utf16Text(binary.LittleEndian, true, pub), false, keyPrint, false},
		{"UTF-16 BE", "UTF-16", utf16Text(binary.BigEndian, true, pub), false, keyPrint, false},
		{"UTF-16 without a mark", "UTF-16", utf16Text(binary.LittleEndian, false, pub), false, keyPrint, false},
		{"CR alone", "CR alone", bytes.ReplaceAll(pub, []byte("\n"), []byte("\r")), false, keyPrint, false},
		{"escaped", `\n written out`, bytes.ReplaceAll(pub, []byte("\n"), []byte(`\n`)), false, keyPrint, false},
		{"quoted", "quotation marks", append(append([]byte(`"`), pub...), '"'), false, trust.Digest{}, false},
		{"indented", "blanks before", bytes.ReplaceAll(append([]byte("\n"), pub...), []byte("\n"), []byte("\n    ")), false, keyPrint, false},
		{"one line", "on one line", bytes.ReplaceAll(pub, []byte("\n"), []byte(" ")), false, trust.Digest{}, false},
		{"DER", "a public key in DER", der, false, keyPrint, false},
		{"base64", "without its PEM lines", []byte(base64.StdEncoding.EncodeToString(der)), false, keyPrint, false},
		{"base64 of a certificate", "a certificate in base64", []byte(base64.StdEncoding.EncodeToString(root.Cert().Raw)), true, certPrint, false},
		{"OpenSSH", "an OpenSSH public key", sshPub, false, keyPrint, false},
		{"OpenSSH, Ed25519", "an OpenSSH public key", ed, false, trust.Digest{}, false},
		{"OpenSSH in a store", "an OpenSSH public key", sshPub, true, trust.Digest{}, false},
		{"certificate", "holds a certificate", cert, false, certKey, false},
		{"certificate in DER", "a certificate in DER", root.Cert().Raw, false, certKey, false},
		{"certificate in DER, store", "", root.Cert().Raw, true, certPrint, true},
		{"old label", "old label", bytes.ReplaceAll(cert, []byte(" CERT"), []byte(" X509 CERT")), true, certPrint, false},
		{"key in a store", "holds a public key", pub, true, trust.Digest{}, false},
		{"key in DER in a store", "a public key in DER", der, true, trust.Digest{}, false},
		{"byte order mark, store", "byte order mark", append([]byte("\ufeff"), cert...), true, certPrint, false},
		{"OpenPGP", "OpenPGP", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"), false, trust.Digest{}, false},
		{"web page", "web page", []byte("<!DOCTYPE html><html>404</html>"), false, trust.Digest{}, false},
		{"JSON", "is JSON", []byte(`{"kty":"EC"}`), false, trust.Digest{}, false},
		{"minisign", "minisign", []byte("untrusted comment: minisign public key\nRWQ=\n"), false, trust.Digest{}, false},
		{"damaged block before a good one", "more than one PEM block", append([]byte("-----BEGIN PUBLIC KEY-----\n!\n"), pub...), false, trust.Digest{}, false},
		{"private key", "holds a PRIVATE key; remove it at once", k.PrivatePEM(), false, keyPrint, false},
		{"private key of OpenSSH", "holds a PRIVATE key; remove it at once", pem.EncodeToMemory(must(ssh.MarshalPrivateKey(k.Private, ""))), false, keyPrint, false},
		{"private key in DER", "is a PRIVATE key in DER; remove it at once", private, false, keyPrint, false},
		{"private key in base64", "is a PRIVATE key in base64; remove it at once", []byte(base64.StdEncoding.EncodeToString(private)), false, trust.Digest{}, false},
		{"private key in DER in a store", "is a PRIVATE key in DER; remove it at once", private, true, trust.Digest{}, false},
		{"nothing known", "is not a PEM public key", []byte("hello"), false, trust.Digest{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			load := func(b []byte) (trust.Digest, error) {
				if c.certs {
					certs, err := parseCertificates(b, truststore.TypeCA)
					if err != nil {
						return trust.Digest{}, err
					}
					return FingerprintOf(certs[0]), nil
				}
				s, err := ValidateKey("a", b)
				return s.Fingerprint, err
			}
			got, err := load(c.content)
			if (err == nil) != c.read || err == nil && got != c.mended {
				t.Fatalf("%v, %v", got, err)
			}
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %q, not %q", err, c.says)
			}
			if c.mended == (trust.Digest{}) {
				return
			}
			_, command, ok := strings.Cut(err.Error(), ": ")
			if !ok {
				t.Fatalf("%q has no command", err)
			}
			for _, tool := range []string{"sh", "sed", "tr", "fold", "iconv", "openssl", "ssh-keygen"} {
				if _, err := exec.LookPath(tool); err != nil && strings.Contains(command, tool) {
					t.Skip("there is no " + tool)
				}
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "FILE"), c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", command)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			b, err := os.ReadFile(filepath.Join(dir, "NEW"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := load(b); err != nil || got != c.mended {
				t.Errorf("%s makes %q: %v, %v", command, b, got, err)
			}
		})
	}
}

// Policies say where they break.
func TestWhereAPolicyBreaks(t *testing.T) {
	for in, want := range map[string]string{
		"{\n  \"version\": \"1.0\",\n}": "line 3, column 1",
		"\ufeff{}":                      "byte order mark",
		"{\n  \"version\": \"1.0\",\n  \"trustpolicies\": []}":     `"trustpolicies"`,
		"{\n  \"version\": 1}":                                     `line 2, column 14: "version" is a number`,
		"{\n  \"version\": \"1.0\",\n  \"extra\": 1}":              `line 3, column 3: unknown member "extra"`,
		string(utf16Text(binary.LittleEndian, true, []byte("{}"))): "UTF-16",
	} {
		if _, err := parsePolicy([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// Certificates in the wrong place are named, with the right one.
func TestMisplacedCertificates(t *testing.T) {
	cert := signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{}).Cert())
	for file, refused := range map[string]string{
		"_notation/truststore/ca/acme/root.pem": "_notation/truststore/ca",
		"_notation/certificates/root.crt":       "_notation/certificates",
		"_notation/root.pem":                    "_notation/root.pem",
		"_notation/truststore/x509/ca/root.pem": "_notation/truststore/x509/ca/root.pem",
		"_notation/truststore/ca/root.crt":      "_notation/truststore/ca",
		"_notation/ca/acme/root.pem":            "_notation/ca",
		"_notation/team.pub":                    "_notation/team.pub",
		"_notation/localkeys/root.crt":          "",
	} {
		d := newDirs(t)
		d.write(file, cert)
		ts := d.load()
		var paths []string
		for _, r := range ts.Refused() {
			if !strings.Contains(r.Reason, "move ") {
				t.Errorf("%s: %s", file, r.Reason)
			}
			paths = append(paths, r.Path)
		}
		if strings.Join(paths, " ") != refused || len(ts.Loaded()) > 0 {
			t.Errorf("%s: refused %q, loaded %v", file, paths, ts.Loaded())
		}
	}
}
