package server

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// Whoever asks sees what is attested of an image and by whom, finds images by it, and can
// demand it besides trust, never instead.
func TestAttestations(t *testing.T) {
	w := start(t, nil)
	k := signtest.NewKey(signtest.P256)
	w.put("_cosign/team.pub", k.PEM())
	check(t, w.d.ReloadNow(t.Context()))
	const slsa, spdx, other = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document", "<script>alert(1)</script>"
	by, nobody := byKey(k), claim{tool: trust.Cosign, reason: trust.NoTrustedKey}
	of := func(c claim, predicate string) claim { c.predicate = predicate; return c }
	signed := w.image("app", "signed", by, of(by, slsa), of(nobody, spdx), of(nobody, other))
	loose := w.image("loose", "1", of(by, slsa))
	both := w.image("both", "1", by, of(by, slsa), of(by, spdx))

	for _, c := range []struct {
		image   string
		kinds   []string
		status  int
		lacking string
	}{
		{"app@" + signed.String(), nil, 200, ""},
		{"app@" + signed.String(), []string{slsa}, 200, ""},
		{"app@" + signed.String(), []string{slsa, slsa}, 200, ""},
		{"app@" + signed.String(), []string{spdx}, 403, spdx},
		{"app@" + signed.String(), []string{slsa, spdx}, 403, spdx},
		{"app@" + signed.String(), []string{slsa + "/"}, 403, slsa + "/"},
		{"both@" + both.String(), []string{slsa, spdx}, 200, ""},
		{"both@" + both.String(), []string{""}, 400, ""},
		{"loose@" + loose.String(), []string{slsa}, 403, ""}, // it is not signed
		{"app@" + loose.String(), []string{slsa}, 404, ""},
	} {
		a := w.get(pathAPI + "/check/" + c.image + "?" + url.Values{"predicate": c.kinds}.Encode())
		a.want(t, c.status)
		var got checked
		check(t, json.Unmarshal([]byte(a.body), &got))
		if got.Lacking != c.lacking {
			t.Errorf("%v: %s", c, a.body)
		}
	}
	w.get(pathAPI+"/check/app@"+signed.String()+"?predicates="+slsa).want(t, 400)

	// Only what is trusted is found.
	for kind, want := range map[string][]string{slsa: {"app", "both", "loose"}, spdx: {"both"}, other: nil} {
		a := w.get(pathAPI + "/images?predicate=" + url.QueryEscape(kind))
		a.want(t, 200)
		var list struct {
			Images []struct {
				RepoName     string
				Attestations []struct{ PredicateType, Status string }
			}
		}
		check(t, json.Unmarshal([]byte(a.body), &list))
		var found []string
		for _, i := range list.Images {
			found = append(found, i.RepoName)
		}
		if strings.Join(found, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, want %v", kind, found, want)
		}
	}
	a := w.ask(`{ TrustImage(image: "app:signed") { Attestations { PredicateType Status Reason SignerFile Digest } AttestationsOmitted } }`).body
	for _, want := range []string{`"PredicateType":"` + slsa + `","Status":"trusted","Reason":"","SignerFile":"_cosign/team.pub"`, `"PredicateType":"` + spdx + `","Status":"untrusted","Reason":"no-trusted-key"`, `"AttestationsOmitted":0`} {
		if !strings.Contains(a, want) {
			t.Errorf("%s is not in %s", want, a)
		}
	}
	page := w.get("/ui/image/app:signed")
	page.want(t, 200)
	for _, want := range []string{"3 attestations", slsa, "_cosign/team.pub", "&lt;script&gt;"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("%s is not on the page", want)
		}
	}
	var sum summary
	check(t, json.Unmarshal([]byte(w.get(pathAPI+"/summary").body), &sum))
	if sum.Attestations[trust.Trusted] != 4 || sum.Attestations[trust.Untrusted] != 2 || sum.Signatures != 2 { // as many as are no attestation
		t.Errorf("%+v", sum)
	}
}
