package format

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"
)

// Every value in every bucket is framed: kind, CRC32C over key and body, body.
// bbolt checks only its meta pages; the frame finds a damaged or misplaced
// value, which is an error (ErrDamaged) and never an answer.
const (
	KindTombstone = 0x00 // in a delta: the key is gone
	kindLive      = 0x01

	frameSize = 1 + 4
	// maxValue bounds a value before it is decoded, and before it is written:
	// one that is larger would be damage.
	maxValue = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// Seal frames body for key.
func Seal(key, body []byte) []byte {
	v := make([]byte, frameSize, frameSize+len(body))
	v[0] = kindLive
	binary.BigEndian.PutUint32(v[1:], checksum(key, body))
	return append(v, body...)
}

// SealMessage frames a protobuf message for key.
func SealMessage(key []byte, m proto.Message) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	if frameSize+len(body) > maxValue {
		return nil, fmt.Errorf("encode %T: %d bytes are more than a value may have", m, len(body))
	}
	return Seal(key, body), nil
}

// Unseal returns the body, which aliases v. ok is false for no value and for a
// tombstone.
func Unseal(key, v []byte) (body []byte, ok bool, err error) {
	if v == nil || len(v) == 1 && v[0] == KindTombstone {
		return nil, false, nil
	}
	if len(v) < frameSize || len(v) > maxValue || v[0] != kindLive ||
		binary.BigEndian.Uint32(v[1:]) != checksum(key, v[frameSize:]) {
		return nil, false, fmt.Errorf("%w under key %.40x", ErrDamaged, key)
	}
	return v[frameSize:], true, nil
}

// UnsealMessage decodes a sealed protobuf message; ok is as for [Unseal].
func UnsealMessage(key, v []byte, m proto.Message) (ok bool, err error) {
	body, ok, err := Unseal(key, v)
	if !ok || err != nil {
		return false, err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return false, fmt.Errorf("%w under key %.40x: %w", ErrDamaged, key, err)
	}
	return true, nil
}

// Number is n as a key: 8 bytes, big endian.
func Number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// NumberOf reads a number key.
func NumberOf(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
