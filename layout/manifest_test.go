package layout

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

func TestParseManifest(t *testing.T) {
	of := trust.SumOf([]byte("subject"))
	idx := object{"mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{descriptor(ocispec.MediaTypeImageManifest, "x")}}
	text := func(o object) string { return string(encode(t, o)) }
	// add inserts members before the last brace, duplicates included.
	add := func(o object, members string) string { return strings.TrimSuffix(text(o), "}") + "," + members + "}" }
	subjectMember := `"subject":` + text(subject(of))

	artifact := func(artifactType, more string) string {
		return `{"mediaType":"` + typeArtifactManifest + `",` + more + `"artifactType":"` + artifactType + `","blobs":[` + text(descriptor("application/jose+json", "x")) + `]}`
	}
	tests := []struct {
		name      string
		in        string
		want      Class
		ambiguous bool
	}{
		{"OCI image", text(image("x")), ImageManifest, false},
		{"Docker image", text(with(image("x"), object{"mediaType": typeDockerManifest, "config": descriptor(typeDockerConfig, "x")})), ImageManifest, false},
		{"no media type", text(with(image("x"), object{"mediaType": nil})), ImageManifest, false},
		{"no layers", text(with(image("x"), object{"layers": []any{}})), ImageManifest, false},
		{"null layers", add(with(image("x"), object{"layers": nil}), `"layers":null`), ImageManifest, false},
		{"Helm chart", text(with(image("x"), object{"config": descriptor("application/vnd.cncf.helm.config.v1+json", "x")})), ImageManifest, false},
		{"artifact without subject", text(with(image("x"), object{"artifactType": "application/x"})), ImageManifest, false},
		{"signature type without subject", text(with(image("x"), object{"artifactType": typeNotationSignature})), ImageManifest, false},
		{"image with subject", text(with(image("x"), object{"subject": subject(of)})), ImageManifest, false},
		{"null subject", add(image("x"), `"subject":null`), ImageManifest, false},
		{"annotations that differ by case", text(with(image("x"), object{"annotations": object{"A": "1", "a": "2", "Subject": "3"}})), ImageManifest, false},

		{"index", text(idx), ImageIndex, false},
		{"Docker list", text(with(idx, object{"mediaType": typeDockerIndex})), ImageIndex, false},
		{"empty index", `{"manifests":[]}`, ImageIndex, false},
		{"index with subject", text(with(idx, object{"subject": subject(of)})), ImageIndex, false},
		{"index with subject and type", text(with(idx, object{"subject": subject(of), "artifactType": "application/x"})), Referrer, false},
		{"null manifests in an image", add(image("x"), `"manifests":null`), ImageManifest, false},

		{"cosign", text(referrer(typeCosignSignature, of, "x")), CosignSignature, false},
		{"bundle", text(referrer(typeSigstoreBundle, of, "x")), SigstoreBundle, false},
		{"notation", text(referrer(typeNotationSignature, of, "x")), NotationSignature, false},
		{"notation by config alone", text(with(referrer(typeNotationSignature, of, "x"), object{"artifactType": nil})), NotationSignature, false},
		{"bundle by config alone", text(with(referrer(typeSigstoreBundle, of, "x"), object{"artifactType": ""})), SigstoreBundle, false},
		{"artifact type outweighs config", text(with(referrer(typeNotationSignature, of, "x"), object{"artifactType": "application/x"})), SimpleSigning, false},
		{"other bundle version", text(referrer("application/vnd.dev.sigstore.bundle.v0.4+json", of, "x")), SimpleSigning, false},
		{"type in capitals", text(with(referrer(strings.ToUpper(typeNotationSignature), of, "x"), object{"layers": []any{}})), Referrer, false},

		{"simple signing", text(simple("x")), SimpleSigning, false},
		{"simple signing with another layer", text(with(simple("x"), object{"layers": []any{descriptor(typeSimpleSigning, "x"), descriptor("a/b", "y")}})), ImageManifest, false},
		{"DSSE", text(with(image("x"), object{"layers": []any{descriptor(typeDSSE, "x")}})), Attestation, false},
		{"BuildKit", text(with(image("x"), object{"layers": []any{descriptor(typeInToto, "x"), descriptor(typeInToto, "y")}})), Attestation, false},
		{"SBOM as referrer", text(with(referrer("application/spdx+json", of, "x"), object{"layers": []any{descriptor("application/spdx+json", "x")}})), Referrer, false},

		{"artifact manifest of notation", artifact(typeNotationSignature, subjectMember+","), NotationSignature, false},
		{"artifact manifest of cosign", artifact(typeCosignSignature, subjectMember+","), Referrer, false},
		{"artifact manifest of something", artifact("application/spdx+json", subjectMember+","), Referrer, false},
		{"artifact manifest about nothing", artifact(typeNotationSignature, ""), ImageManifest, false},
		{"artifact manifest with layers", artifact(typeNotationSignature, subjectMember+`,"layers":[],`), NotationSignature, true},
		{"artifact manifest with children", artifact(typeNotationSignature, subjectMember+`,"manifests":[],`), NotationSignature, true},
		{"blobs twice", artifact(typeNotationSignature, subjectMember+`,"blobs":[],`), NotationSignature, true},
		{"blobs beside layers", add(image("x"), `"blobs":[]`), ImageManifest, false},

		// threats.md Z8
		{"subject twice", add(referrer(typeNotationSignature, of, "x"), subjectMember), NotationSignature, true},
		{"Subject and subject", add(referrer(typeNotationSignature, of, "x"), strings.Replace(subjectMember, "s", "S", 1)), NotationSignature, true},
		{"Subject alone", add(image("x"), strings.Replace(subjectMember, "s", "S", 1)), ImageManifest, true},
		{"escaped subject", add(with(image("x"), object{"subject": subject(of)}), strings.Replace(subjectMember, "s", `\u0073`, 1)), ImageManifest, true},
		{"layers twice", add(image("x"), `"layers":[]`), ImageManifest, true},
		{"digest twice in a layer", strings.Replace(text(image("x")), `"digest":`, `"digest":"","digest":`, 1), ImageManifest, true},
		{"Digest in a layer", strings.Replace(text(image("x")), `"digest":`, `"Digest":`, 1), ImageManifest, true},
		{"annotation twice", add(image("x"), `"annotations":{"a":"1","a":"2"}`), ImageManifest, true},
		{"manifest and index", add(image("x"), `"manifests":[]`), ImageIndex, true},
		{"config and manifests", `{"config":{},"manifests":[]}`, ImageIndex, true},
		{"signature and index", add(referrer(typeNotationSignature, of, "x"), `"manifests":[]`), NotationSignature, true},
		{"image that says index", text(with(image("x"), object{"mediaType": ocispec.MediaTypeImageIndex})), ImageManifest, true},
		{"index that says image", text(with(idx, object{"mediaType": typeDockerManifest})), ImageIndex, true},
		{"schema 1 layers", add(image("x"), `"fsLayers":[]`), ImageManifest, true},
		{"schema 1 history", add(idx, `"history":[]`), ImageIndex, true},

		{"empty object", `{}`, Malformed, false},
		{"only a media type", `{"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`, Malformed, false},
		{"array", `[]`, Malformed, false},
		{"null", `null`, Malformed, false},
		{"string", `"x"`, Malformed, false},
		{"empty", ``, Malformed, false},
		{"cut", text(image("x"))[:100], Malformed, false},
		{"trailing", text(image("x")) + "{}", Malformed, false},
		{"layers a string", `{"layers":"x"}`, Malformed, false},
		{"layers of strings", `{"layers":["x"]}`, Malformed, false},
		{"size a fraction", `{"layers":[{"size":1.5}]}`, Malformed, false},
		{"size beyond int64", `{"layers":[{"size":9223372036854775808}]}`, Malformed, false},
		{"media type a number", `{"mediaType":1,"layers":[]}`, Malformed, false},
		{"media type endless", `{"mediaType":"` + strings.Repeat("x", 256) + `","layers":[]}`, Malformed, false},
		{"empty subject", add(image("x"), `"subject":{}`), Malformed, false},
		{"subject without digits", add(image("x"), `"subject":{"digest":"sha256:"}`), Malformed, false},
		{"subject by SHA-512", add(image("x"), `"subject":{"digest":"sha512:`+strings.Repeat("a", 128)+`"}`), Malformed, false},
		{"subject in capitals", add(image("x"), `"subject":{"digest":"sha256:`+strings.Repeat("A", 64)+`"}`), Malformed, false},
		{"subject that climbs", add(image("x"), `"subject":{"digest":"sha256:../../_cosign/x"}`), Malformed, false},
		{"subject of zeros", add(image("x"), `"subject":{"digest":"sha256:`+strings.Repeat("0", 64)+`"}`), Malformed, false},

		{"deep", `{"layers":[],"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}", Excessive, false},
		{"layers beyond count", `{"layers":[` + strings.Repeat("{},", 10_000) + `{}]}`, Excessive, false},
		{"children beyond count", `{"manifests":[` + strings.Repeat("{},", 10_000) + `{}]}`, Excessive, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := parseManifest([]byte(tt.in))
			if m.Class != tt.want || m.Ambiguous != tt.ambiguous || m.Size != int64(len(tt.in)) {
				t.Errorf("class %v, ambiguous %t, size %d; want %v, %t, %d", m.Class, m.Ambiguous, m.Size, tt.want, tt.ambiguous, len(tt.in))
			}
			checkManifest(t, m)
		})
	}
}

// checkManifest asserts what holds whatever the bytes were.
func checkManifest(t testing.TB, m *Manifest) {
	t.Helper()
	if m.Class == Unclassified || m.Class.String() == Class(255).String() {
		t.Errorf("class %v", m.Class)
	}
	if (m.Class == Malformed || m.Class == Excessive) && (m.Flaw() == "" || m.Layers != nil || m.Subject != (trust.Digest{})) {
		t.Errorf("flawed, and yet %+v", m)
	}
	if m.Class.carrier() != 0 && m.Subject == (trust.Digest{}) {
		t.Errorf("%v without subject", m.Class)
	}
	if len(m.Children) > 0 && (m.Layers != nil || m.ConfigMediaType != "") {
		t.Errorf("index with layers: %+v", m)
	}
	for _, c := range m.Children {
		if c.Size < 0 || len(c.Platform) > maxPlatform || len(c.MediaType) > maxMediaType {
			t.Errorf("child %+v", c)
		}
	}
	// Callers store a Kind; they must get back what they stored.
	b, err := json.Marshal(m.Kind)
	must(t, err)
	var back Kind
	must(t, json.Unmarshal(b, &back))
	if fmt.Sprint(back) != fmt.Sprint(m.Kind) {
		t.Errorf("stored %v, read %v", m.Kind, back)
	}
}

func TestChildren(t *testing.T) {
	d := trust.SumOf(nil)
	m := parseManifest(encode(t, object{"manifests": []any{
		with(descriptor("a/b", ""), object{"platform": object{"os": "linux", "architecture": "arm64", "variant": "v8"}}),
		with(descriptor("a/b", ""), object{"annotations": object{"vnd.docker.reference.type": "attestation-manifest"}}),
		with(descriptor("a/b", ""), object{"platform": object{"os": strings.Repeat("x", 500), "architecture": "y"}}),
		with(descriptor("a/b", ""), object{"size": -1}),
		with(descriptor("a/b", ""), object{"digest": "sha256:../../../etc/passwd"}),
		with(descriptor("a/b", ""), object{"digest": "sha512:" + strings.Repeat("a", 128)}),
		with(descriptor(strings.Repeat("m", 300), ""), object{}),
	}}))
	foreign, _ := trust.ForeignDigest("sha512:" + strings.Repeat("a", 128))
	want := []Child{
		{Digest: d, MediaType: "a/b", Platform: "linux/arm64/v8"},
		{Digest: d, MediaType: "a/b", Attestation: true},
		{Digest: d, MediaType: "a/b"},
		{Digest: foreign, Foreign: "sha512:" + strings.Repeat("a", 128), MediaType: "a/b"},
	}
	if fmt.Sprint(m.Children) != fmt.Sprint(want) || m.Skipped != 3 {
		t.Errorf("children %v, skipped %d", m.Children, m.Skipped)
	}
}

func TestManifestRefusesFlaws(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	p := r.open(Limits{Manifest: 1 << 20})
	for content, want := range map[string]trust.Reason{
		`{"layers":[],"manifests":[]}`: trust.Ambiguous,
		`{"layers":[],"layers":[]}`:    trust.Ambiguous,
		`{}`:                           trust.Malformed,
		`{"layers":[` + strings.Repeat("{},", 10_000) + `{}]}`: trust.LimitExceeded,
		`{"layers":[]}` + strings.Repeat(" ", 1<<20):           trust.LimitExceeded,
	} {
		m, err := p.Manifest(context.Background(), r.blob(content))
		if m != nil || reasonIn(t, err) != want {
			t.Errorf("Manifest(%.40s) = %v, %v; want %s", content, m, err, want)
		}
	}
	m, err := p.Manifest(context.Background(), r.blob(referrer(typeNotationSignature, trust.SumOf(nil), "x")))
	must(t, err)
	if m.Class != NotationSignature || m.Subject != trust.SumOf(nil) || m.Artifact() != typeNotationSignature || len(m.Layers) != 1 {
		t.Errorf("got %+v", m)
	}
}

func FuzzParseManifest(f *testing.F) {
	of := trust.SumOf([]byte("subject"))
	for _, o := range []object{image("x"), simple("x"), referrer(typeSigstoreBundle, of, "x"), {"manifests": []any{descriptor("a/b", "x")}}} {
		f.Add(encode(f, o))
	}
	f.Add([]byte(`{"layers":[],"Layers":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := parseManifest(b)
		checkManifest(t, m)
		if m.Flaw() == "" {
			// What is accepted reads the same as a map, in which case counts.
			var v map[string]any
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatalf("accepted %q", b)
			}
			s, _ := v["subject"].(map[string]any)
			if d, _ := s["digest"].(string); (m.Subject != trust.Digest{}) != (s != nil) || s != nil && d != m.Subject.String() {
				t.Errorf("subject %s of %q", m.Subject, b)
			}
		}
	})
}
