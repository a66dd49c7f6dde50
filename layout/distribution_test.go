package layout

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/trust"
)

// store builds the storage of a distribution registry, as its paths.go has it.
type store struct {
	t    testing.TB
	root string
}

func newDistribution(t testing.TB) *store {
	t.Helper()
	s := &store{t, t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(s.root, distributionRepositories), 0o755))
	return s
}

// file writes a file that is older than what counts as recent.
func (s *store) file(path, content string) {
	s.t.Helper()
	path = filepath.Join(s.root, distributionBase, path)
	must(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(s.t, os.WriteFile(path, []byte(content), 0o644))
}

func (s *store) data(content any) trust.Digest {
	b := encode(s.t, content)
	d := trust.SumOf(b)
	s.file("blobs/sha256/"+dataOf(d), string(b))
	return d
}

func revision(name string, d trust.Digest) string {
	return "repositories/" + name + "/" + revisionsDir + "/sha256/" + d.Hex() + "/link"
}

func tagLinkOf(name, tag string) string {
	return "repositories/" + name + "/" + tagsDir + "/" + tag + currentLink
}

func (s *store) tag(name, tag string, d trust.Digest) {
	s.file(tagLinkOf(name, tag), d.String())
	s.file("repositories/"+name+"/"+tagsDir+"/"+tag+"/index/sha256/"+d.Hex()+"/link", d.String())
}

// push stores a manifest, links it and tags it.
func (s *store) push(name string, content any, tags ...string) trust.Digest {
	d := s.data(content)
	s.file(revision(name, d), d.String())
	for _, tag := range tags {
		s.tag(name, tag, d)
	}
	return d
}

func (s *store) open() *Root {
	s.t.Helper()
	r, err := Open(s.root, Options{})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, r.Close()) })
	return r
}

func (s *store) contents(name string, known func(trust.Digest) (Kind, bool)) *Contents {
	s.t.Helper()
	p, err := s.open().Repository(name)
	must(s.t, err)
	defer p.Close()
	c, err := p.Contents(context.Background(), known)
	must(s.t, err)
	checkContents(s.t, c)
	return c
}

func (s *store) remove(path string) {
	must(s.t, os.Remove(filepath.Join(s.root, distributionBase, path)))
}

// What is in a repository of distribution's is what it links, by the manifests' own bytes.
func TestDistributionContents(t *testing.T) {
	s := newDistribution(t)
	a := s.push("team/app", image("a"), "1.0", "latest")
	moved := s.push("team/app", image("moved"), "2.0")
	b := s.push("team/app", image("b"), "2.0")
	child := image("child")
	index := s.push("team/app", (&repo{t: t}).indexOf(child), "multi")
	childD := s.push("team/app", child)
	sig := s.push("team/app", simple("s"), sigTag(a))
	formerSig := s.push("team/app", simple("former"))
	bundle := s.push("team/app", referrer(typeSigstoreBundle, a, "b"))
	notation := s.push("team/app", referrer(typeNotationSignature, childD, "n"))
	// The referrers of a, twice: the second index took the tag of the first.
	formerIndex := s.push("team/app", (&repo{t: t}).indexOf(image("not here")), "sha256-"+a.Hex())
	referrers := s.push("team/app", (&repo{t: t}).indexOf(referrer(typeSigstoreBundle, a, "b")), "sha256-"+a.Hex())
	sbom := s.push("team/app", with(image("sbom"), object{"annotations": object{"x": "sbom"}}), "sha256-"+a.Hex()+".sbom")
	// Other repositories have these: their data is here, their links are not.
	elsewhere := s.push("other", image("elsewhere"), "1.0")
	forged := s.push("other", referrer(typeSigstoreBundle, a, "forged"))
	s.tag("team/app", "stolen", elsewhere)
	s.tag("team/app", sigTag(b), forged)
	deleted := s.push("team/app", image("deleted"))
	s.remove(revision("team/app", deleted))

	c := s.contents("team/app", nil)
	wantImages(t, c, a, moved, b, index, childD)
	wantReferences(t, c, a, map[trust.Digest]string{sig: "cosign-tag", bundle: "cosign-bundle"})
	wantReferences(t, c, childD, map[trust.Digest]string{notation: "notation-referrer"})
	wantReferences(t, c, b, map[trust.Digest]string{})
	for tag, want := range map[string]trust.Digest{"1.0": a, "latest": a, "2.0": b, "multi": index} {
		if c.Tags[tag] != want {
			t.Errorf("tag %s names %s, want %s", tag, c.Tags[tag], want)
		}
	}
	if len(c.Tags) != 4 || !c.Images[moved].Untagged || c.Images[a].Untagged || !c.Images[childD].Untagged {
		t.Errorf("tags %v, images %+v", c.Tags, c.Images)
	}
	for _, d := range []trust.Digest{formerIndex, referrers, sbom, formerSig} {
		if !c.Has(d) || c.Images[d] != nil {
			t.Errorf("%s is listed: %t, and an image: %+v", d, c.Has(d), c.Images[d])
		}
	}
	if c.Has(deleted) || c.Has(elsewhere) {
		t.Error("what has no link is listed")
	}
	for _, d := range []trust.Digest{elsewhere, forged} {
		if got := problems(c, d); !slices.Equal(got, []trust.Reason{trust.BlobMissing}) {
			t.Errorf("a tag of what is not here: %v", got)
		}
	}
	if img := c.Images[a]; img.MediaType != manifestTypes[0] || img.Size == 0 || c.Images[index].MediaType != indexTypes[0] || img.Ambiguous {
		t.Errorf("%+v, %+v", img, c.Images[index])
	}
	if c.Incomplete {
		t.Error("incomplete")
	}
}

