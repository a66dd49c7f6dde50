package truststore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

func (d *trustDirs) file(name string, content []byte) *trustDirs {
	signtest.NewStorage(d.dir).TrustFile(name, content)
	return d
}

func TestDirectoriesAreScopes(t *testing.T) {
	d := newDirs(t)
	a, b := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	d.file("all.pub", a.PEM()).file("team-a/a.pub", a.PEM()).file("team-a/app/b.pub", b.PEM()).file("team-a/trusted_root.json", signtest.NewSigstore("x").Root().JSON()).
		file("Team-B/b.pub", b.PEM()).file("_hidden/b.pub", b.PEM()).file(".git/b.pub", b.PEM()).file("team-a/identities.yml", []byte("[]")).
		file(strings.Repeat("d/", trust.MaxScopeDepth+1)+"b.pub", b.PEM())
	ts := load(t, d.loader(), time.Now())
	var got []string
	for _, f := range ts.Loaded() {
		got = append(got, f.Path+" in "+f.Scope)
	}
	if want := []string{"_cosign/all.pub in ", "_cosign/team-a/a.pub in team-a", "_cosign/team-a/app/b.pub in team-a/app"}; !slices.Equal(got, want) {
		t.Errorf("loaded %q", got)
	}
	for path, reason := range map[string]string{"_cosign/Team-B": "not the beginning of repositories' names", "_cosign/team-a/trusted_root.json": "at the top",
		"_cosign/team-a/identities.yml": "did you mean identities.yaml", "_cosign/" + strings.TrimSuffix(strings.Repeat("d/", trust.MaxScopeDepth+1), "/"): "not the beginning"} {
		if r := refusal(ts, path); !strings.Contains(r, reason) {
			t.Errorf("%s: %q", path, r)
		}
	}
	if scopes := ts.Scopes(); len(scopes) != trust.MaxScopeDepth+2 || !slices.Contains(scopes, "team-a/app") {
		t.Errorf("scopes %q", scopes)
	}
	// A Secret whose items have a path shows the directory through ..data.
	d = newDirs(t)
	d.file("..1/team-a/k.pub", a.PEM())
	for name, target := range map[string]string{"..data": "..1", "team-a": "..data/team-a"} {
		if err := os.Symlink(target, filepath.Join(d.dir, "_cosign", name)); err != nil {
			t.Fatal(err)
		}
	}
	ts = load(t, d.loader(), time.Now())
	if f := ts.Loaded(); len(f) != 1 || f[0].Path != "_cosign/team-a/k.pub" || f[0].Scope != "team-a" {
		t.Errorf("%+v, refused %v", f, ts.Refused())
	}
}

