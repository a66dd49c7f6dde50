package server

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/renameio/v2"
)

// tokenFile is a file of bearer tokens, read again when it changes. One that
// cannot be read holds none.
type tokenFile struct {
	name string // without its directory, for the audit log
	may  right
	log  *slog.Logger

	mu    sync.Mutex
	files watchedFiles
	path  string
	sums  [][sha256.Size]byte
}

func newTokenFile(path string, may right, log *slog.Logger) (*tokenFile, error) {
	f := &tokenFile{name: filepath.Base(path), may: may, log: log, files: watchFiles(path), path: path}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

const minToken = 16

// load reads the file. A short token is refused, with the whole file: it could
// be guessed.
func (f *tokenFile) load() error {
	f.sums = nil
	b, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	var sums [][sha256.Size]byte
	for n, line := range bytes.Split(b, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(line) < minToken {
			return fmt.Errorf("token file %s: line %d: a token has at least %d characters", f.path, n+1, minToken)
		}
		sums = append(sums, sha256.Sum256(line))
	}
	f.sums = sums
	if fi, err := os.Stat(f.path); err == nil && f.may == toWrite && fi.Mode().Perm()&0o004 != 0 {
		f.log.Warn("everybody on this machine can read a token file", "path", f.path)
	}
	return nil
}

// has compares in constant time, by hash, so that neither the time nor the
// length tells anything.
func (f *tokenFile) has(token string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files.changed() {
		if err := f.load(); err != nil {
			f.log.Error("a token file cannot be used; none of its tokens is accepted", "error", err)
		}
	}
	sum, found := sha256.Sum256([]byte(token)), 0
	for i := range f.sums {
		found |= subtle.ConstantTimeCompare(sum[:], f.sums[i][:])
	}
	return found == 1
}

// uploadToken is the name of the token file that the first start makes.
const uploadToken = "upload.token"

// makeToken writes a new token, unless there is one: complete, or not at all.
func makeToken(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token := base64.RawURLEncoding.EncodeToString(b) + "\n"
	if err := renameio.WriteFile(path, []byte(token), 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("make upload token: %w", err)
	}
	return nil
}
