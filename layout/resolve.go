package layout

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"trust-worker/trust"
)

// resolver turns what a repository lists into Contents, in passes over a graph of
// digests: see resolve. The graph has no
// cycles, since an index holds its children's hashes; it may be deep, wide, or
// have one child under a million parents, which is what the limits are for.
type resolver struct {
	p       *Repository
	known   func(trust.Digest) (Kind, bool)
	c       *Contents
	nodes   map[trust.Digest]*node
	order   []*node // as discovered: breadth first, in the order of index.json
	entries []entry
	tags    map[string]trust.Digest // ordinary, first digest seen
	edges   int                     // counted against Limits.Descriptors
}

func newResolver(p *Repository, known func(trust.Digest) (Kind, bool)) *resolver {
	nodes := map[trust.Digest]*node{}
	return &resolver{p: p, known: known, nodes: nodes, tags: map[string]trust.Digest{}, c: &Contents{
		nodes:      nodes,
		Tags:       map[string]trust.Digest{},
		Images:     map[trust.Digest]*Image{},
		Others:     map[trust.Digest]*Image{},
		Signatures: map[trust.Digest][]Reference{},
		Learned:    map[trust.Digest]Kind{},
	}}
}

// resolve makes Contents of the entries.
func (r *resolver) resolve(ctx context.Context) error {
	if err := r.discover(ctx); err != nil {
		return err
	}
	r.compare()
	r.images()
	r.newest()
	r.signatures()
	r.others()
	return nil
}

// newest finds the tag that was written last: entries come in the order of their writing.
// zot appends to index.json what is pushed.
func (r *resolver) newest() {
	for _, e := range slices.Backward(r.entries) {
		if d, ok := r.c.Tags[e.tag]; ok && e.use == tagOrdinary && r.c.Images[d] != nil {
			r.c.Newest = e.tag
			return
		}
	}
}

// node is what is known of one digest in this repository.
type node struct {
	digest  trust.Digest
	foreign string // its text, if digest only stands for one of another algorithm
	kind    Kind
	reason  trust.Reason // why kind is not known, or cannot be used here
	depth   int

	// from index.json, or from links
	listed      bool // has a descriptor there, which alone describes it, or a link
	tagged      bool // ordinary tag
	subordinate bool // .sig, .att or .sbom tag
	referrers   bool // referrers tag

	// from the descriptors that name it: index.json's, else its parents'
	mediaType   string
	size        int64
	described   bool // mediaType and size are set
	agreed      bool // some parent describes it as it is
	conflicting bool // two descriptors differ, or index.json's differs from it
	missized    bool // index.json has another size for it
	bare        bool // it is listed, and nothing describes it

	// from the indexes that list it
	plain, attested bool // without, with BuildKit's attestation mark

	image bool
}

// children are the node's, unless something forbids following them.
func (n *node) children() []Child {
	if n.reason != "" {
		return nil
	}
	return n.kind.Children
}

// unread says whether nothing is known of what the node is: its manifest could not
// be read, and never was before.
func (n *node) unread() bool { return n.reason != "" && n.kind.Class == Unclassified }

// flaw is why the node's manifest cannot be used as a signature, or is no
// readable image.
func (n *node) flaw() trust.Reason {
	switch {
	case n.reason != "":
		return n.reason
	case n.kind.Flaw() != "":
		return n.kind.Flaw()
	case n.missized:
		return trust.DigestMismatch
	case n.conflicting:
		return trust.Ambiguous
	}
	return ""
}

func (r *resolver) node(d trust.Digest, depth int) *node {
	n, ok := r.nodes[d]
	if !ok {
		n = &node{digest: d, depth: depth}
		r.nodes[d] = n
		r.order = append(r.order, n)
	}
	return n
}

// entry takes one manifest that is listed, or one name of it.
func (r *resolver) entry(e entry) error {
	n := r.node(e.digest, 0)
	if !e.bare || !n.listed { // a name that has a link of its own lists no other manifest
		if r.edges++; r.edges > r.p.root.limits.Descriptors {
			return tooMany(r.p.root.limits)
		}
	}
	n.listed, n.foreign, n.reason = true, cmp.Or(e.foreign, n.foreign), cmp.Or(n.reason, e.unread)
	r.entries = append(r.entries, e)
	switch e.use {
	case tagMalformed:
		if e.tag != "" {
			r.c.problem(e.digest, trust.Malformed, "tag %.128q", e.tag)
		}
	case tagReferrers:
		n.referrers = true
	case tagSignature, tagAttestation, tagSBOM:
		n.subordinate = true
	case tagOrdinary:
		if e.tag != "" {
			r.tag(e.tag, n)
		}
	}
	return nil
}

// tag takes an ordinary tag. One that names two digests names neither: which of
// the two another reader takes is not known. Both stay images.
func (r *resolver) tag(tag string, n *node) {
	n.tagged = true
	first, ok := r.tags[tag]
	switch {
	case !ok:
		r.tags[tag], r.c.Tags[tag] = n.digest, n.digest
	case first != n.digest:
		if _, ok := r.c.Tags[tag]; ok {
			r.c.problem(first, trust.Ambiguous, "tag %.128q also names %s", tag, n.digest)
		}
		delete(r.c.Tags, tag)
	}
}

