package trust

import (
	"fmt"
	"strings"
	"testing"
)

func TestGoverns(t *testing.T) {
	for _, c := range []struct {
		scope, repository string
		want              bool
	}{
		{"", "a", true}, {"", "a/b", true}, {"a", "a", true}, {"a", "a/b", true}, {"a", "a/b/c", true}, {"a/b", "a/b", true}, {"a/b", "a/b/c", true},
		{"a", "ab", false}, {"a", "a-b", false}, {"a/b", "a", false}, {"a/b", "a/bc", false}, {"b", "a/b", false}, {"a/", "a/b", false},
	} {
		if got := Governs(c.scope, c.repository); got != c.want {
			t.Errorf("%q governs %q: %v", c.scope, c.repository, got)
		}
	}
}

func TestValidScope(t *testing.T) {
	for scope, want := range map[string]bool{"a": true, "team-a/app": true, "a__b": true, "": false, "a/": false, "/a": false, "A": false, "a..b": false, "..": false,
		"_a": false, strings.Repeat("a/", MaxScopeDepth-1) + "a": true, strings.Repeat("a/", MaxScopeDepth) + "a": false, strings.Repeat("a", 256): false} {
		if got := ValidScope(scope); got != want {
			t.Errorf("%q: %v", scope, got)
		}
	}
}

// in decides a signature by a key that a file in each scope holds.
func in(repository string, v *Verdict, scopes []string, narrowing ...Narrowing) Decision {
	x := Terms{Cosign: true, Scopes: narrowing}
	for _, s := range scopes {
		x.Materials = append(x.Materials, Material{Signer: keyA, Scope: s, File: "_cosign/" + strings.TrimPrefix(s+"/a.pub", "/"), Author: "PEM in " + s})
	}
	return NewInForce(x).Decide(repository, Cosign, v, now)
}

func TestScopesOfKeys(t *testing.T) {
	v := verdict(PolicyID{}, Ground{Signers: ids(keyA)})
	alone := func(prefixes ...string) (n []Narrowing) {
		for _, p := range prefixes {
			n = append(n, Narrowing{Prefix: p, Alone: true})
		}
		return n
	}
	for _, c := range []struct {
		repository string
		scopes     []string
		narrowing  []Narrowing
		author     string // of a trusted answer
		detail     string
	}{
		{"x", []string{""}, nil, "PEM in ", ""},
		{"team/app", []string{"team"}, nil, "PEM in team", ""},
		{"team", []string{"team"}, nil, "PEM in team", ""},
		{"other", []string{"team"}, nil, "", "the key in _cosign/team/a.pub verifies it, but it may sign below team alone"},
		{"team", []string{"team/app"}, nil, "", "below team/app alone"},
		{"b/app", []string{"a", "b"}, nil, "PEM in b", ""},
		{"team/app", []string{""}, alone("team"), "", "the configuration has team stand alone"},
		{"team/app", []string{"team"}, alone("team"), "PEM in team", ""},
		{"team/app", []string{"team/app"}, alone("team"), "PEM in team/app", ""},
		{"team/app", []string{"team"}, alone("team", "team/app"), "", "has team/app stand alone"},
		{"team/app", []string{"team"}, alone("team/app", "team"), "", "has team/app stand alone"},
		{"team/other", []string{"team"}, alone("team", "team/app"), "PEM in team", ""},
		{"x", []string{""}, alone("team"), "PEM in ", ""},
		{"x", []string{""}, alone(""), "PEM in ", ""}, // nothing is above the top
		{"team/app", []string{"", "team"}, alone("team"), "PEM in team", ""},
	} {
		d := in(c.repository, v, c.scopes, c.narrowing...)
		if c.author != "" {
			if d.Status != Trusted || d.Author != c.author {
				t.Errorf("%s by %q under %v: %+v", c.repository, c.scopes, c.narrowing, d)
			}
			continue
		}
		if d.Reason != NoTrustedKey || d.Author != "" || d.Signer != (Signer{}) || !strings.Contains(d.Detail, c.detail) {
			t.Errorf("%s by %q under %v: %+v", c.repository, c.scopes, c.narrowing, d)
		}
	}
	// Whose key no file holds any more, has left.
	if d := in("team/app", v, nil); d.Reason != SignerRemoved {
		t.Errorf("%+v", d)
	}
}

