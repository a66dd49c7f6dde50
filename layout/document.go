package layout

import (
	"encoding/json"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/internal/strictjson"
)

// Manifests as JSON.

// document is any manifest. The pointers and nil slices tell absent (or null)
// members from empty ones.
type document struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Blobs        []ocispec.Descriptor `json:"blobs"` // of an artifact manifest alone
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
	// Docker's schema 1, of which some readers would take the layers.
	FSLayers []json.RawMessage `json:"fsLayers"`
	History  []json.RawMessage `json:"history"`
}

var manifestRules = strictjson.Rules{
	Members: []string{
		"mediaType", "artifactType", "config", "layers", "manifests", "blobs", "subject", "annotations", "fsLayers", "history",
		"digest", "size", "urls", "data", "platform", "architecture", "os", "os.version", "os.features", "variant",
	},
	Maps: []string{"annotations"},
}

// decode is json.Unmarshal for bytes that manifestRules accept: they leave one member of
// each name, spelled as here. What nearly all manifests consist of is read without
// reflection, in a quarter of the time; whatever else is in one leaves all of it to
// encoding/json.
func (doc *document) decode(b []byte) error {
	if doc.decodeCommon(b) {
		return nil
	}
	*doc = document{}
	return json.Unmarshal(b, doc)
}

// decodeCommon reports whether it could read all that the reader knows.
func (doc *document) decodeCommon(b []byte) bool {
	ok := len(b) > 0 && b[0] == '{'
	for name, value := range strictjson.Members(b) {
		switch name {
		case "mediaType":
			doc.MediaType, ok = strictjson.String(value)
		case "artifactType":
			doc.ArtifactType, ok = strictjson.String(value)
		case "config":
			doc.Config = &ocispec.Descriptor{}
			ok = decodeDescriptor(value, doc.Config)
		case "subject":
			doc.Subject = &ocispec.Descriptor{}
			ok = decodeDescriptor(value, doc.Subject)
		case "layers":
			doc.Layers, ok = decodeDescriptors(value)
		case "manifests":
			doc.Manifests, ok = decodeDescriptors(value)
		case "annotations":
			doc.Annotations, ok = decodeAnnotations(value)
		case "blobs", "fsLayers", "history":
			return false
		}
		if !ok {
			return false
		}
	}
	return ok
}

func decodeDescriptors(b []byte) (list []ocispec.Descriptor, ok bool) {
	if b[0] != '[' {
		return nil, false
	}
	list = []ocispec.Descriptor{}
	for value := range strictjson.Elements(b) {
		list = append(list, ocispec.Descriptor{})
		if !decodeDescriptor(value, &list[len(list)-1]) {
			return nil, false
		}
	}
	return list, true
}

func decodeDescriptor(b []byte, d *ocispec.Descriptor) bool {
	if b[0] != '{' {
		return false
	}
	for name, value := range strictjson.Members(b) {
		ok := true
		switch name {
		case "mediaType":
			d.MediaType, ok = strictjson.String(value)
			d.MediaType = interned(d.MediaType)
		case "digest":
			var text string
			text, ok = strictjson.String(value)
			d.Digest = digest.Digest(text)
		case "size":
			var err error
			d.Size, err = strconv.ParseInt(string(value), 10, 64)
			ok = err == nil
		case "annotations":
			d.Annotations, ok = decodeAnnotations(value)
		case "artifactType":
			d.ArtifactType, ok = strictjson.String(value)
		case "urls", "data", "platform":
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

func decodeAnnotations(b []byte) (m map[string]string, ok bool) {
	if b[0] != '{' {
		return nil, false
	}
	m = map[string]string{}
	for name, value := range strictjson.Members(b) {
		if m[name], ok = strictjson.String(value); !ok {
			return nil, false
		}
	}
	return m, true
}