// TestIdentitiesAreRead: strictly, and each refusal with its place.
func TestIdentitiesAreRead(t *testing.T) {
	good := "- issuer: https://i.test\n  subject: a@b.test\n"
	for text, want := range map[string]string{
		good: "",
		good + "- issuerRegExp: https://i\\.test\n  subjectRegExp: https://g\\.test/acme/.*\n  root: trusted_root_b.jsonl\n  runnerEnvironment: self-hosted\n": "",
		"[{issuer: https://i.test, subject: a@b.test}]":                "",
		"- subject: a@b.test\n  root: trusted_root.json\n":             "",
		"- issuer: https://i.test\n  subjectRegExp: .*\n  any: true\n": "",
		"":                                     "holds no entries",
		good + "---\n" + good:                  "2 YAML documents",
		"issuer: https://i.test\nsubject: a\n": "not a list",
		"- a\n":                                "line 1, column 3: this is not an entry",
		"- issuer: https://i.test\n  subject: [a]\n":                               "line 2, column 12: subject is a list; write an entry for each",
		"- issuer: https://i.test\n  subject: 7\n":                                 "is not text",
		"- issuer: https://i.test\n  subject: ''\n":                                "is empty",
		"- issuer: https://i.test\n  subject: ' a'\n":                              "blank",
		"- issuer: https://i.test\n  subject: &x a\n- issuer: *x\n  subject: a\n":  "is not text",
		"- issuer: https://i.test\n":                                               "has no subject",
		"- subject: a@b.test\n":                                                    "has no issuer",
		"- issuer: https://i.test\n  issuerRegExp: x\n  subject: a\n":              "both issuer",
		"- issuer: https://i.test\n  subject: a\n  subjectRegExp: a\n":             "both subject",
		"- issuer: https://i.test\n  subject: a\n  issuer: https://j.test\n":       "",
		"- issuer: https://i.test\n  subjectRegex: a\n":                            "line 2, column 3: the member \"subjectRegex\" is not known (write subjectRegExp)",
		"- issuer: https://i.test\n  subjectregexp: a\n":                           "write subjectRegExp and not \"subjectregexp\"",
		"- issuer: https://i.test\n  subject: a\n  root: ../x/trusted_root.json\n": "name of a file",
		"- issuer: https://i.test\n  subject: a\n  root: root.json\n":              "name of a file",
		"- issuer: https://i.test\n  subjectRegExp: .*\n":                          "matches anybody",
		"- issuer: https://i.test\n  subjectRegExp: '.+@.+'\n":                     "matches anybody",
		"- issuer: https://i.test\n  subjectRegExp: https://.*\n":                  "matches anybody",
		"- issuerRegExp: https://.*\n  subject: a\n":                               "matches anybody",
		"- issuer: https://i.test\n  subjectRegExp: '('\n":                         "no regular expression",
		"- issuer: https://i.test\n  subjectRegExp: '\\Qa'\n":                      "no regular expression",
		"- issuer: https://i.test\n  subjectRegExp: '(?=a)'\n":                     "no regular expression",
		"- issuer: https://i.test\n  subject: a\n  any: 1\n":                       "any must be true or false",
		"- issuer: \"x\n":                "is not YAML",
		"- ? [a]\n  : b\n":               "",
		strings.Repeat(good, maxRules+1): "at most 1000",
	} {
		got, err := parseIdentities([]byte(text))
		switch {
		case strings.Contains(text, "issuer: https://j.test") || strings.HasPrefix(text, "- ?"): // the parser's own refusal, or ours
			if err == nil {
				t.Errorf("%q is taken for %+v", text, got.rules)
			}
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text[:min(len(text), 80)], err, want)
		}
	}
	for expression, want := range map[string]string{
		`https://g\.test/acme/app/\.github/workflows/release\.yml@refs/tags/v.*`: "", `https://g\.test/acme/.*`: "", `ann@acme\.test`: "",
		`https://g.test/acme/app/x`: "dot in a host name", `ann@acme.test`: "dot in a host name", `https://g\.test/acme.*`: "put a slash before",
		`.*acme/app`: "on any host", `acme/app`: "matches neither a URL nor", `^https://g\.test/acme/.*$`: "", `(a|b)@c\.test`: "",
	} {
		if got := strings.Join(loose(expression), "; "); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
	ids, err := parseIdentities([]byte("- issuer: https://i.test\n  subjectRegExp: https://g.test/acme.*\n"))
	if err != nil || len(ids.warnings) != 2 || ids.rules[0].Root != "trusted_root.json" || ids.rules[0].Line != 1 {
		t.Errorf("%+v %v", ids, err)
	}
}

func FuzzIdentities(f *testing.F) {
	f.Add([]byte("- issuer: https://i.test\n  subject: a@b.test\n"))
	f.Add([]byte("- {issuer: a, subjectRegExp: 'b.*', any: true}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseIdentities(b)
		if err != nil {
			return
		}
		for i := range ids.rules {
			r := &ids.rules[i]
			if r.Subject == "" && r.SubjectRegExp == "" || !isRootName(r.Root) {
				t.Errorf("%q gives %+v", b, r)
			}
			r.Matches(&trust.Identity{Issuer: "a", Subject: "b"})
		}
	})
}