// discover finds out what every digest is, and what the indexes among them
// list. r.order grows while it is gone through.
func (r *resolver) discover(ctx context.Context) error {
	for i := 0; i < len(r.order); i++ {
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		n := r.order[i]
		if err := r.learn(ctx, n); err != nil {
			return err
		}
		r.follow(n)
	}
	return nil
}

// learn sets n.kind, or n.reason if it cannot. Its error is ctx's.
func (r *resolver) learn(ctx context.Context, n *node) error {
	if n.reason != "" { // it is not known whether it is here; it stays what it is if it is
		r.c.Incomplete = true
		if r.known != nil {
			if kind, ok := r.known(n.digest); ok {
				n.kind = kind
				r.c.Remembered = append(r.c.Remembered, n.digest)
			}
		}
		return nil
	}
	if n.foreign != "" {
		n.reason = trust.UnsupportedDigest
		r.c.problem(n.digest, n.reason, "%s", n.foreign)
		return nil
	}
	if n.depth > r.p.root.limits.Depth {
		n.reason = trust.LimitExceeded
		r.c.problem(n.digest, n.reason, "below more than %d indexes", r.p.root.limits.Depth)
		return nil
	}
	if r.known != nil {
		if kind, ok := r.known(n.digest); ok && kind.Class != Unclassified {
			n.kind = kind // it stays what it is if its bytes are not here
			r.c.Remembered = append(r.c.Remembered, n.digest)
			if r.p.looksWhole(n.digest, kind.Size) {
				return nil
			}
		}
	}
	r.c.Opened++
	m, err := r.p.parsed(ctx, n.digest)
	var re *trust.ReasonError
	switch {
	case errors.As(err, &re):
		n.reason = re.Reason
		// Digests that do not match may be a file that is being written. A link that comes is
		// a change of its own.
		r.c.Incomplete = r.c.Incomplete || re.Reason != trust.LimitExceeded && !errors.Is(re.Err, errNotLinked)
		r.c.problem(n.digest, re.Reason, "%v", re.Err)
	case err != nil:
		return err
	default:
		n.kind = m.Kind
		r.c.Learned[n.digest] = m.Kind
		r.p.read.keep(n.digest, m)
	}
	return nil
}

// follow adds the children of an index, within the limits.
func (r *resolver) follow(n *node) {
	if flaw := n.kind.Flaw(); n.reason == "" && flaw != "" {
		r.c.problem(n.digest, flaw, "manifest")
	}
	if n.kind.Skipped > 0 {
		r.c.problem(n.digest, trust.Malformed, "%d children without a usable digest or size", n.kind.Skipped)
	}
	count := len(n.children())
	switch l := r.p.root.limits; {
	case count > l.Children:
		n.reason = trust.LimitExceeded
		r.c.problem(n.digest, n.reason, "%d children, limit %d", count, l.Children)
	case r.edges+count > l.Descriptors:
		n.reason = trust.LimitExceeded
		r.c.problem(n.digest, n.reason, "%d children are more than the repository's limit of %d descriptors", count, l.Descriptors)
		// Or the memory would be used all the same.
		n.kind.Children = nil
		delete(r.c.Learned, n.digest)
	}
	r.edges += len(n.children())
	for _, c := range n.children() {
		child := r.node(c.Digest, n.depth+1)
		child.foreign = cmp.Or(c.Foreign, child.foreign) // what only stands for a digest stays so
		child.plain = child.plain || !c.Attestation
		child.attested = child.attested || c.Attestation
	}
}

// compare holds what descriptors say against what the manifests are. What
// index.json says counts; what an index says of its children does only for
// children that index.json does not name, and there one right description
// outweighs all wrong ones, so that nobody can spoil an image by listing it.
func (r *resolver) compare() {
	for _, e := range r.entries {
		n := r.nodes[e.digest]
		if e.bare {
			n.bare = true
			continue
		}
		n.describe(e.mediaType, e.size)
		if n.reason == "" {
			n.missized = n.missized || e.size != n.kind.Size
			n.conflicting = n.conflicting || differ(e.mediaType, n.kind.MediaType)
		}
	}
	for _, parent := range r.order {
		for _, c := range parent.children() {
			n := r.nodes[c.Digest]
			if n.listed {
				continue
			}
			n.describe(c.MediaType, c.Size)
			n.agreed = n.agreed || n.reason != "" || c.Size == n.kind.Size && !differ(c.MediaType, n.kind.MediaType)
		}
	}
	for _, n := range r.order {
		if !n.listed {
			// With a media type in the body, that decides between parents.
			n.conflicting = !n.agreed || n.conflicting && n.kind.MediaType == ""
			if n.kind.MediaType != "" {
				n.mediaType = n.kind.MediaType
			}
		}
		if n.reason == "" && (n.missized || n.conflicting) {
			r.c.problem(n.digest, n.flaw(), "descriptor and manifest differ in size or media type")
		}
		if n.reason == "" {
			n.size = n.kind.Size
		}
		if n.mediaType == "" {
			n.mediaType = n.kind.MediaType
		}
		if n.mediaType == "" && n.bare {
			n.mediaType = n.kind.served()
		}
	}
}

func (n *node) describe(mediaType string, size int64) {
	if !n.described {
		n.described, n.size = true, size
	}
	if n.mediaType == "" {
		n.mediaType = mediaType
	}
	n.conflicting = n.conflicting || differ(mediaType, n.mediaType)
}

// differ reports whether two media types contradict each other; none is no
// contradiction.
func differ(a, b string) bool { return a != "" && b != "" && a != b }
