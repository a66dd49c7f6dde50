package server

import (
	"fmt"
	"html"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/scheduler"
	"trust-worker/server/page"
	"trust-worker/trust"
)

// registry is a world whose images have every state, with what an operator would
// see: a spare key, a refused file, a certificate that ends soon.
func registry(t *testing.T, edit func(*Config)) (w *world, spare *signtest.Key) {
	t.Helper()
	w = start(t, edit)
	now := time.Now()
	team := signtest.NewKey(signtest.P256)
	spare = signtest.NewKey(signtest.P384)
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Example Root CA", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(8, 0, 0)})
	old := signtest.NewRoot(signtest.CertOptions{CommonName: "Example Root CA 2016", NotBefore: now.AddDate(-10, 0, 0), NotAfter: now.AddDate(0, 0, 12).Add(time.Hour)})
	w.put("_cosign/team.pub", team.PEM())
	w.put("_cosign/release.pub.txt", []byte("not a key\n"))
	w.put("_notation/truststore/x509/ca/example/root.pem", signtest.CertPEM(root.Cert()))
	w.put("_notation/truststore/x509/ca/example/root-2016.pem", signtest.CertPEM(old.Cert()))
	anchor := signtest.CertSigner("ca", "example", root.Cert())
	release := claim{tool: trust.Notation, signer: anchor, author: "CN=Release Engineering,O=Example,C=NO"}
	lapsed := release
	lapsed.until = now.AddDate(0, -1, 0).Unix()

	w.images("library/web", map[string][]claim{"1.0": {byKey(team)}, "1.1": {byKey(team), release}, "2.0-rc1": {{tool: trust.Cosign, reason: trust.SubjectMismatch}}})
	w.images("library/db", map[string][]claim{"15": {lapsed}, "16": {release}})
	w.images("platform/payments/settlement-service", map[string][]claim{"2026.11.3": {byKey(spare)}, "2026.11.2": {byKey(team)}})
	w.images("tools/builder", map[string][]claim{"dev": nil, "stable": {{tool: trust.Notation, reason: trust.IdentityNotTrusted}}})

	// An index whose children are signed, each for itself.
	index, amd, arm := digestOf("index"), digestOf("amd"), digestOf("arm")
	rows := []store.Row{
		{Digest: index, MediaType: "application/vnd.oci.image.index.v1+json", Present: true, Tagged: true, Children: []store.Child{
			{Digest: amd, Platform: "linux/amd64"}, {Digest: arm, Platform: "linux/arm64/v8"}}},
		{Digest: amd, MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Child: true},
		{Digest: arm, MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Child: true},
		{Digest: digestOf("alone"), MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true},
	}
	facts := append(w.claims(&rows[0], "index", []claim{byKey(team)}), w.claims(&rows[1], "amd", []claim{byKey(team)})...)
	facts = append(facts, w.claims(&rows[3], "alone", []claim{{tool: trust.Cosign, reason: trust.NoTrustedRoot}})...)
	w.commit("library/multi", map[string]trust.Digest{"3": index}, rows, facts)
	// One that could not be listed lately, and one that nobody has looked at yet.
	unlisted := true
	w.images("legacy/reports", map[string][]claim{"2019": {byKey(team)}})
	_, err := w.d.store.Commit(store.Batch{Place: "legacy/reports", Update: &store.PlaceUpdate{Unlisted: &unlisted}})
	check(t, err)
	row := store.Row{Digest: digestOf("just pushed"), MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true, Tagged: true}
	w.claims(&row, "just pushed", []claim{byKey(team)})
	w.d.status.Store(&scheduler.Status{FirstPass: true, LastPass: now, PassTook: 3 * time.Millisecond, Repositories: 7, Work: scheduler.Work{Verified: 14}})
	w.commit("library/cache", map[string]trust.Digest{"8": row.Digest}, []store.Row{row}, nil)
	return w, spare
}

// images commits a repository of several tags.
func (w *world) images(repo string, tags map[string][]claim) {
	w.t.Helper()
	var rows []store.Row
	var facts []store.Fact
	names := map[string]trust.Digest{}
	for tag, claims := range tags {
		row := store.Row{Digest: digestOf(repo + ":" + tag), MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 100, Present: true, Tagged: true}
		facts = append(facts, w.claims(&row, repo+":"+tag, claims)...)
		rows = append(rows, row)
		names[tag] = row.Digest
	}
	w.commit(repo, names, rows, facts)
}

// rows are the images of a list page, as "name state".
func rows(a *answer) (out []string) {
	row := regexp.MustCompile(`(?s)<tr data-key="([^"]*)@sha256:[0-9a-f]{64}" data-state="([a-z]+)">`)
	for _, m := range row.FindAllStringSubmatch(a.body, -1) {
		out = append(out, html.UnescapeString(m[1])+" "+m[2])
	}
	return out
}

