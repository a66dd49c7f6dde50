package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	goccy "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"

	"trust-worker/changes/webhook"
	"trust-worker/trust"
)

// Reading the configuration file into flag values, by the table configKeys.
// Whatever is wrong is named with file, line and column.

// configValue is one flag's value with the place that it comes from.
type configValue struct {
	text string
	at   string // "file:line:column"
}

type configValues struct {
	flags    map[string]configValue
	subPaths map[string]string
	webhooks []webhook.Config
	scopes   []trust.Narrowing // nil: the file does not have the key

	address, port, portAt string
}

// configFile is one file while it is read.
type configFile struct {
	path   string
	strict bool // unknown keys are errors
	tree   *ast.File
	flags  *pflag.FlagSet
	values *configValues
}

// readConfig reads a configuration file. A strict file may have no unknown
// keys; zot's own is read for what concerns us, and no more.
func readConfig(path string, strict bool, flags *pflag.FlagSet) (*configValues, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) && path == defaultConfig {
		return nil, usageError{fmt.Errorf("read configuration: %w (--config none does without it)", err)}
	} else if err != nil {
		return nil, usageError{fmt.Errorf("read configuration: %w", err)}
	}
	f := &configFile{path: path, strict: strict, flags: flags, values: &configValues{flags: map[string]configValue{}}}
	if f.tree, err = parser.ParseBytes(b, 0); err != nil {
		return nil, usageError{f.located(err)}
	}
	var doc map[string]any
	if err := goccy.Unmarshal(b, &doc); err != nil {
		return nil, usageError{f.located(err)}
	}
	if err := f.walk("", doc); err != nil {
		return nil, usageError{err}
	}
	if !strict {
		if err := f.asZot(doc); err != nil {
			return nil, usageError{err}
		}
	}
	f.values.portAt = f.at("http.port")
	f.values.finish()
	return f.values, nil
}

var atLine = regexp.MustCompile(`^\[(\d+):(\d+)\] ([^\n]*)`)

// located puts the parser's line and column where other tools have them.
func (f *configFile) located(err error) error {
	if m := atLine.FindStringSubmatch(goccy.FormatError(err, false, false)); m != nil {
		return fmt.Errorf("configuration %s:%s:%s: %s", f.path, m[1], m[2], m[3])
	}
	return fmt.Errorf("configuration %s: %w", f.path, err)
}

// at returns "file:line:column" of the value at a dotted path.
func (f *configFile) at(path string) string {
	builder := (&goccy.PathBuilder{}).Root()
	for _, name := range strings.Split(path, ".") {
		builder = builder.Child(name)
	}
	node, err := builder.Build().FilterFile(f.tree)
	if err != nil || node == nil || node.GetToken() == nil {
		return f.path
	}
	p := node.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", f.path, p.Line, p.Column)
}

func (f *configFile) errorf(path, format string, args ...any) error {
	return fmt.Errorf("configuration %s: %s: %s", f.at(path), path, fmt.Sprintf(format, args...))
}

// walk takes the known keys below a path, and refuses the others.
func (f *configFile) walk(above string, doc map[string]any) error {
	names := make([]string, 0, len(doc))
	for name := range doc {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path := strings.TrimPrefix(above+"."+name, ".")
		i := slices.IndexFunc(configKeys, func(k configKey) bool { return k.path == path })
		switch below, isMap := doc[name].(map[string]any); {
		case i >= 0:
			if key := &configKeys[i]; f.strict || key.zot {
				if err := f.take(key, doc[name]); err != nil {
					return err
				}
			}
		case doc[name] == nil: // "http:" with nothing below it
		case isMap && isSection(path):
			if err := f.walk(path, below); err != nil {
				return err
			}
		case !f.strict:
		case isSection(path):
			return f.errorf(path, "must hold %s", strings.Join(keysBelow(path), ", "))
		default:
			return f.errorf(path, "unknown key %q; known here: %s", name, strings.Join(keysBelow(above), ", "))
		}
	}
	return nil
}

// asZot takes what zot's file says without a key: storage is elsewhere, and a
// tool that the trust section leaves out is off.
func (f *configFile) asZot(doc map[string]any) error {
	storage, _ := doc["storage"].(map[string]any)
	if err := localStorage(storage); err != nil {
		return f.errorf("storage.storageDriver", "%v", err)
	}
	if _, set := f.values.flags["truststore-name"]; !set { // what present zot does with an upload that names none
		f.values.flags["truststore-name"] = configValue{text: "default", at: f.path}
	}
	extensions, _ := doc["extensions"].(map[string]any)
	if _, ok := extensions["trust"]; !ok {
		return nil
	}
	for _, tool := range []string{"cosign", "notation"} {
		if _, set := f.values.flags[tool]; !set {
			f.values.flags[tool] = configValue{text: "false", at: f.at("extensions.trust")}
		}
	}
	return nil
}

func isSection(path string) bool { return len(keysBelow(path)) > 0 }

// keysBelow lists the names directly below a path, "" for the top.
func keysBelow(path string) []string {
	prefix := path + "."
	if path == "" {
		prefix = ""
	}
	var names []string
	for _, k := range configKeys {
		if rest, ok := strings.CutPrefix(k.path, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (f *configFile) take(key *configKey, value any) error {
	if value == nil {
		return nil
	}
	if key.take != nil {
		if err := key.take(f.values, value); err != nil {
			return f.errorf(key.path, "%v", err)
		}
		return nil
	}
	flag := f.flags.Lookup(key.flag)
	if flag == nil {
		return nil // another command's
	}
	text, err := valueText(flag.Value.Type(), value)
	if err != nil {
		return f.errorf(key.path, "%v", err)
	}
	f.values.flags[key.flag] = configValue{text: text, at: f.at(key.path)}
	return nil
}

// valueText turns a value into what the flag of that type is set to.
func valueText(flagType string, value any) (string, error) {
	switch v := value.(type) {
	case string:
		if flagType == "string" || flagType == "duration" {
			return v, nil
		}
	case bool:
		if flagType == "bool" {
			return strconv.FormatBool(v), nil
		}
	case uint64, int64:
		if flagType == "int" || flagType == "int64" {
			return fmt.Sprint(v), nil
		}
	case []any:
		if flagType != "stringSlice" {
			break
		}
		var texts []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok || strings.ContainsAny(s, ",\"\n") {
				return "", fmt.Errorf("%v is not a list of plain texts", value)
			}
			texts = append(texts, s)
		}
		return strings.Join(texts, ","), nil
	}
	return "", fmt.Errorf("%v is not %s", value, typeNames[flagType])
}

// typeNames are the flags' types in words, which the documentation uses too.
var typeNames = map[string]string{
	"string": "text", "duration": `a duration in quotes, such as "5m"`, "bool": "true or false",
	"int": "a whole number", "int64": "a whole number", "stringSlice": "a list of texts",
}
