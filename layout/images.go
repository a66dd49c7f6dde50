package layout

import "trust-worker/trust"

// images decides what is an image: what has an ordinary tag; what is one by
// itself, or cannot be read, and has no other role; and the children of those. BuildKit's mark hides
// a child only if every index that lists it agrees and it has no tag: a pusher
// can hide an untagged image of the same repository, as by deleting it.
func (r *resolver) images() {
	var queue []*node
	mark := func(n *node) {
		if !n.image {
			n.image = true
			queue = append(queue, n)
		}
	}
	for _, n := range r.order {
		index := n.kind.Class == ImageIndex
		if n.tagged || n.listed && (n.kind.imageByItself() || n.unread()) && !n.subordinate &&
			!(n.referrers && index) && !(n.attested && !n.plain) {
			mark(n)
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, c := range n.children() {
			if child := r.nodes[c.Digest]; child.kind.imageAsChild() && !(child.attested && !child.plain) {
				mark(child)
			}
		}
	}
	for _, n := range r.order {
		if n.image {
			r.c.Images[n.digest] = r.image(n)
		}
	}
	for _, d := range r.c.Tags {
		r.c.Images[d].Untagged = false
	}
}

func (r *resolver) image(n *node) *Image {
	image := &Image{Digest: n.digest, Foreign: n.foreign, MediaType: n.mediaType, Size: n.size, Untagged: true}
	switch flaw := n.flaw(); flaw {
	case trust.Ambiguous:
		image.Ambiguous = true
	default:
		image.Unreadable = flaw
	}
	for _, c := range n.children() {
		if r.nodes[c.Digest].image {
			image.Children = append(image.Children, c)
		}
	}
	return image
}

// signatures collects the carriers.
func (r *resolver) signatures() {
	add := func(subject trust.Digest, n *node, c trust.Carrier) {
		r.c.Signatures[subject] = append(r.c.Signatures[subject], Reference{Digest: n.digest, Carrier: c, Unreadable: n.flaw()})
	}
	for _, n := range r.order {
		if c := n.kind.Class.carrier(); c != 0 {
			add(n.kind.Subject, n, c)
		} else if n.kind.Class == Attestation && n.kind.Subject != (trust.Digest{}) {
			add(n.kind.Subject, n, trust.Attestations)
		}
	}
	for _, e := range r.entries { // after: see Reference.Carrier
		// What a manifest is, its bytes say, so that it is the same everywhere: under either
		// tag one of attestations is that, and nothing else is under theirs.
		switch n := r.nodes[e.digest]; {
		case e.use != tagSignature && e.use != tagAttestation:
		case n.kind.Class == Attestation:
			add(e.subject, n, trust.Attestations)
		case e.use == tagSignature:
			add(e.subject, n, trust.CosignTag)
		}
	}
	for _, n := range r.order {
		var about map[trust.Digest]bool  // by an index a manifest is about one image: it is verified for each
		for _, c := range n.children() { // BuildKit's
			if child := r.nodes[c.Digest]; c.Attestation && c.About != (trust.Digest{}) && child.kind.Class == Attestation && !about[c.Digest] {
				if about == nil {
					about = map[trust.Digest]bool{}
				}
				about[c.Digest] = true
				add(c.About, child, trust.Attestations)
			}
		}
	}
	r.c.sortReferences()
}

// others finds the manifests that are no images and have signatures. As with images, what
// was known of one says nothing about its bytes in this repository.
func (r *resolver) others() {
	for _, n := range r.order {
		if !n.image && n.foreign == "" && r.c.Signatures[n.digest] != nil {
			r.c.Others[n.digest] = r.image(n)
		}
	}
}
