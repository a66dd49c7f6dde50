package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

func TestMembersAndElements(t *testing.T) {
	tests := []struct {
		in                string
		members, elements string
	}{
		{`{}`, ``, ``},
		{` [ ] `, ``, ``},
		{`null`, ``, ``},
		{`"{}"`, ``, ``},
		{`{"a":1}`, `a=1;`, ``},
		{" {\n\"a\" : [1, {\"b\":\"]}\"} ] ,\t\"\\u0061\":-1.5e3 , \"x\" : null }\n", `a=[1, {"b":"]}"} ];a=-1.5e3;x=null;`, ``},
		{`[1 , "a\\" ,{"]":[[]]}, true,[ ] ]`, ``, `1;"a\\";{"]":[[]]};true;[ ];`},
	}
	for _, tt := range tests {
		var members, elements string
		for name, value := range Members([]byte(tt.in)) {
			members += fmt.Sprintf("%s=%s;", name, value)
		}
		for value := range Elements([]byte(tt.in)) {
			elements += fmt.Sprintf("%s;", value)
		}
		if members != tt.members || elements != tt.elements {
			t.Errorf("%s: members %s, elements %s", tt.in, members, elements)
		}
	}
	for range Members([]byte(`{"a":1,"b":2}`)) {
		break // must not yield again
	}
	for range Elements([]byte(`[1,2]`)) {
		break
	}
}

func TestString(t *testing.T) {
	for in, want := range map[string]string{`"a"`: "a", `""`: "", `"\u0061\n"`: "a\n"} {
		if got, ok := String([]byte(in)); !ok || got != want {
			t.Errorf("String(%s) = %q, %t", in, got, ok)
		}
	}
	for _, in := range []string{``, `1`, `null`, `["a"]`} {
		if got, ok := String([]byte(in)); ok || got != "" {
			t.Errorf("String(%s) = %q, %t", in, got, ok)
		}
	}
}

// FuzzSplit holds the parts to what encoding/json decodes.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":"]"}],"a":{}}`, ` [ "\\\"" , -1 , {} ] `, `[[],[[]]]`, `{"\u0000":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		var list []json.RawMessage
		_ = json.Unmarshal(b, &list)
		parts := slices.Collect(Elements(b))
		if !slices.EqualFunc(parts, list, func(a []byte, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("elements of %q: %q, want %q", b, parts, list)
		}
		var object map[string]json.RawMessage
		_ = json.Unmarshal(b, &object)
		last := map[string]json.RawMessage{}
		for name, value := range Members(b) {
			last[name] = value
		}
		if len(last) != len(object) {
			t.Fatalf("members of %q: %q, want %q", b, last, object)
		}
		for name := range object {
			if !bytes.Equal(last[name], object[name]) {
				t.Errorf("member %q of %q: %q, want %q", name, b, last[name], object[name])
			}
		}
	})
}
