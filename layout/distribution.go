package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"trust-worker/trust"
)

// CNCF distribution's storage (registry:2, registry:3, Harbor's registry), by its driver for
// file systems (distribution v3, registry/storage/paths.go):
//
//	docker/registry/v2/
//	  blobs/sha256/AB/ABCD…/data                   every blob and manifest of all repositories
//	  repositories/NAME/
//	    _layers/sha256/HEX/link                    the blobs of this repository
//	    _manifests/revisions/sha256/HEX/link       its manifests, tagged or not
//	    _manifests/tags/TAG/current/link           what a tag names
//	    _manifests/tags/TAG/index/sha256/HEX/link  what it ever named
//
// A link holds "sha256:HEX" and nothing else. That there is data says nothing of any
// repository: a link does.

const (
	distributionBase         = "docker/registry/v2"
	distributionRepositories = distributionBase + "/repositories"
	distributionBlobs        = distributionBase + "/blobs/sha256"

	manifestsDir = "_manifests"
	revisionsDir = manifestsDir + "/revisions"
	tagsDir      = manifestsDir + "/tags"
	layersDir    = "_layers"
	sha256Dir    = "sha256"
	currentLink  = "/current/link"
)

// distribution is the form of a root that is distribution's.
type distribution struct{ *Root }

func (r distribution) path(name, below string) string {
	return path.Join(distributionRepositories, name, below)
}

// walk visits the directories above repositories too: before the first push they are not
// there, and their coming is how it is seen.
func (r distribution) walk(ctx context.Context, visit func(Visit) error) error {
	var list []fs.DirEntry
	for _, dir := range []string{".", "docker", "docker/registry", distributionBase, distributionRepositories} {
		var err error
		if list, err = r.list(dir); errors.Is(err, fs.ErrNotExist) && dir != "." {
			return nil
		} else if err != nil {
			return unlisted(err, visit)
		}
		if err := visit(Visit{Dir: dir}); err != nil {
			return err
		}
	}
	w := &walker{root: r.Root, base: distributionRepositories + "/", visit: visit,
		is:   func(list []fs.DirEntry) bool { return has(list, manifestsDir) },
		skip: func(string, []fs.DirEntry, fs.DirEntry) (string, bool) { return "", false }}
	return w.below(ctx, "", list)
}

// whole is nothing: a repository is in many small files.
func (r distribution) whole(string) int64 { return 0 }

func (r distribution) holds(name string) bool {
	dir, err := openDirBelow(r.file, r.path(name, manifestsDir))
	if err != nil {
		return false
	}
	dir.Close() // read-only
	return true
}

func (r distribution) gone(name string) bool {
	dir, err := openDirBelow(r.file, r.path(name, manifestsDir))
	if err == nil {
		dir.Close() // read-only
	}
	return errors.Is(err, fs.ErrNotExist)
}

// watched are the directories in which a push makes another one or, of as many tags as are
// asked for, replaces a link.
func (r distribution) watched(name string, most int) (dirs []string) {
	dirs = append(dirs, r.path(name, manifestsDir), r.path(name, revisionsDir+"/"+sha256Dir))
	tags := r.path(name, tagsDir)
	dirs = append(dirs, tags)
	dir, err := openDirBelow(r.file, tags)
	if err != nil {
		return dirs
	}
	defer dir.Close()
	names, err := namesIn(dir, most, never)
	if err != nil {
		return dirs
	}
	for _, tag := range names {
		if tagGrammar.MatchString(tag) {
			dirs = append(dirs, tags+"/"+tag+"/current")
		}
	}
	return dirs
}

// distributed is one repository of a distribution registry, open.
type distributed struct {
	root  *Root
	dir   *os.File
	blobs *os.File // nil when there are none yet
	// linked are the manifests that list has found links of, for the looks that follow.
	linked atomic.Pointer[map[trust.Digest]bool]
}

