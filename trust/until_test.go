package trust

import (
	"testing"
	"time"
)

// Until when dates let a verdict be trusted: through grounds that take over, whatever
// revocation services said, and without those whose signer is gone.
func TestTrustedUntil(t *testing.T) {
	a, tsa := Signer{Tool: Notation, StoreType: "ca", StoreName: "a"}, Signer{Tool: Notation, StoreType: "tsa", StoreName: "t"}
	gone := Signer{Tool: Notation, StoreType: "ca", StoreName: "a", Fingerprint: SumOf([]byte("gone"))}
	policy := Meaning{}.ID()
	f := NewInForce(Terms{Notation: true, Materials: []Material{{Signer: a}, {Signer: tsa}},
		Statements: []Statement{{Name: "s", Scopes: []string{"*"}, Stores: []string{"ca:a", "tsa:t"}, Policy: policy, Verifies: true}}})
	by := func(until int64, limit Reason) Ground {
		return Ground{Signers: []SignerID{a.ID()}, Until: until, Limit: limit}
	}
	for _, c := range []struct {
		name    string
		grounds []Ground
		want    int64 // 0: for ever, or not at all
	}{
		{"no date", []Ground{by(0, "")}, 0},
		{"a date", []Ground{by(2000, SignatureExpired)}, 2000},
		{"over", []Ground{by(900, SignatureExpired)}, 0},
		{"the later of two", []Ground{by(2000, CertificateExpired), by(3000, CertificateExpired)}, 3000},
		{"one for ever", []Ground{by(2000, CertificateExpired), by(0, "")}, 0},
		{"a time stamp takes over", []Ground{by(2000, CertificateExpired), {Signers: []SignerID{a.ID(), tsa.ID()}, From: 2000}}, 0},
		{"and has an end", []Ground{by(2000, CertificateExpired), {Signers: []SignerID{a.ID(), tsa.ID()}, From: 2000, Until: 5000, Limit: SignatureExpired}}, 5000},
		{"with a gap", []Ground{by(2000, CertificateExpired), {Signers: []SignerID{a.ID(), tsa.ID()}, From: 2500}}, 2000},
		{"a signer who is gone", []Ground{by(2000, CertificateExpired), {Signers: []SignerID{gone.ID()}, Until: 9000}}, 2000},
		{"a revocation service's answer", []Ground{by(1100, RevocationUnknown)}, 0},
		{"and a date behind it", []Ground{{Signers: []SignerID{a.ID()}, Until: 1100, Limit: RevocationUnknown, Ends: 4000}}, 4000},
	} {
		v := &Verdict{Policy: policy, Epoch: MinEpoch, Grounds: c.grounds}
		got := f.TrustedUntil("app", Notation, v, time.Unix(1000, 0))
		if want := time.Unix(c.want, 0).UTC(); c.want == 0 && !got.IsZero() || c.want != 0 && !got.Equal(want) {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}
