package format

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/trust"
)

// textOf stands for a bucket of authors in which every key is known.
func textOf(key []byte) string { return fmt.Sprintf("CN=%x", key) }

// Codes in files are for ever: what a number means must not change.
func TestCodesAreStable(t *testing.T) {
	want := []trust.Reason{"", "signature-expired", "certificate-expired", "not-yet-valid", "no-trusted-key", "signer-removed", "subject-mismatch",
		"digest-mismatch", "malformed", "ambiguous", "no-policy", "policy-invalid", "policy-ambiguous", "policy-does-not-verify", "identity-not-trusted",
		"revoked", "timestamp-invalid", "unsupported-algorithm", "key-too-small", "plugin-required", "no-trusted-root", "io-error", "blob-missing",
		"revocation-unknown", "limit-exceeded", "stale", "no-cache", "new", "policy-changed",
		"payload-type-unknown", "unsupported-digest", "certificate-invalid",
		"authority-removed", "not-logged", "no-signed-time", "sct-missing", "too-few-signers"}
	if !reflect.DeepEqual(ReasonCodes, want) {
		t.Errorf("%q", ReasonCodes)
	}
	for _, r := range trust.Reasons() {
		if got := DecodeReason(EncodeCode(ReasonCodes, r)); got != r {
			t.Errorf("%s reads back as %s", r, got)
		}
	}
	if DecodeReason(1000) != trust.IOError {
		t.Error("a code of a later version is believed")
	}
}

func TestParseCurrent(t *testing.T) {
	for _, deltas := range [][]uint64{nil, {8}, {4, 8, 9}, {1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9}} {
		c := Current{ID: 7, Generation: 11, Data: 9, Base: 3, Trusts: 10}
		c.SetLayers(deltas)
		if got, err := ParseCurrent(c.String()); err != nil || got != c || !slices.Equal(got.Layers(), deltas) {
			t.Errorf("%v %v", got, err)
		}
	}
	for _, s := range []string{"", "7", "6.0000000000000007.9.9.3.8.9", "8.0000000000000007.9.9.3.8.9", "7.7.9.9.3.8.9", "7.0000000000000007.9.9.3.8", "7.0000000000000007.9.9.3.8.10",
		"7.0000000000000007.9.9.0.8.9", "7.0000000000000007.9.9.3.8.09", "7.000000000000000g.9.9.3.8.9", "7.0000000000000007.9.9.3.8.9.", "7.0000000000000007.-9.9.3.8.9",
		"7.0000000000000007.9.9.3.8-.9", "7.0000000000000007.9.9.3.8-0.9", "7.0000000000000007.9.9.3.0-8.9", "7.0000000000000007.9.9.3.8-x.9", "7.0000000000000007.9.9.3.8-10.9",
		"7.0000000000000007.9.9.3.1-2-3-4-5-6-7-8-9-9-9-9-9-9-9-9-9.9", "7.0000000000000007.9.9.3..9", "7.0000000000000007.9.10.3.8.9", "7.0000000000000007.9.7.3.8.9",
		"7.0000000000000007.9.2.3.0.9", "7.0000000000000007.9.0.3.8.9"} {
		if got, err := ParseCurrent(s); err == nil || got != (Current{}) {
			t.Errorf("%q gives %+v, %v", s, got, err)
		}
	}
}

// What a later version demands in a trust file narrows what is trusted: who does not
// know it refuses the file. What only says something is left alone.
func TestATrustFileOfALaterVersion(t *testing.T) {
	more := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for _, edit := range []func(*cachepb.Trust){
		func(p *cachepb.Trust) { p.ProtoReflect().SetUnknown(more) },
		func(p *cachepb.Trust) { p.Signers[0].ProtoReflect().SetUnknown(more) },
		func(p *cachepb.Trust) { p.Statements[0].ProtoReflect().SetUnknown(more) },
		func(p *cachepb.Trust) { p.Statements[0].Policy = make([]byte, 32) },
	} {
		p := &cachepb.Trust{Signers: []*cachepb.Signer{{}}, Statements: []*cachepb.Statement{{Policy: make([]byte, 16)}}}
		if _, err := DecodeTrust(p); err != nil {
			t.Fatal(err)
		}
		word := protowire.AppendVarint(protowire.AppendTag(nil, 1001, protowire.VarintType), 1)
		p.Signers[0].ProtoReflect().SetUnknown(word) // says something to people
		if _, err := DecodeTrust(p); err != nil {
			t.Fatal(err)
		}
		edit(p)
		if _, err := DecodeTrust(p); !errors.Is(err, ErrFormat) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// FuzzCurrent: what CURRENT may say is read and written alike, and anything else is
// refused with nothing read.
func FuzzCurrent(f *testing.F) {
	f.Add(Current{ID: 7, Generation: 9, Base: 3, Deltas: [MaxDeltas]uint64{4, 8}, Trusts: 9}.String())
	f.Add("1.0000000000000007.9.3.8.10")
	f.Add("base-3.db")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCurrent(s)
		if err != nil && c != (Current{}) || err == nil && c.String() != s {
			t.Errorf("%q reads as %+v, %v", s, c, err)
		}
		if kind, generation, ok := ParseFileName(s); ok && FileName(kind, generation) != s {
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
		v := DecodeVerdict(&p, textOf)
		texts := map[string]string{}
		again, err := EncodeVerdict(&v, func(text string) ([]byte, error) {
			key := AuthorKeyOf(text)
			texts[string(key[:])] = text
			return key[:], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if back := DecodeVerdict(again, func(key []byte) string { return texts[string(key)] }); !reflect.DeepEqual(back, v) {
			t.Errorf("%+v\nreads back as %+v", v, back)
		}
		sealed := Seal(key, b)
		if body, ok, err := Unseal(key, sealed); !ok || err != nil || !bytes.Equal(body, b) {
			t.Fatalf("sealed value does not open: %v", err)
		}
		if _, ok, err := Unseal(append(bytes.Clone(key), 1), sealed); ok && err == nil {
			t.Error("opens under another key")
		}
		sealed[int(at)%len(sealed)] ^= 1 << (at % 8)
		if body, ok, err := Unseal(key, sealed); ok && err == nil {
			t.Errorf("opens with a bit flipped: %x", body)
		}
	})
}
