package cache_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// manyLayers is an image in repository "r" with one signature of many layers, of which
// those in good are by keyA, and the rest by nobody.
func manyLayers(s *writer, layers int, good ...int) (store.Batch, trust.Digest) {
	d := trust.SumOf([]byte(fmt.Sprint(layers, good)))
	f := signedBy(keyA)
	one := f.Verdicts[0]
	f.Subject, f.Verdicts, f.Trust = d, nil, s.TrustGeneration()
	for n := range layers {
		v := one
		if !slices.Contains(good, n) {
			v.Grounds, v.Reason = nil, trust.NoTrustedKey
		}
		v.Layer = trust.LayerID{byte(n), byte(n >> 8), byte(n >> 16), 1}
		f.Verdicts = append(f.Verdicts, v)
	}
	b := world(f)
	b.Place, b.Rows[0].Digest, b.Complete = "r", d, false
	return b, d
}

// Answers are bounded in bytes, and what is left out counts: the state is that of all
// signatures, and one that is trusted is crowded out by none that is not.
func TestAnswersAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	const layers = 20_000
	last, digest := manyLayers(s, layers, layers-1)
	none, other := manyLayers(s, layers)
	mustCommit(t, s, last)
	mustCommit(t, s, none)
	// An index that lists them over and over.
	index := store.Row{Digest: trust.SumOf([]byte("index")), Present: true, MediaType: "application/vnd.oci.image.index.v1+json"}
	for n := range 2000 {
		index.Children = append(index.Children, store.Child{Digest: []trust.Digest{digest, other}[n%2], Platform: fmt.Sprint("os/", n)})
	}
	mustCommit(t, s, store.Batch{Place: "r", Rows: []store.Row{index}})
	publish(t, s)
	snap := snapshot(t, openReader(t, dir))
	bounded := func(img *cache.Image) {
		t.Helper()
		b, err := json.Marshal(img)
		if err != nil || len(b) > img.Size() || img.Size() > 4*cache.MaxAnswer {
			t.Errorf("%d bytes, estimated as %d: %v", len(b), img.Size(), err)
		}
	}
	img, err := snap.Image("r", digest)
	if err != nil {
		t.Fatal(err)
	}
	bounded(&img)
	statuses := img.Statuses()
	if img.State() != "trusted" || img.Reason() != "" || !img.Has(trust.NoTrustedKey) || statuses[trust.Trusted] != 1 || statuses[trust.Untrusted] != layers-1 ||
		len(img.SignatureInfo)+img.SignaturesOmitted != layers || img.SignaturesOmitted == 0 {
		t.Errorf("%s (%s), %v, %d listed, %d omitted", img.State(), img.Reason(), statuses, len(img.SignatureInfo), img.SignaturesOmitted)
	}
	if n := len(img.SignatureInfo); !img.SignatureInfo[n-1].IsTrusted || img.SignatureInfo[n-1].Layer != layers-1 {
		t.Error("the signature that is trusted is left out")
	}
	if img, err = snap.Image("r", other); err != nil || img.State() != "untrusted" || img.Reason() != trust.NoTrustedKey || !img.IsSigned {
		t.Errorf("%s (%s): %v", img.State(), img.Reason(), err)
	}
	bounded(&img)
	if img, err = snap.Image("r", index.Digest); err != nil || len(img.Manifests) != 2000 {
		t.Fatal(err)
	}
	bounded(&img)
	for n := range img.Manifests {
		if m := &img.Manifests[n]; !m.IsSigned || m.State() != []string{"trusted", "untrusted"}[n%2] || m.Platform != fmt.Sprint("os/", n) {
			t.Fatalf("child %d: signed %v, %s, %s", n, m.IsSigned, m.State(), m.Platform)
		}
	}
	sigs, err := snap.Signature("r", digest, signature)
	if err != nil || !sigs[len(sigs)-1].IsTrusted {
		t.Errorf("%d answers: %v", len(sigs), err)
	}
	if b, err := json.Marshal(cache.Image{}); err != nil || strings.Contains(string(b), "Omitted") {
		t.Errorf("an image with nothing left out says so: %s", b)
	}
}

// An image with many signatures is read once for all its tags, and each tag still has
// its own entry.
func TestTagsOfHeavyImages(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, store.Options{})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	good, a := manyLayers(s, 200, 199)
	bad, b := manyLayers(s, 201)
	bad.SetTags, bad.Tags = true, map[string]trust.Digest{"1": a, "2": b, "3": a, "4": b, "5": a}
	mustCommit(t, s, good)
	mustCommit(t, s, bad)
	publish(t, s)
	snap := snapshot(t, openReader(t, dir))
	var tags []string
	err := snap.Images("r", func(img cache.Image) error {
		if img.Tag == "" {
			return nil
		}
		tags = append(tags, img.Tag)
		want, err := snap.Tag("r", img.Tag)
		if err != nil || !reflect.DeepEqual(img, want) {
			t.Errorf("%s is %s %s, want %s %s (%v)", img.Tag, img.Digest, img.State(), want.Digest, want.State(), err)
		}
		return nil
	})
	if err != nil || !slices.Equal(tags, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("tags %q: %v", tags, err)
	}
}
