package integration

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/trust"
)

// The committed roots must give the same answers for decades: a certificate is
// valid from 1990 to 2090, or ended in 2020, or begins in 2080.
func TestFixtureCertificatesAreTimeless(t *testing.T) {
	stored := 0
	walk(t, filepath.Join(testdata, "notation", "_notation"), func(path string, content []byte) {
		for rest := content; ; stored++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if !lasting(c) {
				t.Errorf("%s, in force: valid from %v to %v, want 1990 to 2090", path, c.NotBefore, c.NotAfter)
			}
		}
	})
	if stored < 5 {
		t.Errorf("only %d certificates in the trust stores", stored)
	}
	found := map[string]int{}
	walk(t, filepath.Join(testdata, "notation"), func(path string, content []byte) {
		if !strings.Contains(path, "/blobs/") {
			return
		}
		for _, c := range certificates(content) {
			switch {
			case lasting(c):
				found["lasting"]++
			case c.NotAfter.Year() == 2020:
				found["ended"]++
			case c.NotBefore.Year() == 2080:
				found["to begin"]++
			default:
				t.Errorf("%s: %s is valid from %v to %v", path, c.Subject, c.NotBefore, c.NotAfter)
			}
		}
	})
	if found["lasting"] < 100 || found["ended"] == 0 || found["to begin"] == 0 {
		t.Errorf("certificates in signatures: %v", found)
	}
}

// What is trusted today stays so for decades, and a certificate that has ended
// did so long ago. (The tool signs at the present time alone, so a signature's
// own expiry is some seconds after the roots were made.)
func TestFixtureAnswersAreTimeless(t *testing.T) {
	far, long := time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	ended := 0
	_, images := scanAndList(t, copyRoot(t, "notation"))
	for _, img := range images {
		for _, s := range img.SignatureInfo {
			switch {
			case s.Status == trust.Trusted && s.ValidUntil != nil && s.ValidUntil.Before(far):
				t.Errorf("%s:%s is trusted until %v only", img.RepoName, img.Tag, s.ValidUntil)
			case s.Reason == trust.CertificateExpired:
				ended++
				if s.ValidUntil == nil || s.ValidUntil.After(long) {
					t.Errorf("%s:%s: its certificate ended at %v", img.RepoName, img.Tag, s.ValidUntil)
				}
			}
		}
	}
	if ended == 0 {
		t.Error("no certificate has ended")
	}
}

// The tools were told not to consult the transparency log: that difference is in
// every verdict, and so in none of the rules.
func TestVerdictsAreWithoutTheTransparencyLog(t *testing.T) {
	for _, root := range []string{"cosign2", "cosign3"} {
		for name, m := range loadVerdicts(t, root).Modes {
			if !slices.Contains(m.Args, "--insecure-ignore-tlog") {
				t.Errorf("%s: mode %s consults the log: %v", root, name, m.Args)
			}
		}
	}
}

func lasting(c *x509.Certificate) bool {
	return c.NotBefore.Year() == 1990 && c.NotAfter.Year() == 2090
}

func walk(t *testing.T, dir string, fn func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			fn(path, b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// certificates finds the certificates in an envelope: those of a JWS in its x5c,
// those of a COSE_Sign1 wherever DER begins.
func certificates(envelope []byte) (found []*x509.Certificate) {
	var jws struct {
		Header struct{ X5c []string }
	}
	if json.Unmarshal(envelope, &jws) == nil {
		for _, text := range jws.Header.X5c {
			der, _ := base64.StdEncoding.DecodeString(text) // damaged ones hold none
			found = append(found, certificates(der)...)
		}
		return found
	}
	for i := 0; i+4 < len(envelope); i++ {
		if envelope[i] != 0x30 || envelope[i+1] != 0x82 { // SEQUENCE of 256 bytes or more
			continue
		}
		end := i + 4 + int(envelope[i+2])<<8 + int(envelope[i+3])
		if end > len(envelope) {
			continue
		}
		if c, err := x509.ParseCertificate(envelope[i:end]); err == nil {
			found = append(found, c)
			i = end - 1
		}
	}
	return found
}