func TestStatusPage(t *testing.T) {
	w, spare := registry(t, nil)
	a := w.get("/ui/")
	a.want(t, 200, "Up to date", "1 key and 2 certificates in force", "_cosign/release.pub.txt</span> <strong>refused</strong>", "expires in 12 days",
		"Release Engineering", "_cosign/team.pub", "subject mismatch", "index of 2")
	want := []string{"legacy/reports:2019 unknown", "library/cache:8 pending", "library/db:15 expired", "library/db:16 trusted", "library/multi:3 trusted",
		"library/multi: untrusted", "library/web:1.0 trusted", "library/web:1.1 trusted", "library/web:2.0-rc1 untrusted",
		"platform/payments/settlement-service:2026.11.2 trusted", "platform/payments/settlement-service:2026.11.3 untrusted",
		"tools/builder:dev unsigned", "tools/builder:stable untrusted"}
	if got := rows(a); !slices.Equal(got, want) {
		t.Errorf("rows are %q\nwant %q", got, want)
	}
	for state, n := range map[string]int{"trusted": 5, "untrusted": 4, "expired": 1, "unsigned": 1, "unknown": 1, "pending": 1} {
		if !regexp.MustCompile(fmt.Sprintf(`href="/ui/\?state=%s"><span class="n">%d</span>`, state, n)).MatchString(a.body) {
			t.Errorf("%s is not counted as %d", state, n)
		}
		if got := rows(w.get("/ui/?state=" + state)); len(got) != n || strings.Count(strings.Join(got, "\n"), " "+state) != n {
			t.Errorf("%s: %q", state, got)
		}
	}

	// The spare key is dropped in: what it signed is trusted.
	w.put("_cosign/spare.pub", spare.PEM())
	if got := rows(w.get("/ui/?q=settlement&state=trusted")); len(got) != 2 {
		t.Errorf("with the spare key: %q", got)
	}
}

