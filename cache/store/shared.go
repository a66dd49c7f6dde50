package store

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// FactKey names a fact: a signature over a subject in a context.
type FactKey struct {
	Subject, Signature trust.Digest
	Context            Context
}

// Key names the fact.
func (f *Fact) Key() FactKey { return FactKey{f.Subject, f.Signature, f.Context} }

// Shared is a fact as one worker of a cluster tells it to the others, with what they need
// to see whether it is about what they have. Its Trust, Partial and Filed mean nothing.
type Shared struct {
	Fact
	Carrier trust.Carrier
	// MediaType and Size are the subject's.
	MediaType string
	Size      int64
	// TrustStore is the id of the trust store that it was verified under
	// (truststore.TrustStore.ID).
	TrustStore trust.Digest
	Node       string    // who tells it
	At         time.Time // when, by the clock of that worker
}

// errNotCanonical: the bytes are not those that this version writes of what they say.
var errNotCanonical = errors.New("not in the one form that this version writes")

// Marshal encodes a shared fact. What it says has one encoding.
func (s *Shared) Marshal() ([]byte, error) {
	p := &cachepb.Shared{Subject: s.Subject[:], Signature: s.Signature[:], Carrier: uint32(s.Carrier), MediaType: s.MediaType,
		Size: s.Size, Trust: s.TrustStore[:], Epoch: s.Epoch, Node: s.Node, At: s.At.UnixNano(), Attachment: s.Attachment}
	if s.Context.Policy != (trust.PolicyID{}) {
		p.Policy = s.Context.Policy[:]
	}
	seen := map[format.AuthorKey]bool{}
	for i := range s.Verdicts {
		v, err := format.EncodeVerdict(&s.Verdicts[i], func(text string) ([]byte, error) {
			key := format.AuthorKeyOf(text)
			if !seen[key] {
				seen[key] = true
				p.Texts = append(p.Texts, text)
			}
			return key[:], nil
		})
		if err != nil {
			return nil, err
		}
		p.Verdicts = append(p.Verdicts, v)
	}
	for _, h := range s.Hints {
		p.Hints = append(p.Hints, h[:])
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}

// UnmarshalShared decodes what [Shared.Marshal] has written. Anything else is an error:
// codes and fields of another version, texts whose hash no verdict names, and an
// identity that is not the text of its hash.
func UnmarshalShared(b []byte) (*Shared, error) {
	var p cachepb.Shared
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("a shared fact: %w", err)
	}
	if len(p.Subject) != len(trust.Digest{}) || len(p.Signature) != len(trust.Digest{}) || len(p.Trust) != len(trust.Digest{}) || p.Carrier > 255 {
		return nil, fmt.Errorf("a shared fact: %w", errNotCanonical)
	}
	s := &Shared{Carrier: trust.Carrier(p.Carrier), MediaType: p.MediaType, Size: p.Size, TrustStore: trust.Digest(p.Trust), Node: p.Node, At: time.Unix(0, p.At)}
	s.Subject, s.Signature, s.Epoch, s.Attachment = trust.Digest(p.Subject), trust.Digest(p.Signature), p.Epoch, p.Attachment
	if s.Context.Tool = s.Carrier.Tool(); s.Context.Tool == trust.Notation {
		s.Context.MediaType, s.Context.Policy = p.MediaType, format.DecodePolicy(p.Policy)
	}
	texts := map[format.AuthorKey]string{}
	for _, text := range p.Texts {
		texts[format.AuthorKeyOf(text)] = text
	}
	for _, v := range p.Verdicts {
		s.Verdicts = append(s.Verdicts, format.DecodeVerdict(v, func(key []byte) string {
			if len(key) != len(format.AuthorKey{}) {
				return ""
			}
			return texts[format.AuthorKey(key)]
		}))
	}
	for _, h := range p.Hints {
		if len(h) != len(Hint{}) {
			return nil, fmt.Errorf("a shared fact: %w", errNotCanonical)
		}
		s.Hints = append(s.Hints, Hint(h))
	}
	if again, err := s.Marshal(); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("a shared fact: %w", errNotCanonical)
	}
	return s, nil
}
