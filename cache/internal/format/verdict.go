package format

import (
	"crypto/sha256"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/trust"
)

// Verdicts as messages, and back.

// AuthorKey is under what an author's text is stored.
type AuthorKey [16]byte

// AuthorKeyOf is the first half of the SHA-256 of an author's text.
func AuthorKeyOf(text string) AuthorKey {
	sum := sha256.Sum256([]byte(text))
	return AuthorKey(sum[:len(AuthorKey{})])
}

// DecodeSigners reads the signers of a ground. Bytes that are no whole number of
// them give none: such a ground holds never.
func DecodeSigners(list []trust.SignerID, b []byte) []trust.SignerID {
	const size = len(trust.SignerID{})
	if len(b)%size != 0 {
		return list
	}
	for ; len(b) > 0; b = b[size:] {
		list = append(list, trust.SignerID(b))
	}
	return list
}

// DecodePolicy gives the zero policy, which is cosign's, for what is none.
func DecodePolicy(b []byte) (p trust.PolicyID) {
	if len(b) == len(p) {
		copy(p[:], b)
	}
	return p
}

// DecodeVerdict decodes a verdict; author gives the text under a key.
func DecodeVerdict(p *cachepb.Verdict, author func(key []byte) string) trust.Verdict {
	v := trust.Verdict{
		Format:               DecodeCode(FormatCodes, p.Format),
		StoreType:            DecodeCode(StoreTypeCodes, p.StoreType),
		Reason:               DecodeReason(p.Reason),
		Detail:               p.Detail,
		LoggedExpiry:         p.LoggedExpiry,
		RevocationNotChecked: p.RevocationNotChecked,
		RevocationLogged:     p.RevocationLogged,
		RevocationUntil:      p.RevocationUntil,
		VerifiedAt:           p.VerifiedAt,
		Epoch:                p.Epoch,
		Predicate:            p.Predicate,
		Size:                 p.Size,
	}
	copy(v.Layer[:], p.Layer)
	v.Policy = DecodePolicy(p.Policy)
	if len(p.Author) > 0 {
		v.Author = author(p.Author)
	}
	copy(v.Key[:], p.Key)
	if len(p.Identity) > 0 {
		v.Identity = trust.ParseIdentity(author(p.Identity))
	}
	for _, g := range p.Grounds {
		ground := trust.Ground{From: g.From, Until: g.Until, Limit: DecodeReason(g.Limit), Ends: g.Ends}
		if !Demands(g) {
			ground.Signers = DecodeSigners(nil, g.Signers)
			ground.Proof = DecodeProof(g.Authorities, g.Times, g.Asked)
		}
		v.Grounds = append(v.Grounds, ground)
	}
	return v
}

// DecodeProof reads the proof of a keyless signature, nil if there is none. One that is
// not whole proves nothing.
func DecodeProof(authorities []byte, times []int64, asked []byte) *trust.Proof {
	if len(authorities) == 0 && len(times) == 0 && len(asked) == 0 {
		return nil
	}
	p := &trust.Proof{}
	if len(asked) != 0 && len(asked) != len(p.Asked) {
		return p
	}
	copy(p.Asked[:], asked)
	ids := DecodeSigners(nil, authorities)
	if len(ids) != len(times) {
		return p
	}
	for i, id := range ids {
		p.Evidence = append(p.Evidence, trust.Evidence{Authority: id, At: times[i]})
	}
	return p
}

// EncodeVerdict is the inverse; author stores a text and returns its key.
func EncodeVerdict(v *trust.Verdict, author func(text string) ([]byte, error)) (_ *cachepb.Verdict, err error) {
	p := &cachepb.Verdict{
		Format:               EncodeCode(FormatCodes, v.Format),
		StoreType:            EncodeCode(StoreTypeCodes, v.StoreType),
		Reason:               EncodeCode(ReasonCodes, v.Reason),
		Detail:               trust.ClipDetail(v.Detail),
		LoggedExpiry:         v.LoggedExpiry,
		RevocationNotChecked: v.RevocationNotChecked,
		RevocationLogged:     v.RevocationLogged,
		RevocationUntil:      v.RevocationUntil,
		VerifiedAt:           v.VerifiedAt,
		Epoch:                v.Epoch,
		Predicate:            v.Predicate,
		Size:                 v.Size,
	}
	if v.Layer != (trust.LayerID{}) {
		p.Layer = v.Layer[:]
	}
	if v.Policy != (trust.PolicyID{}) {
		p.Policy = v.Policy[:]
	}
	if v.Author != "" {
		if p.Author, err = author(v.Author); err != nil {
			return nil, err
		}
	}
	if v.Key != (trust.KeyID{}) {
		p.Key = v.Key[:]
	}
	if v.Identity != nil {
		if p.Identity, err = author(v.Identity.Text()); err != nil {
			return nil, err
		}
	}
	for _, g := range v.Grounds {
		pg := &cachepb.Ground{From: g.From, Until: g.Until, Limit: EncodeCode(ReasonCodes, g.Limit), Ends: g.Ends}
		for _, s := range g.Signers {
			pg.Signers = append(pg.Signers, s[:]...)
		}
		if g.Proof != nil {
			for _, e := range g.Proof.Evidence {
				pg.Authorities, pg.Times = append(pg.Authorities, e.Authority[:]...), append(pg.Times, e.At)
			}
			if g.Proof.Asked != (trust.AskedID{}) {
				pg.Asked = g.Proof.Asked[:]
			}
		}
		p.Grounds = append(p.Grounds, pg)
	}
	return p, nil
}
