package cluster

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Key is what the workers of a cluster have in common. Whoever has it can make anything
// trusted at all of them.
type Key struct{ secret [32]byte }

// ReadKey reads a key file: 32 bytes in base64.
func ReadKey(path string) (Key, error) {
	var k Key
	f, err := os.Open(path)
	if err != nil {
		return k, fmt.Errorf("cluster key: %w", err)
	}
	defer f.Close() // read-only
	b := make([]byte, 257)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return k, fmt.Errorf("cluster key: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b[:n])))
	if err != nil || len(raw) != len(k.secret) || n == len(b) {
		return k, fmt.Errorf("cluster key %s: not 32 bytes in base64; make one with: (umask 077; head -c 32 /dev/urandom | base64 > cluster.key)", path)
	}
	if bytes.Count(raw, raw[:1]) == len(raw) {
		return k, fmt.Errorf("cluster key %s: all bytes are the same; make one with: (umask 077; head -c 32 /dev/urandom | base64 > cluster.key)", path)
	}
	copy(k.secret[:], raw)
	return k, nil
}

// sum is an HMAC-SHA-256 over what a message is for and the parts of it, each with its length.
func (k Key) sum(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, k.secret[:])
	h.Write([]byte("trust-worker cluster 1\n"))
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// ID names the cluster at a NATS server, which may serve several. It says nothing of the key.
func (k Key) ID() string { return hex.EncodeToString(k.sum([]byte("id"))[:8]) }

// seal is a message: its sum, and what it says.
func (k Key) seal(subject string, body []byte) []byte {
	return append(k.sum([]byte("message"), []byte(subject), body), body...)
}

// open returns what a message says that a holder of the key has sealed for the subject.
func (k Key) open(subject string, message []byte) (body []byte, ok bool) {
	if len(message) < sha256.Size {
		return nil, false
	}
	sum, body := message[:sha256.Size], message[sha256.Size:]
	if !hmac.Equal(sum, k.sum([]byte("message"), []byte(subject), body)) {
		return nil, false
	}
	return body, true
}