func TestRootsAreRead(t *testing.T) {
	s, other := signtest.NewSigstore("one"), signtest.NewSigstore("other")
	change := func(f func(*signtest.RootFile)) []byte {
		r := s.Root()
		f(r)
		return r.JSON()
	}
	weak := signtest.NewRoot(signtest.CertOptions{Kind: signtest.RSA1024})
	lines := append(append(s.Root().JSON(), '\n'), other.Root().JSON()...)
	for name, c := range map[string]struct {
		file    string
		content []byte
		roots   int
		reason  string
	}{
		"one":            {"trusted_root.json", s.Root().JSON(), 1, ""},
		"lines":          {"trusted_root_all.jsonl", append(lines, '\n'), 2, ""},
		"a broken line":  {"trusted_root_all.jsonl", append(lines, "\n{}"...), 0, "line 3 has no mediaType"},
		"two in a .json": {"trusted_root.json", lines, 0, "is not the JSON"},
		"no lines":       {"trusted_root.jsonl", []byte("\n"), 0, "holds no trusted root"},
		"half":           {"trusted_root.json", s.Root().JSON()[:700], 0, "is not the JSON"},
		"version 0.2":    {"trusted_root.json", change(func(r *signtest.RootFile) { r.MediaType = "application/vnd.dev.sigstore.trustedroot.v0.2+json" }), 0, "v0.2+json"},
		"no media type":  {"trusted_root.json", []byte(`{}`), 0, "no mediaType"},
		"unknown member": {"trusted_root.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","more":1}`), 0, "not a usable trusted root"},
		"no CA":          {"trusted_root.json", change(func(r *signtest.RootFile) { r.CertificateAuthorities = nil }), 0, "no certificate authority"},
		"no clock":       {"trusted_root.json", change(func(r *signtest.RootFile) { r.Tlogs, r.TimestampAuthorities = nil, nil }), 0, "nothing proves when"},
		"a weak CA": {"trusted_root.json", change(func(r *signtest.RootFile) {
			r.CertificateAuthorities[0].CertChain.Certificates = []map[string][]byte{{"rawBytes": weak.Cert().Raw}}
		}), 0, "RSA key of 1024 bits"},
		"no certificates": {"trusted_root.json", change(func(r *signtest.RootFile) { r.CertificateAuthorities[0].CertChain.Certificates = nil }), 0, "not a usable trusted root"},
		"too large":       {"trusted_root.json", append(s.Root().JSON(), make([]byte, maxRootFile)...), 0, "larger than"},
	} {
		d := newDirs(t).file(c.file, c.content)
		ts := load(t, d.loader(), time.Now())
		if len(ts.Roots()) != c.roots || len(ts.InForce().Terms().Roots) != c.roots || c.reason != "" && !strings.Contains(refusal(ts, "_cosign/"+c.file), c.reason) {
			t.Errorf("%s: %d roots, refused %v", name, len(ts.Roots()), ts.Refused())
		}
	}
	// The identity of a root is its authorities and their windows, and nothing else.
	a := load(t, newDirs(t).file("trusted_root.json", s.Root().JSON()).loader(), time.Now()).Roots()[0]
	same := load(t, newDirs(t).file("trusted_root_2.json", change(func(r *signtest.RootFile) { r.CertificateAuthorities[0].URI = "https://elsewhere.test" })).loader(), time.Now()).Roots()[0]
	if a.Signer() != same.Signer() {
		t.Error("a root with another name is another root")
	}
	ended := load(t, newDirs(t).file("trusted_root.json", change(func(r *signtest.RootFile) { r.CertificateAuthorities[0].ValidFor.End = "2020-01-01T00:00:00Z" })).loader(), time.Now()).Roots()[0]
	if a.Signer() == ended.Signer() || ended.Open(time.Now()) || !a.Open(time.Now()) {
		t.Error("a root whose authority has ended is the same")
	}
}

// TestAnEntryWaitsForItsRoot: it is in force when the root comes, and reported until then.
func TestAnEntryWaitsForItsRoot(t *testing.T) {
	d := newDirs(t).file("team/identities.yaml", []byte("- issuer: https://i.test\n  subject: a@b.test\n  root: trusted_root_x.json\n"))
	l := d.loader()
	if w := load(t, l, time.Now()).Warnings(); len(w) != 1 || !strings.Contains(w[0].Reason, "line 1: waits for the trusted root trusted_root_x.json") {
		t.Errorf("%+v", w)
	}
	d.file("trusted_root_x.json", signtest.NewSigstore("x").Root().JSON())
	ts := load(t, l, time.Now())
	if len(ts.Warnings()) != 0 || len(ts.InForce().Terms().Identities) != 1 {
		t.Errorf("%+v", ts.Warnings())
	}
	// Broken files keep their last good content for the grace, and then cost themselves.
	before := ts.ID()
	d.file("trusted_root_x.json", []byte("{")).file("team/identities.yaml", []byte("- \""))
	now := time.Now()
	if ts = load(t, l, now); ts.ID() != before || len(ts.Refused()) != 2 || !ts.Refused()[0].Grace {
		t.Errorf("%+v", ts.Refused())
	}
	if ts = load(t, l, now.Add(Grace)); len(ts.InForce().Terms().Identities)+len(ts.Roots()) != 0 {
		t.Errorf("%+v", ts.Loaded())
	}
}

func TestNarrowingIsRemembered(t *testing.T) {
	state := t.TempDir()
	open := func(withCache bool) *Memory {
		t.Helper()
		m, err := OpenMemory(state, withCache, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open(false)
	if _, err := m.Narrow(nil, false, "c.yaml"); err != nil {
		t.Errorf("nothing was narrowed: %v", err)
	}
	narrowed := []trust.Narrowing{{Prefix: "a", Alone: true, Require: 2}, {Prefix: "b", Require: 3}}
	if lost, err := m.Narrow(narrowed, true, "c.yaml"); err != nil || len(lost) != 0 {
		t.Errorf("%q %v", lost, err)
	}
	// Across restarts, and with a cache set aside.
	for _, m := range []*Memory{m, open(true), open(false), ReadMemory(state, true)} {
		if _, err := m.Narrow(nil, false, ""); err == nil || !strings.Contains(err.Error(), "c.yaml") {
			t.Errorf("left out: %v", err)
		}
		if m.Narrowing() != "c.yaml" {
			t.Errorf("%q", m.Narrowing())
		}
	}
	m = open(true)
	lost, err := m.Narrow([]trust.Narrowing{{Prefix: "b", Require: 2}}, true, "d.yaml")
	if err != nil || fmt.Sprint(lost) != "[a no longer stands alone: keys and identities from above it count again a now requires 1 of the 2 signers that it required b now requires 2 of the 3 signers that it required]" {
		t.Errorf("%q %v", lost, err)
	}
	if lost, err = m.Narrow([]trust.Narrowing{}, true, "d.yaml"); err != nil || len(lost) != 1 {
		t.Errorf("%q %v", lost, err)
	}
	if _, err := open(true).Narrow(nil, false, ""); err != nil {
		t.Errorf("an empty list is written: %v", err)
	}
	// One that cannot be read remembers the most, until somebody writes the setting.
	if err := os.WriteFile(filepath.Join(state, MemoryFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	m = open(true)
	if _, err := m.Narrow(nil, false, ""); err == nil || m.Narrowing() == "" {
		t.Error("a memory that cannot be read remembers nothing")
	}
	if _, err := m.Narrow([]trust.Narrowing{}, true, "d.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := open(true).Narrow(nil, false, ""); err != nil {
		t.Errorf("it was written: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(state, MemoryFile))
	var doc map[string]any
	if err != nil || json.Unmarshal(b, &doc) != nil || doc["scopes"] == nil || doc["operatorPolicy"] != true {
		t.Errorf("%s %v", b, err)
	}
}

// TestThePublicRoot loads the trusted root of sigstore's public instance as it is
// published (sigstore-go, examples/trusted-root-public-good.json).
func TestThePublicRoot(t *testing.T) {
	b, err := os.ReadFile("testdata/trusted_root_public_good.json")
	if err != nil {
		t.Fatal(err)
	}
	ts := load(t, newDirs(t).file("trusted_root.json", b).loader(), time.Now())
	if len(ts.Refused())+len(ts.Warnings()) != 0 || len(ts.Roots()) != 1 {
		t.Fatalf("%v %v", ts.Refused(), ts.Warnings())
	}
	r := ts.Roots()[0]
	count := map[trust.Role]int{}
	for _, a := range r.Authorities {
		count[a.Role]++
	}
	// Two generations of Fulcio and of its CT log, Rekor, and no time stamp authority.
	if count[trust.CertificateAuthority] != 2 || count[trust.CTLog] != 2 || count[trust.TransparencyLog] != 1 || !r.Open(time.Now()) || !r.Demands(trust.CTLog) || !r.Demands(trust.TransparencyLog) {
		t.Errorf("%v", count)
	}
}
