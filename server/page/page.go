package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/url"
	"regexp"

	"trust-worker/internal/phrase"
)

// ContentSecurityPolicy lets a page load its own style sheet, script and icon,
// ask its own server, and do nothing else. No style or script in the page itself
// is honoured, should one ever get there.
const ContentSecurityPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Paths, all below Root.
const (
	Root       = "/ui/"
	pathImage  = Root + "image/"
	pathTrust  = Root + "trust"
	pathAssets = Root + "static/"
)

//go:embed templates
var templateFiles embed.FS

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	templates *template.Template
	version   string
}

// New parses the templates. version is shown at the foot of each page.
func New(version string) *Pages {
	t := template.New("").Funcs(template.FuncMap{"asset": assetURL, "number": phrase.Number[int64], "count": phrase.Count, "states": func() []state { return states }})
	return &Pages{templates: template.Must(t.ParseFS(templateFiles, "templates/*.html")), version: version}
}

// frame is what every page has around it.
type frame struct {
	Title   Text
	Tab     string // "images" or "trust": the part of the page that this is
	Version Text
	Live    bool // worth asking for again
	Body    any
}

func (p *Pages) render(name string, f frame) ([]byte, error) {
	f.Version = Text(p.version)
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, f); err != nil {
		return nil, fmt.Errorf("render page: %w", err)
	}
	return b.Bytes(), nil
}

// Error is the page of a request that cannot be answered.
func (p *Pages) Error(status int, message, reason string) ([]byte, error) {
	type view struct {
		Status          int
		Message, Reason Text
	}
	return p.render("error.html", frame{Title: Text(message), Body: view{status, Text(message), Text(reason)}})
}

// tagInPath are the tags that can stand in a path. Others cannot be tags; if one
// is, its image is linked by digest.
var tagInPath = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// imageURL is where one image is explained.
func imageURL(repo, tag, digest string) string {
	name := repo + ":" + tag
	if !tagInPath.MatchString(tag) {
		name = repo + "@" + digest
	}
	return (&url.URL{Path: pathImage + name}).String()
}

// Filter says which images a list has; it is in the address.
type Filter struct{ Query, State, Repo, Expiring string }

// Any reports whether it leaves any out.
func (f Filter) Any() bool { return f != Filter{} }

// QueryText, StateText and RepoText are the values to be shown.
func (f Filter) QueryText() Text { return Text(f.Query) }
func (f Filter) StateText() Text { return Text(f.State) }
func (f Filter) RepoText() Text  { return Text(f.Repo) }

// ExpiringText is the hours within which signatures expire.
func (f Filter) ExpiringText() Text { return Text(f.Expiring) }

// url is the list under f, from a place on.
func (f Filter) url(after string) string {
	q := url.Values{}
	for name, value := range map[string]string{"q": f.Query, "state": f.State, "repo": f.Repo, "expiring": f.Expiring, "after": after} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return Root
	}
	return Root + "?" + q.Encode()
}
