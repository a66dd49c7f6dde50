package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

var update = flag.Bool("update", false, "write the golden files anew")

// ask sends a query as zot's client does, and returns the data.
func (w *world) ask(query string) *answer {
	w.t.Helper()
	return w.get(pathSearch + "?query=" + url.QueryEscape(query))
}

// sample is a world with every kind of answer.
func sample(t *testing.T) *world {
	w := start(t, nil)
	key := signtest.NewKey(signtest.P256)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	w.put("_cosign/team.pub", key.PEM())
	w.put("_notation/truststore/x509/ca/team/root.pem", signtest.CertPEM(root.Cert()))
	anchor := signtest.CertSigner("ca", "team", root.Cert())

	// As in zot's documentation: three cosign layers, two notation signatures.
	w.image("team/app", "latest",
		claim{tool: trust.Notation, signer: anchor, author: "CN=v4-test,O=Notary,L=Seattle,ST=WA,C=US", until: 1_700_000_000},
		claim{tool: trust.Cosign, signer: key.Signer(), verdict: 2},
		claim{tool: trust.Notation, signer: anchor, author: "CN=multipleSig,O=Notary,L=Seattle,ST=WA,C=US"})
	w.image("library/unsigned", "dev")
	w.image("library/bad", "1", claim{tool: trust.Cosign, reason: trust.SubjectMismatch})

	// An index with a signed and an unsigned child, and a tag of the child.
	index, amd, arm := digestOf("index"), digestOf("amd"), digestOf("arm")
	rows := []store.Row{
		{Digest: index, MediaType: "application/vnd.oci.image.index.v1+json", Present: true, Tagged: true, Children: []store.Child{
			{Digest: amd, Platform: "linux/amd64"}, {Digest: arm, Platform: "linux/arm64/v8"}}},
		{Digest: amd, MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Child: true, Tagged: true},
		{Digest: arm, MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Child: true},
	}
	facts := w.claims(&rows[1], "amd", []claim{byKey(key)})
	w.commit("library/multi", map[string]trust.Digest{"1.0": index, "1.0-amd64": amd}, rows, facts)
	return w
}

// The query and the answer of zot's documentation
// (pkg/extensions/README_imagetrust.md), in exactly that form.
func TestDocumentationExample(t *testing.T) {
	w := sample(t)
	a := w.ask(`{Image(image:"team/app:latest"){Manifests{Digest} IsSigned Tag SignatureInfo{Tool IsTrusted Author}}}`)
	a.want(t, http.StatusOK)
	pem, err := json.Marshal(w.d.TrustStore().InForce().Terms().Materials[0].Author)
	check(t, err)
	const untrusted = `{"Tool":"cosign","IsTrusted":false,"Author":""}`
	notation := []string{`{"Tool":"notation","IsTrusted":false,"Author":"CN=v4-test,O=Notary,L=Seattle,ST=WA,C=US"}`,
		`{"Tool":"notation","IsTrusted":true,"Author":"CN=multipleSig,O=Notary,L=Seattle,ST=WA,C=US"}`}
	// The two notation signatures come in the order of their digests.
	orders := []string{notation[0] + "," + notation[1], notation[1] + "," + notation[0]}
	form := `{"data":{"Image":{"Manifests":[{"Digest":%q}],"IsSigned":true,"Tag":"latest","SignatureInfo":[` +
		untrusted + "," + untrusted + `,{"Tool":"cosign","IsTrusted":true,"Author":` + string(pem) + `},%s]}}}`
	got := strings.TrimSpace(a.body)
	for _, order := range orders {
		if got == fmt.Sprintf(form, digestOf("team/app:latest").String(), order) {
			return
		}
	}
	t.Errorf("got %s", got)
}

