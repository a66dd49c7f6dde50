package verifier

import (
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// TestProposedEntriesAreNotRead: Rekor's types verify each key of a proposed entry against
// each of its signatures while they parse it, at a pusher's word and without an end.
func TestProposedEntriesAreNotRead(t *testing.T) {
	pem := base64.StdEncoding.EncodeToString(signtest.NewKey(signtest.P521).PEM())
	sig := base64.StdEncoding.EncodeToString([]byte("x"))
	many := func(s string) string {
		return strings.Join(strings.Split(strings.Repeat(s+"\n", 20), "\n")[:20], ",")
	}
	envelope, err := json.Marshal(fmt.Sprintf(`{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[%s]}`, many(`{"sig":"`+sig+`"}`)))
	if err != nil {
		t.Fatal(err)
	}
	huge := base64.StdEncoding.EncodeToString(signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{Kind: signtest.RSA1024}).Cert()))
	weak := string(signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{Kind: signtest.RSA1024}).Cert()))
	cert := string(signtest.CertPEM(signtest.NewRoot(signtest.CertOptions{}).Cert()))
	hashed := func(key string) string {
		return `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"signature":{"publicKey":{"content":"` + base64.StdEncoding.EncodeToString([]byte(key)) + `"}}}}`
	}
	for name, c := range map[string]struct{ body, says string }{
		"a proposed dsse":     {fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"proposedContent":{"envelope":%s,"verifiers":[%s]}}}`, envelope, many(`"`+pem+`"`)), `"proposedContent"`},
		"in another case":     {`{"apiVersion":"0.0.1","kind":"dsse","spec":{"PROPOSEDCONTENT":{}}}`, `"PROPOSEDCONTENT"`},
		"two specs":           {`{"apiVersion":"0.0.1","kind":"dsse","spec":{},"spec":{"proposedContent":{}}}`, "log entry:"},
		"an inline payload":   {`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payload":"e30=","payloadType":"x","signatures":[{}]}}}}`, `"payload"`},
		"two signatures":      {`{"apiVersion":"0.0.1","kind":"dsse","spec":{"signatures":[{},{}]}}`, "2 signatures"},
		"another kind":        {`{"apiVersion":"0.0.1","kind":"rekord","spec":{}}`, `the kind "rekord"`},
		"another version":     {`{"apiVersion":"0.0.1","kind":"intoto","spec":{}}`, `version "0.0.1"`},
		"no hash":             {`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"payloadHash":{"algorithm":"sha256","value":"00"}}}}`, "spec.content.hash"},
		"half a hash":         {`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"hash":{"algorithm":"sha256"}}}}`, "spec.content.hash"},
		"two certificates":    {hashed(cert + cert), "no single block"},
		"a blank before two":  {hashed(" " + cert + weak), "no single block"},
		"text before":         {hashed("x\n" + cert), "no single block"},
		"text after":          {hashed(cert + "x"), "no single block"},
		"a blank before":      {hashed(" \n" + cert), ""},
		"no kind":             {`{}`, `the kind ""`},
		"no object":           {`[]`, "no JSON object"},
		"a weak key":          {`{"apiVersion":"0.0.1","kind":"dsse","spec":{"signatures":[{"signature":"","verifier":"` + huge + `"}]}}`, "below 2048 bits"},
		"a key that is none":  {`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"signature":{"publicKey":{"content":"AAAA"}}}}`, "cannot be read"},
		"a raw key":           {`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"signature":{"verifier":{"publicKey":{"rawBytes":"AAAA"}}}}}}`, "cannot be read"},
		"too large":           {`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"value":"` + strings.Repeat("0", maxEntry) + `"}}}`, "at most"},
		"what a log gives":    {`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"00"},"payloadHash":{"algorithm":"sha256","value":"00"},"signatures":[{"signature":"` + sig + `","verifier":"` + pem + `"}]}}`, ""},
		"and a hashed record": {`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"00"}},"signature":{"content":"` + sig + `","publicKey":{"content":"` + pem + `"}}}}`, ""},
	} {
		f := checkEntry([]byte(c.body))
		if f.found() != (c.says != "") || !strings.Contains(f.detail, c.says) {
			t.Errorf("%s: %q %s, want %q", name, f.reason, f.detail, c.says)
		}
	}
	// In a bundle by a key, too, and under each spelling of the member's name.
	k := signtest.NewKey(signtest.P256)
	proposed := fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"proposedContent":{"envelope":%s,"verifiers":[%s]}}}`, envelope, many(`"`+pem+`"`))
	good := string(signtest.BundleJSON(image("x").Digest, k, signtest.CosignOptions{}))
	ts := newDirs(t).key("k", k).load()
	for _, spelling := range []string{"canonicalizedBody", "canonicalized_body", `canonicalized\u0042ody`, `c\u0061nonicalizedBody`} {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			blob := strings.Replace(good, `"verificationMaterial":{`, fmt.Sprintf(`"verificationMaterial":{"tlogEntries":[{"logIndex":"1","logId":{"keyId":"AAAA"},"kindVersion":{"kind":"dsse","version":"0.0.1"},"%s":%q}],`,
				spelling, encoding.EncodeToString([]byte(proposed))), 1)
			lo := one(t, ts, newRequest(image("x"), trust.CosignBundle).blob(signtest.BundleMediaType, []byte(blob)))
			if lo.Verdict.Reason != trust.Malformed || !strings.Contains(lo.Verdict.Detail, "proposedContent") {
				t.Errorf("%s: %q %s", spelling, lo.Verdict.Reason, lo.Verdict.Detail)
			}
		}
	}
}

// TestCostlyResponses: pkcs7 verifies a stamp with whatever certificate is in it.
func TestCostlyResponses(t *testing.T) {
	s := signtest.NewSigstore("one")
	for name, c := range map[string]struct {
		stamp  []byte
		costly bool
	}{
		"genuine":      {s.Stamp([]byte("x")), false},
		"nothing":      {nil, true},
		"no response":  {[]byte("x"), true},
		"no token":     {must(asn1.Marshal(struct{ Status struct{ Status int } }{})), true},
		"large":        {make([]byte, maxStamp+1), true},
		"two signers":  {s.OddStamp([]byte("x"), 2), true},
		"certificates": {s.OddStamp([]byte("x"), 1, signtest.NewRoot(signtest.CertOptions{Kind: signtest.RSA1024}).Cert()), true},
	} {
		if got := costlyStamp(c.stamp); got != c.costly {
			t.Errorf("%s: %v", name, got)
		}
	}
}
