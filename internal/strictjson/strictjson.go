// Package strictjson refuses JSON that two readers could read differently.
//
// encoding/json takes the last of two members of one name, and matches names
// whatever their case; other readers take the first, or tell "Subject" from
// "subject". A document on which readers differ is a way to have one thing
// checked and another thing used, so everything that decides about trust is
// checked here before it is decoded.
//
// Invariants:
//
//	S1. Check(b) == nil implies that b is exactly one JSON value in valid
//	    UTF-8, nested no deeper than MaxDepth, with no more than MaxItems
//	    members or elements in any one object or array.
//	S2. Check(b) == nil implies that no object in b has two members that
//	    encoding/json would store in one struct field (or map key, within
//	    [Rules.Maps]).
//	S3. Memory used is a small multiple of the largest object's names, which
//	    MaxItems bounds; time is linear in len(b).
//
// It says nothing about types or values.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxDepth is how deep objects and arrays may be nested.
	MaxDepth = 64
	// MaxItems is how many members one object, or elements one array, may
	// have: 4 MiB of "{}," would otherwise decode into a thousand times more.
	MaxItems = 10_000
)

// What is wrong with a document. ErrDepth and ErrItems take precedence over
// ErrDuplicate: a document with ErrDuplicate is within the limits, and can be
// decoded without surprises in memory.
var (
	ErrSyntax    = errors.New("not one JSON value in UTF-8")
	ErrDepth     = errors.New("JSON nested too deep")
	ErrItems     = errors.New("too many members or elements in JSON")
	ErrDuplicate = errors.New("ambiguous JSON member")
)

// Rules say how a document is going to be read. The zero value suits decoding
// into structs.
type Rules struct {
	// Members are the names that the reader knows. One that is spelled in
	// another case is refused even when it stands alone: encoding/json would
	// take it for the member, other readers would not.
	Members []string
	// Maps are the names of members that are decoded as maps, in which names
	// that differ in case alone are different (annotations). It holds for
	// everything below them.
	Maps []string
}

// Check returns nil, or an error that wraps one of the sentinels.
func (r Rules) Check(b []byte) error {
	if !json.Valid(b) {
		return syntax(b)
	}
	return r.CheckValid(b)
}

// CheckValid is Check for bytes that json.Valid has accepted, which are then
// not gone through a second time; it panics or errs on others.
func (r Rules) CheckValid(b []byte) error {
	if !utf8.Valid(b) {
		return encoding(b)
	}
	w := walker{rules: r, b: b}
	if _, err := w.value(0, 0, false); err != nil {
		return err
	}
	return w.duplicate
}

// walker goes over bytes that json.Valid has accepted, so that it need not
// look for errors of syntax. It keeps the names of the objects that are open
// on one stack.
type walker struct {
	rules     Rules
	b         []byte
	names     [][]byte
	duplicate error // the first one found
}

// value walks the value that begins at or after i and returns where it ends.
func (w *walker) value(i, depth int, inMap bool) (int, error) {
	i = w.space(i)
	switch w.b[i] {
	case '{', '[':
		if depth >= MaxDepth {
			return 0, ErrDepth
		}
		if w.b[i] == '{' {
			return w.object(i+1, depth+1, inMap)
		}
		return w.array(i+1, depth+1, inMap)
	case '"':
		return w.str(i), nil
	}
	return w.literal(i), nil
}

// literal returns the index after the number or word that begins at i.
func (w *walker) literal(i int) int {
	for ; i < len(w.b); i++ {
		switch w.b[i] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return i
}

func (w *walker) array(i, depth int, inMap bool) (_ int, err error) {
	if i = w.space(i); w.b[i] == ']' {
		return i + 1, nil
	}
	for n := 0; ; n++ {
		if n == MaxItems {
			return 0, ErrItems
		}
		if i, err = w.value(i, depth, inMap); err != nil {
			return 0, err
		}
		i = w.space(i) + 1
		if w.b[i-1] == ']' {
			return i, nil
		}
	}
}

func (w *walker) object(i, depth int, inMap bool) (_ int, err error) {
	if i = w.space(i); w.b[i] == '}' {
		return i + 1, nil
	}
	base := len(w.names)
	for n := 0; ; n++ {
		if n == MaxItems {
			return 0, ErrItems
		}
		start := w.space(i)
		i = w.str(start)
		name := unquote(w.b[start:i])
		w.names = append(w.names, name)
		if !inMap {
			w.known(name)
		}
		i = w.space(i) + 1 // the colon
		if i, err = w.value(i, depth, inMap || slices.Contains(w.rules.Maps, string(name))); err != nil {
			return 0, err
		}
		i = w.space(i) + 1
		if w.b[i-1] == '}' {
			break
		}
	}
	w.distinct(w.names[base:], inMap)
	w.names = w.names[:base]
	return i, nil
}

// known notes a name that is one of the rules' in another spelling.
func (w *walker) known(name []byte) {
	if slices.Contains(w.rules.Members, string(name)) {
		return
	}
	for _, m := range w.rules.Members {
		if bytes.EqualFold(name, []byte(m)) {
			w.found(name)
		}
	}
}

// distinct notes two names of one object that are the same to the reader.
func (w *walker) distinct(names [][]byte, inMap bool) {
	if w.duplicate != nil {
		return
	}
	if len(names) <= 16 { // no allocation for the common object
		for i, a := range names {
			for _, b := range names[:i] {
				if bytes.Equal(a, b) || !inMap && bytes.EqualFold(a, b) {
					w.found(a)
				}
			}
		}
		return
	}
	seen := make(map[string]bool, len(names))
	for _, a := range names {
		key := string(a)
		if !inMap {
			key = fold(a)
		}
		if seen[key] {
			w.found(a)
		}
		seen[key] = true
	}
}

func (w *walker) found(name []byte) {
	if w.duplicate == nil {
		w.duplicate = fmt.Errorf("%w %.64q", ErrDuplicate, name)
	}
}

func (w *walker) space(i int) int {
	for i < len(w.b) && (w.b[i] == ' ' || w.b[i] == '\t' || w.b[i] == '\r' || w.b[i] == '\n') {
		i++
	}
	return i
}

// str returns the index after the string that begins at i.
func (w *walker) str(i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(w.b[i:], '"')
		slashes := 0
		for w.b[i-1-slashes] == '\\' { // ends at the opening quote at the latest
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

// unquote returns the name that encoding/json would see: "sub\u006aect" is
// "subject", and bytes that are not UTF-8 are U+FFFD.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return quoted // cannot happen: the document is valid
	}
	return []byte(s)
}

// fold maps every name that is equal under bytes.EqualFold to one key, as
// encoding/json does: "ſubject" (U+017F) is its "subject".
func fold(name []byte) string {
	folded := make([]rune, 0, len(name))
	for _, r := range string(name) {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		folded = append(folded, least)
	}
	return string(folded)
}
