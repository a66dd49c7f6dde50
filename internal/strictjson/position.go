package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Position returns the line and the column of the byte at offset, as editors count
// them: from 1, columns in characters.
func Position(b []byte, offset int) (line, column int) {
	before := b[:max(0, min(offset, len(b)))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[start:])
}

// at says where in b the byte at offset is.
func at(b []byte, offset int) string {
	line, column := Position(b, offset)
	return fmt.Sprintf("line %d, column %d", line, column)
}

// Explain says what err means that encoding/json gave for b, and at which line and
// column, in words of JSON: `line 3, column 9: "level" is a number; a string is
// expected`. It returns the text of errors that it does not know.
func Explain(b []byte, err error) string {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		if end := len(bytes.TrimSpace(b)); int(syntax.Offset) >= end && strings.HasPrefix(syntax.Error(), "unexpected end") {
			return at(b, end) + ": the document ends too early"
		}
		return at(b, int(syntax.Offset)-1) + ": " + syntax.Error()
	case errors.As(err, &mismatch):
		what := "the value is "
		if mismatch.Field != "" {
			what = strconv.Quote(mismatch.Field) + " is "
		}
		return at(b, int(mismatch.Offset)-1) + ": " + what + article(mismatch.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		// The decoder does not say where; it is sure only if it is there once.
		if i := bytes.Index(b, []byte(name)); i >= 0 && bytes.LastIndex(b, []byte(name)) == i {
			return at(b, i) + ": unknown member " + name
		}
		return "unknown member " + name
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func article(kind string) string {
	kind, _, _ = strings.Cut(kind, " ") // "number 12"
	switch kind {
	case "bool":
		kind = "true or false"
	case "array", "object":
		kind = "an " + kind
	default:
		kind = "a " + kind
	}
	return kind + ", which is not expected here"
}

// syntax says where b, which json.Valid refuses, breaks.
func syntax(b []byte) error {
	var raw json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("%w (%s)", ErrSyntax, Explain(b, err))
	}
	return ErrSyntax
}

// encoding says where b is not UTF-8.
func encoding(b []byte) error {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return fmt.Errorf("%w (%s: not UTF-8)", ErrSyntax, at(b, i))
		}
		i += n
	}
	return ErrSyntax
}
