package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/internal/signtest"
	"trust-worker/preview"
	"trust-worker/trust"
	"trust-worker/verifier/truststore"
)

// Before a key goes one reads what it would cost: the images that are lost, and those that
// another signer keeps. Nothing is changed by asking.
func TestPreview(t *testing.T) {
	w := start(t, func(c *Config) {
		c.Previewed.Loader = func(cosignDir, notationDir string) (*truststore.Loader, error) {
			return truststore.NewLoader(truststore.Config{CosignDir: cosignDir, NotationDir: notationDir, Cosign: true, Notation: true, Revocation: truststore.RevocationOffline})
		}
	})
	a, b := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	w.put("_cosign/a.pub", a.PEM())
	w.put("_cosign/b.pub", b.PEM())
	w.image("team/one", "1", byKey(a))
	w.image("team/two", "1", byKey(a), byKey(b))
	w.image("team/three", "1", byKey(b))
	before := w.files()
	ask := func(method, query, body string, lost, kept, gained string) {
		t.Helper()
		resp := w.call(method, pathAPI+"/preview"+query, []byte(body))
		resp.want(t, 200)
		var got preview.Answer
		check(t, json.Unmarshal([]byte(resp.body), &got))
		for _, list := range []struct {
			images []preview.Image
			n      int
			want   string
		}{{got.Lost, got.Counts.Lost, lost}, {got.Kept, got.Counts.Kept, kept}, {got.Gained, got.Counts.Gained, gained}} {
			var names []string
			for _, img := range list.images {
				names = append(names, img.RepoName+":"+img.Tag+" "+img.State)
			}
			if joined := strings.Join(names, ", "); joined != list.want || list.n != len(names) {
				t.Errorf("%s %s %s: %q, %d, want %q", method, query, body, joined, list.n, list.want)
			}
		}
		if got.Generation != w.generation() {
			t.Errorf("of generation %s", got.Generation)
		}
	}
	const one, two, three = "team/one:1 untrusted", "team/two:1 trusted", "team/three:1 untrusted"
	ask("GET", "?remove=a.pub", "", one, two, "")
	ask("GET", "?remove=_cosign/a.pub", "", one, two, "")
	ask("GET", "?remove="+a.Fingerprint().String(), "", one, two, "")
	ask("GET", "?remove=a.pub&remove=b.pub", "", one+", "+three+", team/two:1 untrusted", "", "")
	quoted, err := json.Marshal(string(b.PEM()))
	check(t, err)
	ask("POST", "", `{"Remove":["b.pub"]}`, three, two, "")
	ask("POST", "", `{"Remove":["b.pub"],"Add":[{"Name":"b.pub","Place":"team/three","Content":`+string(quoted)+`}]}`, "", "team/three:1 trusted, "+two, "")
	for body, reason := range map[string]string{
		`{}`: "nothing would change", `{"Remove":["nobody.pub"]}`: "no file and no signer", `{"remov":1}`: "cannot be read", ``: "cannot be read",
		`{"Add":[{"Name":"../x","Content":"x"}]}`: "is not the name of a file", `{"Add":[{"Name":"x","Place":"../y","Content":"x"}]}`: "neither a scope",
		`{"Add":[{"Name":"x","Place":"ca:../y","Content":"x"}]}`: "ca:../y",
	} {
		w.call("POST", pathAPI+"/preview", []byte(body)).want(t, 400, reason)
	}
	w.get(pathAPI+"/preview").want(t, 400, "nothing would change")
	w.get(pathAPI+"/preview?add=x").want(t, 400, "not known")
	w.get(pathAPI+"/preview?remove="+url.QueryEscape("../../etc/passwd")).want(t, 400, "no file and no signer")
	w.call("POST", pathAPI+"/preview", []byte(`{"Policy":"`+strings.Repeat("x", maxPreviewBody)+`"}`)).want(t, 413)
	if after := w.files(); len(after) != len(before) {
		t.Errorf("files before %v, after %v", before, after)
	}

	// The status page asks the same.
	w.get("/ui/trust").want(t, 200, `href="/ui/preview?remove=_cosign%2Fa.pub"`)
	w.get("/ui/preview?remove="+url.QueryEscape("_cosign/a.pub")).want(t, 200, "1 image would no longer be trusted", "1 image is kept by another signer", "team/one:1", "team/two:1", "_cosign/b.pub")
	w.get("/ui/preview?remove=nobody.pub").want(t, 400, "That change cannot be made")
	w.get("/ui/preview").want(t, 400)

	// Without a directory for temporary files the state directory serves.
	t.Setenv("TMPDIR", filepath.Join(w.root, "none"))
	ask("GET", "?remove=a.pub", "", one, two, "")
	left, err := filepath.Glob(filepath.Join(w.state, "trust-worker-preview-*"))
	if check(t, err); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	check(t, os.Remove(filepath.Join(w.state, "published", "CURRENT")))
	w.get(pathAPI+"/preview?remove=a.pub").want(t, 503)
}

// What a new key may have made is verified up to a budget; the rest is a number.
func TestPreviewVerifiesSoMany(t *testing.T) {
	calls := 0
	k := signtest.NewKey(signtest.P256)
	w := start(t, func(c *Config) {
		c.Previewed.Loader = func(cosignDir, notationDir string) (*truststore.Loader, error) {
			return truststore.NewLoader(truststore.Config{CosignDir: cosignDir, NotationDir: notationDir, Cosign: true, Notation: true, Revocation: truststore.RevocationOffline})
		}
		c.Previewed.VerifyTime = time.Hour
		c.Previewed.Verify = func(_ context.Context, then *truststore.TrustStore, c *cache.Candidate) ([]trust.Verdict, error) {
			if calls++; calls%10 == 0 {
				return nil, errors.New("it cannot be read")
			}
			return []trust.Verdict{{Format: trust.SimpleSigning, VerifiedAt: 1, Epoch: trust.MinEpoch, Grounds: []trust.Ground{{Signers: []trust.SignerID{k.Signer().ID()}}}}}, nil
		}
	})
	const images = 1050
	var rows []store.Row
	var facts []store.Fact
	tags := map[string]trust.Digest{}
	for i := range images {
		row := store.Row{Digest: digestOf(fmt.Sprint(i)), MediaType: "m", Present: true, Tagged: true}
		facts = append(facts, w.claims(&row, fmt.Sprint(i), []claim{{tool: trust.Cosign, reason: trust.NoTrustedKey}})...)
		rows, tags[fmt.Sprint(i)] = append(rows, row), row.Digest
	}
	w.commit("app", tags, rows, facts)
	quoted, err := json.Marshal(string(k.PEM()))
	check(t, err)
	resp := w.call("POST", pathAPI+"/preview", []byte(`{"Add":[{"Name":"k.pub","Content":`+string(quoted)+`}]}`))
	resp.want(t, 200)
	var got preview.Answer
	check(t, json.Unmarshal([]byte(resp.body), &got))
	if calls != 1000 || got.Counts.Gained != 900 || got.AtMost != images-900 {
		t.Errorf("%d calls, %d gained, at most %d", calls, got.Counts.Gained, got.AtMost)
	}
	calls = 0
	w.call("POST", pathAPI+"/preview", []byte(`{"Add":[{"Name":"k.pub","Place":"elsewhere","Content":`+string(quoted)+`}]}`)).want(t, 200, `"AtMost":0`)
	if calls != 0 {
		t.Errorf("%d calls for what the key does not govern", calls)
	}
}
