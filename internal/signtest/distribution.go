package signtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What [Storage] writes as CNCF distribution does.

const distributionBase = "docker/registry/v2"

// Repository is the directory of a repository.
func (s *Storage) Repository(repo string) string {
	if s.Distribution {
		return filepath.Join(s.Dir, distributionBase, "repositories", filepath.FromSlash(repo))
	}
	return filepath.Join(s.Dir, filepath.FromSlash(repo))
}

// link writes the link to a digest in a directory of links, such as "_layers".
func (s *Storage) link(repo, in, hex string) {
	s.writeLink(repo, in+"/sha256/"+hex, hex)
}

func (s *Storage) writeLink(repo, dir, hex string) {
	s.replace(must(filepath.Rel(s.Dir, filepath.Join(s.Repository(repo), dir, "link"))), []byte("sha256:"+hex))
}

// linkManifest puts a manifest into a repository.
func (s *Storage) linkManifest(repo, tag string, d ocispec.Descriptor) {
	hex := d.Digest.Encoded()
	s.link(repo, "_manifests/revisions", hex)
	if tag != "" {
		s.writeLink(repo, "_manifests/tags/"+tag+"/current", hex)
		s.link(repo, "_manifests/tags/"+tag+"/index", hex)
	}
}

// unlink deletes a tag, and the manifest if no other tag names it; without a tag the
// manifest and every tag that names it.
func (s *Storage) unlink(img Image) {
	tags := filepath.Join(s.Repository(img.Repo), "_manifests", "tags")
	others := false
	list, err := os.ReadDir(tags)
	if err != nil && !os.IsNotExist(err) {
		check(err)
	}
	for _, tag := range list {
		switch {
		case s.named(img.Repo, tag.Name()) != img.Hex():
		case img.Tag == "" || img.Tag == tag.Name():
			check(os.RemoveAll(filepath.Join(tags, tag.Name())))
		default:
			others = true
		}
	}
	if !others {
		check(os.Remove(filepath.Join(s.Repository(img.Repo), "_manifests", "revisions", "sha256", img.Hex(), "link")))
	}
}

// named is the digest that a tag names, "" if there is no such tag.
func (s *Storage) named(repo, tag string) string {
	b, err := os.ReadFile(filepath.Join(s.Repository(repo), "_manifests", "tags", tag, "current", "link"))
	if os.IsNotExist(err) {
		return ""
	}
	check(err)
	return strings.TrimPrefix(string(b), "sha256:")
}

// Listed are the manifests of a repository, once for each tag.
func (s *Storage) Listed(repo string) []ocispec.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Distribution {
		return slices.Clone(s.index(repo).Manifests)
	}
	var all []ocispec.Descriptor
	manifest := func(hex string, annotations map[string]string) {
		content := must(os.ReadFile(s.path(repo, hex)))
		var body struct{ MediaType string }
		check(json.Unmarshal(content, &body))
		all = append(all, ocispec.Descriptor{MediaType: body.MediaType, Digest: digest.NewDigestFromEncoded(digest.SHA256, hex), Size: int64(len(content)), Annotations: annotations})
	}
	tagged := map[string]bool{}
	for _, tag := range s.links(repo, "tags/*/current") {
		name := filepath.Base(filepath.Dir(filepath.Dir(tag)))
		hex := s.named(repo, name)
		tagged[hex] = true
		manifest(hex, map[string]string{ocispec.AnnotationRefName: name})
	}
	for _, revision := range s.links(repo, "revisions/sha256/*") {
		if hex := filepath.Base(filepath.Dir(revision)); !tagged[hex] {
			manifest(hex, nil)
		}
	}
	return all
}

func (s *Storage) links(repo, in string) []string {
	return must(filepath.Glob(filepath.Join(s.Repository(repo), "_manifests", in, "link")))
}

// Copy copies a repository, without what keep leaves out of those that are [Storage.Listed].
func (s *Storage) Copy(from, to string, keep func(ocispec.Descriptor) bool) {
	check(os.CopyFS(s.Repository(to), os.DirFS(s.Repository(from))))
	s.Forget(to)
	for _, d := range s.Listed(to) {
		if keep != nil && !keep(d) {
			s.Remove(Image{Repo: to, Descriptor: d, Tag: d.Annotations[ocispec.AnnotationRefName]})
		}
	}
}

// Forget drops what is known of a repository, which somebody else has written.
func (s *Storage) Forget(repo string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.indexes, repo)
}

// Here is the file without which a repository does not have a blob or a manifest.
func (s *Storage) Here(repo string, d ocispec.Descriptor) string {
	if !s.Distribution {
		return s.BlobPath(repo, d)
	}
	for _, in := range []string{"_layers", "_manifests/revisions"} {
		link := filepath.Join(s.Repository(repo), in, "sha256", d.Digest.Encoded(), "link")
		if _, err := os.Stat(link); err == nil {
			return link
		}
	}
	return filepath.Join(s.Repository(repo), "_layers", "sha256", d.Digest.Encoded(), "link")
}

// BlobPath is the file of a blob or a manifest.
func (s *Storage) BlobPath(repo string, d ocispec.Descriptor) string {
	return s.path(repo, d.Digest.Encoded())
}
