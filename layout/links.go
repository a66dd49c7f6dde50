package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"trust-worker/trust"
)

// What a repository of distribution's lists: the links to its manifests and of its tags.

const (
	// apart is how long the writes of one push may be apart: of a manifest and of the tag
	// that names it, of a directory and of the link in it.
	apart = 400 * time.Millisecond
	// linksAgain is the longest that reading links may have taken for them to be read again
	// at once, where they were changing.
	linksAgain = 100 * time.Millisecond
	// looksAtOnce is after how many files it is asked whether there is still time.
	looksAtOnce = 64
)

// links is one reading of them.
type links struct {
	root      *Root
	revisions []entry
	tags      []tagLink
	flaws     []flaw
	here      map[trust.Digest]bool // manifests with a link; false where it cannot be read
	former    map[formerly]bool
	named     int // names that were read of what tags named before
	late      func() bool
	sum       *stampSum
	wait      time.Duration // until a change would show in the stamp
	torn      bool          // something is wrong that may be about to be whole
	recent    bool
}

// formerly is a manifest that a tag of that use has named before.
type formerly struct {
	digest trust.Digest
	use    tagUse
}

type tagLink struct {
	entry
	written int64 // ns since 1970
}

// flaw is a [Problem] in the making.
type flaw struct {
	digest trust.Digest
	reason trust.Reason
	text   string
}

func (p *distributed) list(ctx context.Context, found func(entry) error, bad func(trust.Digest, trust.Reason, string)) (listed, error) {
	l, err := p.readSettled(ctx)
	switch {
	case ctx.Err() != nil:
		return listed{}, ctx.Err()
	case errors.Is(err, errTooLarge):
		return listed{}, &trust.ReasonError{Reason: trust.LimitExceeded, Err: err}
	case err != nil:
		return listed{}, &trust.ReasonError{Reason: trust.IOError, Err: err}
	}
	p.linked.Store(&l.here)
	for i := range l.revisions {
		if err := found(l.revisions[i]); err != nil {
			return listed{}, err
		}
	}
	// A tag that is moved is written anew.
	slices.SortStableFunc(l.tags, func(a, b tagLink) int { return cmp.Compare(a.written, b.written) })
	for i := range l.tags {
		if err := found(l.tags[i].entry); err != nil {
			return listed{}, err
		}
	}
	for f := range l.former { // the tag may have been of any subject
		if err := found(entry{bare: true, digest: f.digest, use: f.use}); err != nil {
			return listed{}, err
		}
	}
	for _, f := range l.flaws {
		bad(f.digest, f.reason, f.text)
	}
	state := listed{recent: l.recent}
	if l.wait <= 0 && !l.torn {
		state.stamp = l.sum.stamp()
	}
	return state, nil
}

// readSettled reads the links until they hold still, where that does not take long.
func (p *distributed) readSettled(ctx context.Context) (*links, error) {
	for n := 1; ; n++ {
		start := p.root.now()
		l, err := p.readLinks(ctx)
		if err != nil || !l.torn && l.wait <= 0 || n == attempts || p.root.now().Sub(start) > linksAgain {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(max(l.wait, settle/4)):
		}
	}
}

// readLinks reads every link once.
func (p *distributed) readLinks(ctx context.Context) (*links, error) {
	late := func() bool { return ctx.Err() != nil }
	dirs, err := p.root.linkDirs(p.dir, "", late)
	if err != nil {
		return nil, err
	}
	defer closeAll(dirs)
	l := &links{root: p.root, sum: newStampSum(), here: map[trust.Digest]bool{}, former: map[formerly]bool{}, late: late}
	n := 0
	for i := range dirs { // the tags' comes last
		d := &dirs[i]
		read := l.revision
		if d.algorithm == "" {
			read = l.tag
		}
		for _, name := range d.names {
			if n++; n%looksAtOnce == 0 && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			read(d, name)
			if l.named > p.root.limits.Descriptors {
				return nil, fmt.Errorf("tags of referrers and SBOMs have named more than %d manifests: %w", p.root.limits.Descriptors, errTooLarge)
			}
		}
	}
	return l, nil
}