func TestStatusPageSearch(t *testing.T) {
	w, _ := registry(t, nil)
	digest := digestOf("alone").Hex()
	for query, want := range map[string][]string{
		"?q=PAYMENTS": {"platform/payments/settlement-service:2026.11.2 trusted", "platform/payments/settlement-service:2026.11.3 untrusted"},
		"?q=db:16":    {"library/db:16 trusted"}, "?q=" + digest[:12]: {"library/multi: untrusted"}, "?q=sha256:" + digest: {"library/multi: untrusted"},
		"?repo=library/db": {"library/db:15 expired", "library/db:16 trusted"}, "?repo=library/db&state=expired&q=15": {"library/db:15 expired"},
		"?q=there+is+none": nil,
	} {
		a := w.get("/ui/" + query)
		a.want(t, 200)
		if got := rows(a); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	w.get("/ui/?q=there+is+none").want(t, 200, "No image here is like that", `href="/ui/"`)
	w.get("/ui/?q=%3Cscript%3Ealert(1)%3C/script%3E").want(t, 200, "&lt;script&gt;alert(1)")
	w.get("/ui/?state=good").want(t, 400, "There is no such state")
	w.get("/ui/?after=!").want(t, 400, "The cursor cannot be read")
	w.get("/ui/?repo=nobody").want(t, 404, "It is not in the cache")
}

// Every signature is explained, with its reason's own sentences.
func TestImagePageExplains(t *testing.T) {
	w := start(t, nil)
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/team.pub", key.PEM())
	claims := []claim{byKey(key)}
	var reasons []trust.Reason
	for _, r := range trust.Reasons() {
		if r.Status() == trust.Untrusted && r != trust.SignerRemoved { // that one is for grounds
			reasons = append(reasons, r)
			claims = append(claims, claim{tool: trust.Cosign, reason: r})
		}
	}
	claims = append(claims, byKey(signtest.NewKey(signtest.P256)), claim{tool: trust.Cosign, signer: key.Signer(), until: 1_600_000_000})
	d := w.image("team/app", "1.0", claims...)
	for _, path := range []string{"/ui/image/team/app:1.0", "/ui/image/team/app@" + d.String()} {
		a := w.get(path)
		a.want(t, 200, "It verifies under a key in _cosign.", "_cosign/team.pub", key.Fingerprint().String(), "13 Sep 2020, 12:26:40 UTC", "14 Nov 2023, 22:13:20 UTC",
			"BEGIN PUBLIC KEY", "no end is enforced", d.String(), fmt.Sprint(len(claims))+" signatures")
		for _, r := range append(reasons, trust.SignerRemoved, trust.SignatureExpired) {
			e := r.Explain()
			if !strings.Contains(html.UnescapeString(a.body), e.What) || !strings.Contains(html.UnescapeString(a.body), e.Do) || !strings.Contains(a.body, ">"+string(r)+"<") {
				t.Errorf("%s: %s is not explained", path, r)
			}
		}
	}
	w.get("/ui/image/team/app:none").want(t, 404, "This image is not in storage", "team/app:none")
	w.get("/ui/image/team/app").want(t, 400, "That does not name an image")
	w.image("team/bare", "1")
	w.get("/ui/image/team/bare:1").want(t, 200, "No signatures", "Unsigned")
}

func TestImagePageOfIndex(t *testing.T) {
	w, _ := registry(t, nil)
	a := w.get("/ui/image/library/multi:3")
	a.want(t, 200, "linux/amd64", "linux/arm64/v8", "2 manifests in this index", "nothing is inherited",
		"/ui/image/library/multi@"+digestOf("amd").String())
	w.get("/ui/image/library/multi@"+digestOf("arm").String()).want(t, 200, "Unsigned")
}

// A page has a bounded number of rows and the address of the next one.
func TestStatusPagePages(t *testing.T) {
	w := start(t, nil)
	tags, list := map[string]trust.Digest{}, []store.Row{}
	const n = 120
	for i := range n {
		d := digestOf(fmt.Sprint(i))
		tags[fmt.Sprintf("v%03d", i)] = d
		list = append(list, store.Row{Digest: d, MediaType: "m", Present: true, Tagged: true})
	}
	w.commit("many/tags", tags, list, nil)
	next := regexp.MustCompile(`<a class="next" rel="next" href="([^"]*)">`)
	var all []string
	for path, turns := "/ui/?state=unsigned&q=many", 0; path != ""; turns++ {
		a := w.get(path)
		a.want(t, 200)
		got := rows(a)
		if len(got) > 50 || turns > 3 {
			t.Fatalf("page %d has %d rows", turns, len(got))
		}
		all = append(all, got...)
		path = ""
		if m := next.FindStringSubmatch(a.body); m != nil {
			path = html.UnescapeString(m[1])
		}
	}
	if len(all) != n || !slices.IsSorted(all) {
		t.Errorf("%d rows, want %d", len(all), n)
	}
}

// Names that a pusher or a signer chose do nothing in the page.
func TestStatusPageHostileNames(t *testing.T) {
	w := start(t, nil)
	const evil = "e\x1b[31mvil\r\nSet-Cookie: a=b<script>alert(1)</script>\u202egnp.exe\u2067\"><img src=x onerror=alert(2)>"
	root := signtest.NewRoot(signtest.CertOptions{CommonName: "Root"})
	w.put("_notation/truststore/x509/ca/team/root.pem", signtest.CertPEM(root.Cert()))
	w.put("_cosign/"+strings.ReplaceAll(evil, "/", "")+".pub", []byte("x"))
	d := digestOf("evil")
	row := store.Row{Digest: d, MediaType: evil, Present: true, Tagged: true, Children: []store.Child{{Digest: d, Platform: evil}}}
	facts := w.claims(&row, "evil", []claim{{tool: trust.Notation, signer: signtest.CertSigner("ca", "team", root.Cert()), author: "CN=" + evil}})
	w.commit(evil, map[string]trust.Digest{evil: d}, []store.Row{row}, facts)
	link := regexp.MustCompile(`<a class="tag" href="([^"]*)"`).FindStringSubmatch(w.get("/ui/").body)
	if link == nil {
		t.Fatal("the image is not in the list")
	}
	for _, path := range []string{"/ui/", html.UnescapeString(link[1]), "/ui/trust", "/ui/?q=" + strings.NewReplacer("\x1b", "%1b", "\r\n", "%0d%0a", " ", "+").Replace("\x1b\r\n <b>\u202e")} {
		a := w.get(path)
		if a.StatusCode != 200 {
			t.Errorf("%q: %d", path, a.StatusCode)
		}
		for _, r := range a.body {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q: %q is in the page", path, r)
				break
			}
		}
		for _, bad := range []string{"<script>", "<img", "<b>", "\nSet-Cookie"} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%q: %q is in the page", path, bad)
			}
		}
		if !strings.Contains(a.body, `\u202e`) || !strings.Contains(a.body, `\x1b`) {
			t.Errorf("%q: the characters are not shown escaped", path)
		}
	}
}