// What the body does not say of its media type is what distribution gives out.
func TestDistributionMediaTypes(t *testing.T) {
	s := newDistribution(t)
	plain := image("plain")
	delete(plain, "mediaType")
	d := s.push("app", plain, "1")
	list := (&repo{t: t}).indexOf(plain)
	delete(list, "mediaType")
	index := s.push("app", list, "2")
	c := s.contents("app", nil)
	if c.Images[d].MediaType != manifestTypes[0] || c.Images[index].MediaType != indexTypes[0] {
		t.Errorf("%q, %q", c.Images[d].MediaType, c.Images[index].MediaType)
	}
}

// A manifest or a blob is read only where the repository has a link to it.
func TestDistributionReadsWhatIsLinked(t *testing.T) {
	s := newDistribution(t)
	mine, theirs := s.push("mine", image("mine"), "1"), s.push("theirs", image("theirs"), "1")
	layer := s.data("content")
	s.file("repositories/theirs/_layers/sha256/"+layer.Hex()+"/link", layer.String())
	root := s.open()
	for _, name := range []string{"mine", "theirs"} {
		p, err := root.Repository(name)
		must(t, err)
		for d, of := range map[trust.Digest]string{mine: "mine", theirs: "theirs"} {
			_, err := p.Manifest(t.Context(), d)
			if (err == nil) != (of == name) || err != nil && reasonIn(t, err) != trust.BlobMissing || p.Holds(d) != (of == name) {
				t.Errorf("%s of %s in %s: %v, %t", d, of, name, err, p.Holds(d))
			}
			if _, err := p.Blob(t.Context(), d, 1, 100); err == nil {
				t.Errorf("a manifest is a blob of %s", name)
			}
		}
		_, err = p.Blob(t.Context(), layer, 7, 100)
		if (err == nil) != (name == "theirs") {
			t.Errorf("blob of theirs in %s: %v", name, err)
		}
		must(t, p.Close())
	}
}

