package trust

import (
	"strings"
	"testing"
)

// A statement that names a store which holds nothing, of a type that the signature
// needs, reads policy-invalid whatever else is the case.
func TestLackingStore(t *testing.T) {
	policy := strict("", nil).Policy
	// Statements over stores that hold certA (ca:acme) and tsaA (tsa:clock).
	missing := strict("prod", []string{"ca:acme", "ca:gone", "tsa:clock"}, "*")
	otherType := strict("prod", []string{"signingAuthority:acme"}, "*")
	typo := strict("prod", []string{"ca:acm"}, "*")
	noTSA := strict("prod", []string{"ca:acme", "tsa:gone"}, "*")
	reason := func(r Reason, storeType string) *Verdict {
		return &Verdict{Policy: policy, Reason: r, StoreType: storeType, Epoch: MinEpoch, VerifiedAt: 1}
	}
	ground := func(g Ground) *Verdict { return verdict(policy, g) }
	unknown := Signer{Tool: Notation, StoreType: "ca", StoreName: "acme", Fingerprint: Digest{9}}
	for _, c := range []struct {
		name   string
		st     Statement
		v      *Verdict
		want   Reason
		detail string
	}{
		{"trusted otherwise", missing, ground(Ground{Signers: ids(certA)}), PolicyInvalid, `"prod" names the trust store ca:gone, in which there is no certificate`},
		{"no key", missing, reason(NoTrustedKey, "ca"), PolicyInvalid, "ca:gone"},
		{"identity", missing, reason(IdentityNotTrusted, "ca"), PolicyInvalid, "ca:gone"},
		{"time stamp", missing, reason(TimestampInvalid, "ca"), PolicyInvalid, "ca:gone"},
		{"revoked", missing, reason(Revoked, "ca"), PolicyInvalid, "ca:gone"},
		{"signer gone", missing, &Verdict{Policy: policy, StoreType: "ca", Grounds: []Ground{{Signers: ids(unknown)}}, Epoch: MinEpoch, VerifiedAt: 1}, PolicyInvalid, "ca:gone"},
		{"expired", missing, ground(Ground{Signers: ids(certA), Until: 1, Limit: CertificateExpired}), PolicyInvalid, "ca:gone"},
		{"broken by itself", missing, reason(Malformed, "ca"), Malformed, ""},
		{"about something else", missing, reason(SubjectMismatch, "ca"), SubjectMismatch, ""},
		{"a type that it does not need", missing, reason(NoTrustedKey, "signingAuthority"), PolicyInvalid, `"prod" names no trust store of the type signingAuthority`},
		{"nothing is known of its type", missing, reason(Malformed, ""), Malformed, ""},
		{"another type, wrong one meant", otherType, reason(NoTrustedKey, "ca"), PolicyInvalid, "did you mean ca:acme?"},
		{"another type, the one named", otherType, reason(NoTrustedKey, "signingAuthority"), PolicyInvalid, "did you mean ca:acme?"},
		{"a letter off", typo, reason(NoTrustedKey, "ca"), PolicyInvalid, "did you mean ca:acme?"},
		{"no TSA, and none needed", noTSA, ground(Ground{Signers: ids(certA)}), "", ""},
		{"no TSA, and it would be", noTSA, ground(Ground{Signers: ids(certA), Until: 1, Limit: CertificateExpired}), PolicyInvalid, "tsa:gone"},
		{"no TSA, and one was", noTSA, reason(TimestampInvalid, "ca"), PolicyInvalid, "tsa:gone"},
		{"no TSA, of no use", noTSA, ground(Ground{Signers: ids(certA), Until: 1, Limit: SignatureExpired}), SignatureExpired, ""},
	} {
		d := NewInForce(terms(c.st)).Decide("a", Notation, c.v, now)
		if d.Reason != c.want || !strings.Contains(d.Detail, c.detail) || d.Detail != "" && c.detail == "" {
			t.Errorf("%s: %s %q, want %s %q", c.name, d.Reason, d.Detail, c.want, c.detail)
		}
	}
	// The default names what there is; it lacks nothing.
	byDefault := terms(strict("default-config", []string{"ca:acme"}, "*"))
	byDefault.DefaultPolicy = true
	if d := NewInForce(byDefault).Decide("a", Notation, reason(NoTrustedKey, "signingAuthority"), now); d.Reason != NoTrustedKey {
		t.Errorf("the default reads %s", d.Reason)
	}
	x := terms(missing)
	x.PolicyProblem, x.PolicyDetail = PolicyInvalid, "why"
	if d := NewInForce(x).Decide("a", Notation, nil, now); d.Reason != PolicyInvalid || d.Detail != "why" {
		t.Errorf("%s %q", d.Reason, d.Detail)
	}
	if got := NewInForce(terms(missing, noTSA)).Lacking(); len(got) != 2 {
		t.Errorf("lacking %q", got)
	}
}

func TestOneOff(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"acme", "acm", true}, {"acme", "acmee", true}, {"acme", "acne", true}, {"acme", "amce", true}, {"acme", "Acme", true}, {"a", "b", true},
		{"acme", "ac", false}, {"acme", "amec", false}, {"acme", "other", false}, {"", "a", true}, {"abcd", "badc", false},
	} {
		if oneOff(c.a, c.b) != c.want || oneOff(c.b, c.a) != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, !c.want)
		}
	}
}

// A store that is emptied ends trust in what its certificates signed, also where the
// trust store of a time stamp authority is meant, as long as that one is remembered.
func TestLackingStoreOfSignersThatLeft(t *testing.T) {
	st := strict("prod", []string{"ca:acme", "tsa:clock"}, "*")
	x := terms(st)
	x.Materials = x.Materials[:2] // no TSA
	v := verdict(st.Policy, Ground{Signers: ids(certA, tsaA)})
	if d := NewInForce(x).Decide("a", Notation, v, now); d.Reason != SignerRemoved || d.Detail != "" {
		t.Errorf("nobody known: %s %q", d.Reason, d.Detail)
	}
	x.Left = []Material{{Signer: tsaA}}
	if d := NewInForce(x).Decide("a", Notation, v, now); d.Reason != PolicyInvalid || !strings.Contains(d.Detail, "tsa:clock") {
		t.Errorf("remembered: %s %q", d.Reason, d.Detail)
	}
	x.Statements[0].Stores = []string{"ca:acme"}
	if d := NewInForce(x).Decide("a", Notation, v, now); d.Reason != SignerRemoved || !strings.Contains(d.Detail, "tsa:clock") {
		t.Errorf("not named: %s %q", d.Reason, d.Detail)
	}
}