// took notes the stamp of a link whose reading has begun at start: what was written after it
// has to show in the stamp.
func (l *links) took(d *linkDir, name string, s Stamp, start time.Time) {
	// One of the future is that of a clock set back since: waiting for it would be for ever.
	if age := start.Sub(time.Unix(0, s.Ctime)); age >= -settle {
		l.wait = max(l.wait, settle-age)
		l.recent = l.recent || age < apart
	}
	l.sum.add(d.kind, name, s)
}

// missing is called where a directory has no link: the link was deleted, or is about to be
// written.
func (l *links) missing(d *linkDir, name string) {
	changed, err := changedAt(d.dir, name)
	if age := l.root.now().Sub(changed); err == nil && age >= -settle && age < apart {
		l.recent = true
	}
}

func (l *links) flaw(d trust.Digest, reason trust.Reason, format string, args ...any) {
	if len(l.flaws) > MaxProblems {
		return // more than are told of
	}
	l.flaws = append(l.flaws, flaw{d, reason, fmt.Sprintf(format, args...)})
}

// revision reads the link of a manifest.
func (l *links) revision(d *linkDir, name string) {
	text := d.algorithm + ":" + name
	e := entry{bare: true}
	var ok bool
	if e.digest, e.foreign, ok = anyDigest(text); !ok {
		l.flaw(trust.Digest{}, trust.Malformed, "manifest %.140q: its name is no digest", text)
		return
	}
	start := l.root.now()
	s, err := checkLink(d.dir, name+d.link, text)
	switch {
	case errors.Is(err, errNotLinked):
		l.missing(d, name)
		return
	case err == nil:
		l.took(d, name, s, start)
	default:
		e.unread, l.torn = trust.IOError, true
		l.flaw(e.digest, e.unread, "link to the manifest: %v", err)
	}
	l.here[e.digest] = err == nil
	l.revisions = append(l.revisions, e)
}

// anyDigest parses a digest, and gives the text of one that is of another algorithm than
// SHA-256.
func anyDigest(text string) (d trust.Digest, foreign string, ok bool) {
	d, err := trust.ParseDigest(text)
	if err == nil {
		return d, "", true
	}
	d, ok = trust.ForeignDigest(text)
	return d, text, ok
}

// tag reads the link of a tag.
func (l *links) tag(d *linkDir, name string) {
	if !tagGrammar.MatchString(name) {
		l.flaw(trust.Digest{}, trust.Malformed, "tag %.128q", name)
		return
	}
	start := l.root.now()
	b, s, err := readFile(d.dir, name+d.link, -1, maxLink)
	if errors.Is(err, fs.ErrNotExist) {
		l.missing(d, name)
		return
	}
	e := entry{bare: true, tag: name}
	var ok bool
	if e.digest, e.foreign, ok = anyDigest(string(b)); err == nil && !ok {
		err = fmt.Errorf("its link is empty, cut, or no digest: %.140q", b)
	}
	if err != nil {
		l.torn = true
		l.flaw(trust.Digest{}, trust.IOError, "tag %s: %v", name, err)
		return
	}
	l.took(d, name, s, start)
	if _, ok := l.here[e.digest]; !ok {
		l.flaw(e.digest, trust.BlobMissing, "tag %s names a manifest that the repository does not have", name)
		return
	}
	e.use, e.subject = parseTag(name)
	if e.use == tagReferrers || e.use == tagSBOM {
		l.before(d, name, &e)
	}
	l.tags = append(l.tags, tagLink{e, s.Mtime})
}

// before takes what a tag of referrers or of an SBOM has named before: it is a manifest
// without a tag now, and no image. (What was a signature or an attestation shows it.)
func (l *links) before(d *linkDir, name string, of *entry) {
	dir, err := openDirBelow(d.dir, name+"/index/"+sha256Dir)
	if err != nil {
		return // it named nothing before
	}
	defer dir.Close()
	names, err := namesIn(dir, maxChildren, l.late)
	if err != nil {
		l.flaw(of.digest, trust.IOError, "what tag %s named before: %v", name, err)
		return
	}
	l.named += len(names)
	for _, hex := range names {
		if d, err := trust.ParseHex(hex); err == nil && d != of.digest && l.here[d] {
			l.former[formerly{d, of.use}] = true
		}
	}
}

// changedAt is when a directory was last changed.
func changedAt(dir *os.File, path string) (time.Time, error) {
	var st unix.Stat_t
	err := at(dir, func(dir int) error { return unix.Fstatat(dir, path, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return time.Unix(0, st.Ctim.Nano()), err
}
