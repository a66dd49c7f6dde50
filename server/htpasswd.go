package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// users is an htpasswd file with bcrypt hashes, read again when it changes.
type users struct {
	log  *slog.Logger
	slow chan struct{} // a hash takes a processor for tens of milliseconds

	mu     sync.Mutex
	files  watchedFiles
	path   string
	hashes map[string][]byte
	dummy  []byte // compared for users that do not exist, so that time tells nothing
	// verified remembers what was right, under a key of this process, so that
	// a client that authenticates each request pays once.
	key      [32]byte
	verified map[string][sha256.Size]byte
}

func newUsers(path string, log *slog.Logger) (*users, error) {
	u := &users{log: log, slow: make(chan struct{}, 2), files: watchFiles(path), path: path}
	_, _ = rand.Read(u.key[:]) // never fails
	if err := u.load(); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *users) load() error {
	u.hashes, u.verified, u.dummy = map[string][]byte{}, map[string][sha256.Size]byte{}, nil
	b, err := os.ReadFile(u.path)
	if err != nil {
		return fmt.Errorf("read htpasswd: %w", err)
	}
	hashes := map[string][]byte{}
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return fmt.Errorf("read htpasswd: %s: line %d: not a user with a bcrypt hash (make it with htpasswd -B)", u.path, n+1)
		}
		hashes[user] = []byte(hash)
		u.dummy = []byte(hash)
	}
	u.hashes = hashes
	return nil
}

func (u *users) refreshLocked() {
	if u.files.changed() {
		if err := u.load(); err != nil {
			u.log.Error("the htpasswd file cannot be used; nobody of it is accepted", "error", err)
		}
	}
}

func (u *users) mac(user, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, u.key[:])
	h.Write([]byte(user + "\x00" + password))
	h.Sum(sum[:0])
	return sum
}

// known reports whether this password has been found right before.
func (u *users) known(user, password string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refreshLocked()
	was, ok := u.verified[user]
	now := u.mac(user, password)
	return ok && hmac.Equal(was[:], now[:])
}

// check compares a password, which is slow on purpose. The error is ctx's.
func (u *users) check(ctx context.Context, user, password string) (bool, error) {
	u.mu.Lock()
	u.refreshLocked()
	hash, exists := u.hashes[user]
	if !exists {
		hash = u.dummy
	}
	u.mu.Unlock()
	select {
	case u.slow <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-u.slow }()
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !exists {
		return false, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if string(u.hashes[user]) != string(hash) {
		return false, nil // it was changed meanwhile
	}
	u.verified[user] = u.mac(user, password)
	return true, nil
}
