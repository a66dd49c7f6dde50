package page

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"trust-worker/cache"
	"trust-worker/changes"
	"trust-worker/cluster"
	"trust-worker/internal/signtest"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
	"trust-worker/watcher"
)

var now = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

const hostile = "a\x1b[31mred\r\nLocation: x<script>alert(1)</script>\u202egnp.exe\u2066\u200b\"'`{{.}}--><svg onload=alert(2)>\xff&amp;"

// fill puts hostile into every string that v reaches; states, tools and reasons
// too: what is not known of them must be shown as inertly.
func fill(v reflect.Value, depth int) {
	if depth > 8 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(hostile)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(now))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*truststore.TrustStore]() {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		n := reflect.New(v.Type().Elem()).Elem()
		fill(n, depth+1)
		v.SetMapIndex(reflect.ValueOf(hostile), n)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(i))
		}
	}
}

// inert fails if anything of hostile is in a page in a form that means something
// to a browser, a terminal or a reader.
func inert(t *testing.T, name string, html []byte) {
	t.Helper()
	s := string(html)
	for i, r := range s {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s: %q at %d: …%q", name, r, i, s[max(i-60, 0):i])
			break
		}
	}
	for _, bad := range []string{"<script>", "<svg onload", "red\n", "--><"} {
		if strings.Contains(s, bad) {
			t.Errorf("%s: %q is in the page as it came", name, bad)
		}
	}
	if !strings.Contains(s, `a\x1b[31mred\r\nLocation: x&lt;script&gt;`) || !strings.Contains(s, `\u202egnp.exe\u2066\u200b`) {
		t.Errorf("%s: the escaped text is not there", name)
	}
	// Handlers, inline styles and addresses elsewhere have no place in any page.
	if m := regexp.MustCompile(`(?:href|src|action)="(?:[A-Za-z]+:|//)`).FindString(s); m != "" {
		t.Errorf("%s: %s", name, m)
	}
	if m := regexp.MustCompile(`(?i)<[^>]*\s(on[a-z]+|style)\b`).FindString(regexp.MustCompile(`="[^"]*"`).ReplaceAllString(s, "")); m != "" {
		t.Errorf("%s: %s", name, m)
	}
}

func TestEveryStringIsInert(t *testing.T) {
	p := New(hostile)
	pages := map[string]func() ([]byte, error){
		"overview": func() ([]byte, error) {
			var o Overview
			fill(reflect.ValueOf(&o).Elem(), 0)
			o.Daemon.FirstPass, o.Answers.Problem, o.Answers.Stale = true, "", false
			return p.Overview(&o)
		},
		"overview of all": func() ([]byte, error) {
			var o Overview
			fill(reflect.ValueOf(&o).Elem(), 0)
			o.Filter, o.After = Filter{}, ""
			o.Daemon.Trust.Mode, o.Daemon.Storage.Mode = watcher.ModePolling, watcher.ModePolling
			return p.Overview(&o)
		},
		"image": func() ([]byte, error) {
			var i Image
			fill(reflect.ValueOf(&i).Elem(), 0)
			i.Image.SignatureInfo[0].Tool, i.Image.SignatureInfo[1].Tool = trust.Cosign, trust.Notation
			i.Image.SignatureInfo[0].Author = strings.ReplaceAll(hostile, "\n", "") // the line ends of a key are its own
			return p.Image(&i)
		},
		"error": func() ([]byte, error) { return p.Error(404, hostile, hostile) },
	}
	for name, render := range pages {
		html, err := render()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		inert(t, name, html)
	}
}

// Certificates' ends are in words, and coloured when they are near.
func TestExpiryInWords(t *testing.T) {
	for _, c := range []struct {
		end           time.Time
		class, expiry string
	}{
		{time.Time{}, "", "no end"}, {now.Add(-time.Hour), "unsigned", "expired 1 hour ago"}, {now.Add(50 * time.Hour), "untrusted", "expires in 2 days"},
		{now.AddDate(3, 0, 1), "", "expires in 3 years"}, {now, "unsigned", "expired just now"},
	} {
		if f := fileOf(truststore.File{NotAfter: c.end}, now); f.Class != c.class || f.Expiry != c.expiry {
			t.Errorf("%s: %q %q, want %q %q", c.end, f.Class, f.Expiry, c.class, c.expiry)
		}
	}
}

