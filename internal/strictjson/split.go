package strictjson

import (
	"iter"
)

// Members yields the names and the encoded values of the object b, in order and
// duplicates included; nothing if b is not an object. b must be what json.Valid
// accepts. The values are parts of b.
//
// With [Rules.CheckValid] it is the cheap way to read a few members of very many
// small objects.
func Members(b []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		w := walker{b: b}
		for i := w.open('{'); i > 0; {
			start := w.space(i)
			i = w.str(start)
			name := unquote(b[start:i])
			start = w.space(w.space(i) + 1)
			i = w.skip(start)
			if !yield(string(name), b[start:i]) {
				return
			}
			i = w.next(i)
		}
	}
}

// Elements yields the encoded elements of the array b, as Members does.
func Elements(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		w := walker{b: b}
		for i := w.open('['); i > 0; {
			start := w.space(i)
			i = w.skip(start)
			if !yield(b[start:i]) {
				return
			}
			i = w.next(i)
		}
	}
}

// String returns the string that b encodes, and whether it is one.
func String(b []byte) (string, bool) {
	if len(b) == 0 || b[0] != '"' {
		return "", false
	}
	return string(unquote(b)), true
}

// open returns where the first member or element begins, or 0 if there is none.
func (w *walker) open(bracket byte) int {
	i := w.space(0)
	if i == len(w.b) || w.b[i] != bracket {
		return 0
	}
	if i = w.space(i + 1); w.b[i] == bracket+2 { // ']' and '}' are 2 after
		return 0
	}
	return i
}

// next returns where the member or element after the one that ended at i
// begins, or 0 after the last.
func (w *walker) next(i int) int {
	if i = w.space(i); w.b[i] == ',' {
		return i + 1
	}
	return 0
}

// skip returns where the value that begins at i ends. It does not recurse: depth
// is for Check to judge.
func (w *walker) skip(i int) int {
	for depth := 0; ; {
		switch w.b[i] {
		case '"':
			i = w.str(i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n':
			i++
			continue
		default:
			i = w.literal(i)
		}
		if depth == 0 {
			return i
		}
	}
}
