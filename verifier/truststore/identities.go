package truststore

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"trust-worker/trust"
)

// identities.yaml says who may sign, by the certificates of a trusted root. Its words are
// those of policy-controller, Kyverno and cosign's options.

const (
	identitiesFile  = "identities.yaml"
	maxIdentities   = 256 << 10 // bytes of one file
	maxRules        = 1000      // entries of one file
	defaultRootFile = "trusted_root.json"
)

// identities are the entries of one file, without scope and file name, and what is odd
// about some of them.
type identities struct {
	rules    []trust.IdentityRule
	warnings []string
}

// misnamed says what a file was probably meant to be that has another name.
func misnamed(name string) string {
	switch strings.ToLower(name) {
	case "identities.yml", "identities.json", "identity.yaml", "identity.yml", identitiesFile:
		return identitiesFile
	case "trusted-root.json", "trustedroot.json", "trusted_root.jsn":
		return defaultRootFile
	}
	return ""
}

// entryFields are the members of an entry, all strings.
var entryFields = []string{"issuer", "issuerRegExp", "subject", "subjectRegExp", "root",
	"sourceRepositoryURI", "sourceRepositoryRef", "buildSignerURI", "runnerEnvironment"}

// parseIdentities reads the file strictly: a bad entry costs the file, and is named with
// line and column.
func parseIdentities(b []byte) (*identities, error) {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		at := ""
		if m := yamlPosition.FindStringSubmatch(err.Error()); m != nil {
			at = fmt.Sprintf(" at line %s, column %s", m[1], m[2])
		}
		return nil, unfinishedf("is not YAML%s", at)
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	if len(docs) != 1 {
		return nil, unfinishedf("holds %d YAML documents; one list of entries is expected", len(docs))
	}
	list, ok := docs[0].(*ast.SequenceNode)
	if !ok {
		return nil, refusef("%s is no list; write one entry for each identity, each beginning with \"- issuer:\"", at(docs[0]))
	}
	if len(list.Values) > maxRules {
		return nil, refusef("holds %d entries; at most %d are taken", len(list.Values), maxRules)
	}
	found := &identities{}
	for _, node := range list.Values {
		r, warnings, err := parseEntry(node)
		if err != nil {
			return nil, err
		}
		found.rules, found.warnings = append(found.rules, r), append(found.warnings, warnings...)
	}
	return found, nil
}

var yamlPosition = regexp.MustCompile(`^\[(\d+):(\d+)\]`)

func at(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf("line %d, column %d:", t.Position.Line, t.Position.Column)
	}
	return "an entry"
}

