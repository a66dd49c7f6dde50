package layout

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"trust-worker/trust"
)

// FuzzIndex resolves any index.json over one set of blobs, among them what an
// index could point to by mistake.
func FuzzIndex(f *testing.F) {
	r := newRepo(f, f.TempDir(), "app")
	a := r.push(image("a"), "1")
	r.push(simple("s"), sigTag(a))
	r.push(referrer(typeNotationSignature, a, "n"))
	r.push(r.indexOf(image("a"), simple("s")), "sha256-"+a.Hex(), "2")
	r.push(`{}`, "malformed")
	missing := r.push(image("missing"), "missing")
	must(f, os.Remove(r.path(missing)))
	seed, err := os.ReadFile(filepath.Join(r.dir, indexFile))
	must(f, err)
	f.Add(seed)
	f.Add([]byte(`{"manifests":[{"digest":"` + a.String() + `","size":-1},{},null]}`))
	f.Add([]byte(`{"manifests":[],"Manifests":[]}`))
	p := r.open(Limits{Index: 1 << 16})

	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return // readIndex refuses it
		}
		kinds := map[trust.Digest]Kind{}
		resolve := func() *Contents {
			r := newResolver(p, func(d trust.Digest) (Kind, bool) { k, ok := kinds[d]; return k, ok })
			err := p.content.(*imageLayout).descriptors(context.Background(), b, r.entry,
				func(d trust.Digest, reason trust.Reason, why string) { r.c.problem(d, reason, "%s", why) })
			if err == nil {
				err = r.resolve(context.Background())
			}
			if err != nil {
				reasonIn(t, err)
				return nil
			}
			checkContents(t, r.c)
			return r.c
		}
		first := resolve()
		if first == nil {
			return
		}
		kinds = first.Learned
		second := resolve()
		if len(second.Learned) != 0 || len(second.Images) != len(first.Images) || len(second.Signatures) != len(first.Signatures) || len(second.Problems) != len(first.Problems) {
			t.Errorf("known digests change the answer: %+v, then %+v", first, second)
		}
	})
}
