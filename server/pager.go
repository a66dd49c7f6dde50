package server

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"trust-worker/cache"
	"trust-worker/trust"
)

// cursor is a place in the list: after this tag of this repository or, if the
// tags are over, after this digest of it.
type cursor struct {
	repo, tag string
	untagged  bool
	digest    trust.Digest
}

func (c cursor) String() string {
	if c == (cursor{}) {
		return ""
	}
	text := c.repo + "\x00" + c.tag
	if c.untagged {
		text = c.repo + "\x00\x00" + string(c.digest[:])
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func parseCursor(s string) (c cursor, err error) {
	if s == "" {
		return c, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	repo, rest, ok := strings.Cut(string(b), "\x00")
	digest, untagged := strings.CutPrefix(rest, "\x00")
	if err != nil || !ok || untagged && len(digest) != len(c.digest) {
		return c, refuse(http.StatusBadRequest, codeInvalid, "the cursor cannot be read", "give after as Next had it")
	}
	c = cursor{repo: repo, tag: rest, untagged: untagged}
	if untagged {
		c.tag, c.digest = "", trust.Digest([]byte(digest))
	}
	return c, nil
}

// lists is what a pager reads of a cache.Snapshot.
type lists interface {
	HasRepository(name string) (bool, error)
	Missing(repository string) error
	RepositoriesFrom(name string, fn func(name string) error) error
	TagsAfter(repository, tag string, fn func(tag string, d trust.Digest) error) error
	DigestsFrom(repository string, first trust.Digest, fn func(d trust.Digest, alone bool) error) error
	Image(repository string, d trust.Digest) (cache.Image, error)
	Expirations(repository string, d trust.Digest) (cache.Expirations, error)
}

// signaturesPerRead is how many signatures of an image cost as much as reading it.
const signaturesPerRead = 100

var errPageFull = errors.New("page is full")

// pager collects one page in the order of repositories, tags and digests. It
// begins at the cursor: what comes before is not visited, so that all pages cost
// the same.
type pager struct {
	snap        lists
	filter      imageFilter
	limit       int // images in the page,
	most        int // images read for it,
	names       int // and names visited on the way
	after       cursor
	read, named int
	bytes       int // that the images in the page take
	page        imagePage
}

// collect fills the page with the images of one repository, or of all for "".
func (p *pager) collect(only string) error {
	p.page.Images = []cache.Image{}
	var err error
	if only == "" {
		err = p.snap.RepositoriesFrom(p.after.repo, p.repository)
	} else {
		if ok, err := p.snap.HasRepository(only); err != nil {
			return err
		} else if !ok {
			return p.snap.Missing(only)
		}
		if only >= p.after.repo {
			err = p.repository(only)
		}
	}
	if errors.Is(err, errPageFull) {
		return nil
	}
	return err
}

func (p *pager) repository(repo string) error {
	if repo != p.after.repo {
		if p.full() {
			return errPageFull
		}
		p.after = cursor{repo: repo}
		p.named++
	}
	if !p.after.untagged {
		err := p.snap.TagsAfter(repo, p.after.tag, func(tag string, d trust.Digest) error {
			return p.image(cursor{repo: repo, tag: tag}, d)
		})
		if err != nil || !p.filter.untagged {
			return err
		}
	}
	from := p.after.digest
	return p.snap.DigestsFrom(repo, from, func(d trust.Digest, alone bool) error {
		if p.after.untagged && d == from {
			return nil
		}
		at := cursor{repo: repo, untagged: true, digest: d}
		if !alone {
			return p.pass(at)
		}
		return p.image(at, d)
	})
}

// full reports whether the page has what it may have or has cost what it may,
// and says where the next one begins.
func (p *pager) full() bool {
	if len(p.page.Images) < p.limit && p.read < p.most && p.named < p.names && p.bytes < maxPageBytes {
		return false
	}
	p.page.Next = p.after.String()
	return true
}

// pass goes on to a place.
func (p *pager) pass(to cursor) error {
	if p.full() {
		return errPageFull
	}
	p.named++
	p.after = to
	return nil
}

// image takes the image at a place into the page if it is wanted.
func (p *pager) image(at cursor, d trust.Digest) error {
	if err := p.pass(at); err != nil || !p.filter.query.finds(at.repo, at.tag, d) {
		return err
	}
	p.read++
	img, err := p.snap.Image(at.repo, d)
	if errors.Is(err, cache.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	img.Tag = at.tag
	p.read += (len(img.SignatureInfo) + img.SignaturesOmitted + len(img.Attestations) + img.AttestationsOmitted) / signaturesPerRead
	wanted := p.filter.wants(&img)
	if by := p.filter.expiring; wanted && !by.IsZero() {
		p.read += (len(img.SignatureInfo) + img.SignaturesOmitted) / signaturesPerRead // again
		e, err := p.snap.Expirations(at.repo, d)
		if err != nil {
			return err
		}
		wanted = len(e.First) > 0 && e.First[0].Until.Before(by)
	}
	if wanted {
		p.page.Images = append(p.page.Images, img)
		p.bytes += img.Size()
	}
	return nil
}