func TestStatusPageHeaders(t *testing.T) {
	w, _ := registry(t, nil)
	for _, path := range []string{"/ui/", "/ui/trust", "/ui/image/library/db:16", "/ui/image/none:1", "/ui/nowhere", "/ui/static/style.css"} {
		a := w.get(path)
		for name, want := range map[string]string{"Content-Security-Policy": page.ContentSecurityPolicy, "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"} {
		if !strings.Contains(page.ContentSecurityPolicy, part) {
			t.Errorf("the policy does not say %s", part)
		}
	}
	if strings.Contains(page.ContentSecurityPolicy, "unsafe") {
		t.Error("the policy allows what is unsafe")
	}
	// What has not changed is not sent again, and files are kept by version.
	a := w.get("/ui/trust")
	w.call("GET", "/ui/trust", nil, "If-None-Match", a.Header.Get("ETag")).want(t, http.StatusNotModified)
	for _, m := range regexp.MustCompile(`/ui/static/[a-z.]+\?v=[0-9a-f]+`).FindAllString(a.body, -1) {
		if f := w.get(m); f.StatusCode != 200 || !strings.Contains(f.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %s", m, f.StatusCode, f.Header.Get("Cache-Control"))
		}
	}
	w.get("/ui/static/doc.go").want(t, 404)
	w.get("/ui/static/..%2fdoc.go").want(t, 404)
	// A browser is sent there from /; the other paths are zot's and the API's.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, path := range []string{"/", "/ui"} {
		if a := doWith(t, &client, w.request("GET", path, nil)); a.StatusCode != 303 || a.Header.Get("Location") != "/ui/" {
			t.Errorf("%s: %d to %q", path, a.StatusCode, a.Header.Get("Location"))
		}
	}
	if got := w.call("POST", "/ui/", nil); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got.StatusCode)
	}
}

// The page needs the same right as every other read.
func TestStatusPageReadRight(t *testing.T) {
	w, _ := registry(t, func(c *Config) { c.Auth.Reads = "credential" })
	for _, path := range []string{"/ui/", "/ui/trust", "/ui/image/library/db:16"} {
		a := w.get(path)
		a.want(t, 401, "A credential is needed")
		if a.Header.Get("WWW-Authenticate") == "" || strings.Contains(a.body, "Release") || strings.Contains(a.body, "library") {
			t.Errorf("%s: %q %s", path, a.Header.Get("WWW-Authenticate"), a.body)
		}
		w.call("GET", path, nil, "Authorization", "Bearer "+w.token()).want(t, 200)
	}
	// The page of the error is dressed all the same.
	w.get("/ui/static/style.css").want(t, 200)
}

func TestStatusPageWithoutAnswers(t *testing.T) {
	w := start(t, nil)
	w.get("/ui/").want(t, 200, "No images yet", "nothing can be trusted")
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	a := w.get("/ui/")
	a.want(t, 503, "No answers", "Nothing is trusted until there are", "Trust material")
	if rows(a) != nil || strings.Contains(a.body, `class="n"`) {
		t.Errorf("there are rows or numbers: %s", a.body)
	}
	w.get("/ui/image/a:1").want(t, 503, "There are no answers now")
}

// What dates will end is on the first page, by days: signatures, with the list of their
// images, and certificates.
func TestCalendar(t *testing.T) {
	w := start(t, nil)
	key := signtest.NewKey(signtest.P256)
	w.put("_cosign/a.pub", key.PEM())
	end := time.Now().Add(40 * 24 * time.Hour)
	w.put("_notation/truststore/x509/ca/acme/ca.crt", signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{NotAfter: end.Add(24 * time.Hour)}).Cert()))
	soon := byKey(key)
	soon.until = end.Unix()
	w.image("team/soon", "1", soon)
	w.image("team/never", "1", byKey(key))
	page := w.get("/ui/").body
	_, calendar, ok := strings.Cut(page, "What ends when")
	first, second := end.UTC().Format("2 Jan 2006"), end.UTC().AddDate(0, 0, 1).Format("2 Jan 2006")
	if !ok || !strings.Contains(calendar, first) || !strings.Contains(calendar, second) || !strings.Contains(calendar, "1 trusted signature<") || !strings.Contains(calendar, "ca/acme/ca.crt") {
		t.Fatalf("calendar: %t %s", ok, calendar[:min(len(calendar), 1500)])
	}
	link := regexp.MustCompile(`href="(/ui/\?expiring=[^"]+)">1 trusted signature<`).FindStringSubmatch(calendar)
	if link == nil {
		t.Fatal("the day leads to no list")
	}
	w.get(html.UnescapeString(link[1])).want(t, 200, "team/soon")
	if body := w.get(html.UnescapeString(link[1])).body; strings.Contains(body, "team/never") {
		t.Error("the list of that day has what does not end")
	}
}
