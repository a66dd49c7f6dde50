package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// schema is as much of JSON Schema as openapi.json uses.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Enum                 []string
	Pattern              string
	Items                *schema
	Properties           map[string]*schema
	Required             []string
	AdditionalProperties any
}

type document struct {
	Paths map[string]struct {
		Get struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema *schema }
			}
		}
	}
	Components struct{ Schemas map[string]*schema }
}

func (d *document) holds(s *schema, v any, at string) (wrong []string) {
	if s.Ref != "" {
		return d.holds(d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], v, at)
	}
	say := func(format string, args ...any) {
		wrong = append(wrong, at+": "+fmt.Sprintf(format, args...))
	}
	kind := map[bool]string{true: "null"}[v == nil]
	switch x := v.(type) {
	case string:
		kind = "string"
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, x) || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(x) {
			say("%q is not one of %v%s", x, s.Enum, s.Pattern)
		}
	case bool:
		kind = "boolean"
	case float64:
		kind = "integer"
	case []any:
		kind = "array"
		for i, e := range x {
			wrong = append(wrong, d.holds(s.Items, e, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		kind = "object"
		for _, name := range s.Required {
			if _, ok := x[name]; !ok {
				say("%s is missing", name)
			}
		}
		for name, e := range x {
			if p := s.Properties[name]; p != nil {
				wrong = append(wrong, d.holds(p, e, at+"."+name)...)
			} else if s.AdditionalProperties == false {
				say("%s is not described", name)
			}
		}
	}
	if !strings.Contains(fmt.Sprint(s.Type), kind) {
		say("is %s, not %v", kind, s.Type)
	}
	return wrong
}

// Every answer is what openapi.json says it is, and every path in it exists.
func TestOpenAPI(t *testing.T) {
	w := sample(t)
	var d document
	a := w.get(pathAPI + "/openapi.json")
	a.want(t, 200)
	check(t, json.Unmarshal([]byte(a.body), &d))
	app, unsigned := digestOf("team/app:latest"), digestOf("library/unsigned:dev")
	sig := digestOf("signature 1 of team/app:latest")
	attested := w.image("attested", "1", claim{tool: trust.Cosign, reason: trust.NoTrustedKey, predicate: "https://spdx.dev/Document"})
	seen := map[string]bool{pathAPI + "/events": true, pathAPI + "/events/zot": true, pathAPI + "/events/distribution": true, pathAPI + "/events/harbor": true, pathAPI + "/gatekeeper": true, pathAPI + "/preview": true, pathAPI + "/publication/{file}": true} // TestEvents, TestPublishedFiles, TestZotEvents, TestOtherRegistriesEvents, TestGatekeeper, TestPreview
	gone := w.d.TrustStore().InForce().Terms().Materials[0].Signer
	w.call("DELETE", pathCosign+"/"+gone.Fingerprint.String(), nil, "Authorization", "Bearer "+w.token()).want(t, 200)
	check(t, w.o.Look(t.Context()))
	w.put("_cosign/new.pub", signtest.NewKey(signtest.P256).PEM())
	check(t, w.o.Look(t.Context()))
	for _, c := range []struct {
		template, path string
		status         int
	}{
		{"/images", "/images", 200}, {"/images", "/images?state=unsigned&limit=1", 200}, {"/images", "/images?state=no", 400},
		{"/images", "/images?limit=0", 400}, {"/images", "/images?after=!", 400}, {"/images", "/images?repository=no", 404},
		{"/images/{name}", "/images/team/app:latest", 200}, {"/images/{name}", "/images/library/multi:1.0", 200},
		{"/images/{name}", "/images/team/app@" + app.String(), 200}, {"/images/{name}", "/images/team/app:no", 404}, {"/images/{name}", "/images/team/app", 400},
		{"/signatures/{name}", "/signatures/team/app@" + app.String() + "/" + sig.String(), 200},
		{"/signatures/{name}", "/signatures/team/app@" + app.String() + "/" + app.String(), 404}, {"/signatures/{name}", "/signatures/x", 400},
		{"/images", "/images?reason=signer-removed", 200}, {"/images", "/images?signer=1", 400},
		{"/publication", "/publication", 200}, {"/publication", "/publication?wait=soon", 400}, {"/publication", "/publication?nonce=%22", 400},
		{"/changes", "/changes", 200}, {"/changes", "/changes?limit=1", 200}, {"/changes", "/changes?after=" + w.generation(), 200},
		{"/changes", "/changes?after=0123456789abcdef-1", 200}, {"/changes", "/changes?after=x", 400},
		{"/history", "/history", 200}, {"/history", "/history?limit=1", 200}, {"/history", "/history?image=team/app:latest&since=24h", 200}, {"/history", "/history?signer=new.pub", 200},
		{"/history", "/history?signer=nobody.pub", 404}, {"/history", "/history?since=soon", 400}, {"/history", "/history?after=x", 400}, {"/history", "/history?images=x", 400},
		{"/signers", "/signers", 200}, {"/signers", "/signers?uses=true", 200}, {"/signers", "/signers?use=true", 400}, {"/refused", "/refused", 200}, {"/summary", "/summary", 200},
		{"/check/{name}", "/check/team/app@" + app.String(), 200}, {"/check/{name}", "/check/library/unsigned@" + unsigned.String(), 403},
		{"/check/{name}", "/check/library/bad@" + digestOf("library/bad:1").String(), 403},
		{"/images/{name}", "/images/attested:1", 200}, {"/images", "/images?predicate=https://spdx.dev/Document", 200},
		{"/check/{name}", "/check/attested@" + attested.String() + "?predicate=a&predicate=b", 403},
		{"/check/{name}", "/check/team/app@" + app.String() + "?predicate=https://spdx.dev/Document", 403},
		{"/check/{name}", "/check/team/app@" + unsigned.String(), 404}, {"/check/{name}", "/check/team/app:latest", 400},
	} {
		a := w.get(pathAPI + c.path)
		a.want(t, c.status)
		seen[pathAPI+c.template] = true
		r, ok := d.Paths[pathAPI+c.template].Get.Responses[fmt.Sprint(a.StatusCode)]
		if !ok {
			t.Errorf("%s: %d is not described", c.path, a.StatusCode)
			continue
		}
		var v any
		check(t, json.Unmarshal([]byte(a.body), &v))
		for _, wrong := range d.holds(r.Content["application/json"].Schema, v, c.path) {
			t.Error(wrong)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		if !seen[path] {
			t.Errorf("%s is described and not tried", path)
		}
	}
}

// The pages together are the list, whatever their size and filter.
func TestPagesTogetherAreTheList(t *testing.T) {
	w := start(t, nil)
	var want []string
	for r := range 4 {
		rows, tags := []store.Row{}, map[string]trust.Digest{}
		for i := range 5 {
			d := digestOf(fmt.Sprint(r, i))
			rows = append(rows, store.Row{Digest: d, MediaType: "m", Present: true, Tagged: true})
			tags[fmt.Sprint("t", i)] = d
			want = append(want, fmt.Sprintf("r%d:t%d", r, i))
		}
		w.commit(fmt.Sprint("r", r), tags, rows, nil)
	}
	for _, limit := range []int{1, 2, 3, 5, 7, 20, 100} {
		var got []string
		for after, turn := "", 0; turn < 30; turn++ {
			var p imagePage
			check(t, json.Unmarshal([]byte(w.get(fmt.Sprintf("%s/images?limit=%d&state=unsigned&after=%s", pathAPI, limit, after)).body), &p))
			for _, img := range p.Images {
				got = append(got, img.RepoName+":"+img.Tag)
			}
			if after = p.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	w.get(pathAPI+"/images?state=trusted").want(t, 200, `{"Images":[]}`)
}

// countingLists counts what a pager is given to look at.
type countingLists struct {
	lists
	visited int
}

func (c *countingLists) RepositoriesFrom(name string, fn func(string) error) error {
	return c.lists.RepositoriesFrom(name, func(n string) error { c.visited++; return fn(n) })
}

func (c *countingLists) TagsAfter(repo, tag string, fn func(string, trust.Digest) error) error {
	return c.lists.TagsAfter(repo, tag, func(t string, d trust.Digest) error { c.visited++; return fn(t, d) })
}

// The last page costs what the first one does, by what is visited for it; and
// many repositories without tags do not make a page cost more.
func TestPageCostsNoMoreThanItShows(t *testing.T) {
	w := start(t, nil)
	rows, tags := []store.Row{}, map[string]trust.Digest{}
	for i := range 1000 {
		d := digestOf(fmt.Sprint(i))
		rows = append(rows, store.Row{Digest: d, MediaType: "m", Present: true, Tagged: true})
		tags[fmt.Sprintf("t%04d", i)] = d
	}
	w.commit("a/one", tags, rows, nil)
	var empty []store.Batch
	for i := range scanPerPage + 500 {
		empty = append(empty, store.Batch{Place: fmt.Sprintf("b/%05d", i), SetTags: true, Complete: true})
	}
	_, err := w.d.store.Commit(empty...)
	check(t, err)
	w.commit("c/last", map[string]trust.Digest{"z": rows[0].Digest}, rows[:1], nil)
	snap := must[*cache.Snapshot](t)(w.reader.Snapshot())
	defer snap.Close()
	var visited, seen []int
	for after := (cursor{}); len(visited) < 30; {
		c := &countingLists{lists: snap}
		p := pager{snap: c, limit: 100, most: scanPerPage, names: scanPerPage, after: after}
		check(t, p.collect(""))
		visited, seen = append(visited, c.visited), append(seen, len(p.page.Images))
		if p.page.Next == "" {
			break
		}
		after = must[cursor](t)(parseCursor(p.page.Next))
	}
	total := 0
	for i, n := range seen[:10] {
		if total += n; n != 100 || visited[i] > 102 {
			t.Errorf("page %d has %d images, for which %d records were visited", i, n, visited[i])
		}
	}
	for i, n := range seen[10:] {
		if total += n; visited[10+i] > scanPerPage+2 {
			t.Errorf("page %d visited %d records", 10+i, visited[10+i])
		}
	}
	if total != 1001 || len(seen) != 12 {
		t.Errorf("%d images in pages of %v", total, seen)
	}
}

func TestImageFilters(t *testing.T) {
	w := sample(t)
	names := func(query string) (out []string) {
		t.Helper()
		var p imagePage
		a := w.get(pathAPI + "/images?" + query)
		a.want(t, 200)
		check(t, json.Unmarshal([]byte(a.body), &p))
		for _, img := range p.Images {
			out = append(out, img.RepoName+":"+img.Tag)
		}
		return out
	}
	var all imagePage
	check(t, json.Unmarshal([]byte(w.get(pathAPI+"/images").body), &all))
	reasons, signers := map[string][]string{}, map[string][]string{}
	for _, img := range all.Images {
		name := img.RepoName + ":" + img.Tag
		for _, s := range img.SignatureInfo {
			if r := string(s.Reason); r != "" && !slices.Contains(reasons[r], name) {
				reasons[r] = append(reasons[r], name)
			}
			if f := s.SignerFingerprint; f != (trust.Digest{}) && !slices.Contains(signers[f.String()], name) {
				signers[f.String()] = append(signers[f.String()], name)
			}
		}
	}
	if len(reasons) == 0 || len(signers) == 0 {
		t.Fatal("the sample has no reasons or no signers")
	}
	for r, want := range reasons {
		if got := names("reason=" + r); !slices.Equal(got, want) {
			t.Errorf("reason %s: %v, want %v", r, got, want)
		}
	}
	for f, want := range signers {
		if got := names("signer=" + f); !slices.Equal(got, want) {
			t.Errorf("signer %s: %v, want %v", f, got, want)
		}
	}
	if got := names("reason=none"); got != nil {
		t.Errorf("no such reason: %v", got)
	}
	w.get(pathAPI+"/images?signer=x").want(t, 400)
}

// Images with signatures that dates end soon are found, counted, and shown.
func TestExpiringSignatures(t *testing.T) {
	w := start(t, nil)
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/a.pub", key.PEM())
	until := func(d time.Duration) claim {
		c := byKey(key)
		c.until = time.Now().Add(d).Unix()
		return c
	}
	const day = 24 * time.Hour
	w.image("team/soon", "1", until(3*day))
	w.image("team/later", "1", until(20*day))
	w.image("team/over", "1", until(-day))
	w.image("team/never", "1", byKey(key))
	for query, want := range map[string]string{"168h": "team/soon", "720h": "team/later team/soon", "1h": ""} {
		var list struct{ Images []cache.Image }
		check(t, json.Unmarshal([]byte(w.get(pathAPI+"/images?expiring="+query).body), &list))
		var names []string
		for _, img := range list.Images {
			names = append(names, img.RepoName)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("within %s: %q, want %q", query, got, want)
		}
	}
	w.get(pathAPI+"/images?expiring=soon").want(t, 400, "give it as 168h")
	check(t, w.o.Look(t.Context()))
	metrics := w.get("/metrics").body
	for days, n := range map[int]int{0: 0, 1: 0, 7: 1, 30: 2} {
		if line := fmt.Sprintf(`trust_worker_signatures_expiring{days="%d"} %d`, days, n); !strings.Contains(metrics, line) {
			t.Errorf("no %s", line)
		}
	}
	w.get("/ui/").want(t, 200, "1 trusted signature expires", "expiring=168h")
	w.get("/ui/?expiring=168h").want(t, 200, "team/soon", "with a signature that expires within")
}

func TestETag(t *testing.T) {
	w := sample(t)
	a := w.get(pathAPI + "/images/team/app:latest")
	tag := a.Header.Get("ETag")
	if tag == "" || a.Header.Get(headerGeneration) != w.generation() {
		t.Errorf("ETag %q, generation %q", tag, a.Header.Get(headerGeneration))
	}
	w.call("GET", pathAPI+"/images/team/app:latest", nil, "If-None-Match", tag).want(t, http.StatusNotModified)
	w.image("other", "1")
	w.call("GET", pathAPI+"/images/team/app:latest", nil, "If-None-Match", tag).want(t, 200)
}

func TestSummary(t *testing.T) {
	w := sample(t)
	w.get(pathAPI+"/summary").want(t, 200, `"Repositories":4,"Images":5,`, `"trusted":2`, `"unsigned":2`, `"untrusted":1`)
	w.counting.Store(true)
	w.get(pathAPI+"/summary").want(t, 200, `"Repositories":4,"Counting":true,"Images":0,`, `"States":{}`)
}

// Without published answers the gate stays shut, and says why.
func TestGateWithoutCache(t *testing.T) {
	w := sample(t)
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	w.get(pathAPI+"/check/team/app@"+digestOf("team/app:latest").String()).want(t, 503, `"State":"unknown"`, `"Reason":"no-cache"`)
}

// What is not among the answers because its repository, or a directory above
// it, could not be listed is not known: a gate asks again, instead of taking it
// for an image that does not exist.
func TestUnlistedIsNotNotFound(t *testing.T) {
	w := sample(t)
	yes := true
	_, err := w.d.store.Commit(store.Batch{Place: "locked", Update: &store.PlaceUpdate{Unlisted: &yes}})
	check(t, err)
	check(t, w.d.store.Publish(t.Context()))
	d := digestOf("nothing").String()
	for _, repo := range []string{"locked", "locked/below"} {
		w.get(pathAPI+"/check/"+repo+"@"+d).want(t, 503, `"State":"unknown"`, `"Reason":"io-error"`)
		w.get(pathAPI+"/images/"+repo+"@"+d).want(t, 503, `"UNLISTED"`)
		w.get(pathAPI+"/images/"+repo+":1").want(t, 503, `"UNLISTED"`)
		w.get("/ui/image/"+repo+":1").want(t, 503, "could not be listed")
		w.get("/v2/_zot/ext/search?query="+url.QueryEscape(`{Image(image:"`+repo+`:1"){Tag}}`)).want(t, 200, "its repository could not be listed")
	}
	w.get(pathAPI+"/check/lock@"+d).want(t, 404)
}

// Before the first pass is over, and while storage cannot be listed, what is not
// in the cache may be in storage all the same; what is there is answered.
func TestPartialIsNotNotFound(t *testing.T) {
	w := sample(t)
	known := w.image("team/known", "1", byKey(signtest.NewKey(signtest.P256)))
	check(t, w.d.store.SetWhole(false))
	d := digestOf("nothing").String()
	w.get(pathAPI+"/check/team/app@"+d).want(t, 503, `"State":"pending"`, `"Reason":"new"`)
	w.get(pathAPI+"/check/other@"+d).want(t, 503, `"State":"pending"`)
	w.get(pathAPI+"/images/other:1").want(t, 503, "first pass over storage is not over")
	w.get(pathAPI+"/images?repository=other").want(t, 503)
	w.get("/ui/image/other:1").want(t, 503, "first pass over storage is not over")
	w.get("/v2/_zot/ext/search?query="+url.QueryEscape(`{Image(image:"other:1"){Tag}}`)).want(t, 200, "first pass over storage is not over")
	w.get(pathAPI+"/images/team/known@"+known.String()).want(t, 200, `"IsSigned":true`)
	check(t, w.d.store.SetWhole(true))
	w.get(pathAPI+"/check/other@"+d).want(t, 404)
}
