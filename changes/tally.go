package changes

import (
	"errors"
	"slices"

	"trust-worker/cache"
	"trust-worker/trust"
)

const (
	// maxNamed is how many changes of one kind, signer and reason are told one
	// by one; more are one change with their number.
	maxNamed = 10
	// maxTold is how many changes one look tells; when there would be more,
	// signers are not told apart: many keys can each have made a few images.
	maxTold = 100
	// maxGroups bounds what is counted apart; beyond it signers are not.
	maxGroups = 1000
	// maxTags is how many tags of a repository are looked at to name an image.
	maxTags = 1000

	linkSigners = "/api/v1/signers"
	linkImages  = "/api/v1/images"
)

// group is what changes told together have in common.
type group struct {
	kind   Kind
	tool   trust.Tool
	signer trust.Digest
	status trust.Status
	reason trust.Reason
}

// tally collects what has changed for images, by group.
type tally struct {
	snap   *cache.Snapshot // where tags are looked up
	order  []group
	groups map[group]*counted
}

type counted struct {
	named         []Change
	count, turned int
	repository    string // of all of them, else empty
}

func newTally(snap *cache.Snapshot) *tally {
	return &tally{snap: snap, groups: map[group]*counted{}}
}

// image tells which signers make an image trusted that did not, and which no
// longer do. Whether their signatures are the same is no matter: a co-signed
// manifest takes the place of the one before.
func (t *tally) image(d *cache.Difference) {
	before, after := trustedBy(d.Before), trustedBy(d.After)
	for _, by := range before {
		if _, still := find(after, by); !still {
			t.lost(d, by)
		}
	}
	for _, by := range after {
		if _, already := find(before, by); !already {
			t.add(d, by, group{kind: SignatureTrusted, tool: by.Tool, signer: by.SignerFingerprint})
		}
	}
}

// trustedBy returns the first signature of each signer who makes an image trusted.
// They are few: signers are the operator's.
func trustedBy(list []cache.Signature) (by []*cache.Signature) {
	seen := map[trust.Signer]bool{}
	for i := range list {
		sig := &list[i]
		if who := (trust.Signer{Tool: sig.Tool, Fingerprint: sig.SignerFingerprint}); sig.IsTrusted && !seen[who] {
			seen[who] = true
			by = append(by, sig)
		}
	}
	return by
}

func find(list []*cache.Signature, by *cache.Signature) (*cache.Signature, bool) {
	i := slices.IndexFunc(list, func(s *cache.Signature) bool { return s.Tool == by.Tool && s.SignerFingerprint == by.SignerFingerprint })
	if i < 0 {
		return nil, false
	}
	return list[i], true
}

// lost tells of a signer who made an image trusted and does not now, with what
// that signature reads instead.
func (t *tally) lost(d *cache.Difference, sig *cache.Signature) {
	g := group{kind: SignatureLost, tool: sig.Tool, signer: sig.SignerFingerprint}
	for i := range d.After {
		if now := &d.After[i]; now.Digest == sig.Digest && now.Layer == sig.Layer {
			g.status, g.reason = now.Status, now.Reason
		}
	}
	if g.status == trust.Expired {
		g.kind = Expired
	}
	t.add(d, sig, g)
}

func (t *tally) add(d *cache.Difference, sig *cache.Signature, g group) {
	c := t.groups[g]
	if c == nil {
		if len(t.groups) >= maxGroups {
			g.tool, g.signer = "", trust.Digest{}
			c = t.groups[g]
		}
		if c == nil {
			c = &counted{repository: d.Repository}
			t.groups[g] = c
			t.order = append(t.order, g)
		}
	}
	was, state := d.Was, d.Is
	c.count++
	if (was == string(trust.Trusted)) != (state == string(trust.Trusted)) {
		c.turned++
	}
	if c.repository != d.Repository {
		c.repository = ""
	}
	if len(c.named) >= maxNamed {
		return
	}
	c.named = append(c.named, Change{Kind: g.kind, Tool: sig.Tool, Signer: sig.SignerFingerprint, Repository: d.Repository, Digest: d.Digest,
		Signature: sig.Digest, Status: g.status, Reason: g.reason, Was: was, State: state,
		Link: linkImages + "/" + d.Repository + "@" + d.Digest.String()})
}

// changes returns what was told, losses first.
func (t *tally) changes() (list []Change) {
	if t.told() > maxTold {
		t.mergeSigners()
	}
	slices.SortStableFunc(t.order, func(a, b group) int {
		switch {
		case a.kind.Lost() == b.kind.Lost():
			return 0
		case a.kind.Lost():
			return -1
		}
		return 1
	})
	for _, g := range t.order {
		c := t.groups[g]
		if c.count <= maxNamed {
			for i := range c.named {
				c.named[i].Tag = t.tag(&c.named[i])
			}
			list = append(list, c.named...)
			continue
		}
		one := Change{Kind: g.kind, Tool: g.tool, Signer: g.signer, Status: g.status, Reason: g.reason, Repository: c.repository,
			Count: c.count, Turned: c.turned, Link: linkImages}
		separator := "?"
		for _, p := range []struct{ name, value string }{{"repository", c.repository}, {"reason", string(g.reason)}, {"signer", signerParameter(g)}} {
			if p.value != "" {
				one.Link += separator + p.name + "=" + p.value
				separator = "&"
			}
		}
		list = append(list, one)
	}
	return list
}

// told is how many changes there are to tell.
func (t *tally) told() (n int) {
	for _, c := range t.groups {
		if n += c.count; c.count > maxNamed {
			n += 1 - c.count
		}
	}
	return n
}

// mergeSigners puts together what differs only in its signer.
func (t *tally) mergeSigners() {
	was, order := t.groups, t.order
	t.groups, t.order = map[group]*counted{}, nil
	for _, g := range order {
		c := was[g]
		g.tool, g.signer = "", trust.Digest{}
		all := t.groups[g]
		if all == nil {
			t.groups[g] = c
			t.order = append(t.order, g)
			continue
		}
		all.count, all.turned = all.count+c.count, all.turned+c.turned
		if all.repository != c.repository {
			all.repository = ""
		}
		if room := maxNamed - len(all.named); room > 0 {
			all.named = append(all.named, c.named[:min(room, len(c.named))]...)
		}
	}
}

// signerParameter: an answer names its signer only while it is authenticated.
func signerParameter(g group) string {
	if g.kind != SignatureTrusted && g.kind != Expired || g.signer == (trust.Digest{}) {
		return ""
	}
	return g.signer.String()
}

// tag finds a tag of the image, among the first of its repository.
func (t *tally) tag(c *Change) (found string) {
	enough := errors.New("enough")
	n := 0
	err := t.snap.Tags(c.Repository, func(tag string, d trust.Digest) error {
		if d == c.Digest {
			found = tag
			return enough
		}
		if n++; n == maxTags {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return ""
	}
	return found
}
