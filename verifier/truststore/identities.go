package truststore

import (
	"bytes"
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
	lower := strings.ToLower(name)
	switch {
	case name == identitiesFile || isRootName(name):
		return ""
	case strings.HasPrefix(lower, "identities.") || strings.HasPrefix(lower, "identity."):
		return identitiesFile
	case isRootName(strings.NewReplacer("-", "_", " ", "_").Replace(lower)), strings.HasPrefix(lower, "trustedroot"), strings.HasPrefix(lower, "trusted_root."):
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
	file, err := parser.ParseBytes(bytes.TrimPrefix(b, []byte("\ufeff")), 0)
	if err != nil {
		return nil, unfinishedf("is not YAML: %s", yamlFault(err))
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, unfinishedf("holds no entries, and so trusts nobody; remove it, or write [] to say so")
	case 1:
	default:
		return nil, refusef("holds %d YAML documents, divided by ---; put all entries into one list", len(docs))
	}
	list, ok := docs[0].(*ast.SequenceNode)
	if !ok {
		return nil, refusef("%s this is not a list; begin each entry with a dash: \"- issuer: …\"", at(docs[0]))
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

// yamlFault is what the parser says, in a line, without what it quotes of the file.
func yamlFault(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = quotedText.ReplaceAllString(text, "…")
	if m := yamlPosition.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("line %s, column %s: %s", m[1], m[2], m[3])
	}
	return text
}

var (
	yamlPosition = regexp.MustCompile(`^\[(\d+):(\d+)\] (.*)$`)
	quotedText   = regexp.MustCompile("\"[^\"]*\"|'[^']*'|`[^`]*`")
)

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
		return r, nil, refusef("%s this is not an entry; an entry has members such as issuer and subject", at(node))
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
			return r, nil, refusef("%s this is not the name of a member", at(m.Key))
		case place[key.Value] != nil:
			return r, nil, refusef("%s the member %s is there twice", at(m.Key), key.Value)
		case key.Value == "any":
			b, ok := m.Value.(*ast.BoolNode)
			if !ok {
				return r, nil, refusef("%s any must be true or false", at(m.Value))
			}
			anybody = b.Value
		case slices.Contains(entryFields, key.Value):
			switch v := m.Value.(type) {
			case *ast.StringNode:
				text[key.Value] = v.Value
			case *ast.LiteralNode:
				text[key.Value] = v.Value.Value
			case *ast.SequenceNode:
				return r, nil, refusef("%s %s is a list; write an entry for each", at(m.Value), key.Value)
			default:
				return r, nil, refusef("%s %s is not text; write it in single quotation marks", at(m.Value), key.Value)
			}
			if t := text[key.Value]; t == "" || strings.TrimSpace(t) != t || strings.ContainsFunc(t, func(c rune) bool { return c < ' ' }) {
				return r, nil, refusef("%s %s is empty, or begins or ends with a blank or a line break", at(m.Value), key.Value)
			}
		case slices.ContainsFunc(entryFields, func(f string) bool { return strings.EqualFold(f, key.Value) }):
			i := slices.IndexFunc(entryFields, func(f string) bool { return strings.EqualFold(f, key.Value) })
			return r, nil, refusef("%s write %s and not %.40q: upper and lower case differ", at(m.Key), entryFields[i], key.Value)
		default:
			return r, nil, refusef("%s the member %.40q is not known%s; known are %s and any", at(m.Key), key.Value, meantMember(key.Value), strings.Join(entryFields, ", "))
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
		if !anybody {
			for _, w := range loose(p.expression) {
				warnings = append(warnings, fmt.Sprintf("%s %s %s", at(place[p.field]), p.field, w))
			}
		}
	}
	if strings.HasSuffix(r.Subject, "*") {
		warnings = append(warnings, at(place["subject"])+" subject is compared as it is, the * too; for a pattern write subjectRegExp")
	}
	if strings.HasSuffix(r.Issuer, "/") {
		warnings = append(warnings, at(place["issuer"])+" issuer ends with a slash, and is compared as it is: few issuers do")
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

// meantMember says what a member of another tool's name is called here.
func meantMember(name string) string {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name)) {
	case "subjectregex", "subjectregexpression", "certificateidentityregexp", "identityregexp":
		return " (write subjectRegExp)"
	case "issuerregex", "issuerregexpression", "certificateoidcissuerregexp":
		return " (write issuerRegExp)"
	case "email", "uri", "san", "identity", "certificateidentity":
		return " (write subject)"
	case "certificateoidcissuer", "oidcissuer":
		return " (write issuer)"
	}
	return ""
}

// loose says what an expression matches that was hardly meant, or that it can match nobody.
func loose(expression string) (warnings []string) {
	inner := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(expression, "^"), `\A`), "$")
	scheme, rest, isURL := strings.Cut(inner, "://")
	switch {
	case strings.HasPrefix(inner, ".*") || strings.HasPrefix(inner, ".+"):
		warnings = append(warnings, "begins with any text, and so matches on any host; begin it with https:// and the host, or with the name before the @")
	case !isURL && !strings.Contains(inner, "@") && !strings.ContainsAny(inner, "(|["):
		warnings = append(warnings, "matches neither a URL nor an e-mail address: it has to match the whole text, while cosign's expressions match any part")
	}
	host, path, _ := strings.Cut(rest, "/")
	if !isURL {
		_, host, _ = strings.Cut(inner, "@")
	}
	if hostDot.MatchString(host) {
		warnings = append(warnings, `has a dot in a host name that stands for any character; write \. there`)
	}
	// Whoever may choose the rest of a host's or an owner's name is somebody else.
	if before, ok := strings.CutSuffix(inner, ".*"); ok && isURL && scheme != "" && strings.Count(path, "/") < 2 && !strings.HasSuffix(before, "/") {
		warnings = append(warnings, "ends with any text in the middle of a name, so that other names which begin alike match too; put a slash before .*")
	}
	return warnings
}

var hostDot = regexp.MustCompile(`[a-z0-9]\.[a-z0-9]`)
