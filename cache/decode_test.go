package cache

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// textOf stands for a bucket of authors in which every key is known.
func textOf(key []byte) string { return fmt.Sprintf("CN=%x", key) }

func drawVerdict(t *rapid.T) *cachepb.Verdict {
	v := &cachepb.Verdict{
		Format: rapid.Uint32Range(0, 6).Draw(t, "format"), Reason: rapid.Uint32Range(0, 40).Draw(t, "reason"),
		Author: rapid.SliceOfN(rapid.Byte(), 0, 17).Draw(t, "author"), Policy: rapid.SliceOfN(rapid.Byte(), 0, 17).Draw(t, "policy"),
		LoggedExpiry: rapid.Int64().Draw(t, "expiry"), RevocationNotChecked: rapid.Bool().Draw(t, "checked"),
		RevocationLogged: rapid.Bool().Draw(t, "logged"), RevocationUntil: rapid.Int64().Draw(t, "revocation until"),
		Identity: []byte(rapid.SampledFrom([]string{"", "x", `{"subject":"a"}`}).Draw(t, "identity")), Key: rapid.SliceOfN(rapid.Byte(), 0, 17).Draw(t, "key"),
		VerifiedAt: rapid.Int64().Draw(t, "at"), Epoch: rapid.Uint32().Draw(t, "epoch"), Problem: rapid.Uint32Range(0, 40).Draw(t, "problem"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "grounds") {
		v.Grounds = append(v.Grounds, &cachepb.Ground{
			Signers: rapid.SliceOfN(rapid.Byte(), 0, 49).Draw(t, "signers"),
			From:    rapid.Int64().Draw(t, "from"), Until: rapid.Int64().Draw(t, "until"), Limit: rapid.Uint32Range(0, 40).Draw(t, "limit"),
			Authorities: rapid.SliceOfN(rapid.Byte(), 0, 33).Draw(t, "authorities"), Times: rapid.SliceOfN(rapid.Int64(), 0, 2).Draw(t, "times"),
			Asked: rapid.SliceOfN(rapid.Byte(), 0, 17).Draw(t, "asked")})
	}
	return v
}

// The decoders by hand and the generated ones read the same.
func TestDecodersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawVerdict(t)
		b, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		demanded := protowire.Number(rapid.SampledFrom([]int{9, 999, 1001, 2000}).Draw(t, "field"))
		if rapid.Bool().Draw(t, "later") { // a version that demands more of a ground, or says more
			for _, g := range p.Grounds {
				g.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, demanded, protowire.VarintType), 1))
			}
			if b, err = proto.Marshal(p); err != nil {
				t.Fatal(err)
			}
		}
		var r verdictRecord
		for range 2 { // used again, it must not remember
			if err := r.decode(b, hashTexts{}); err != nil {
				t.Fatal(err)
			}
		}
		want := format.DecodeVerdict(p, textOf)
		got := r.Verdict
		if len(got.Grounds) == 0 {
			got.Grounds = nil
		}
		for i := range got.Grounds {
			if len(got.Grounds[i].Signers) == 0 {
				got.Grounds[i].Signers = nil
			} else if demanded < 1000 && len(p.Grounds[i].ProtoReflect().GetUnknown()) > 0 {
				t.Fatal("a ground that is not understood names signers")
			}
		}
		if !reflect.DeepEqual(got, want) || r.problem != format.DecodeReason(p.Problem) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	})
}

func FuzzImageRecord(f *testing.F) {
	b, err := proto.Marshal(&cachepb.Image{MediaType: "m", Tagged: true, Children: []*cachepb.Child{{Digest: make([]byte, 32)}},
		Signatures: []*cachepb.Signature{{Digest: make([]byte, 32), Tool: 1, Verdicts: []*cachepb.Verdict{{Format: 1, Grounds: []*cachepb.Ground{{Signers: make([]byte, 16)}}}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r imageRecord
		var p cachepb.Image
		err := r.decode(b)
		if proto.Unmarshal(b, &p) == nil && len(p.ProtoReflect().GetUnknown()) > 0 {
			return // a field of another type, which nobody writes, is read as zero by hand
		}
		if ref := proto.Unmarshal(b, &p); ref == nil && err != nil {
			t.Errorf("refused what the generated decoder reads: %v", err)
		} else if ref == nil && (len(r.signatures) != len(p.Signatures) || len(r.children) != len(p.Children) || r.tagged != p.Tagged) {
			t.Errorf("%+v, want %+v", r, &p)
		}
		for _, s := range r.signatures {
			var sig signatureRecord
			if sig.decode(s) != nil {
				continue
			}
			for _, v := range sig.verdicts {
				var verdict verdictRecord
				_ = verdict.decode(v, hashTexts{}) // no panic
			}
		}
	})
}

// Who a verdict rests on is a list of its own: asking for it changes no ground, which
// hold their signers in one array.
func TestDistinctSignersLeaveTheGrounds(t *testing.T) {
	a, b := trust.SignerID{1}, trust.SignerID{2}
	var r verdictRecord
	encoded, err := proto.Marshal(&cachepb.Verdict{Grounds: []*cachepb.Ground{{Signers: b[:]}, {Signers: slices.Concat(b[:], a[:])}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.decode(encoded, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.distinct(); !slices.Equal(got, []trust.SignerID{a, b}) {
		t.Errorf("%x", got)
	}
	if g := r.Grounds; !slices.Equal(g[0].Signers, []trust.SignerID{b}) || !slices.Equal(g[1].Signers, []trust.SignerID{b, a}) {
		t.Errorf("grounds %+v", g)
	}
}

// hashTexts has a text for each key.
type hashTexts struct{}

func (hashTexts) author(key []byte) string            { return textOf(key) }
func (hashTexts) identity(key []byte) *trust.Identity { return trust.ParseIdentity(textOf(key)) }