// The daemon's condition is the worst that is the case.
func TestHealth(t *testing.T) {
	good, fine := scheduler.Status{FirstPass: true}, Answers{AsOf: now, Lease: 5 * time.Minute}
	busy, broken := good, good
	busy.Queue, broken.Problem = 7, "the disk is full"
	for _, c := range []struct {
		st      scheduler.Status
		a       Answers
		class   string
		title   string
		part    string
		replica *Replica
	}{
		{good, fine, "trusted", "Up to date", "", nil}, {busy, fine, "pending", "Working", "7 repositories and signers have work owed", nil},
		{scheduler.Status{}, fine, "pending", "Starting", "first pass", nil}, {broken, fine, "untrusted", "Not up to date", "the disk is full", nil},
		{good, fine, "trusted", "Up to date", "What the source publishes", &Replica{Behind: time.Second}},
		{good, fine, "pending", "Behind", "newer data for 9s", &Replica{Behind: 9 * time.Second}},
		{broken, fine, "untrusted", "Not up to date", "the disk is full", &Replica{}},
		{broken, Answers{AsOf: now.Add(-time.Hour), Lease: 5 * time.Minute, Stale: true}, "untrusted", "Stale", "1 hour ago, which is longer than the lease of 5m", nil},
		{good, Answers{Problem: "Nothing is published."}, "unsigned", "No answers", "Nothing is published.", nil},
	} {
		if h := newHealth(now, c.a, c.st, c.replica); h.Class != c.class || h.Title != c.title || !strings.Contains(h.Sentence.String(), c.part) {
			t.Errorf("%s %q: %s", h.Class, h.Title, h.Sentence)
		}
	}
	st := good
	st.Trust = &watcher.Status{Mode: watcher.ModePolling, Interval: 2 * time.Second, Reason: "too many watches"}
	st.Unlisted, st.RefusedDirs = []string{"a"}, []string{"1", "2", "3", "4", "5", "6"}
	got := fmt.Sprint(warnings(st))
	for _, part := range []string{"trust directories are polled every 2s", "too many watches", "1 directory could not be listed", "6 directories in storage were not entered: 1, 2, 3, 4, 5 …"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in %s", part, got)
		}
	}
}

// Thousands of keys come in pages, and a refused file is on each, with its reason.
func TestTrustMaterialInPages(t *testing.T) {
	dir := t.TempDir()
	key := signtest.NewKey(signtest.P256).PEM()
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range filesPerPage + 3 {
		write(fmt.Sprintf("_cosign/key-%04d.pub", i), key)
	}
	write("_cosign/bad.pub", []byte("not a key"))
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: filepath.Join(dir, "_cosign"), NotationDir: filepath.Join(dir, "_notation"), Cosign: true, Notation: true,
		Revocation: truststore.RevocationOffline})
	if err != nil {
		t.Fatal(err)
	}
	store, err := loader.Load(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	p := New("")
	for after, want := range map[int]int{0: filesPerPage, filesPerPage: 3, 10_000: 0, -5: filesPerPage} {
		html, err := p.Trust(Trust{Now: now, Store: store, After: after})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(html), "_cosign/key-"); got != want {
			t.Errorf("after %d: %d files, want %d", after, got, want)
		}
		if !regexp.MustCompile(`_cosign/bad\.pub</span> <strong>refused</strong>: .*PEM`).Match(html) {
			t.Errorf("after %d: the refused file is not there", after)
		}
	}
	html, err := p.Overview(&Overview{Now: now, Store: store, Images: []cache.Image{}})
	if err != nil || !strings.Contains(string(html), "_cosign/bad.pub") || strings.Count(string(html), "_cosign/key-") > 5 {
		t.Errorf("overview: %v, %d keys", err, strings.Count(string(html), "_cosign/key-"))
	}
}

// The overview says how many refused files it leaves out, and where keys go while
// there is none.
func TestMaterialInBrief(t *testing.T) {
	dir := t.TempDir()
	for i := range 7 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pub", i)), []byte("not a key"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loader, err := truststore.NewLoader(truststore.Config{CosignDir: dir, NotationDir: filepath.Join(dir, "none"), Cosign: true, Notation: true,
		Revocation: truststore.RevocationOffline})
	if err != nil {
		t.Fatal(err)
	}
	store, err := loader.Load(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	html, err := New("").Overview(&Overview{Now: now, Store: store, Images: []cache.Image{}})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(html), "<strong>refused</strong>"); n != 5 {
		t.Errorf("%d refused files are shown", n)
	}
	for _, part := range []string{`<a href="/ui/trust">2 more refused files</a>`, "Put public keys into"} {
		if !strings.Contains(string(html), part) {
			t.Errorf("%q is not there", part)
		}
	}
}

