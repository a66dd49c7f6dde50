package page

import (
	"strings"
	"time"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/cluster"
	"trust-worker/internal/phrase"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Overview is the first page: the daemon's condition, what is trusted, and the
// images, all or some.
type Overview struct {
	Now     time.Time
	Answers Answers
	Daemon  scheduler.Status
	Store   *truststore.TrustStore // nil: not loaded yet, or elsewhere
	Replica *Replica               // nil: what is published is made here
	Cluster *cluster.Status        // nil: there are no other workers
	// Counts are the images of the whole registry by state; nil: not counted.
	Counts map[string]int64
	// Expiring is how many trusted signatures dates will end within ExpiringWithin.
	Expiring int64
	// Endings are the next days on which dates end trusted signatures.
	Endings []cache.Ending
	// Changes are the newest, oldest first.
	Changes []changes.Change
	Filter  Filter
	Images  []cache.Image
	// After is where the page begins, Next where the following one does; both
	// empty: this is the whole list.
	After, Next string
	// Looked is how many images were read for the page.
	Looked int
}

type overview struct {
	Health   health
	Trust    material
	Counted  bool
	Tiles    []tile
	Bar      []bar
	Changes  []change
	Filter   Filter
	Clear    string // without any filter
	Expiring int
	Ending   string // the list of images with signatures that expire soon
	Calendar []ending
	AllRepos string // without the repository
	Rows     []row
	First    string // the list from its beginning; empty: this is it
	Next     string
	Looked   int
	Plain    bool // nothing is asked for in particular
	Empty    bool // there is no image at all
	Answered bool
}

// tile is a count that leads to its images.
type tile struct {
	state
	Count   int64
	Counted bool
	URL     string
	Current bool
}

// bar is a part of the line of all images, in percent.
type bar struct {
	Name     string
	X, Width float64
}

// row is one image in the list.
type row struct {
	Key        Text // the same as long as it is the same row
	Repo, Tag  Text
	URL        string
	RepoURL    string
	Short      Text
	Digest     Text
	State      state
	Signatures string
	Why        Text
	Trusted    bool
	Children   int
}

// Overview renders the first page.
func (p *Pages) Overview(o *Overview) ([]byte, error) {
	v := overview{Health: newHealth(o.Now, o.Answers, o.Daemon, o.Replica), Filter: o.Filter, Clear: Filter{}.url(""), Looked: o.Looked,
		AllRepos: Filter{Query: o.Filter.Query, State: o.Filter.State}.url(""), Answered: o.Answers.Problem == "",
		Plain: !o.Filter.Any() && o.After == ""}
	v.Health.others(o.Cluster)
	all := newMaterial(o.Now, o.Store, o.Replica)
	v.Trust, v.Calendar = all.brief(), calendar(o.Endings, all.Files, o.Now)
	v.count(o)
	files := filesOf(o.Store)
	v.Changes = lastChanges(o.Changes, o.Now, files)
	for i := range o.Images {
		v.Rows = append(v.Rows, rowOf(&o.Images[i], o.Filter, files))
	}
	if o.After != "" {
		v.First = o.Filter.url("")
	}
	if o.Next != "" {
		v.Next = o.Filter.url(o.Next)
	}
	v.Empty = v.Plain && len(v.Rows) == 0 && v.Next == ""
	return p.render("overview.html", frame{Title: "Images", Tab: "images", Live: true, Body: v})
}

// ExpiringWithin is how soon an expiry is said on the overview.
const ExpiringWithin = 7 * 24 * time.Hour

func (v *overview) count(o *Overview) {
	v.Counted = o.Counts != nil
	v.Expiring, v.Ending = int(o.Expiring), Filter{Expiring: ExpiringWithin.String()}.url("")
	all := int64(0)
	for _, n := range o.Counts {
		all += n
	}
	v.Tiles = []tile{{state: state{Name: "all", Word: "All images"}, URL: Filter{Query: o.Filter.Query, Repo: o.Filter.Repo}.url(""),
		Count: all, Counted: v.Counted, Current: o.Filter.State == ""}}
	x := 0.0
	for _, s := range states {
		f := o.Filter
		f.State = s.Name
		n := o.Counts[s.Name]
		v.Tiles = append(v.Tiles, tile{state: s, URL: f.url(""), Count: n, Counted: v.Counted, Current: o.Filter.State == s.Name})
		if n > 0 {
			width := 100 * float64(n) / float64(all)
			v.Bar = append(v.Bar, bar{s.Name, x, width})
			x += width
		}
	}
}

// words are a reason as one reads it.
func words(r trust.Reason) string { return strings.ReplaceAll(string(r), "-", " ") }

func rowOf(img *cache.Image, f Filter, files map[trust.Signer][]string) row {
	f.Repo = img.RepoName
	r := row{Key: Text(img.RepoName + ":" + img.Tag + "@" + img.DigestText()), Repo: Text(img.RepoName), Tag: Text(img.Tag),
		URL: imageURL(img.RepoName, img.Tag, img.DigestText()), RepoURL: Filter{Repo: f.Repo}.url(""), Short: shortText(img.DigestText()), Digest: Text(img.DigestText()),
		State: stateOfImage(img), Signatures: countTools(img.SignatureInfo, img.SignaturesOmitted)}
	r.Trusted = r.State.Name == "trusted"
	if len(img.Manifests) != 1 || img.Manifests[0].Digest != img.Digest {
		r.Children = len(img.Manifests)
	}
	r.Why = Text(strings.Join(why(img, files), ", "))
	return r
}

// countTools is "2 cosign, 1 notation, 3 more".
func countTools(signatures []cache.Signature, more int) string {
	var parts []string
	for _, tool := range []trust.Tool{trust.Cosign, trust.Notation} {
		n := 0
		for i := range signatures {
			if signatures[i].Tool == tool {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, phrase.Number(n)+" "+string(tool))
		}
	}
	if more > 0 {
		parts = append(parts, phrase.Number(more)+" more")
	}
	return strings.Join(parts, ", ")
}

// why is who is trusted, or the reasons why nobody is: each once, the first few.
func why(img *cache.Image, files map[trust.Signer][]string) (out []string) {
	const enough = 3
	seen := map[string]bool{}
	add := func(s string) {
		if s == "" || seen[s] {
			return
		}
		if seen[s] = true; len(seen) <= enough {
			out = append(out, s)
		} else if len(seen) == enough+1 {
			out = append(out, "…")
		}
	}
	for i := range img.SignatureInfo {
		if s := &img.SignatureInfo[i]; s.IsTrusted {
			add(signerOf(s, files))
		}
	}
	if len(out) == 0 {
		for i := range img.SignatureInfo {
			add(words(img.SignatureInfo[i].Reason))
		}
		if img.SignaturesOmitted > 0 || len(img.SignatureInfo) == 0 {
			add(words(img.Reason()))
		}
	}
	return out
}

// signerOf names the signer of a trusted signature: a certificate's subject, or
// the file of a key.
func signerOf(s *cache.Signature, files map[trust.Signer][]string) string {
	if s.Tool == trust.Notation {
		return commonName(s.Author)
	}
	if names := files[trust.Signer{Tool: s.Tool, Fingerprint: s.SignerFingerprint}]; len(names) > 0 {
		return names[0]
	}
	return short(s.SignerFingerprint)
}

// commonName is the part of a subject that people know it by; the whole one is on
// the image's own page. A subject that would have to be unescaped stays as it is.
func commonName(subject string) string {
	for part := range strings.SplitSeq(subject, ",") {
		if name, ok := strings.CutPrefix(part, "CN="); ok && name != "" && !strings.ContainsAny(subject, `\+"`) {
			return name
		}
	}
	return subject
}

// filesOf are the files of each key.
func filesOf(store *truststore.TrustStore) map[trust.Signer][]string {
	out := map[trust.Signer][]string{}
	if store == nil {
		return out
	}
	for _, f := range store.Loaded() {
		s := f.Signer
		s.StoreType, s.StoreName = "", "" // an answer has the fingerprint alone
		out[s] = append(out[s], f.Path)
	}
	return out
}