// zotsQueries ask for every query, argument and field that zot's client
// (project-zot/zot 6d19b445fed1, pkg/cli/client) and its web interface
// (project-zot/zui fbbd3594232d, src/api.js) ask for.
var zotsQueries = map[string]string{
	"zli-image-list": `{ ImageList(repo: "library/multi", requestedPage: {sortBy: ALPHABETIC_ASC}) { Results {` + zliImage + `} } }`,
	"zli-image-all":  `{ ImageList(repo: "", requestedPage: {sortBy: UPDATE_TIME}) { Results { RepoName Tag } } }`,
	"zli-digest":     `{ ImageListForDigest(id: "` + trust.SumOf([]byte("amd")).String() + `", requestedPage: {sortBy: ALPHABETIC_DSC}) { Results {` + zliImage + `} } }`,
	"zli-digest-part": `{ ImageListForDigest(id: "` + trust.SumOf([]byte("arm")).Hex()[:12] + `") { Results { RepoName Tag Digest
		MediaType Manifests { Digest ConfigDigest Size Platform {Os Arch} IsSigned Layers {Size Digest} LastUpdated } LastUpdated Size IsSigned } } }`,
	"zli-derived":   `{ DerivedImageList(image: "a:b", requestedPage: {sortBy: RELEVANCE}) { Results {` + zliImage + `} } }`,
	"zli-base":      `{ BaseImageList(image: "a:b", requestedPage: {sortBy: RELEVANCE}) { Results {` + zliImage + `} } }`,
	"zli-referrers": `{ Referrers(repo: "library/multi", digest: "` + trust.SumOf([]byte("amd")).String() + `") { ArtifactType, Digest, MediaType, Size, Annotations { Key Value } } }`,
	"zli-search-repos": `{ GlobalSearch(query: "library", requestedPage: {sortBy: RELEVANCE}) {
		Images { RepoName Tag MediaType Digest Size IsSigned LastUpdated Manifests { Digest ConfigDigest Platform {Os Arch} Size IsSigned Layers {Size Digest} LastUpdated } }
		Repos { Name Platforms { Os Arch } LastUpdated Size DownloadCount StarCount } } }`,
	"zli-search-images": `{ GlobalSearch(query: "library/multi:1", requestedPage: {sortBy: RELEVANCE}) {
		Images { RepoName Tag Digest IsSigned } Repos { Name } } }`,
	"zli-cve-list": `{ CVEListForImage(image: "a:b", searchedCVE: "", requestedPage: {sortBy: SEVERITY}) { Tag
		CVEList { Id Title Severity Description PackageList {Name PackagePath InstalledVersion FixedVersion} }
		Summary { Count UnknownCount LowCount MediumCount HighCount CriticalCount MaxSeverity } } }`,
	"zli-cve-diff": `{ CVEDiffListForImages(minuend: {Repo: "a", Tag: "b", Digest: "", Platform: {Os: "linux", Arch: "amd64"}}, subtrahend: {Repo: "c", Tag: "d", Digest: ""}) {
		Minuend {Repo Tag Digest Platform {Os Arch}} Subtrahend {Repo Tag Digest Platform {Os Arch}}
		CVEList { Id Title Description Severity Reference PackageList {Name InstalledVersion FixedVersion} }
		Summary { Count UnknownCount LowCount MediumCount HighCount CriticalCount } Page {TotalCount ItemCount} } }`,
	"zli-cve-affected": `{ ImageListForCVE(id: "CVE-1", requestedPage: {sortBy: RELEVANCE}) { Results {` + zliImage + `} } }`,
	"zli-cve-fixed":    `{ ImageListWithCVEFixed(id: "CVE-1", image: "a") { Results {` + zliImage + `} } }`,

	"ui-repos": `{RepoListWithNewestImage(requestedPage: {limit:2 offset:1}){Results {Name LastUpdated Size Platforms {Os Arch}
		NewestImage { Tag Vulnerabilities {MaxSeverity Count} Description Licenses Title Source IsSigned SignatureInfo { Tool IsTrusted Author } Documentation Vendor Labels}
		IsStarred IsBookmarked StarCount DownloadCount}}}`,
	"ui-repo": `{ExpandedRepoInfo(repo:"library/multi"){Images {Manifests {Digest Platform {Os Arch} Size} Vulnerabilities {MaxSeverity Count} Tag LastUpdated Vendor IsDeletable }
		Summary {Name LastUpdated Size Platforms {Os Arch} Vendors IsStarred IsBookmarked NewestImage {RepoName IsSigned SignatureInfo { Tool IsTrusted Author }
		Vulnerabilities {MaxSeverity Count} Manifests {Digest} Tag Vendor Title Documentation DownloadCount Source Description Licenses}}}}`,
	"ui-image": `{Image(image: "library/multi:1.0"){RepoName IsSigned SignatureInfo { Tool IsTrusted Author } Vulnerabilities {MaxSeverity Count}
		Referrers {MediaType ArtifactType Size Digest Annotations{Key Value}} Tag TaggedTimestamp ArtifactType
		Manifests {ArtifactType Layers {Size Digest} History {Layer {Size Digest} HistoryDescription {CreatedBy EmptyLayer}} Digest ConfigDigest LastUpdated Size
		Platform {Os Arch} Referrers {MediaType ArtifactType Size Digest Annotations{Key Value}}} Vendor Licenses }}`,
	"ui-cve": `{CVEListForImage(image: "a:b", requestedPage: {limit:15 offset:0}, searchedCVE: "x", excludedCVE: "y", severity: "HIGH"){Tag Page {TotalCount ItemCount}
		CVEList {Id Title Description Severity Reference PackageList {Name PackagePath InstalledVersion FixedVersion}}
		Summary {Count UnknownCount LowCount MediumCount HighCount CriticalCount}}}`,
	"ui-cve-fixed": `{ImageListWithCVEFixed(id:"CVE-1", image:"a", requestedPage: {limit:3 offset:0},filter:{ Os:["linux"] Arch:""}) {Page {TotalCount ItemCount} Results {Tag}}}`,
	"ui-depends": `{BaseImageList(image: "a:b", requestedPage: {limit:15 offset:0}){Page {TotalCount ItemCount} Results { RepoName Tag Description
		Manifests {Digest Platform {Os Arch} Size} Vendor DownloadCount LastUpdated IsSigned SignatureInfo { Tool IsTrusted Author } Vulnerabilities {MaxSeverity Count}}}}`,
	"ui-dependents": `{DerivedImageList(image: "a:b", requestedPage: {limit:15 offset:0}){Page {TotalCount ItemCount} Results {RepoName Tag Description
		Manifests {Digest Platform {Os Arch} Size} Vendor DownloadCount LastUpdated IsSigned SignatureInfo { Tool IsTrusted Author } Vulnerabilities {MaxSeverity Count}}}}`,
	"ui-search": `{GlobalSearch(query:"", requestedPage: {limit:15 offset:0 sortBy: RELEVANCE} ,filter: { Os:["linux"] Arch:["arm64/v8","amd64"] HasToBeSigned: false}) {
		Page {TotalCount ItemCount} Repos {Name LastUpdated Size Platforms { Os Arch } IsStarred IsBookmarked
		NewestImage { Tag Vulnerabilities {MaxSeverity Count} Description IsSigned SignatureInfo { Tool IsTrusted Author } Licenses Vendor Labels } StarCount DownloadCount}}}`,
	"ui-search-signed":  `{GlobalSearch(query:"library", requestedPage: {limit:15 offset:0 sortBy: DOWNLOADS} ,filter: { HasToBeSigned: true}) {Page {TotalCount ItemCount} Repos {Name}}}`,
	"ui-search-starred": `{GlobalSearch(query:"", requestedPage: {limit:15 offset:0 sortBy: UPDATE_TIME} ,filter: { IsBookmarked: true IsStarred: true}) {Page {TotalCount ItemCount} Repos {Name}}}`,
	"ui-suggestions":    `{GlobalSearch(query:"team/app:l", requestedPage: {limit:15 offset:0 sortBy:RELEVANCE}) {Images {RepoName Tag}}}`,
	"ui-referrers":      `{Referrers(repo: "library/multi" digest: "` + trust.SumOf([]byte("amd")).String() + `" type: ""){MediaType ArtifactType Size Digest Annotations{Key Value}}}`,
	"ui-starred":        `{StarredRepos(requestedPage: {limit:2 offset:0}){Results {Name}} BookmarkedRepos{Results{Name}}}`,
}

