package scheduler

import (
	"reflect"
	"testing"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/layout"
	"trust-worker/trust"
)

// What is remembered of a manifest is all that package layout has found out.
func TestKindsAreRemembered(t *testing.T) {
	w := newWorld(t)
	w.scan()
	d, child := trust.SumOf([]byte("index")), trust.SumOf([]byte("child"))
	kind := layout.Kind{Class: layout.ImageIndex, MediaType: "m", Size: 7, Subject: trust.SumOf([]byte("subject")), Skipped: 3, Ambiguous: true,
		Children: []layout.Child{{Digest: child, MediaType: "c", Size: 9, Platform: "linux/arm64", Attestation: true, About: trust.SumOf([]byte("about")), Foreign: "sha512:00"}, {Digest: child}}}
	if v := reflect.ValueOf(kind); v.NumField() != 7 || v.Field(4).Index(0).NumField() != 7 {
		t.Fatal("a field is not tried here")
	}
	if _, err := w.store.Commit(store.Batch{Place: "app", Kinds: map[trust.Digest]store.Kind{d: cacheKind(kind)}}); err != nil {
		t.Fatal(err)
	}
	got, ok, err := w.store.Kind("app", d)
	if err != nil || !ok || !reflect.DeepEqual(layoutKind(got), kind) {
		t.Errorf("%+v, want %+v: %v %v", layoutKind(got), kind, ok, err)
	}
}

// What a repository lists is opened once, however often its index changes.
func TestWhatIsKnownIsNotOpenedAgain(t *testing.T) {
	w := newWorld(t)
	k := signtest.NewKey(signtest.P256)
	w.st.TrustKey("k.pub", k)
	img := w.st.Content("app", "1", "x")
	w.st.SignSimple(img, k, simple)
	if n := w.scan().Opened; n != 2 {
		t.Errorf("opened %d", n)
	}
	for _, tag := range []string{"2", "3", "4"} {
		w.st.Content("app", tag, tag)
		if n := w.scan().Opened; n != 1 {
			t.Errorf("tag %s is new: opened %d", tag, n)
		}
	}
	w.want(img, "trusted")
}
