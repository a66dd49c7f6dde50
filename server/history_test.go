package server

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"trust-worker/changes"
	"trust-worker/internal/signtest"
)

// When an image ceased to be trusted, and why, is told later: in pages, of an image, of a
// signer, and when neither is there any more.
func TestHistory(t *testing.T) {
	w := start(t, nil)
	check(t, w.o.Look(t.Context()))
	a, b := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.put("_cosign/a.pub", a.PEM())
	w.put("_cosign/b.pub", b.PEM())
	look := func() { t.Helper(); check(t, w.o.Look(t.Context())) }
	look()
	one := w.image("team/one", "1", byKey(a))
	look()
	w.image("team/two", "1", byKey(b))
	look()
	check(t, os.Remove(filepath.Join(w.root, "_cosign/a.pub")))
	check(t, w.d.ReloadNow(t.Context()))
	look()
	kinds := func(query string) (list []string) {
		t.Helper()
		for after, turn := "", 0; turn < 100; turn++ {
			var page historyPage
			resp := w.get(pathAPI + "/history?limit=2&after=" + url.QueryEscape(after) + "&" + query)
			resp.want(t, 200)
			check(t, json.Unmarshal([]byte(resp.body), &page))
			for _, c := range page.Changes {
				list = append(list, string(c.Kind)+" "+c.Repository)
			}
			if after = page.Next; after == "" {
				return list
			}
		}
		t.Fatal("the pages do not end")
		return nil
	}
	const lost, trusted, added, removed = "signature-lost ", "signature-trusted ", "signer-added ", "signer-removed "
	ofOne := []string{added, trusted + "team/one", removed, lost + "team/one"}
	for query, want := range map[string][]string{
		"": {added, added, trusted + "team/one", trusted + "team/two", removed, lost + "team/one"}, "since=1h": {added, added, trusted + "team/one", trusted + "team/two", removed, lost + "team/one"},
		"since=2999-01-01": nil, "image=team/one:1": ofOne, "image=team/one@" + one.String(): ofOne,
		"image=team/one": {trusted + "team/one", lost + "team/one"}, "image=team/two:1": {added, trusted + "team/two"},
		"signer=a.pub": ofOne, "signer=" + a.Fingerprint().String(): ofOne, "signer=" + a.Fingerprint().Hex(): ofOne,
		"signer=_cosign/b.pub": {added, trusted + "team/two"}, "image=gone:1": nil,
	} {
		if got := kinds(query); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	var page historyPage
	check(t, json.Unmarshal([]byte(w.get(pathAPI+"/history?image=team/one:1").body), &page))
	last := page.Changes[len(page.Changes)-1]
	if last.Reason != "signer-removed" || last.Was != "trusted" || last.State != "untrusted" || last.Link == "" {
		t.Errorf("%+v", last)
	}
	if last.Kind != changes.SignatureLost {
		t.Errorf("%+v", last)
	}
}
