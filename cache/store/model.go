package store

import (
	"bytes"
	"crypto/sha256"
	"time"

	"trust-worker/trust"
)

// What the daemon writes: places and rows say what is where, facts what is
// true. Package scheduler fills them from storage and from the verifier.

// Child is one entry of an index.
type Child struct {
	Digest    trust.Digest
	Platform  string // "linux/arm64/v8", or empty
	MediaType string
	Size      int64
	// Attestation is set when the index says that the child is one.
	Attestation bool
	About       trust.Digest // what an attestation is about
	// Foreign is the digest, if it is no SHA-256: Digest stands for it.
	Foreign string
}

// Kind is what a manifest turned out to be when it was opened; the class
// numbers are the layout package's. It is remembered by digest, since
// manifests are immutable.
type Kind struct {
	Class     uint8
	MediaType string
	Size      int64
	Subject   trust.Digest
	Children  []Child
	Skipped   int // children that cannot be named
	Ambiguous bool
}

// Reference places one signature manifest at a subject.
type Reference struct {
	Digest  trust.Digest
	Carrier trust.Carrier
	// Problems are what this place adds to the facts: a missing blob, a
	// limit. An entry with Layer < 0 covers all layers.
	Problems []Problem
	Attempts uint32 // failed tries, for back-off
	NextTry  int64  // Unix seconds; 0: none is due
}

// Problem is an undecided (or, for digest-mismatch, decided) reason that
// belongs to a place and not to a fact.
type Problem struct {
	Layer  int
	Reason trust.Reason
}

// Row is what one repository holds of one digest: an image with its
// signatures, or signatures whose image has not come yet (Present false).
type Row struct {
	Digest    trust.Digest
	MediaType string
	Size      int64
	Present   bool
	Ambiguous bool
	Tagged    bool
	Child     bool
	// Other: it is no image. It is answered for by digest, and not listed.
	Other      bool
	Foreign    string       // as for a Child: it is not judged
	Unreadable trust.Reason // why its manifest cannot be read; see layout.Image
	Children   []Child
	References []Reference // sorted by digest
}

// Context is what a fact depends on besides the two digests: nothing for
// cosign; for notation the statement's meaning and the subject's media type.
type Context struct {
	Tool      trust.Tool
	Policy    trust.PolicyID
	MediaType string
}

func (c Context) key() []byte {
	if c.Tool != trust.Notation {
		return nil
	}
	sum := sha256.Sum256(append(c.Policy[:], c.MediaType...))
	return sum[:16]
}

// Fact is what is true of a signature over a subject. A verdict of the zero
// value stands for a layer that could not be decided.
type Fact struct {
	Subject, Signature trust.Digest
	Context            Context
	Verdicts           []trust.Verdict
	// Attachment says that it is no signature: it is not counted.
	Attachment bool
	// Partial: the place, not the bytes, kept layers from being decided. What
	// is known of those from another place stays.
	Partial bool
	// Trust is the trust generation under which layers without a ground
	// were decided.
	Trust uint64
	Epoch uint32
	// Hints say which signers matter: those that it rests on, and those that
	// could matter if they came.
	Hints []Hint
	// Filed is set on facts that are read when their hints are in the index.
	Filed bool

	// key is set on facts that are read: it stands for the whole context, of
	// which Candidates knows the tool alone.
	key []byte
}

// In reports whether the fact, as read, is the one of a context.
func (f *Fact) In(c Context) bool { return bytes.Equal(f.key, factKey(f.Subject, f.Signature, c)) }

// Matched reports whether every verdict has a ground.
func (f *Fact) Matched() bool {
	for i := range f.Verdicts {
		if !f.Verdicts[i].Matched() {
			return false
		}
	}
	return true
}

// Hint is one row of the candidate index: 1 byte of kind, 8 bytes of value.
// Kinds are the scheduler's; rows of kind HintSigner, which say what a fact
// rests on, do not count against a repository's bound.
type Hint [9]byte

// HintSigner is the kind of the rows that lead from a signer to the facts
// that rest on it.
const HintSigner = 1

// Place is a repository as remembered.
type Place struct {
	Name string
	// Stamp is the state of index.json that the rows are from; empty: none.
	Stamp string
	// Unlisted: it could not be listed lately; its answers read unknown. Why says
	// what the matter is.
	Unlisted bool
	Why      string
	// Unsettled: a pass over its rows is due (survives restarts).
	Unsettled bool
	// Overflow: it has more unmatched signatures than the index takes.
	Overflow bool
	// HasNotation: some reference is notation's.
	HasNotation bool
}

// Batch is a change to the private store: one transaction, or several if it is large
// (see [Store.CommitSome]).
type Batch struct {
	Place  string // the repository; empty: facts only
	Remove bool   // the repository is gone
	Update *PlaceUpdate
	// Kinds are what manifests were found to be, Remembered those of which the store
	// knows that already.
	Kinds      map[trust.Digest]Kind
	Remembered []trust.Digest
	Tags       map[string]trust.Digest // replaces all tags when SetTags
	// SetTags and Complete say that Tags and Rows, with Kinds and Remembered, are the
	// whole truth: whatever they do not name is deleted.
	SetTags  bool
	Complete bool
	Rows     []Row
	Facts    []Fact
	// Marks are the scheduler's own: true sets one, false clears it. With
	// InForce they are left as they are once that signer is not in force. They end
	// the work of so many batches before this one as Ends says, and are left as they
	// are when one of those is outdated.
	Marks   map[string]bool
	InForce *trust.SignerID
	Ends    int

	written progress
}

// PlaceUpdate changes a place's own fields; nil pointers leave them.
type PlaceUpdate struct {
	Stamp    *string
	Unlisted *bool
	Why      string // it is unlisted, for people; at most maxWhy bytes are kept
	// Newest is the tag of the image that was written last.
	Newest      *string
	Unsettled   *bool
	HasNotation *bool
	// AsOf is the Sequence when what has settled the place began to read its rows: it
	// stays unsettled if it became so later.
	AsOf uint64
}

// Due is something to be tried again: one entry of the date-ordered bucket.
type Due struct {
	At         time.Time
	Repository string
	Subject    trust.Digest
}
