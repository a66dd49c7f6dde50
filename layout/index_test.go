package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"trust-worker/trust"
)

func TestIndexAsAWhole(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	a := r.push(image("a"), "1")
	entry := string(encode(t, r.list[0]))
	ok := []string{
		`{}`, `{"manifests":null}`, `{"manifests":[]}`, "{\"x\":[{\"manifests\":1}],\"manifests\":[" + entry + "]}\n",
		`{"manifests":[` + entry + `,1,null,"x",[],{}]}`,
	}
	for _, text := range ok {
		r.write([]byte(text))
		if c := r.contents(); strings.Contains(text, entry) != (c.Tags["1"] == a) {
			t.Errorf("%s: tags %v", text, c.Tags)
		}
	}
	bad := map[string]trust.Reason{
		``: trust.Malformed, `{`: trust.Malformed, `[]`: trust.Malformed, `null`: trust.Malformed, `{}{}`: trust.Malformed,
		`{"manifests":{}}`:                            trust.Malformed,
		`{"manifests":[` + entry:                      trust.Malformed,
		`{"manifests":[],"manifests":[]}`:             trust.Ambiguous,
		`{"manifests":[],"Manifests":[]}`:             trust.Ambiguous,
		`{"Manifests":[]}`:                            trust.Ambiguous,
		`{"manifests":` + strings.Repeat("[", 20_000): trust.Malformed,
		strings.Repeat("\x00", 4096):                  trust.Malformed,
	}
	for text, want := range bad {
		r.write([]byte(text))
		c, err := r.open(Limits{}).Contents(context.Background(), nil)
		if c != nil || reasonIn(t, err) != want {
			t.Errorf("%.50q: %v, %v; want %s", text, c, err, want)
		}
	}
	must(t, os.Remove(filepath.Join(r.dir, indexFile)))
	if _, err := r.open(Limits{}).Contents(context.Background(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// Descriptors that cannot be used are listed, and cost nobody else (Z9, S9).
func TestBadDescriptors(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	good := r.push(image("good"), "good")
	base := r.describe(image("good"), "bad")
	hex := good.Hex()
	for name, d := range map[string]any{
		"climbing":      with(base, object{"digest": "sha256:../../_cosign/x"}),
		"empty hex":     with(base, object{"digest": "sha256:"}),
		"capitals":      with(base, object{"digest": "sha256:" + strings.ToUpper(hex)}),
		"no algorithm":  with(base, object{"digest": ":" + hex}),
		"too long":      with(base, object{"digest": "sha512:" + strings.Repeat("a", 1000)}),
		"with a path":   with(base, object{"digest": "sha256:" + hex + "/../x"}),
		"NUL":           with(base, object{"digest": "sha256:" + hex[:63] + "\x00"}),
		"1 MiB":         with(base, object{"digest": "sha256:" + strings.Repeat("a", 1<<20)}),
		"none":          with(base, object{"digest": nil}),
		"a number":      with(base, object{"digest": 1}),
		"negative":      with(base, object{"size": -1}),
		"size a string": with(base, object{"size": "1"}),
		"media type":    with(base, object{"mediaType": strings.Repeat("x", 300)}),
		"annotations":   with(base, object{"annotations": object{ocispec.AnnotationRefName: 1}}),
		"tag too long":  with(base, object{"annotations": object{ocispec.AnnotationRefName: strings.Repeat("a", 1<<20)}}),
		"tag climbing":  with(base, object{"annotations": object{ocispec.AnnotationRefName: "../x"}}),
		"twice":         []byte(`{"digest":"` + good.String() + `","digest":"` + good.String() + `"}`),
		"Digest":        []byte(`{"Digest":"` + good.String() + `"}`),
		"two tags":      []byte(`{"digest":"` + good.String() + `","annotations":{"` + ocispec.AnnotationRefName + `":"a","` + ocispec.AnnotationRefName + `":"b"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			r.write([]byte(`{"manifests":[` + string(encode(t, d)) + "," + string(encode(t, r.list[0])) + "]}"))
			c := r.contents()
			if len(c.Problems) != 1 || len(c.Tags) != 1 || c.Tags["good"] != good || c.Opened != 1 || c.Incomplete {
				t.Errorf("tags %v, problems %v", c.Tags, c.Problems)
			}
		})
	}
}

// What another digest algorithm names is listed, as what is not judged, and nothing of
// it is read: not under its name, and not under the one that stands for it.
func TestForeignDigests(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	good := r.push(image("good"), "good")
	base := r.describe(image("good"), "")
	foreign := "sha512:" + good.Hex() + good.Hex()
	stands, ok := trust.ForeignDigest(foreign)
	if !ok {
		t.Fatal(foreign)
	}
	child := r.push(object{"schemaVersion": 2, "manifests": []any{with(base, object{"digest": "foo:" + good.Hex()}), r.list[0]}}, "index")
	r.push(object{"schemaVersion": 2, "manifests": []any{with(base, object{"digest": stands.String()})}}, "hostile") // names what only stands for it
	r.push(referrer(typeNotationSignature, stands, "x"), "")                                                         // somebody signs the stand-in
	list := append([]any{with(base, object{"digest": foreign, "annotations": object{ocispec.AnnotationRefName: "bad"}}),
		with(base, object{"digest": "sha384:" + good.Hex()})}, r.list...)
	r.write(encode(t, object{"manifests": list}))
	c := r.contents()
	bad := c.Images[stands]
	if bad == nil || bad.Foreign != foreign || bad.Untagged || bad.Unreadable != trust.UnsupportedDigest || c.Tags["bad"] != stands {
		t.Errorf("%+v, tags %v", bad, c.Tags)
	}
	kids := c.Images[child].Children
	if len(kids) != 2 || kids[0].Foreign != "foo:"+good.Hex() || c.Images[kids[0].Digest] == nil || c.Images[kids[0].Digest].Unreadable != trust.UnsupportedDigest {
		t.Errorf("children %+v", kids)
	}
	if c.Foreign() != 3 || c.Incomplete || len(c.Others) != 0 || c.Images[good].Unreadable != "" {
		t.Errorf("%d foreign, others %v, problems %v", c.Foreign(), c.Others, c.Problems)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.write([]byte(`{"manifests":[` + strings.Repeat(`{},`, 5*MaxProblems) + `{}]}`))
	if c := r.contents(); len(c.Problems) != MaxProblems || c.Omitted != 4*MaxProblems+1 {
		t.Errorf("%d problems, %d omitted", len(c.Problems), c.Omitted)
	}
}

// An index.json that is being rewritten is read whole or not at all, and the
// stamp is that of what was read.
func TestIndexUnderWriters(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	tags := map[int64]int{} // by size of index.json
	var texts [][]byte
	for i := range 2 {
		r.list = nil
		for j := range 50 * (i + 1) {
			r.list = append(r.list, r.describe(image(fmt.Sprint(j)), fmt.Sprint(j)))
		}
		texts = append(texts, encode(t, object{"manifests": r.list}))
		tags[int64(len(texts[i]))] = len(r.list)
	}
	r.write(texts[0])
	during(t, func(i int) error {
		path := filepath.Join(r.dir, indexFile)
		if i%4 < 2 { // in place, as no registry should
			return os.WriteFile(path, texts[i%2], 0o644)
		}
		return errors.Join(os.WriteFile(path+"~", texts[i%2], 0o644), os.Rename(path+"~", path))
	}, func() {
		p := r.open(Limits{})
		for range 20 {
			c, err := p.Contents(context.Background(), func(trust.Digest) (Kind, bool) { return Kind{Class: ImageManifest}, true })
			if err != nil {
				if reason := reasonIn(t, err); reason != trust.IOError && reason != trust.Malformed {
					t.Errorf("error %v", err)
				}
				continue
			}
			if n := len(c.Tags); n != 50 && n != 100 || c.Stamp != (Stamp{}) && n != tags[c.Stamp.Size] {
				t.Errorf("%d tags, stamp %v", n, c.Stamp)
			}
		}
	})
}

// While index.json is too young for its stamp to mean anything, it has none.
func TestUnsettledIndexHasNoStamp(t *testing.T) {
	r := newRepo(t, t.TempDir(), "app")
	r.push(image("a"), "1")
	p := r.open(Limits{})
	changed, err := p.root.Stamp("app", time.Time{})
	must(t, err)
	for age, settled := range map[time.Duration]bool{
		0: false, settle - 1: false, -settle: false, // the clocks of files and of programs differ by a tick
		settle: true, time.Hour: true, -settle - 1: true, -time.Hour: true,
	} {
		reads := 0
		p.root.now = func() time.Time { reads++; return time.Unix(0, changed.Ctime).Add(age) }
		c, err := p.Contents(context.Background(), nil)
		must(t, err)
		want, wantReads := Stamp{}, attempts
		if settled {
			want, wantReads = changed, 1
		}
		if c.Stamp != want || reads != wantReads || len(c.Tags) != 1 {
			t.Errorf("at age %v: stamp %v after %d reads, want %v after %d", age, c.Stamp, reads, want, wantReads)
		}
	}
}

// during runs f while disturb is called over and over.
func during(t *testing.T, disturb func(i int) error, f func()) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := disturb(i); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	f()
}
