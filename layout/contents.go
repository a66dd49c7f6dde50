package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"trust-worker/trust"
)

// Contents is what one state of a repository holds.
type Contents struct {
	// Stamp is that of the index.json that was read, or of the links. It is zero when they
	// were still changing: look again.
	Stamp Stamp
	// Recent: something was written so lately that what belongs to it may be about to come.
	// A look again soon finds it.
	Recent bool
	// Tags are the ordinary ones. A tag that names two digests is absent.
	Tags map[string]trust.Digest
	// Newest is the tag of the image that was written last, which index.json has
	// last; "" if no tag names an image.
	Newest string
	// Images are the manifests and indexes that are images, the children of
	// indexes included, tagged or not. What index.json names and cannot be read is
	// among them: nothing that is listed vanishes without a word.
	Images map[trust.Digest]*Image
	// Others are manifests that are no images and have a signature: SBOMs,
	// attestations, artifacts. They are answered for by digest, and not listed.
	Others map[trust.Digest]*Image
	// Signatures are by subject, sorted by digest. A subject need not be in
	// Images or Others: signatures may come before their image.
	Signatures map[trust.Digest][]Reference
	// Learned is what was found out about digests that were not known, Remembered are
	// those that were.
	Learned    map[trust.Digest]Kind
	Remembered []trust.Digest
	// Problems are in the order found, at most MaxProblems; Omitted counts the
	// rest.
	Problems []Problem
	Omitted  int
	// Incomplete is set when a manifest could not be read for a reason that may
	// pass, so that there may be more images and signatures than these: look
	// again later, also if index.json does not change.
	Incomplete bool
	// Opened counts the manifests that were opened, or tried.
	Opened int

	nodes map[trust.Digest]*node
}

// Foreign counts the images that are named by another digest algorithm than SHA-256.
func (c *Contents) Foreign() (n int) {
	for _, img := range c.Images {
		if img.Foreign != "" {
			n++
		}
	}
	return n
}

// Unread counts, among Problems, the manifests that are listed and the tags that could not
// be read, those of another digest algorithm than SHA-256 apart, and gives the first. What an index
// lists need not be here: copies of some platforms alone are usual.
func (c *Contents) Unread() (n int, example Problem) {
	for _, p := range c.Problems {
		node := c.nodes[p.Digest]
		tag := p.Digest == (trust.Digest{}) && p.Reason == trust.IOError // whose link cannot be read
		if tag || node != nil && node.listed && node.reason == p.Reason && node.foreign == "" {
			if n++; n == 1 {
				example = p
			}
		}
	}
	return n, example
}

// Has reports whether the repository lists a manifest of that digest, whatever it is:
// in index.json, or in an index that is listed.
func (c *Contents) Has(d trust.Digest) bool { return c.nodes[d] != nil }

// MaxProblems bounds Contents.Problems.
const MaxProblems = 1000

// Image is one image manifest or index.
type Image struct {
	Digest trust.Digest
	// Foreign is the digest as storage has it, if it is of another algorithm than
	// SHA-256: the manifest is not read, and Unreadable is unsupported-digest.
	Foreign string
	// MediaType is as stored: that of the descriptor that names the image, or
	// the body's where the descriptor has none.
	MediaType string
	// Size is the real one; the descriptor's if the manifest is Unreadable.
	Size     int64
	Children []Child // those that are images, in the index's order
	// Ambiguous: two readers could take it for two things, or its descriptor
	// contradicts it. Signatures over it read ambiguous.
	Ambiguous bool
	Untagged  bool // has no ordinary tag, or only some that name two digests
	// Unreadable says why the manifest could not be read, or does not fit its
	// descriptor's size: blob-missing, io-error, digest-mismatch,
	// limit-exceeded, malformed; or "".
	Unreadable trust.Reason
}

// Reference is a signature manifest that names a subject.
type Reference struct {
	Digest trust.Digest
	// Carrier is the manifest's own where it has the subject itself, also if a
	// tag names the same subject: a tag that anybody can add must not have a
	// bundle read as something else.
	Carrier trust.Carrier
	// Unreadable says why the manifest cannot be used: blob-missing, io-error,
	// digest-mismatch, limit-exceeded, malformed, ambiguous; or "".
	Unreadable trust.Reason
}

// Problem is something stored that was passed over, or taken with a flaw.
type Problem struct {
	Digest trust.Digest // zero if none is to blame
	Reason trust.Reason
	Detail string // at most 256 bytes; stored text is quoted
}

func (c *Contents) problem(d trust.Digest, r trust.Reason, format string, args ...any) {
	if len(c.Problems) >= MaxProblems {
		c.Omitted++
		return
	}
	detail := fmt.Sprintf(format, args...)
	detail = strings.ToValidUTF8(detail[:min(len(detail), 256)], "")
	c.Problems = append(c.Problems, Problem{Digest: d, Reason: r, Detail: detail})
}

// Contents reads what the repository lists and resolves it. known answers what a digest is from
// what an earlier Contents learned, and that its bytes have been read in this
// repository; it may be nil. What a digest is holds everywhere, that its bytes are
// here does not: a known digest whose file is not here, or has another size, is
// opened like all others, each once.
//
// The error is ctx's, or a *[trust.ReasonError] about index.json, or about the links of all
// manifests: io-error (it wraps [fs.ErrNotExist] when it is gone), limit-exceeded, malformed,
// ambiguous.
func (p *Repository) Contents(ctx context.Context, known func(trust.Digest) (Kind, bool)) (*Contents, error) {
	r := newResolver(p, known)
	state, err := p.list(ctx, r.entry, func(d trust.Digest, reason trust.Reason, why string) { r.c.problem(d, reason, "%s", why) })
	if err == nil {
		r.c.Stamp, r.c.Recent = state.stamp, state.recent
		err = r.resolve(ctx)
	}
	if err != nil {
		return nil, failed(p.name, err)
	}
	return r.c, nil
}

// failed adds where it happened, and keeps the reason outermost.
func failed(name string, err error) error {
	var re *trust.ReasonError
	if !errors.As(err, &re) {
		return err // ctx's
	}
	return &trust.ReasonError{Reason: re.Reason, Err: fmt.Errorf("read index of %s: %w", name, re.Err)}
}

// sortReferences sorts each list by digest and drops second references to one
// manifest: the first added stays, which is that of its own carrier.
func (c *Contents) sortReferences() {
	for subject, refs := range c.Signatures {
		slices.SortStableFunc(refs, func(a, b Reference) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
		c.Signatures[subject] = slices.CompactFunc(refs, func(a, b Reference) bool { return a.Digest == b.Digest })
	}
}