// A link that is wrong costs its place alone: what it stands for is not known.
func TestDistributionBadLinks(t *testing.T) {
	other := trust.SumOf([]byte("other"))
	for what, spoil := range map[string]func(d trust.Digest) string{
		"empty":               func(trust.Digest) string { return "" },
		"cut":                 func(d trust.Digest) string { return d.String()[:40] },
		"of another digest":   func(trust.Digest) string { return other.String() },
		"of another's digest": func(trust.Digest) string { return trust.SumOf(encode(t, image("good"))).String() },
		"of sha512":           func(d trust.Digest) string { return "sha512:" + d.Hex() + d.Hex() },
		"with a newline":      func(d trust.Digest) string { return d.String() + "\n" },
		"large":               func(d trust.Digest) string { return d.String() + strings.Repeat(" ", 1<<20) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newDistribution(t)
			good := s.push("app", image("good"), "good")
			bad := s.push("app", image("bad"), "bad", "also")
			sig := s.push("app", simple("s"), sigTag(good))
			known := s.contents("app", nil).Learned
			s.file(revision("app", bad), spoil(bad))
			s.file(revision("app", sig), spoil(sig))
			s.file(tagLinkOf("app", "also"), spoil(bad))
			c := s.contents("app", func(d trust.Digest) (Kind, bool) { k, ok := known[d]; return k, ok })
			wantImages(t, c, good, bad)
			if c.Images[good].Unreadable != "" || c.Images[bad].Unreadable != trust.IOError || c.Tags["bad"] != bad || c.Tags["good"] != good {
				t.Errorf("images %+v, tags %v", c.Images, c.Tags)
			}
			// A signature stays one that cannot be read; it does not vanish.
			wantReferences(t, c, good, map[trust.Digest]string{sig: "cosign-tag io-error"})
			if d, ok := c.Tags["also"]; ok && d == bad {
				t.Errorf("a tag whose link is wrong names %s", d)
			}
			if !c.Incomplete || c.Stamp != (Stamp{}) {
				t.Errorf("incomplete %t, stamp %v", c.Incomplete, c.Stamp)
			}
			if n, _ := c.Unread(); n < 2 {
				t.Errorf("%d unread", n)
			}
			p, err := s.open().Repository("app")
			must(t, err)
			defer p.Close()
			if _, err := p.Manifest(t.Context(), bad); err == nil {
				t.Error("a manifest is read whose link is wrong")
			}
		})
	}
}

// A link that is written in place is torn for a moment: it is read again.
func TestDistributionTornLink(t *testing.T) {
	s := newDistribution(t)
	d := s.push("app", image("a"), "1")
	s.file(tagLinkOf("app", "1"), "")
	root := s.open()
	reads := 0
	root.now = func() time.Time {
		if reads++; reads == 6 { // after the first reading
			s.file(tagLinkOf("app", "1"), d.String())
		}
		return time.Now()
	}
	p, err := root.Repository("app")
	must(t, err)
	defer p.Close()
	c, err := p.Contents(t.Context(), nil)
	must(t, err)
	if c.Tags["1"] != d || len(c.Problems) > 0 {
		t.Errorf("tags %v, problems %v", c.Tags, c.Problems)
	}
}

