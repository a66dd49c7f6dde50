package changes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"trust-worker/trust"
)

// Kind says what a change is.
type Kind string

// The kinds. Of the first three, what follows for images is told by changes
// after them.
const (
	SignerAdded   Kind = "signer-added"   // a key or certificate is trusted now
	SignerRemoved Kind = "signer-removed" // … is no longer
	PolicyChanged Kind = "policy-changed" // trust policy, tools or registry names

	SignatureTrusted Kind = "signature-trusted" // an image is trusted by a signer who had not made it so
	SignatureLost    Kind = "signature-lost"    // an image is no longer trusted by a signer
	Expired          Kind = "expired"           // the same, by date

	Withdrawn Kind = "withdrawn" // nothing can be read: every answer is unknown
	Restored  Kind = "restored"  // answers can be read again

	// Reset says that changes before it are not held: whoever follows has to
	// read everything again.
	Reset Kind = "reset"

	// Stale is never in a journal, since it says that the daemon is silent:
	// answers are not confirmed any more and read unknown. A reader tells it.
	Stale Kind = "stale"
)

// Kinds lists them, for whoever filters.
func Kinds() []Kind {
	return []Kind{SignerAdded, SignerRemoved, PolicyChanged, SignatureTrusted, SignatureLost, Expired, Withdrawn, Restored, Reset, Stale}
}

// Lost reports whether something may be no longer trusted.
func (k Kind) Lost() bool {
	return k == SignerRemoved || k == SignatureLost || k == Expired || k == Withdrawn || k == Reset || k == Stale
}

// Change is one change of trust. Of an image it says who (Tool, Signer), what
// (Repository, Digest) and how its state was and is. One that stands for many
// images has a Count, and names only what they have in common.
type Change struct {
	Position Position  `json:",omitzero"`
	Time     time.Time // when it was found
	Kind     Kind

	Tool   trust.Tool   `json:",omitempty"`
	Signer trust.Digest `json:",omitzero"` // fingerprint
	Store  string       `json:",omitempty"`
	// File is the file that holds, or held, a signer that came or went.
	File string `json:",omitempty"`

	Repository string       `json:",omitempty"`
	Tag        string       `json:",omitempty"` // one of the image's tags, if it has any
	Digest     trust.Digest `json:",omitzero"`
	Signature  trust.Digest `json:",omitzero"` // the signature's manifest

	// Status and Reason are what the signature reads now; both are empty
	// when it is trusted and when it is gone from storage.
	Status trust.Status `json:",omitempty"`
	Reason trust.Reason `json:",omitempty"`
	// Was and State are the image's states before and after, in the words of
	// cache.Image.State; empty: there was, or is, no such image.
	Was   string `json:",omitempty"`
	State string `json:",omitempty"`

	// Count is how many images this stands for, when it names none; an image
	// counts once for each of its signers. Turned
	// is how many of them became trusted, or ceased to be, as a whole.
	Count  int `json:",omitempty"`
	Turned int `json:",omitempty"`

	// Signatures is how many signatures rested on a signer that was removed.
	Signatures int64 `json:",omitempty"`

	// Detail is a sentence where the fields do not say it.
	Detail string `json:",omitempty"`
	// Link is the path in the REST API where more is to be read.
	Link string `json:",omitempty"`
}

// Position is a place in the sequence of changes.
type Position struct {
	CacheID    string
	Generation uint64 // the publication that shows the change
	// Number counts changes and never starts again within a cache id. 0: the
	// position is before all changes of the generation and later ones.
	Number uint64
}

// String is "<cache id>-<generation>", which is what cache.Generation gives,
// with ".<number>" behind it if there is one.
func (p Position) String() string {
	s := p.CacheID + "-" + strconv.FormatUint(p.Generation, 10)
	if p.Number != 0 {
		s += "." + strconv.FormatUint(p.Number, 10)
	}
	return s
}

// ErrPosition is returned for text that is no position.
var ErrPosition = errors.New("not a position: it is <cache id>-<generation> or <cache id>-<generation>.<number>")

// ParsePosition is the inverse of String.
func ParsePosition(s string) (p Position, err error) {
	id, rest, ok := strings.Cut(s, "-")
	generation, number, numbered := strings.Cut(rest, ".")
	p.CacheID = id
	p.Generation, err = strconv.ParseUint(generation, 10, 64)
	if err == nil && numbered {
		p.Number, err = strconv.ParseUint(number, 10, 64)
	}
	if err != nil || !ok || p.String() != s {
		return Position{}, fmt.Errorf("%w: %.80q", ErrPosition, s)
	}
	return p, nil
}

// MarshalText and UnmarshalText use the text form.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePosition(string(b))
	return err
}

// Size estimates, from above, how many bytes the change takes as JSON.
func (c *Change) Size() int {
	return 1024 + 2*(len(c.Repository)+len(c.Store)+len(c.Detail)+len(c.Link))
}