// Losses of the last day stand first, then the newest; each is a sentence.
func TestLastChanges(t *testing.T) {
	d, key := trust.SumOf([]byte("image")), trust.SumOf([]byte("key"))
	ago := func(hours int) time.Time { return now.Add(-time.Duration(hours) * time.Hour) }
	list := []changes.Change{ // oldest first, as the journal has them
		{Kind: changes.SignatureLost, Time: ago(48), Repository: "old/loss", Tag: "1", Digest: d, Was: "trusted", State: "untrusted", Reason: trust.SignerRemoved},
		{Kind: changes.SignerRemoved, Time: ago(5), Tool: trust.Cosign, Signer: key, File: "_cosign/spare.pub", Signatures: 2},
		{Kind: changes.Expired, Time: ago(4), Tool: trust.Notation, Repository: "team/app", Tag: "2", Digest: d, Was: "trusted", State: "expired", Reason: trust.SignatureExpired},
		{Kind: changes.SignatureLost, Time: ago(4), Tool: trust.Cosign, Signer: key, Repository: "team/app", Tag: "1", Digest: d, Was: "trusted", State: "trusted", Reason: trust.SignerRemoved},
		{Kind: changes.SignatureTrusted, Time: ago(3), Tool: trust.Cosign, Signer: key, Repository: "team/new", Digest: d, State: "trusted"},
		{Kind: changes.SignatureTrusted, Time: ago(2), Tool: trust.Cosign, Signer: key, Count: 1200, Turned: 3},
		{Kind: changes.SignatureLost, Time: ago(25), Repository: "team/gone", Tag: "9", Digest: d, Was: "trusted"},
		{Kind: changes.Withdrawn, Time: ago(1), Detail: "the disk is full"},
		{Kind: changes.SignerAdded, Time: ago(0), Tool: trust.Notation, Signer: key},
	}
	var got []string
	for _, c := range lastChanges(list, now, map[trust.Signer][]string{{Tool: trust.Cosign, Fingerprint: key}: {"_cosign/team.pub"}}) {
		states := "-"
		switch {
		case c.Still:
			states = "still " + c.To.Name
		case c.To != nil && c.From != nil:
			states = c.From.Name + ">" + c.To.Name
		case c.To != nil:
			states = "new>" + c.To.Name
		}
		got = append(got, fmt.Sprintf("%v|%s|%s|%s", c.Lost, c.Name, states, c.Note))
	}
	want := []string{
		"true|All answers have been withdrawn|-|the disk is full",
		"true|team/app:1|still trusted|signer removed",
		"true|team/app:2|trusted>expired|signature expired",
		"true|Key _cosign/spare.pub is no longer trusted|-|2 signatures were made by it",
		"false|Certificate " + short(key) + " is trusted|-|",
		"true|team/gone:9|-|",
		"false|1,200 images are trusted by _cosign/team.pub|-|3 of them as a whole",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Kinds that this version does not know are shown, and nothing more.
	for _, k := range append(changes.Kinds(), "what") {
		if c := changeOf(changes.Change{Kind: k, Time: now}, now, nil); c.Name == "" {
			t.Errorf("%s has no words", k)
		}
	}
	html, err := New("").Overview(&Overview{Now: now, Changes: list})
	if err != nil || !strings.Contains(string(html), "All answers have been withdrawn") || strings.Contains(string(html), "old/loss") {
		t.Error("the page does not show them", err)
	}
	if html, err = New("").Overview(&Overview{Now: now}); err != nil || strings.Contains(string(html), "Last changes") {
		t.Error("there is a panel without changes", err)
	}
}

func TestImageURL(t *testing.T) {
	d := trust.SumOf(nil)
	for tag, want := range map[string]string{"1.0": "/ui/image/team/app:1.0", "": "/ui/image/team/app@" + d.String(),
		"../x": "/ui/image/team/app@" + d.String(), "a\nb": "/ui/image/team/app@" + d.String()} {
		if got := imageURL("team/app", tag, d.String()); got != want {
			t.Errorf("%q: %s, want %s", tag, got, want)
		}
	}
}

// How a worker does among others shows on the first page, with each degraded mode.
func TestOthers(t *testing.T) {
	for _, c := range []struct {
		st       cluster.Status
		facts    string
		warnings []string
	}{
		{cluster.Status{Node: "w1", Connected: true, Taken: 12, Members: []cluster.MemberStatus{{Node: "w2", Alike: true, Heard: true}, {Node: "gone", Why: "not heard"}}}, "w1, with 1 other worker; 12 facts", nil},
		{cluster.Status{Node: "w1", Connected: true, Members: []cluster.MemberStatus{{Node: "w2", Heard: true, Why: "its version verifies by other rules"}}}, "w1, with 0 other workers; 0 facts",
			[]string{"The worker w2 is not counted on: its version verifies by other rules."}},
		{cluster.Status{Node: "w1", Problem: "not connected: refused"}, "w1, with 0 other workers; 0 facts", []string{"This worker verifies everything itself: NATS not connected: refused"}},
		{cluster.Status{Node: "w1", Connected: true, StreamProblem: "no JetStream", Mounts: []string{"/srv is on nfs4"}}, "w1, with 0 other workers; 0 facts",
			[]string{"Facts are not shared with other workers: no JetStream", "/srv is on nfs4"}},
	} {
		var h health
		h.others(&c.st)
		if len(h.Facts) != 2 || h.Facts[0].Value.String()+"; "+h.Facts[1].Value.String() != c.facts {
			t.Errorf("facts %v, want %s", h.Facts, c.facts)
		}
		var got []string
		for _, w := range h.Warnings {
			got = append(got, w.String())
		}
		if !slices.Equal(got, c.warnings) {
			t.Errorf("warnings %q, want %q", got, c.warnings)
		}
	}
	var h health
	if h.others(nil); len(h.Facts)+len(h.Warnings) > 0 {
		t.Error("a worker that is alone says so")
	}
}