// Every change shows in the stamp, and a stamp is that of what was read.
func TestDistributionStamp(t *testing.T) {
	s := newDistribution(t)
	a := s.push("app", image("a"), "1", "2")
	b := s.push("app", image("b"), "3")
	root := s.open()
	stamp := func() Stamp {
		t.Helper()
		st, err := root.Stamp("app", time.Time{})
		must(t, err)
		return st
	}
	settled := func() Stamp {
		t.Helper()
		for range 100 {
			if c := s.contents("app", nil); c.Stamp != (Stamp{}) && !c.Recent {
				if now := stamp(); c.Stamp != now {
					t.Errorf("contents have the stamp %s, storage has %s", c.Stamp, now)
				}
				return c.Stamp
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatal("it never holds still")
		return Stamp{}
	}
	last := settled()
	if again := settled(); again != last {
		t.Error("the stamp of what is unchanged changes")
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a tag moved in place", func() { s.file(tagLinkOf("app", "1"), b.String()) }},
		{"a tag moved by rename", func() {
			s.file(tagLinkOf("app", "1")+".tmp", a.String())
			must(t, os.Rename(filepath.Join(s.root, distributionBase, tagLinkOf("app", "1")+".tmp"), filepath.Join(s.root, distributionBase, tagLinkOf("app", "1"))))
		}},
		{"a new tag", func() { s.tag("app", "4", b) }},
		{"a deleted tag", func() {
			must(t, os.RemoveAll(filepath.Join(s.root, distributionBase, "repositories/app", tagsDir, "4")))
		}},
		{"a new manifest", func() { s.push("app", image("c")) }},
		{"a deleted manifest", func() { s.remove(revision("app", trust.SumOf(encode(t, image("c"))))) }},
		{"one pushed again", func() { s.push("app", image("c")) }},
	} {
		step.do()
		now := settled()
		if now == last {
			t.Errorf("%s: the stamp is that of before", step.what)
		}
		last = now
	}
	if _, err := root.Stamp("none", time.Time{}); err == nil {
		t.Error("a stamp of nothing")
	}
	if n := root.Looked(); n == 0 {
		t.Error("no link was looked at")
	}
	for i := range 2 * looksAtOnce {
		s.tag("app", strings.Repeat("x", i+1), b)
	}
	if _, err := root.Stamp("app", time.Now()); err == nil {
		t.Error("no bound on time")
	}
}

// What a tag of signatures names is one link.
func TestDistributionCompanion(t *testing.T) {
	s := newDistribution(t)
	a := s.push("app", image("a"), "1")
	sig := s.push("app", simple("s"), sigTag(a))
	referrers := s.push("app", (&repo{t: t}).indexOf(image("b")), "sha256-"+a.Hex())
	other := trust.SumOf([]byte("other"))
	theirs := s.push("theirs", simple("t"))
	s.tag("app", sigTag(other), theirs)
	p, err := s.open().Repository("app")
	must(t, err)
	defer p.Close()
	for tag, want := range map[string]trust.Digest{sigTag(a): sig, "sha256-" + a.Hex(): referrers, sigTag(other): {}, "1": {}, "../../1": {}, "": {},
		"sha256-" + a.Hex() + ".att": {}} {
		got, is, _, err := p.Companion(t.Context(), tag, nil)
		if got != want || err != nil || want != (trust.Digest{}) && is != (want == referrers) {
			t.Errorf("%s: %s, %t, %v", tag, got, is, err)
		}
	}
	s.file(tagLinkOf("app", sigTag(a)), "")
	if got, _, _, err := p.Companion(t.Context(), sigTag(a), nil); err == nil || reasonIn(t, err) != trust.IOError {
		t.Errorf("a link that is empty: %s, %v", got, err)
	}
}

// A walk finds repositories of valid names, whatever the others are called.
func TestDistributionWalk(t *testing.T) {
	s := newDistribution(t)
	for _, name := range []string{"a", "a/b", "team/app", "team/blobs/x", "UPPER", "deep/_layers/x"} {
		s.push(name, image(name), "1")
	}
	must(t, os.MkdirAll(filepath.Join(s.root, distributionRepositories, "unfinished/_uploads"), 0o755))
	must(t, os.Symlink("team", filepath.Join(s.root, distributionRepositories, "link")))
	root := s.open()
	var found, refused, above []string
	must(t, root.Walk(t.Context(), func(v Visit) error {
		switch {
		case v.Err != nil:
			t.Errorf("%+v", v)
		case v.Refused != "":
			refused = append(refused, v.Dir+": "+v.Refused)
		case v.IsRepository:
			found = append(found, v.Name)
			if !root.IsRepository(v.Name) || root.Gone(v.Name) || v.Dir != distributionRepositories+"/"+v.Name {
				t.Errorf("%+v: %t, %t", v, root.IsRepository(v.Name), root.Gone(v.Name))
			}
		case v.Name == "":
			above = append(above, v.Dir)
		}
		return nil
	}))
	if want := []string{"a", "a/b", "team/app", "team/blobs/x"}; !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	if want := []string{distributionRepositories + "/UPPER: not a repository name", distributionRepositories + "/link: symlink"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
	if want := []string{".", "docker", "docker/registry", "docker/registry/v2", distributionRepositories}; !slices.Equal(above, want) {
		t.Errorf("above are %q, want %q", above, want)
	}
	for _, name := range []string{"unfinished", "link", "link/app", "UPPER", "none"} {
		if root.IsRepository(name) {
			t.Errorf("%s is a repository", name)
		}
	}
	if _, err := root.Repository("link/app"); err == nil {
		t.Error("a symlink is followed")
	}
}

// No link of the file system is followed out of a repository, or out of the blobs.
func TestDistributionFollowsNoSymlink(t *testing.T) {
	s := newDistribution(t)
	outside := t.TempDir()
	d := s.push("app", image("a"), "1")
	repository := filepath.Join(s.root, distributionRepositories, "app")
	blob := filepath.Join(s.root, distributionBlobs, d.Hex()[:2], d.Hex())
	for _, dir := range []string{blob, filepath.Dir(blob), filepath.Join(repository, revisionsDir, "sha256", d.Hex()), filepath.Join(repository, revisionsDir, "sha256")} {
		moved := filepath.Join(outside, "moved")
		must(t, os.Rename(dir, moved))
		must(t, os.Symlink(moved, dir))
		p, err := s.open().Repository("app")
		must(t, err)
		if _, err := p.Manifest(t.Context(), d); err == nil {
			t.Errorf("%s is a symlink, and was followed", dir)
		}
		must(t, p.Close())
		must(t, os.Remove(dir))
		must(t, os.Rename(moved, dir))
	}
	p, err := s.open().Repository("app")
	must(t, err)
	defer p.Close()
	if _, err := p.Manifest(t.Context(), d); err != nil {
		t.Errorf("without symlinks: %v", err)
	}
}

// A path is followed through no symlink by either way of opening it.
func TestOpenInSteps(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("x"), 0o644))
	must(t, os.Symlink("a", filepath.Join(dir, "l")))
	must(t, os.Symlink("f", filepath.Join(dir, "a/b/l")))
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	for path, want := range map[string]bool{"a/b/f": true, "a/b": true, "l/b/f": false, "a/b/l": false, "a/none/f": false, "a/b/f/g": false} {
		for name, open := range map[string]func(int, string, int) (int, error){"at once": openBeneath, "in steps": openInSteps} {
			fd, err := open(int(f.Fd()), path, os.O_RDONLY|0x20000) // O_NOFOLLOW
			if (err == nil) != want {
				t.Errorf("%s, %s: %v", path, name, err)
			}
			if err == nil {
				must(t, os.NewFile(uintptr(fd), path).Close())
			}
		}
	}
}

// The layout is recognised by what no push into the other makes.
func TestRecognition(t *testing.T) {
	empty := t.TempDir()
	is := func(root string, o Layout) Layout {
		t.Helper()
		r, err := Open(root, Options{Layout: o})
		must(t, err)
		defer r.Close()
		return r.Layout()
	}
	if got := is(empty, Auto); got != OCI {
		t.Errorf("an empty root is %s", got)
	}
	s := newDistribution(t)
	r := s.open()
	walk := func() (names []string, err error) {
		err = r.Walk(t.Context(), func(v Visit) error {
			if v.IsRepository {
				names = append(names, v.Name)
			}
			return nil
		})
		return names, err
	}
	if _, err := walk(); err != nil || r.Layout() != OCI {
		t.Errorf("before the first push: %s, %v", r.Layout(), err)
	}
	// What somebody pushes to zot under such names makes nothing of it.
	for _, name := range []string{distributionRepositories + "/app", distributionBase, distributionBase + "/blobs/sha256"} {
		newRepo(t, s.root, name).push(image("a"), "1")
	}
	// Of an image layout's own directories none is looked into, whatever they are called.
	must(t, os.MkdirAll(filepath.Join(s.root, distributionRepositories, "app/blobs/_manifests"), 0o755))
	if names, err := walk(); err != nil || r.Layout() != OCI || !slices.Contains(names, distributionBase) {
		t.Errorf("pushes into an image layout: %s, %v, %v", r.Layout(), names, err)
	}
	s = newDistribution(t)
	r = s.open()
	s.push("team/app", image("a"), "1")
	if names, err := walk(); err != nil || r.Layout() != Distribution || !slices.Equal(names, []string{"team/app"}) {
		t.Errorf("after the first push: %s, %v, %v", r.Layout(), names, err)
	}
	if got := is(s.root, OCI); got != OCI {
		t.Errorf("told to be oci, it is %s", got)
	}
	newRepo(t, s.root, "zots").push(image("a"), "1")
	if _, err := Open(s.root, Options{}); err == nil || !strings.Contains(err.Error(), "both here") {
		t.Errorf("both: %v", err)
	}
	if names, err := walk(); err != nil || !slices.Equal(names, []string{"team/app"}) {
		t.Errorf("an image layout that came later is read, or hides what was: %v, %v", names, err)
	}
	for _, o := range []Layout{OCI, Distribution} {
		if got := is(s.root, o); got != o {
			t.Errorf("both, told to be %s: %s", o, got)
		}
	}
	s = newDistribution(t)
	newRepo(t, s.root, "zots").push(image("a"), "1")
	r = s.open()
	if names, err := walk(); err != nil || !slices.Equal(names, []string{"zots"}) {
		t.Errorf("image layouts alone: %v, %v", names, err)
	}
	s.push("team/app", image("a"), "1")
	if err := r.recognise(t.Context()); !errors.Is(err, ErrTwoLayouts) {
		t.Errorf("distribution's storage came later: %v", err)
	}
	if names, _ := walk(); len(names) != 0 || r.Gone("zots") { // what recognise says is checked above
		t.Errorf("where the layout is not known, %v are read, or zots is gone: %v", names, r.Gone("zots"))
	}
}

// What is written once a link is being read shows: the time that counts is that before.
func TestDistributionChangeDuringReading(t *testing.T) {
	s := newDistribution(t)
	a, b := s.push("app", image("a"), "1"), s.push("app", image("b"))
	time.Sleep(3 * settle)
	root := s.open()
	asked := 0
	root.now = func() time.Time {
		if asked++; asked == 4 { // once before all, once for each link of a manifest, and then for the tag's
			s.file(tagLinkOf("app", "1"), b.String())
		}
		return time.Now()
	}
	p, err := root.Repository("app")
	must(t, err)
	defer p.Close()
	c, err := p.Contents(t.Context(), nil)
	must(t, err)
	if c.Tags["1"] != b {
		t.Errorf("the tag names %s, which is what was there before (%s)", c.Tags["1"], a)
	}
}

// What tags have named before is bounded, and listed once.
func TestDistributionFormerNames(t *testing.T) {
	s := newDistribution(t)
	var all []trust.Digest
	for n := range 6 {
		all = append(all, s.push("app", with(image("x"), object{"annotations": object{"n": string(rune('a' + n))}})))
	}
	for n := range 5 {
		for _, d := range all {
			s.tag("app", "sha256-"+trust.SumOf([]byte{byte(n)}).Hex(), d)
		}
	}
	open := func(descriptors int) (*Contents, error) {
		root, err := Open(s.root, Options{Limits: Limits{Descriptors: descriptors}})
		must(t, err)
		defer root.Close()
		p, err := root.Repository("app")
		must(t, err)
		defer p.Close()
		return p.Contents(t.Context(), nil)
	}
	if _, err := open(20); err == nil || reasonIn(t, err) != trust.LimitExceeded {
		t.Errorf("30 names, 20 allowed: %v", err)
	}
	if _, err := open(30); err != nil {
		t.Errorf("30 names, 30 allowed: %v", err)
	}
}

// Where it cannot be found out what a root is, nothing is known of it, and nothing gone.
func TestUnrecognised(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.push(image("a"), "1")
	root, err := Open(r.root, Options{})
	must(t, err)
	defer root.Close()
	root.is.Store(&recognised{layout: OCI, err: os.ErrPermission})
	if _, err := root.Repository("app"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("open: %v", err)
	}
	var seen []Visit
	if err := root.form().walk(t.Context(), func(v Visit) error { seen = append(seen, v); return nil }); err == nil || len(seen) != 1 || seen[0].Err == nil {
		t.Errorf("walk: %v, %+v", err, seen)
	}
	if _, err := root.Stamp("app", time.Time{}); err == nil || root.Gone("app") || root.form().holds("app") {
		t.Errorf("stamp %v, gone %t, there %t", err, root.Gone("app"), root.form().holds("app"))
	}
	must(t, root.Walk(t.Context(), func(Visit) error { return nil })) // finds out
	if !root.IsRepository("app") {
		t.Error("it is not there again")
	}
}
