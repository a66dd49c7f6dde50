package truststore

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
)

// Files that look right in every editor, or that hold the right thing in another
// encoding: a message names what they are and the command that mends them. Nothing
// here decides: what these functions are asked about has been refused.

// wanted is what a directory of trust material takes.
type wanted int

const (
	wantKey wanted = iota
	wantCertificate
	wantPolicy
)

// Commands that make a good file NEW out of FILE, by what is wanted.
const (
	keyFromCertificate = "openssl x509 -pubkey -noout -in FILE > NEW"
	saveAsUTF8         = "iconv -f UTF-16 -t UTF-8 FILE | sed '1s/^\\xef\\xbb\\xbf//' > NEW"
)

// pemTypes are PEM blocks of another type than is wanted, by the label in their
// first line (RFC 7468).
var pemTypes = map[string]struct{ what, key, certificate string }{
	"CERTIFICATE":          {"a certificate", keyFromCertificate, ""},
	"X509 CERTIFICATE":     {"a certificate under an old label", keyFromCertificate, "openssl x509 -in FILE -out NEW"},
	"TRUSTED CERTIFICATE":  {"a certificate in OpenSSL's own form", keyFromCertificate, "openssl x509 -in FILE -out NEW"},
	"PKCS7":                {"a PKCS #7 bundle of certificates", "openssl pkcs7 -print_certs -in FILE | openssl x509 -pubkey -noout > NEW", "openssl pkcs7 -print_certs -in FILE -out NEW"},
	"CERTIFICATE REQUEST":  {"a certificate request", "openssl req -pubkey -noout -in FILE > NEW", ""},
	"PUBLIC KEY":           {"a public key", "", ""},
	"RSA PUBLIC KEY":       {"a public key", "", ""},
	"PGP PUBLIC KEY BLOCK": {"an OpenPGP key, which signs no images here", "", ""},
	"SSH2 PUBLIC KEY":      {"an SSH key in SSH2's own form", "ssh-keygen -i -f FILE > NEW.ssh, and ssh-keygen -e -m PKCS8 -f NEW.ssh > NEW", ""},
	"X509 CRL":             {"a list of revoked certificates", "", ""},
}

// publicKeyOf is the command that makes the public key of a private one in PEM.
func publicKeyOf(b []byte) string {
	switch {
	case bytes.Contains(b, []byte("SIGSTORE PRIVATE KEY-----")) || bytes.Contains(b, []byte("COSIGN PRIVATE KEY-----")):
		return "cosign public-key --key FILE > NEW"
	case bytes.Contains(b, []byte("OPENSSH PRIVATE KEY-----")):
		return "ssh-keygen -e -m PKCS8 -f FILE > NEW"
	}
	return "openssl pkey -in FILE -pubout -out NEW"
}

// otherBlock is the message about a PEM block of another type.
func otherBlock(label string, want wanted) *fileError {
	o, known := pemTypes[label]
	if !known {
		return refusef("is a PEM block of another type (%.40q); %s is expected", label, want)
	}
	mend := o.key
	if want == wantCertificate {
		mend = o.certificate
	}
	return refusef("holds %s; %s is expected here%s", o.what, want, orCommand(mend))
}

func (w wanted) String() string {
	return [...]string{"a PEM public key", "a PEM or DER certificate", "a trust policy in JSON"}[w]
}

func orCommand(mend string) string {
	if mend == "" {
		return ""
	}
	return "; make it with: " + mend
}

