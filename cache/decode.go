package cache

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Reading an image record is the hot path of every look-up, so it is decoded
// by hand into values that are used again: the message structs of cachepb
// would cost more than the look-up itself. TestDecodersAgree holds these
// decoders to the generated ones.

// fields calls fn for each field of a message, with its number or its bytes.
func fields(b []byte, fn func(num protowire.Number, typ protowire.Type, v uint64, bytes []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", format.ErrDamaged, protowire.ParseError(n))
		}
		b = b[n:]
		var v uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", format.ErrDamaged, protowire.ParseError(n))
		}
		b = b[n:]
		if err := fn(num, typ, v, bytes); err != nil {
			return err
		}
	}
	return nil
}

// imageRecord is an Image message with its parts still encoded; it aliases the
// value that it was read from.
type imageRecord struct {
	mediaType     []byte
	tagged, child bool
	other         bool // no image
	foreign       []byte
	unreadable    trust.Reason
	children      [][]byte
	signatures    [][]byte
	attestations  [][]byte
}

func (r *imageRecord) decode(b []byte) error {
	*r = imageRecord{children: r.children[:0], signatures: r.signatures[:0], attestations: r.attestations[:0]}
	return fields(b, func(num protowire.Number, _ protowire.Type, v uint64, bytes []byte) error {
		switch num {
		case 1:
			r.mediaType = bytes
		case 3:
			r.tagged = v != 0
		case 4:
			r.children = append(r.children, bytes)
		case 5:
			r.signatures = append(r.signatures, bytes)
		case 6:
			r.child = v != 0
		case 7:
			r.other = v != 0
		case 8:
			r.foreign = bytes
		case 9:
			r.unreadable = format.DecodeReason(uint32(v))
		case 1000:
			r.attestations = append(r.attestations, bytes)
		}
		return nil
	})
}

// signatureRecord is a Signature message, its verdicts still encoded.
type signatureRecord struct {
	digest        trust.Digest
	tool          trust.Tool
	policyChanged bool
	verdicts      [][]byte
}

func (r *signatureRecord) decode(b []byte) error {
	*r = signatureRecord{verdicts: r.verdicts[:0]}
	return fields(b, func(num protowire.Number, _ protowire.Type, v uint64, bytes []byte) error {
		switch num {
		case 1:
			copy(r.digest[:], bytes)
		case 2:
			r.tool = format.DecodeCode(format.ToolCodes, uint32(v))
		case 3:
			r.verdicts = append(r.verdicts, bytes)
		case 4:
			r.policyChanged = v != 0
		}
		return nil
	})
}

// verdictRecord is a Verdict message; grounds and signers are used again.
type verdictRecord struct {
	trust.Verdict
	problem trust.Reason
	grounds []trust.Ground
	signers []trust.SignerID
}

// texts reads what verdicts name by a hash.
type texts interface {
	author(key []byte) string
	identity(key []byte) *trust.Identity
}

func (r *verdictRecord) decode(b []byte, t texts) error {
	*r = verdictRecord{grounds: r.grounds[:0], signers: r.signers[:0]}
	err := fields(b, func(num protowire.Number, _ protowire.Type, v uint64, bytes []byte) error {
		switch num {
		case 1:
			r.Format = format.DecodeCode(format.FormatCodes, uint32(v))
		case 2:
			r.Reason = format.DecodeReason(uint32(v))
		case 3:
			return r.ground(bytes)
		case 4:
			r.Author = ""
			if len(bytes) > 0 {
				r.Author = t.author(bytes)
			}
		case 5:
			r.Policy = format.DecodePolicy(bytes)
		case 6:
			r.LoggedExpiry = int64(v)
		case 7:
			r.RevocationNotChecked = v != 0
		case 8:
			r.VerifiedAt = int64(v)
		case 9:
			r.Epoch = uint32(v)
		case 10:
			r.problem = format.DecodeReason(uint32(v))
		case 12:
			r.RevocationLogged = v != 0
		case 13:
			r.RevocationUntil = int64(v)
		case 14:
			r.StoreType = format.DecodeCode(format.StoreTypeCodes, uint32(v))
		case 15:
			if r.Identity = nil; len(bytes) > 0 {
				r.Identity = t.identity(bytes)
			}
		case 16:
			copy(r.Key[:], bytes)
		case 1000:
			r.Detail = string(bytes)
		case 1001:
			r.Predicate = string(bytes)
		case 1002:
			r.Size = int64(v)
		}
		return nil
	})
	r.Grounds = r.grounds
	return err
}

func (r *verdictRecord) ground(b []byte) error {
	var g trust.Ground
	var signers, authorities, asked []byte
	var times []int64
	understood := true
	err := fields(b, func(num protowire.Number, typ protowire.Type, v uint64, bytes []byte) error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			signers = bytes
		case num == 2 && typ == protowire.VarintType:
			g.From = int64(v)
		case num == 3 && typ == protowire.VarintType:
			g.Until = int64(v)
		case num == 4 && typ == protowire.VarintType:
			g.Limit = format.DecodeReason(uint32(v))
		case num == 5 && typ == protowire.BytesType:
			authorities = bytes
		case num == 6 && typ == protowire.BytesType:
			for len(bytes) > 0 {
				t, n := protowire.ConsumeVarint(bytes)
				if n < 0 {
					return fmt.Errorf("%w: %w", format.ErrDamaged, protowire.ParseError(n))
				}
				times, bytes = append(times, protowire.DecodeZigZag(t)), bytes[n:]
			}
		case num == 7 && typ == protowire.BytesType:
			asked = bytes
		case num == 1000 && typ == protowire.VarintType:
			g.Ends = int64(v)
		case num < format.Informs: // a later version demands something more: it holds never
			understood = false
		}
		return nil
	})
	first := len(r.signers)
	if understood {
		r.signers = format.DecodeSigners(r.signers, signers)
		g.Proof = format.DecodeProof(authorities, times, asked)
	}
	g.Signers = r.signers[first:len(r.signers):len(r.signers)]
	r.grounds = append(r.grounds, g)
	return err
}

// distinct returns each signer that the verdict rests on once. The grounds keep theirs.
func (r *verdictRecord) distinct() []trust.SignerID {
	once := slices.Clone(r.signers)
	slices.SortFunc(once, func(a, b trust.SignerID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(once)
}

// next returns the first of at (0: none) and the dates of the verdict's grounds that
// is after now.
func (r *verdictRecord) next(at, now int64) int64 {
	for i := range r.Grounds {
		for _, t := range []int64{r.Grounds[i].From, r.Grounds[i].Until} {
			if t > now && (at == 0 || t < at) {
				at = t
			}
		}
	}
	return at
}
