package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"

	goccy "github.com/goccy/go-yaml"
)

// writeYAML writes v as YAML with the names and the order that it has in JSON.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var ordered any
	if err := goccy.UnmarshalWithOptions(b, &ordered, goccy.UseOrderedMap()); err != nil {
		return err
	}
	return goccy.NewEncoder(w, goccy.CustomMarshaler(yamlText)).Encode(ordered)
}

// plainText are texts that every YAML reader takes for just these letters, once
// those that some take for another type are left out.
var (
	plainText = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*$`)
	otherType = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
)

// yamlText writes a text plain where that is sure, else in double quotes, with
// everything escaped that is not printed (YAML 1.2, section 5.7).
func yamlText(s string) ([]byte, error) {
	if plainText.MatchString(s) && !otherType.MatchString(s) {
		return []byte(s), nil
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case !unicode.IsPrint(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return []byte(b.String()), nil
}
