package main

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

// previewChange is what is asked about.
type previewChange struct {
	remove, add []string
	policy      string
}

// copyTrust copies a trust directory, links and all; one that is not there is made.
func copyTrust(from, to string) error {
	err := os.CopyFS(to, os.DirFS(from))
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(to, 0o755)
	}
	return err
}

// apply makes the change in copies of the trust directories.
func (c *previewChange) apply(now *truststore.TrustStore, cosignDir, notationDir string) error {
	below := func(shown string) (string, bool) {
		for _, dir := range []string{cosignDir, notationDir} {
			if rest, ok := strings.CutPrefix(shown, filepath.Base(dir)+"/"); ok {
				return filepath.Join(dir, filepath.FromSlash(rest)), true
			}
		}
		return "", false
	}
	for _, what := range c.remove {
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
			return usageError{fmt.Errorf("--remove %s: no file or signer in force; trust-worker keys lists them", what)}
		}
	}
	for _, what := range c.add {
		file, place, _ := strings.Cut(what, "@")
		b, err := os.ReadFile(file)
		if err != nil {
			return usageError{fmt.Errorf("--add: %w", err)}
		}
		to := filepath.Join(cosignDir, filepath.FromSlash(place), filepath.Base(file))
		if storeType, name, is := strings.Cut(place, ":"); is {
			if err := truststore.ValidateStore(storeType, name); err != nil {
				return usageError{fmt.Errorf("--add %s: %w", what, err)}
			}
			to = filepath.Join(notationDir, "truststore", "x509", storeType, name, filepath.Base(file))
		} else if place != "" && !trust.ValidScope(place) {
			return usageError{fmt.Errorf("--add %s: %q is neither a scope such as team-a nor a trust store such as ca:acme", what, place)}
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644)); err != nil {
			return err
		}
	}
	if c.policy == "" {
		return nil
	}
	b, err := os.ReadFile(c.policy)
	if err != nil {
		return usageError{fmt.Errorf("--policy: %w", err)}
	}
	name := now.Policy().File
	if name == "" {
		name = "trustpolicy.json"
	}
	return os.WriteFile(filepath.Join(notationDir, name), b, 0o644)
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
