package cache

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/cachepb"
)

// FuzzCurrent: what CURRENT may say is read and written alike, and anything else is
// refused with nothing read.
func FuzzCurrent(f *testing.F) {
	f.Add(current{id: 7, generation: 9, base: 3, deltas: [maxDeltas]uint64{4, 8}, trusts: 9}.String())
	f.Add("1.0000000000000007.9.3.8.10")
	f.Add("base-3.db")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCurrent(s)
		if err != nil && c != (current{}) || err == nil && c.String() != s {
			t.Errorf("%q reads as %+v, %v", s, c, err)
		}
		if kind, generation, ok := parseFileName(s); ok && fileName(kind, generation) != s {
			t.Errorf("%q reads as %s %d", s, kind, generation)
		}
	})
}

// FuzzVerdict: whatever a value decodes to is encoded and decoded to the same, by
// both decoders, and its seal holds it to its key.
func FuzzVerdict(f *testing.F) {
	for _, v := range []*cachepb.Verdict{
		{Format: 1, Grounds: []*cachepb.Ground{{Signers: make([]byte, 32), From: -1, Until: 9, Limit: 23}}, Author: make([]byte, 16), Policy: bytes.Repeat([]byte{1}, 16), Epoch: 2, VerifiedAt: 7},
		{Format: 3, Reason: 15, RevocationUntil: 5, RevocationLogged: true, RevocationNotChecked: true, LoggedExpiry: 3, Layer: make([]byte, 16)},
		{Reason: 1000, Format: 99, Problem: 21},
	} {
		b, err := proto.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte("key"), b, uint16(3))
	}
	f.Fuzz(func(t *testing.T, key, b []byte, at uint16) {
		var p cachepb.Verdict
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		v := decodeVerdict(&p, textOf)
		texts := map[string]string{}
		again, err := encodeVerdict(&v, func(text string) ([]byte, error) {
			key := authorKeyOf(text)
			texts[string(key[:])] = text
			return key[:], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if back := decodeVerdict(again, func(key []byte) string { return texts[string(key)] }); !reflect.DeepEqual(back, v) {
			t.Errorf("%+v\nreads back as %+v", v, back)
		}
		sealed := seal(key, b)
		if body, ok, err := unseal(key, sealed); !ok || err != nil || !bytes.Equal(body, b) {
			t.Fatalf("sealed value does not open: %v", err)
		}
		if _, ok, err := unseal(append(bytes.Clone(key), 1), sealed); ok && err == nil {
			t.Error("opens under another key")
		}
		sealed[int(at)%len(sealed)] ^= 1 << (at % 8)
		if body, ok, err := unseal(key, sealed); ok && err == nil {
			t.Errorf("opens with a bit flipped: %x", body)
		}
	})
}

// FuzzPublished writes anything anywhere into the published files, or in their
// place: a reader never says trusted of what is not.
func FuzzPublished(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "state")
	trusted := townsfolk(f, dir)
	files := published(f, dir)
	if bad, n := wronglyTrusted(dir, trusted); bad != "" || n < 200 || len(files) < 3 {
		f.Fatalf("%s, %d answers, files %v", bad, n, files)
	}
	for i := range files {
		b, err := os.ReadFile(filepath.Join(dir, files[i]))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), uint32(0), b[:min(len(b), 64)], false)
		f.Add(uint8(i), uint32(len(b)/2), []byte{0xff}, false)
		f.Add(uint8(i), uint32(0), b[:min(len(b), 4096)], true)
	}
	f.Fuzz(func(t *testing.T, file uint8, at uint32, content []byte, replace bool) {
		path := filepath.Join(dir, files[int(file)%len(files)])
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		written := content
		if !replace {
			at %= uint32(len(whole))
			written = slices.Concat(whole[:at], content, whole[min(len(whole), int(at)+len(content)):])
		}
		put := func(b []byte) { // under its name, in a new file: published ones never change
			err := os.WriteFile(path+".new", b, 0o640)
			if err == nil {
				err = os.Rename(path+".new", path)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		put(written)
		defer put(whole)
		if bad, _ := wronglyTrusted(dir, trusted); bad != "" {
			t.Errorf("%s reads as trusted", bad)
		}
	})
}