var (
	sshKey     = regexp.MustCompile(`^(sk-)?(ssh-(rsa|dss|ed25519)|ecdsa-sha2-nistp[0-9]+)(@openssh\.com)? [A-Za-z0-9+/]`)
	onlyBase64 = regexp.MustCompile(`^[A-Za-z0-9+/\r\n]+={0,2}\s*$`)
	indented   = regexp.MustCompile(`(?m)^[ \t]+-----BEGIN `)
	oneLine    = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]+-----[ \t]*[A-Za-z0-9+/=]`)
)

var byteOrderMark = []byte("\ufeff")

// oddText says what a text is in which nothing of what is wanted was found, with the
// command that mends it; "" when it is not known.
func oddText(b []byte, want wanted) string {
	text := bytes.TrimSpace(b)
	begins := func(prefix string) bool { return bytes.HasPrefix(text, []byte(prefix)) }
	switch {
	case len(text) == 0:
		return "is empty"
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return "is text in UTF-16; save it as UTF-8 without a byte order mark: " + saveAsUTF8
	case bytes.HasPrefix(b, byteOrderMark):
		return `begins with a byte order mark, which does not show in editors; remove it: sed '1s/^\xef\xbb\xbf//' FILE > NEW`
	case want == wantPolicy:
		return ""
	case len(text) > 3 && text[1] == 0 && text[3] == 0:
		return "is text in UTF-16; save it as UTF-8: " + strings.Replace(saveAsUTF8, "UTF-16 ", "UTF-16LE ", 1)
	case bytes.Contains(text, []byte(`-----\n`)):
		return `has \n written out where lines end, as in JSON or in an environment; write real ones: printf '%b' "$(cat FILE)" > NEW`
	case begins(`"`) || begins(`'`):
		return "stands in quotation marks; remove them"
	case bytes.IndexByte(text, '\r') >= 0 && bytes.IndexByte(text, '\n') < 0 && begins("-----BEGIN"):
		return `ends its lines with CR alone; write LF: tr '\r' '\n' < FILE > NEW`
	case indented.Match(b):
		return `has blanks before its lines, as in YAML; remove them: sed 's/^[ \t]*//' FILE > NEW`
	case oneLine.Match(text):
		return "has its PEM block on one line; put -----BEGIN … -----, the base64 and -----END … ----- on lines of their own"
	case sshKey.Match(text):
		if kind := sshKey.FindSubmatch(text); want == wantKey && len(kind[1]) == 0 && !bytes.Contains(kind[2], []byte("ed25519")) {
			return "is an OpenSSH public key" + orCommand("ssh-keygen -e -m PKCS8 -f FILE > NEW")
		}
		return "is an OpenSSH public key; " + want.String() + " is expected here"
	case begins("---- BEGIN SSH2 PUBLIC KEY"):
		return otherBlock("SSH2 PUBLIC KEY", want).reason
	case begins("untrusted comment:"):
		return "is a minisign or signify key; " + want.String() + " is expected here"
	case begins("<"):
		return "is a web page (HTML or XML), perhaps the answer to a failed download"
	case begins("{") || begins("["):
		return "is JSON; " + want.String() + " is expected here"
	}
	if onlyBase64.Match(text) {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err == nil {
			if label, is := derType(der); label == privateKey {
				return "is " + is + " in base64; remove it at once; " + want.String() + " is expected here"
			} else if label != "" {
				return fmt.Sprintf("is %s in base64 without its PEM lines; add them: (echo '-----BEGIN %s-----'; fold -w 64 FILE; echo; echo '-----END %s-----') > NEW", is, label, label)
			}
		}
	}
	switch label, is := derType(b); {
	case label == privateKey && want == wantKey:
		return "is " + is + " in DER; remove it at once and put its public key here: openssl pkey -inform DER -in FILE -pubout -out NEW"
	case label == privateKey:
		return "is " + is + " in DER; remove it at once; " + want.String() + " is expected here"
	case label == "CERTIFICATE" && want == wantKey:
		return "is " + is + " in DER" + orCommand("openssl x509 -inform DER -pubkey -noout -in FILE > NEW")
	case label == "PUBLIC KEY" && want == wantKey:
		return "is " + is + " in DER" + orCommand("openssl pkey -pubin -inform DER -in FILE -out NEW")
	case label == "PKCS7" && want == wantCertificate:
		return "is " + is + " in DER" + orCommand("openssl pkcs7 -inform DER -print_certs -in FILE -out NEW")
	case label != "":
		return "is " + is + " in DER; " + want.String() + " is expected here"
	}
	return ""
}

// pkcs7SignedData is how a PKCS #7 bundle names its content (RFC 2315, section 14).
var pkcs7SignedData = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}

const privateKey = "PRIVATE KEY"

// derType returns the PEM label that der would have, and what it is.
func derType(der []byte) (label, is string) {
	if _, err := x509.ParsePKIXPublicKey(der); err == nil {
		return "PUBLIC KEY", "a public key"
	}
	if certs, err := x509.ParseCertificates(der); err == nil && len(certs) > 0 {
		return "CERTIFICATE", "a certificate"
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return privateKey, "a PRIVATE key"
	}
	if _, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return privateKey, "a PRIVATE key"
	}
	if _, err := x509.ParseECPrivateKey(der); err == nil {
		return privateKey, "a PRIVATE key"
	}
	if i := bytes.Index(der, pkcs7SignedData); i > 0 && i < 16 {
		return "PKCS7", "a PKCS #7 bundle of certificates"
	}
	return "", ""
}

// blocks counts the PEM blocks that begin in b, whether or not they can be read.
func blocks(b []byte) int { return bytes.Count(b, []byte("-----BEGIN ")) }
