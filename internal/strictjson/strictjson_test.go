package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func members(n int, name string) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `"m%d":%d,`, i, i)
	}
	return "{" + s.String() + name + ":0}"
}

func TestCheck(t *testing.T) {
	manifest := Rules{Members: []string{"subject", "layers"}, Maps: []string{"annotations"}}
	tests := []struct {
		name  string
		rules Rules
		in    string
		want  error
	}{
		{"empty object", Rules{}, `{}`, nil},
		{"empty array", Rules{}, ` [ ] `, nil},
		{"scalar", Rules{}, `-1.5e3`, nil},
		{"all kinds", Rules{}, "\t{\"a\":[1,true,null,\"x\\\"}\",{}],\r\n\"b\":{\"a\":[]} , \"c\":1}\n", nil},
		{"names repeat in other objects", Rules{}, `[{"a":{"a":1}},{"a":2}]`, nil},
		{"a value is no name", Rules{}, `{"a":"b","b":"a"}`, nil},

		{"nothing", Rules{}, ``, ErrSyntax},
		{"trailing data", Rules{}, `{}{}`, ErrSyntax},
		{"trailing byte", Rules{}, `{} x`, ErrSyntax},
		{"cut", Rules{}, `{"a":`, ErrSyntax},
		{"byte order mark", Rules{}, "\ufeff{}", ErrSyntax},
		{"not UTF-8", Rules{}, "{\"a\":\"\xff\"}", ErrSyntax},

		{"twice", Rules{}, `{"subject":1,"subject":2}`, ErrDuplicate},
		{"twice with spaces", Rules{}, "{ \"a\" : 1 ,\n \"a\" : 2 }", ErrDuplicate},
		{"other case", Rules{}, `{"subject":1,"Subject":2}`, ErrDuplicate},
		{"escaped", Rules{}, `{"subject":1,"sub\u006aect":2}`, ErrDuplicate},
		{"long s", Rules{}, `{"subject":1,"ſubject":2}`, ErrDuplicate},
		{"Kelvin sign", Rules{}, `{"kid":1,"\u212aid":2}`, ErrDuplicate},
		{"empty name", Rules{}, `{"":1,"":2}`, ErrDuplicate},
		{"deep inside", Rules{}, `{"a":[{"b":{"c":1,"d":2,"c":3}}]}`, ErrDuplicate},
		{"after an inner object", Rules{}, `{"a":{"x":1},"b":2,"a":3}`, ErrDuplicate},
		{"lone surrogates collapse", Rules{}, `{"\ud800":1,"\ud801":2}`, ErrDuplicate},
		{"many members", Rules{}, members(1000, `"m7"`), ErrDuplicate},
		{"many members, other case", Rules{}, members(1000, `"M7"`), ErrDuplicate},
		{"many members, distinct", Rules{}, members(1000, `"x"`), nil},
		{"many members in a map", manifest, `{"annotations":` + members(1000, `"M7"`) + `}`, nil},

		{"known", manifest, `{"subject":1,"layers":[]}`, nil},
		{"known in another case, alone", manifest, `{"Subject":1}`, ErrDuplicate},
		{"known with long s, alone", manifest, `{"ſubject":1}`, ErrDuplicate},
		{"unknown in another case, alone", manifest, `{"Other":1}`, nil},
		{"map names differ by case", manifest, `{"annotations":{"a":"1","A":"2","Subject":"3"}}`, nil},
		{"map names differ by case, deeper", manifest, `{"annotations":{"x":{"a":"1","A":"2"}}}`, nil},
		{"map name twice", manifest, `{"annotations":{"a":"1","a":"2"}}`, ErrDuplicate},
		{"map itself twice", manifest, `{"annotations":{},"annotations":{}}`, ErrDuplicate},
		{"no map after the map", manifest, `{"annotations":{},"x":{"a":1,"A":2}}`, ErrDuplicate},

		{"deepest", Rules{}, strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), nil},
		{"too deep", Rules{}, strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1), ErrDepth},
		{"too deep, objects", Rules{}, strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1), ErrDepth},
		{"deep as encoding/json allows", Rules{}, strings.Repeat("[", 9000) + strings.Repeat("]", 9000), ErrDepth},
		{"deeper still", Rules{}, strings.Repeat("[", 1<<20), ErrSyntax},
		{"most elements", Rules{}, "[" + strings.Repeat("0,", MaxItems-1) + "0]", nil},
		{"too many elements", Rules{}, "[" + strings.Repeat("0,", MaxItems) + "0]", ErrItems},
		{"too many members", Rules{}, members(MaxItems, `"x"`), ErrItems},
		{"limits come before duplicates", Rules{}, `{"a":1,"a":[` + strings.Repeat("0,", MaxItems) + "0]}", ErrItems},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.rules.Check([]byte(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("Check = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestErrorTextIsShortAndInert(t *testing.T) {
	name := `\u001b[31m` + strings.Repeat("x", 1<<16)
	err := Rules{}.Check([]byte(`{"` + name + `":1,"` + name + `":2}`))
	if !errors.Is(err, ErrDuplicate) || len(err.Error()) > 400 || strings.ContainsRune(err.Error(), 0x1b) {
		t.Errorf("error of %d bytes: %.100q", len(err.Error()), err)
	}
}

// FuzzCheck holds the walk to encoding/json's own token stream.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"A":2}`, `{"a":[{"b":1,"b":2}]}`, `{"annotations":{"a":"","A":""}}`, `[[[]]]`, `"\ud800"`,
		`{"ſ":1,"s":2}`, `{"\\":1,"\"":2}`, `{}{}`, `-0`, `{"k":1,"\u212a":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<14 {
			return // within MaxItems, so that the model need not count
		}
		err := Rules{}.Check(b)
		if !json.Valid(b) && err == nil { // Unmarshal refuses numbers as well that float64 has not
			t.Fatalf("accepted what encoding/json refuses: %q", b)
		}
		if errors.Is(err, ErrSyntax) || errors.Is(err, ErrDepth) || errors.Is(err, ErrItems) {
			return
		}
		if want := model(b); (err != nil) != want {
			t.Fatalf("Check(%q) = %v, but duplicate is %v", b, err, want)
		}
	})
}

// model finds duplicates by the token stream of encoding/json.
func model(b []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type frame struct {
		object, value bool
		names         []string
	}
	stack := []frame{{}}
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return false
		}
		top := &stack[len(stack)-1]
		if d, ok := tok.(json.Delim); ok {
			if d == '}' || d == ']' {
				stack = stack[:len(stack)-1]
			} else {
				top.value = false
				stack = append(stack, frame{object: d == '{'})
			}
			continue
		}
		if !top.object || top.value {
			top.value = false
			continue
		}
		top.value = true
		for _, n := range top.names {
			if strings.EqualFold(n, tok.(string)) {
				return true
			}
		}
		top.names = append(top.names, tok.(string))
	}
}

func ExampleRules_Check() {
	fmt.Println(Rules{}.Check([]byte(`{"subject":"A","Subject":"B"}`)))
	fmt.Println(Rules{}.Check([]byte(`{"subject":"A"}`)))
	// Output:
	// ambiguous JSON member "Subject"
	// <nil>
}

func BenchmarkCheck(b *testing.B) {
	descriptor := `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:` + strings.Repeat("a", 64) + `","size":123456}`
	doc := []byte(`{"layers":[` + strings.Repeat(descriptor+",", 99) + descriptor + `]}`)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if err := (Rules{}).Check(doc); err != nil {
			b.Fatal(err)
		}
	}
}