func parseEntry(node ast.Node) (r trust.IdentityRule, warnings []string, _ error) {
	var members []*ast.MappingValueNode
	switch m := node.(type) {
	case *ast.MappingNode:
		members = m.Values
	case *ast.MappingValueNode:
		members = []*ast.MappingValueNode{m}
	default:
		return r, nil, refusef("%s is no entry; it has members such as issuer and subject", at(node))
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		r.Line = t.Position.Line
	}
	text := map[string]string{}
	place := map[string]ast.Node{}
	anybody := false
	for _, m := range members {
		key, ok := m.Key.(*ast.StringNode)
		switch {
		case !ok:
			return r, nil, refusef("%s is no name of a member", at(m.Key))
		case place[key.Value] != nil:
			return r, nil, refusef("%s the member %s is there twice", at(m.Key), key.Value)
		case key.Value == "any":
			b, ok := m.Value.(*ast.BoolNode)
			if !ok {
				return r, nil, refusef("%s any is true or false", at(m.Value))
			}
			anybody = b.Value
		case slices.Contains(entryFields, key.Value):
			switch v := m.Value.(type) {
			case *ast.StringNode:
				text[key.Value] = v.Value
			case *ast.LiteralNode:
				text[key.Value] = v.Value.Value
			default:
				return r, nil, refusef("%s %s is not text; write it in quotation marks", at(m.Value), key.Value)
			}
			if t := text[key.Value]; t == "" || strings.TrimSpace(t) != t || strings.ContainsFunc(t, func(c rune) bool { return c < ' ' }) {
				return r, nil, refusef("%s %s is empty, or begins or ends with a blank or a line break", at(m.Value), key.Value)
			}
		case slices.ContainsFunc(entryFields, func(f string) bool { return strings.EqualFold(f, key.Value) }):
			i := slices.IndexFunc(entryFields, func(f string) bool { return strings.EqualFold(f, key.Value) })
			return r, nil, refusef("%s a member is written %s", at(m.Key), entryFields[i])
		default:
			return r, nil, refusef("%s is a member that is not known; there are %s and any", at(m.Key), strings.Join(entryFields, ", "))
		}
		place[key.Value] = m.Value
	}
	r.Issuer, r.IssuerRegExp, r.Subject, r.SubjectRegExp = text["issuer"], text["issuerRegExp"], text["subject"], text["subjectRegExp"]
	r.SourceRepositoryURI, r.SourceRepositoryRef = text["sourceRepositoryURI"], text["sourceRepositoryRef"]
	r.BuildSignerURI, r.RunnerEnvironment = text["buildSignerURI"], text["runnerEnvironment"]
	r.Root = cmp.Or(text["root"], defaultRootFile)
	switch {
	case r.Issuer != "" && r.IssuerRegExp != "":
		return r, nil, refusef("%s has both issuer and issuerRegExp", at(node))
	case r.Subject != "" && r.SubjectRegExp != "":
		return r, nil, refusef("%s has both subject and subjectRegExp", at(node))
	case r.Subject == "" && r.SubjectRegExp == "":
		return r, nil, refusef("%s has no subject; add subject or subjectRegExp", at(node))
	case r.Issuer == "" && r.IssuerRegExp == "" && text["root"] == "":
		return r, nil, refusef("%s has no issuer; add issuer or issuerRegExp (without one it can match only certificates that name no issuer, and needs an explicit root)", at(node))
	case !isRootName(r.Root) || r.Root != path.Base(r.Root):
		return r, nil, refusef("%s the root is the name of a file in _cosign, trusted_root*.json or trusted_root*.jsonl", at(place["root"]))
	}
	for _, p := range []struct{ field, expression string }{{"issuerRegExp", r.IssuerRegExp}, {"subjectRegExp", r.SubjectRegExp}} {
		if p.expression == "" {
			continue
		}
		re, err := trust.CompileIdentity(p.expression)
		if err != nil {
			why := "it is not complete"
			if se := (*syntax.Error)(nil); asSyntax(err, &se) {
				why = string(se.Code)
			}
			return r, nil, refusef("%s %s is no regular expression of RE2 (%s)", at(place[p.field]), p.field, why)
		}
		if !anybody && slices.ContainsFunc(nonsense, re.MatchString) {
			return r, nil, refusef("%s %s matches anybody; write who is meant, or add any: true", at(place[p.field]), p.field)
		}
		if bareDot(p.expression) {
			warnings = append(warnings, fmt.Sprintf("%s %s has a dot in a host name that stands for any character; write \\.", at(place[p.field]), p.field))
		}
		if prefix, ok := strings.CutSuffix(p.expression, ".*"); ok && !strings.HasSuffix(prefix, "/") && !strings.HasSuffix(prefix, "@") {
			warnings = append(warnings, fmt.Sprintf("%s %s matches more than what lies below a path: end what comes before .* with a slash", at(place[p.field]), p.field))
		}
	}
	return r, warnings, nil
}

func asSyntax(err error, into **syntax.Error) bool {
	se, ok := err.(*syntax.Error)
	if ok {
		*into = se
	}
	return ok
}

// nonsense are texts that nobody means: an expression that matches one is for anybody.
var nonsense = []string{"qzxjvk-nonsense", "https://qzxjvk.invalid/nonsense/7", "qzxjvk@nonsense.invalid"}

// bareDot reports whether an expression has an unescaped dot between letters of a host
// name.
func bareDot(expression string) bool {
	host := expression
	if _, rest, ok := strings.Cut(expression, "://"); ok {
		host, _, _ = strings.Cut(rest, "/")
	} else if _, rest, ok := strings.Cut(expression, "@"); ok {
		host = rest
	} else {
		return false
	}
	return hostDot.MatchString(host)
}

var hostDot = regexp.MustCompile(`[a-z0-9]\.[a-z0-9]`)