func (r distribution) open(name string) (content, error) {
	p := &distributed{root: r.Root}
	var err error
	if p.dir, err = openDirBelow(r.file, r.path(name, "")); err != nil {
		return nil, err
	}
	if p.blobs, err = openDirBelow(r.file, distributionBlobs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("open blobs: %w", err), p.dir.Close())
	}
	return p, nil
}

func (p *distributed) Close() error {
	if p.blobs == nil {
		return p.dir.Close()
	}
	return errors.Join(p.dir.Close(), p.blobs.Close())
}

// What is wrong with a link.
var (
	errCutLink   = errors.New("link is empty or cut")
	errOtherLink = errors.New("link names something else than its path")
	errNotLinked = fmt.Errorf("no link in this repository: %w", fs.ErrNotExist)
)

// maxLink is more than any link has: "sha512:" and 128 digits.
const maxLink = 256

// checkLink reads a link and holds it against the digest of its path.
func checkLink(dir *os.File, at, digest string) (Stamp, error) {
	b, s, err := readFile(dir, at, -1, maxLink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Stamp{}, errNotLinked
	case err != nil:
		return s, err
	case string(b) == digest:
		return s, nil
	case strings.HasPrefix(digest, string(b)):
		return s, errCutLink
	}
	return s, errOtherLink
}

// hasLink says whether the repository has a link to a digest in one of its directories.
func (p *distributed) hasLink(in string, d trust.Digest) error {
	_, err := checkLink(p.dir, in+"/"+sha256Dir+"/"+d.Hex()+"/link", d.String())
	return err
}

// hasManifest is hasLink of a manifest.
func (p *distributed) hasManifest(d trust.Digest) error {
	if linked := p.linked.Load(); linked != nil && (*linked)[d] {
		return nil
	}
	return p.hasLink(revisionsDir, d)
}

func dataOf(d trust.Digest) string {
	hex := d.Hex()
	return hex[:2] + "/" + hex + "/data"
}

func (p *distributed) data(d trust.Digest, size, limit int64) ([]byte, error) {
	if p.blobs == nil {
		return nil, fs.ErrNotExist
	}
	b, _, err := readFile(p.blobs, dataOf(d), size, limit)
	return b, err
}

func (p *distributed) manifest(d trust.Digest, size, limit int64) ([]byte, error) {
	if err := p.hasManifest(d); err != nil {
		return nil, err
	}
	return p.data(d, size, limit)
}

func (p *distributed) layer(d trust.Digest, size, limit int64) ([]byte, error) {
	if err := p.hasLink(layersDir, d); err != nil {
		return nil, err
	}
	return p.data(d, size, limit)
}

func (p *distributed) manifestSize(d trust.Digest) (int64, error) {
	if err := p.hasManifest(d); err != nil {
		return 0, err
	}
	if p.blobs == nil {
		return 0, fs.ErrNotExist
	}
	s, err := statAt(p.blobs, dataOf(d))
	return s.Size, err
}

// companion reads the one link.
func (p *distributed) companion(ctx context.Context, tag string, _ *Companions) (trust.Digest, *Companions, error) {
	if err := ctx.Err(); err != nil {
		return trust.Digest{}, nil, err
	}
	b, _, err := readFile(p.dir, tagsDir+"/"+tag+currentLink, -1, maxLink)
	if errors.Is(err, fs.ErrNotExist) {
		return trust.Digest{}, nil, nil
	}
	var d trust.Digest
	if err == nil {
		if d, err = trust.ParseDigest(string(b)); err == nil {
			err = p.hasManifest(d)
		}
	}
	switch {
	case errors.Is(err, errNotLinked):
		return trust.Digest{}, nil, nil
	case err != nil:
		return trust.Digest{}, nil, &trust.ReasonError{Reason: trust.IOError, Err: fmt.Errorf("tag %s: %w", tag, err)}
	}
	return d, nil, nil
}
