package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestWhereJSONBreaks(t *testing.T) {
	for in, want := range map[string]string{
		"{\n  \"a\": 1,\n}":         "not one JSON value in UTF-8 (line 3, column 1: invalid character '}' looking for beginning of object key string)",
		"{\n  \"ä\": x}":            "not one JSON value in UTF-8 (line 2, column 8: invalid character 'x' looking for beginning of value)",
		"{\"a\": [1,\n 2":           "not one JSON value in UTF-8 (line 2, column 3: the document ends too early)",
		"":                          "not one JSON value in UTF-8 (line 1, column 1: the document ends too early)",
		"{}\n{}":                    "not one JSON value in UTF-8 (line 2, column 1: invalid character '{' after top-level value)",
		"{\n\"a\":\"\xff\"}":        "not one JSON value in UTF-8 (line 2, column 6: not UTF-8)",
		"{\"a\": 1 // a comment\n}": "not one JSON value in UTF-8 (line 1, column 9: invalid character '/' after object key:value pair)",
		"\ufeff{}":                  "not one JSON value in UTF-8 (line 1, column 1: invalid character 'ï' looking for beginning of value)",
		"{\"a\":1, \"a\":2}":        `ambiguous JSON member "a"`,
	} {
		err := Rules{}.Check([]byte(in))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func TestExplain(t *testing.T) {
	var into struct {
		Level  string
		Stores []string
		In     struct{ Deep int }
	}
	for in, want := range map[string]string{
		"{\n \"Level\": 12}":                   `line 2, column 12: "Level" is a number, which is not expected here`,
		"{\"Stores\": {}}":                     `line 1, column 12: "Stores" is an object, which is not expected here`,
		"{\"In\": {\n\"Deep\": true}}":         `line 2, column 12: "In.Deep" is true or false, which is not expected here`,
		"{\n\n \"other\": 1}":                  `line 3, column 2: unknown member "other"`,
		"{\"Level\": \"other\", \"other\": 1}": `unknown member "other"`,
	} {
		d := json.NewDecoder(bytes.NewReader([]byte(in)))
		d.DisallowUnknownFields()
		if got := Explain([]byte(in), d.Decode(&into)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := Explain(nil, errors.New("other")); got != "other" {
		t.Error(got)
	}
}
