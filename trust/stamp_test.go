package trust

import (
	"strings"
	"testing"
	"time"
)

// A signature whose certificate has expired says what of its time stamp would count,
// and says nothing of it while it is trusted.
func TestTheTimeStampThatWouldCount(t *testing.T) {
	ca := Signer{Tool: Notation, StoreType: "ca", StoreName: "acme", Fingerprint: SumOf([]byte("ca"))}
	tsa := Signer{Tool: Notation, StoreType: "tsa", StoreName: "t", Fingerprint: SumOf([]byte("tsa"))}
	policy := Meaning{VerifyTimestamp: "afterCertExpiry"}.ID()
	terms := func(stores []string, left bool) Terms {
		x := Terms{Notation: true, Statements: []Statement{{Name: "a", Scopes: []string{"*"}, Stores: stores, Policy: policy, Verifies: true}},
			Materials: []Material{{Signer: ca}, {Signer: tsa}}}
		if left {
			x.Materials, x.Left = x.Materials[:1], x.Materials[1:]
		}
		return x
	}
	now := time.Unix(1_000_000, 0)
	plain := Ground{Signers: []SignerID{ca.ID()}, Until: 900_000, Limit: CertificateExpired}
	stamped := Ground{Signers: []SignerID{ca.ID(), tsa.ID()}, From: 900_000}
	over := Ground{Signers: []SignerID{ca.ID(), tsa.ID()}, From: 900_000, Until: 950_000, Limit: SignatureExpired}
	for _, c := range []struct {
		name    string
		terms   Terms
		grounds []Ground
		stored  string
		status  Status
		detail  string
	}{
		{"named", terms([]string{"ca:acme", "tsa:t"}, false), []Ground{plain, stamped}, "", Trusted, ""},
		{"not named", terms([]string{"ca:acme"}, false), []Ground{plain, stamped}, "", Expired, `would count if the statement "a" named the trust store tsa:t`},
		{"left and not named", terms([]string{"ca:acme"}, true), []Ground{plain, stamped}, "", Expired, `named the trust store tsa:t, and that still held`},
		{"over by itself", terms([]string{"ca:acme"}, false), []Ground{plain, over}, "", Expired, ""},
		{"no good", terms([]string{"ca:acme"}, false), []Ground{plain}, "its time stamp does not count", Expired, "its time stamp does not count"},
		{"no good, and still valid", terms([]string{"ca:acme"}, false), []Ground{{Signers: plain.Signers}}, "its time stamp does not count", Trusted, ""},
	} {
		v := &Verdict{Grounds: c.grounds, Policy: policy, Epoch: MinEpoch, StoreType: "ca", Detail: c.stored}
		d := NewInForce(c.terms).Decide("app", Notation, v, now)
		if d.Status != c.status || !strings.Contains(d.Detail, c.detail) || c.detail == "" && d.Detail != "" {
			t.Errorf("%s: %s, %q", c.name, d.Status, d.Detail)
		}
	}
}