const zliImage = ` RepoName Tag Digest MediaType Manifests { Digest ConfigDigest Size Platform {Os Arch} IsSigned Layers {Size Digest} LastUpdated } LastUpdated Size IsSigned `

func TestZotsQueries(t *testing.T) {
	w := sample(t)
	replace := strings.NewReplacer(mustJSON(t, w.d.TrustStore().InForce().Terms().Materials[0].Author), `"PEM"`)
	for name, query := range zotsQueries {
		t.Run(name, func(t *testing.T) {
			a := w.ask(query)
			a.want(t, http.StatusOK)
			var out bytes.Buffer
			check(t, json.Indent(&out, []byte(replace.Replace(a.body)), "", "  "))
			file := filepath.Join("testdata", "graphql", name+".json")
			if *update {
				check(t, os.MkdirAll(filepath.Dir(file), 0o755))
				check(t, os.WriteFile(file, out.Bytes(), 0o644))
			}
			want := must[[]byte](t)(os.ReadFile(file))
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
			// Of vulnerabilities nothing is known: zot's answer while its
			// scanner is off (pkg/extensions/search/schema.resolvers.go).
			about := strings.Contains(query, "CVE")
			if got := strings.Contains(a.body, `"errors"`); got != about || about && !strings.Contains(a.body, `"message":"cve search is disabled"`) {
				t.Errorf("errors: %t", got)
			}
			// The same by POST, as other clients send it.
			b := w.call("POST", pathSearch, []byte(`{"query":`+mustJSON(t, query)+`}`), "Content-Type", "application/json")
			if b.body != a.body {
				t.Errorf("by POST: %d %s", b.StatusCode, b.body)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	return string(must[[]byte](t)(json.Marshal(v)))
}

// What zot's client looks for before it uses a query: the extension list, the
// arguments in their order, the name of the type.
func TestDiscovery(t *testing.T) {
	w := start(t, nil)
	var list struct {
		Extensions []struct {
			Name      string
			Endpoints []string
		}
	}
	check(t, json.Unmarshal([]byte(w.get(pathDiscover).body), &list))
	if len(list.Extensions) != 1 || list.Extensions[0].Name != "_zot" || !strings.Contains(strings.Join(list.Extensions[0].Endpoints, " "), pathSearch) {
		t.Errorf("extensions: %+v", list)
	}
	a := w.ask(`{ __schema { queryType { fields { name args { name } type { name kind } } __typename } types { name fields { name } } } }`)
	a.want(t, http.StatusOK)
	var schema struct {
		Data struct {
			Schema struct {
				QueryType struct {
					Fields []struct {
						Name string
						Args []struct{ Name string }
					}
				}
				Types []struct{ Name string }
			} `json:"__schema"`
		}
	}
	check(t, json.Unmarshal([]byte(a.body), &schema))
	args := map[string]string{}
	for _, f := range schema.Data.Schema.QueryType.Fields {
		var names []string
		for _, arg := range f.Args {
			names = append(names, arg.Name)
		}
		args[f.Name] = strings.Join(names, " ")
	}
	for name, want := range map[string]string{ // pkg/cli/client/gql_queries.go of zot 6d19b445fed1
		"ImageList": "repo requestedPage", "ImageListForDigest": "id requestedPage", "BaseImageList": "image digest requestedPage",
		"DerivedImageList": "image digest requestedPage", "CVEListForImage": "image requestedPage searchedCVE excludedCVE severity",
		"ImageListForCVE": "id filter requestedPage", "ImageListWithCVEFixed": "id image filter requestedPage", "Referrers": "repo digest type",
		"GlobalSearch": "query filter requestedPage", "CVEDiffListForImages": "minuend subtrahend requestedPage searchedCVE excludedCVE",
	} {
		if args[name] != want {
			t.Errorf("%s(%s), want (%s)", name, args[name], want)
		}
	}
	types := map[string]bool{}
	for _, x := range schema.Data.Schema.Types {
		types[x.Name] = true
	}
	for _, name := range []string{"CVEResultForImage", "CVEDiffResult", "PaginatedImagesResult", "Referrer", "GlobalSearchResult"} {
		if !types[name] {
			t.Errorf("type %s is not there", name)
		}
	}
}

// Queries that would cost too much, or cannot be understood.
func TestQueriesRefused(t *testing.T) {
	w := sample(t)
	bomb := "{...a0}"
	for i := range 40 {
		bomb += fmt.Sprintf(" fragment a%d on Query {...a%d ...a%d}", i, i+1, i+1)
	}
	bomb += " fragment a40 on Query {TrustPublication{Stale}}"
	var aliases strings.Builder
	for i := range 100 {
		fmt.Fprintf(&aliases, `a%d: ImageList(repo:""){Results{Tag}} `, i)
	}
	for _, c := range map[string]struct {
		query, says string
		status      int
	}{
		"fragment bomb":  {bomb, "fields", 422},
		"aliases":        {"{" + aliases.String() + "}", "complexity", 422},
		"schema cycle":   {`{__schema{types{fields{type{fields{type{fields{name}}}}}}}}`, "introspection", 422},
		"fragment cycle": {`{...a} fragment a on Query {...b} fragment b on Query {...a}`, "", 422},
		"no such field":  {`{Image(image:"a:b"){Nope}}`, "Nope", 422},
		"mutation":       {`mutation {x}`, "", 422},
		"syntax":         {`{`, "", 422},
		"long":           {"{" + strings.Repeat("x ", 2500) + "}", "token", 422},
		"not found":      {`{Image(image:"team/app:none"){Tag}}`, "not in the cache", 200},
		"no name":        {`{Image(image:"team"){Tag}}`, "repository:tag", 200},
		"bad page":       {`{ImageList(repo:"", requestedPage:{limit:-1}){Results{Tag}}}`, "negative", 200},
		"no repository":  {`{ExpandedRepoInfo(repo:"nope"){Images{Tag}}}`, "not in the cache", 200},
	} {
		a := w.ask(c.query)
		a.want(t, c.status, `"errors"`, c.says)
	}
	w.get(pathSearch).want(t, 400)
	w.call("POST", pathSearch, []byte(`{}`), "Content-Type", "application/json").want(t, 400)
	w.call("POST", pathSearch, []byte(`{"query":"{TrustPublication{Stale}}"}`), "Content-Type", "text/plain").want(t, 415)
	w.call("POST", pathSearch, make([]byte, 65<<10), "Content-Type", "application/json").want(t, 413)
	w.call("POST", pathSearch, []byte(`{"query":"{TrustPublication{Stale}}"}`), "Content-Type", "application/json", "Origin", "http://evil.example").want(t, 403)
}

// A list that does not fit is an error, never a shorter list.
func TestSearchBounds(t *testing.T) {
	w := start(t, func(c *Config) { c.Limits.MaxPage, c.Limits.MaxScan = 2, 8 })
	for _, tag := range []string{"a", "b", "c"} {
		w.image("repo-"+tag, "1")
	}
	w.ask(`{ImageList(repo:""){Results{Tag}}}`).want(t, 200, "more than 2 images")
	w.ask(`{ImageList(repo:"",requestedPage:{limit:2}){Page{TotalCount ItemCount} Results{RepoName}}}`).want(t, 200,
		`{"Page":{"TotalCount":3,"ItemCount":2},"Results":[{"RepoName":"repo-a"},{"RepoName":"repo-b"}]}`)
	w.image("repo-d", "1")
	w.image("repo-e", "1")
	w.ask(`{ImageList(repo:"",requestedPage:{limit:1}){Results{Tag}}}`).want(t, 200, "more than 8 records")
}

// Variables, our own types, and a standard introspection.
func TestOwnQueries(t *testing.T) {
	w := sample(t)
	body := `{"operationName":"q","query":"query q($i: String!) {TrustImage(image: $i) {RepoName State Generation Signatures {Tool Status Reason Layer Format SignerFingerprint ValidUntil}}}","variables":{"i":"library/bad:1"}}`
	w.call("POST", pathSearch, []byte(body), "Content-Type", "application/json").want(t, 200,
		`"State":"untrusted"`, `"Reason":"subject-mismatch"`, w.generation())
	w.ask(`{TrustPublication{Generation Stale AsOf}}`).want(t, 200, `"Stale":false`)
	w.ask(`query I {__schema{queryType{name} types{kind name fields(includeDeprecated:true){name args{name type{kind name ofType{kind name ofType{kind name ofType{kind name}}}} defaultValue}
		type{kind name ofType{kind name ofType{kind name ofType{kind name}}}}} inputFields{name} enumValues{name} possibleTypes{name}} directives{name locations args{name}}}}`).want(t, 200, "ImageSummary")
}

// Withdrawn answers are an error, not an empty list.
func TestSearchWithoutCache(t *testing.T) {
	w := sample(t)
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	w.ask(`{ImageList(repo:""){Results{Tag}}}`).want(t, http.StatusServiceUnavailable, codeNoCache)
}

// A filter on what is not known of an image hides none: only children of an index say
// what they are for.
func TestSearchFilters(t *testing.T) {
	w := sample(t)
	found := func(query, filter string) string {
		var got struct {
			Data struct {
				GlobalSearch struct {
					Images []struct{ Tag string }
					Repos  []struct{ Name string }
				}
			}
		}
		check(t, json.Unmarshal([]byte(w.ask(`{GlobalSearch(query:"`+query+`", filter:{`+filter+`}){Images{Tag} Repos{Name}}}`).body), &got))
		var names []string
		for _, img := range got.Data.GlobalSearch.Images {
			names = append(names, img.Tag)
		}
		for _, repo := range got.Data.GlobalSearch.Repos {
			names = append(names, repo.Name)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	all := found("", "")
	if !strings.Contains(all, "library/multi") || !strings.Contains(all, "team/app") {
		t.Fatalf("found %s", all)
	}
	for _, filter := range []string{`Os:["linux"]`, `Os:["windows"]`, `Os:["Linux"], Arch:["arm64/v8"]`} {
		if got := found("", filter); got != all {
			t.Errorf("%s: %s, want %s", filter, got, all)
		}
	}
	for filter, want := range map[string]string{`Os:["linux"]`: "1.0 1.0-amd64", `Os:["windows"]`: "1.0-amd64", `Arch:["s390x"]`: "1.0-amd64"} {
		if got := found("library/multi:", filter); got != want {
			t.Errorf("%s: %s, want %s", filter, got, want)
		}
	}
}