// TestQuorum counts who signed: what counts is the signer, and not what anchors it.
func TestQuorum(t *testing.T) {
	rule := func(subject, root string) IdentityRule {
		return IdentityRule{Issuer: "i", SubjectRegExp: subject, Root: root, Scope: "team"}
	}
	f := NewInForce(Terms{Cosign: true, Notation: true, Scopes: []Narrowing{{Prefix: "team", Require: 2}, {Prefix: "team/app", Require: 3}},
		Identities: []IdentityRule{rule("a.*", "trusted_root.json"), rule("a.*", "trusted_root_2.json"), rule("b|ab", "trusted_root.json"), {Issuer: "i", Subject: "b", Root: "trusted_root.json", Scope: "other"}}})
	key := func(n byte) Decision { return Decision{Status: Trusted, key: KeyID{n}, Signer: keyA} }
	cert := func(n byte, subject string) Decision {
		return Decision{Status: Trusted, key: KeyID{n}, Signer: certA, Author: subject}
	}
	who := func(n byte, subject string) Decision {
		return Decision{Status: Trusted, key: KeyID{n}, identity: &Identity{Issuer: "i", Subject: subject}}
	}
	bad := key(9)
	bad.Status = Untrusted
	for name, c := range map[string]struct {
		signed []Decision
		n      int
	}{
		"nobody":                      {nil, 0},
		"one":                         {[]Decision{key(1)}, 1},
		"one key twice":               {[]Decision{key(1), key(1)}, 1},
		"two keys":                    {[]Decision{key(1), key(2)}, 2},
		"one that is not good":        {[]Decision{key(1), bad}, 1},
		"a certificate with that key": {[]Decision{key(1), cert(1, "CN=a")}, 1},
		"one subject, two keys":       {[]Decision{cert(1, "CN=a"), cert(2, "CN=a")}, 1},
		"two subjects":                {[]Decision{cert(1, "CN=a"), cert(2, "CN=b")}, 2},
		"one workflow at two tags":    {[]Decision{who(1, "a1"), who(2, "a2")}, 1},
		"two workflows":               {[]Decision{who(1, "a1"), who(2, "b")}, 2},
		"a chain: ab is like both":    {[]Decision{who(1, "a1"), who(2, "b"), who(3, "ab")}, 1},
		"keys chain, too":             {[]Decision{cert(1, "CN=a"), cert(2, "CN=b"), cert(2, "CN=a")}, 1},
		"all kinds":                   {[]Decision{key(1), cert(2, "CN=a"), who(3, "b")}, 3},
	} {
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
			q := f.Quorum("team/x")
			for _, i := range order {
				if i < len(c.signed) {
					q.Add(&c.signed[i])
				}
			}
			if q.signers != c.n || q.Short() != (c.n < 2) {
				t.Errorf("%s: %d signers, want %d", name, q.signers, c.n)
			}
		}
	}
	if f.Quorum("x") != nil || f.Required("x") != 1 || f.Required("team") != 2 || f.Required("team/app/y") != 3 {
		t.Error("another number is required")
	}
	q := f.Quorum("team/app")
	for n := range byte(2) {
		d := key(n)
		q.Add(&d)
	}
	d := Decision{Status: Trusted, Notes: []Note{ExpiryLogged}}
	q.Judge(&d)
	if d.Status != Untrusted || d.Reason != TooFewSigners || d.Notes != nil || !strings.Contains(d.Detail, "2 of the 3") {
		t.Errorf("%+v", d)
	}
	e := Decision{Status: Expired, Reason: SignatureExpired}
	q.Judge(&e)
	if fmt.Sprint(e) != fmt.Sprint(Decision{Status: Expired, Reason: SignatureExpired}) {
		t.Errorf("%+v", e)
	}
}

func TestRulesMatchWhole(t *testing.T) {
	id := &Identity{Issuer: "https://i.test", Subject: "https://g.test/acme/app@refs/heads/main", SourceRepositoryURI: "https://g.test/acme/app"}
	for _, c := range []struct {
		r    IdentityRule
		want bool
	}{
		{IdentityRule{Issuer: id.Issuer, Subject: id.Subject}, true},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `https://g\.test/acme/.*`}, true},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `acme`}, false},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `x|https://g\.test/acme/app`}, false}, // no prefix by alternation
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `https://g\.test/acme/app|x`}, false},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: "(?m)^https://g\\.test/acme/app$"}, false},
		{IdentityRule{IssuerRegExp: `https://.\.test`, Subject: id.Subject}, true},
		{IdentityRule{IssuerRegExp: `https://`, Subject: id.Subject}, false},
		{IdentityRule{Subject: id.Subject}, false}, // only certificates without an issuer
		{IdentityRule{Issuer: "https://I.test", Subject: id.Subject}, false},
		{IdentityRule{Issuer: id.Issuer, Subject: id.Subject, SourceRepositoryURI: id.SourceRepositoryURI}, true},
		{IdentityRule{Issuer: id.Issuer, Subject: id.Subject, SourceRepositoryURI: "https://g.test/acme"}, false},
		{IdentityRule{Issuer: id.Issuer, Subject: id.Subject, RunnerEnvironment: "self-hosted"}, false},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `(`}, false},
		{IdentityRule{Issuer: id.Issuer, SubjectRegExp: `\Qhttps`}, false},
	} {
		if got := c.r.Matches(id); got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
	if !(&IdentityRule{Subject: "a"}).Matches(&Identity{Subject: "a"}) || (&IdentityRule{}).Matches(&Identity{}) {
		t.Error("without an issuer")
	}
	if got := ParseIdentity(id.Text()); got.Text() != id.Text() || got.Fingerprint() != id.Fingerprint() || ParseIdentity("{") != nil {
		t.Errorf("%+v", got)
	}
}
