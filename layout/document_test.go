package layout

import (
	"encoding/json"
	"reflect"
	"testing"
)

var documents = []string{
	`{}`, ` {} `, `[]`, `null`, `"x"`, `7`, `{"mediaType":null}`, `{"mediaType":7}`, `{"layers":[]}`, `{"layers":null}`, `{"layers":{}}`, `{"layers":[null]}`,
	`{"layers":[{"digest":"sha256:00","size":1e3}]}`, `{"layers":[{"size":9223372036854775808}]}`, `{"layers":[{"size":-0}]}`, `{"layers":[{"size":"1"}]}`,
	`{"config":null}`, `{"config":[]}`, `{"subject":{}}`, `{"annotations":{}}`, `{"annotations":{"a":null}}`, `{"annotations":{"a":1}}`, `{"annotations":null}`,
	`{"mediaType":"a\u0062\ud800\n","artifactType":"x","config":{"mediaType":"m","digest":"d","size":3},"layers":[{"mediaType":"m","digest":"d","size":4,"annotations":{"k":"v","l":""}}],"subject":{"mediaType":"m","digest":"sha256:11","size":5,"artifactType":"t"},"annotations":{"x":"y"},"other":{"layers":7}}`,
	`{"manifests":[{"mediaType":"m","digest":"d","size":3,"platform":{"os":"linux","architecture":"amd64"}}]}`, `{"layers":[{"urls":["u"],"data":"AA=="}]}`,
	`{"fsLayers":[{}],"history":[]}`, `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[{"digest":"d"}]}`,
}

// FuzzDocument holds what is read without encoding/json to what that reads.
func FuzzDocument(f *testing.F) {
	for _, s := range documents {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if manifestRules.Check(b) != nil {
			return
		}
		var want, got document
		wantErr, gotErr := json.Unmarshal(b, &want), got.decode(b)
		if (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("%q: %v, want %v", b, gotErr, wantErr)
		}
		if wantErr == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%+v\nwant\n%+v", b, got, want)
		}
	})
}

// What the manifests of this field consist of needs no reflection: else the fuzz test would
// compare encoding/json with itself.
func TestCommonDocuments(t *testing.T) {
	common := 0
	for _, s := range documents {
		if manifestRules.Check([]byte(s)) == nil && new(document).decodeCommon([]byte(s)) {
			common++
		}
	}
	if common != 6 {
		t.Errorf("%d of %d are common", common, len(documents))
	}
}
