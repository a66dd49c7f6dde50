package store

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/trust"
)

// whole is a shared fact with something in each field that travels.
func whole() *Shared {
	s := &Shared{Carrier: trust.NotationReferrer, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 421, TrustStore: trust.SumOf([]byte("trust")),
		Node: "w1", At: time.Unix(1_700_000_000, 42)}
	s.Subject, s.Signature = trust.SumOf([]byte("image")), trust.SumOf([]byte("signature"))
	s.Context = Context{Tool: trust.Notation, Policy: trust.PolicyID{1, 2}, MediaType: s.MediaType}
	s.Epoch, s.Attachment = 9, true
	id := &trust.Identity{Issuer: "https://issuer.example", Subject: "https://ci.example/build"}
	id = trust.ParseIdentity(id.Text())
	s.Verdicts = []trust.Verdict{
		{Format: trust.JWS, Author: "CN=acme", Key: trust.KeyID{7}, StoreType: "ca", Policy: s.Context.Policy, Layer: trust.LayerID{9}, VerifiedAt: 1_699_999_999, Epoch: 9, LoggedExpiry: 1_800_000_000,
			Grounds: []trust.Ground{{Signers: []trust.SignerID{{1}, {2}}, From: 5, Until: 1_900_000_000, Limit: trust.CertificateExpired, Ends: 1_950_000_000}}},
		{Format: trust.Bundle, Identity: id, Epoch: 9, VerifiedAt: 1, Predicate: "https://slsa.dev/provenance/v1", Size: 12,
			Grounds: []trust.Ground{{Proof: &trust.Proof{Evidence: []trust.Evidence{{Authority: trust.SignerID{3}, At: 77}}, Asked: trust.AskedID{4}}}}},
		{Format: trust.SimpleSigning, Reason: trust.NoTrustedKey, Detail: "no key of the right kind", Epoch: 9, VerifiedAt: 2},
	}
	s.Hints = []Hint{{HintSigner, 1}, {3, 2}}
	return s
}

func TestSharedRoundTrip(t *testing.T) {
	s := whole()
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnmarshalShared(b)
	if err != nil {
		t.Fatal(err)
	}
	if !got.At.Equal(s.At) {
		t.Errorf("at %v", got.At)
	}
	got.At = s.At
	if !reflect.DeepEqual(got, s) {
		t.Errorf("got  %+v\nwant %+v", got, s)
	}
	if k := got.Key(); k != s.Key() {
		t.Errorf("key %+v", k)
	}
}

// Whatever this version would read otherwise than it writes is refused.
func TestSharedIsCanonical(t *testing.T) {
	b, err := whole().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*cachepb.Shared){
		"a text that nobody names":            func(p *cachepb.Shared) { p.Texts = append(p.Texts, "more") },
		"an author without a text":            func(p *cachepb.Shared) { p.Texts = p.Texts[1:] },
		"an identity with another text":       func(p *cachepb.Shared) { p.Texts[1] += " " },
		"texts in another order":              func(p *cachepb.Shared) { p.Texts[0], p.Texts[1] = p.Texts[1], p.Texts[0] },
		"a reason of a later version":         func(p *cachepb.Shared) { p.Verdicts[2].Reason = 250 },
		"a format of a later version":         func(p *cachepb.Shared) { p.Verdicts[0].Format = 250 },
		"a carrier of a later version":        func(p *cachepb.Shared) { p.Carrier = 300 },
		"a problem of a place":                func(p *cachepb.Shared) { p.Verdicts[0].Problem = 3 },
		"half a signer":                       func(p *cachepb.Shared) { p.Verdicts[0].Grounds[0].Signers = p.Verdicts[0].Grounds[0].Signers[:24] },
		"a time too many":                     func(p *cachepb.Shared) { p.Verdicts[1].Grounds[0].Times = append(p.Verdicts[1].Grounds[0].Times, 1) },
		"a short digest":                      func(p *cachepb.Shared) { p.Subject = p.Subject[:31] },
		"a long hint":                         func(p *cachepb.Shared) { p.Hints[0] = append(p.Hints[0], 0) },
		"half a policy":                       func(p *cachepb.Shared) { p.Policy = p.Policy[:8] },
		"a field that is not known":           func(p *cachepb.Shared) { unknown(p) },
		"a field of a ground that is not":     func(p *cachepb.Shared) { unknown(p.Verdicts[0].Grounds[0]) },
		"a field of a verdict that is not":    func(p *cachepb.Shared) { unknown(p.Verdicts[0]) },
		"a layer's name that is cut":          func(p *cachepb.Shared) { p.Verdicts[0].Layer = p.Verdicts[0].Layer[:3] },
		"a key's name that is cut":            func(p *cachepb.Shared) { p.Verdicts[0].Key = p.Verdicts[0].Key[:3] },
		"a policy for cosign":                 func(p *cachepb.Shared) { p.Carrier = uint32(trust.CosignTag) },
		"an empty text as author":             func(p *cachepb.Shared) { p.Verdicts[2].Author = []byte{1}; p.Texts = append(p.Texts, "") },
		"a detail that is longer than stored": func(p *cachepb.Shared) { p.Verdicts[2].Detail = string(bytes.Repeat([]byte("x"), 400)) },
	} {
		var p cachepb.Shared
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		edit(&p)
		altered, err := proto.MarshalOptions{Deterministic: true}.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := UnmarshalShared(altered); err == nil {
			t.Errorf("%s is taken: %+v", name, s)
		}
	}
}

func unknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
}

// FuzzUnmarshalShared: whatever is read is what would be written of it.
func FuzzUnmarshalShared(f *testing.F) {
	b, err := whole().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for i := range b {
		altered := bytes.Clone(b)
		altered[i] ^= 1
		f.Add(altered)
		f.Add(b[:i])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := UnmarshalShared(b)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is read and written as %x: %v", b, again, err)
		}
	})
}
