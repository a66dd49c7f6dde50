package preview

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Change is what is asked about.
type Change struct {
	// Remove are files as the command keys shows them (_cosign/team.pub), their last
	// elements, or fingerprints.
	Remove []string
	Add    []Addition
	// Policy is the content of a notation trust policy that would be in the place of what
	// rules; nil: none.
	Policy []byte
}

// Addition is a file that would come.
type Addition struct {
	// Name is the file's, without a directory.
	Name string
	// Place is where it would lie: empty for the top of _cosign, a scope (team-a), or a trust
	// store (ca:acme).
	Place   string
	Content []byte
}

// ChangeError says what of a Change cannot be carried out.
type ChangeError struct{ Err error }

func (e *ChangeError) Error() string { return e.Err.Error() }
func (e *ChangeError) Unwrap() error { return e.Err }

func changeErrorf(format string, args ...any) error { return &ChangeError{fmt.Errorf(format, args...)} }

// IsEmpty reports whether nothing would change.
func (c *Change) IsEmpty() bool { return len(c.Remove)+len(c.Add) == 0 && c.Policy == nil }

// copyTrust copies a trust directory, links and all; one that is not there is made.
func copyTrust(from, to string) error {
	err := os.CopyFS(to, os.DirFS(from))
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(to, 0o755)
	}
	return err
}

// apply makes the change in copies of the trust directories t, of which now is loaded.
func (c *Change) apply(now *truststore.TrustStore, t Trust, cosignDir, notationDir string) error {
	below := func(shown string) (string, bool) {
		for dir, copied := range map[string]string{t.CosignDir: cosignDir, t.NotationDir: notationDir} {
			for _, label := range []string{filepath.Base(dir), filepath.Clean(dir)} { // as the loader names files
				if rest, ok := strings.CutPrefix(shown, label+"/"); ok {
					return filepath.Join(copied, filepath.FromSlash(rest)), true
				}
			}
		}
		return "", false
	}
	for _, what := range c.Remove {
		fingerprint, err := trust.ParseDigest(what)
		found := false
		for _, f := range now.Loaded() {
			file, ok := below(f.Path)
			switch {
			case !ok:
			case err == nil && f.Signer.Fingerprint == fingerprint:
				if err := removeSigner(file, fingerprint); err != nil {
					return err
				}
				found = true
			case err != nil && (f.Path == path.Clean(what) || path.Base(f.Path) == what || strings.HasSuffix(path.Clean(what), "/"+f.Path)):
				if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				found = true
			}
		}
		if !found {
			return changeErrorf("%.300s is no file and no signer in force; trust-worker keys lists them", what)
		}
	}
	for i := range c.Add {
		if err := c.Add[i].apply(cosignDir, notationDir); err != nil {
			return err
		}
	}
	if c.Policy == nil {
		return nil
	}
	name := now.Policy().File
	if name == "" {
		name = "trustpolicy.json"
	}
	return os.WriteFile(filepath.Join(notationDir, name), c.Policy, 0o644)
}

func (a *Addition) apply(cosignDir, notationDir string) error {
	if a.Name != filepath.Base(a.Name) || strings.HasPrefix(a.Name, ".") || strings.ContainsRune(a.Name, 0) {
		return changeErrorf("%.300q is not the name of a file", a.Name)
	}
	to := filepath.Join(cosignDir, filepath.FromSlash(a.Place), a.Name)
	if storeType, name, is := strings.Cut(a.Place, ":"); is {
		if err := truststore.ValidateStore(storeType, name); err != nil {
			return changeErrorf("%s@%.300s: %w", a.Name, a.Place, err)
		}
		to = filepath.Join(notationDir, "truststore", "x509", storeType, name, a.Name)
	} else if a.Place != "" && !trust.ValidScope(a.Place) {
		return changeErrorf("%s@%.300s: that is neither a scope such as team-a nor a trust store such as ca:acme", a.Name, a.Place)
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, a.Content, 0o644))
}

// removeSigner takes one key or certificate from a file, and the file if that was all.
func removeSigner(file string, fingerprint trust.Digest) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it held the signer twice
	} else if err != nil {
		return err
	}
	var rest []byte
	for block, more := pem.Decode(b); block != nil; block, more = pem.Decode(more) {
		if block.Type == "CERTIFICATE" && trust.SumOf(block.Bytes) != fingerprint {
			rest = append(rest, pem.EncodeToMemory(block)...)
		}
	}
	if len(rest) == 0 {
		return os.Remove(file)
	}
	return os.WriteFile(file, rest, 0o644)
}
