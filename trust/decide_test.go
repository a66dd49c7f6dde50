package trust

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	now   = time.Unix(1_000_000, 0)
	keyA  = Signer{Tool: Cosign, Fingerprint: SumOf([]byte("A"))}
	keyB  = Signer{Tool: Cosign, Fingerprint: SumOf([]byte("B"))}
	certA = Signer{Tool: Notation, StoreType: "ca", StoreName: "acme", Fingerprint: SumOf([]byte("A"))}
	tsaA  = Signer{Tool: Notation, StoreType: "tsa", StoreName: "clock", Fingerprint: SumOf([]byte("T"))}
)

func ids(signers ...Signer) (ids []SignerID) {
	for _, s := range signers {
		ids = append(ids, s.ID())
	}
	return ids
}

func strict(name string, stores []string, scopes ...string) Statement {
	return Statement{Name: name, Scopes: scopes, Stores: stores, Policy: Meaning{Identities: []string{"*"}}.ID(), Verifies: true}
}

func terms(statements ...Statement) Terms {
	return Terms{Cosign: true, Notation: true, Statements: statements, Materials: []Material{
		{Signer: keyA, Author: "PEM A"}, {Signer: certA, Author: "CN=CA"}, {Signer: tsaA, Author: "CN=TSA"}}}
}

func verdict(policy PolicyID, grounds ...Ground) *Verdict {
	return &Verdict{Policy: policy, Grounds: grounds, Author: "CN=leaf", Epoch: MinEpoch, VerifiedAt: 1}
}

// Each row changes one thing about an answer that would be trusted.
func TestDecide(t *testing.T) {
	policy := strict("", nil).Policy
	all := []string{"ca:acme", "tsa:clock"}
	any := terms(strict("any", all, "*"))
	none := PolicyID{}
	for _, c := range []struct {
		name    string
		terms   Terms
		tool    Tool
		verdict *Verdict
		want    Status
		reason  Reason
	}{
		{"cosign", any, Cosign, verdict(none, Ground{Signers: ids(keyA)}), Trusted, ""},
		{"notation", any, Notation, verdict(policy, Ground{Signers: ids(certA)}), Trusted, ""},
		{"two signers", any, Notation, verdict(policy, Ground{Signers: ids(certA, tsaA)}), Trusted, ""},
		{"second ground", any, Cosign, verdict(none, Ground{Signers: ids(keyB)}, Ground{Signers: ids(keyA)}), Trusted, ""},

		{"nothing known", any, Cosign, nil, Pending, New},
		{"undecided layer", any, Cosign, verdict(none), Pending, New},
		{"reason", any, Cosign, &Verdict{Reason: NoTrustedKey, Epoch: MinEpoch}, Untrusted, NoTrustedKey},
		{"old epoch", any, Cosign, &Verdict{Grounds: []Ground{{Signers: ids(keyA)}}}, Pending, New},
		{"ground without signers", any, Cosign, verdict(none, Ground{}), Untrusted, SignerRemoved},
		{"signer gone", any, Cosign, verdict(none, Ground{Signers: ids(keyB)}), Untrusted, SignerRemoved},
		{"one of two signers gone", any, Notation, verdict(policy, Ground{Signers: ids(certA, Signer{Tool: Notation, StoreType: "tsa", StoreName: "x"})}), Untrusted, SignerRemoved},
		{"a key of the other tool", any, Cosign, verdict(none, Ground{Signers: ids(certA)}), Untrusted, SignerRemoved},
		{"other policy", any, Notation, verdict(PolicyID{1}, Ground{Signers: ids(certA)}), Pending, PolicyChanged},
		{"no policy on either side", func() Terms { st := strict("any", all, "*"); st.Policy = none; return terms(st) }(), Notation, verdict(none, Ground{Signers: ids(certA)}), Pending, PolicyChanged},
		{"cosign verdict with a policy", any, Cosign, verdict(policy, Ground{Signers: ids(keyA)}), Pending, PolicyChanged},
		{"store not named", func() Terms {
			x := terms(strict("any", []string{"ca:other"}, "*"))
			x.Materials = append(x.Materials, Material{Signer: Signer{Tool: Notation, StoreType: "ca", StoreName: "other", Fingerprint: Digest{9}}})
			return x
		}(), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, SignerRemoved},
		{"tsa store not named", terms(strict("any", []string{"ca:acme"}, "*")), Notation, verdict(policy, Ground{Signers: ids(certA, tsaA)}), Untrusted, SignerRemoved},
		{"a store of its type is empty", terms(strict("any", []string{"ca:acme", "ca:gone"}, "*")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, PolicyInvalid},
		{"a store of another type is empty", terms(strict("any", []string{"ca:acme", "signingAuthority:gone"}, "*")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Trusted, ""},
		{"no statement", terms(), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, NoPolicy},
		{"scope of another repository", terms(strict("b", all, "h/b")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, NoPolicy},
		{"scope of this repository", terms(strict("a", all, "h/a")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Trusted, ""},
		{"two hosts", terms(strict("a", all, "h/a"), strict("b", all, "i/a")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, PolicyAmbiguous},
		{"exact wins over any", terms(strict("any", nil, "*"), strict("a", all, "h/a")), Notation, verdict(policy, Ground{Signers: ids(certA)}), Trusted, ""},
		{"expired", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: now.Unix(), Limit: SignatureExpired}), Expired, SignatureExpired},
		{"last second", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: now.Unix() + 1, Limit: SignatureExpired}), Trusted, ""},
		{"not yet", any, Cosign, verdict(none, Ground{Signers: ids(keyA), From: now.Unix() + 1}), Expired, NotYetValid},
		{"first second", any, Cosign, verdict(none, Ground{Signers: ids(keyA), From: now.Unix()}), Trusted, ""},
		{"revocation to be asked again", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: now.Unix(), Limit: RevocationUnknown}), Unknown, RevocationUnknown},
		{"over before another begins", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: 5, Limit: SignatureExpired},
			Ground{Signers: ids(keyA), From: now.Unix() + 9, Until: 5, Limit: SignatureExpired}), Expired, SignatureExpired},
		{"to be asked again before another begins", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: 5, Limit: RevocationUnknown},
			Ground{Signers: ids(keyA), From: now.Unix() + 9, Until: 7, Limit: RevocationUnknown}), Unknown, RevocationUnknown},
		{"over, and another to come", any, Cosign, verdict(none, Ground{Signers: ids(keyA), From: now.Unix() + 9},
			Ground{Signers: ids(keyA), Until: 5, Limit: SignatureExpired}), Expired, NotYetValid},
		{"expired and removed", any, Cosign, verdict(none, Ground{Signers: ids(keyA), Until: 1, Limit: SignatureExpired}, Ground{Signers: ids(keyB)}), Expired, SignatureExpired},
		{"tool off", func() Terms { x := any; x.Cosign = false; return x }(), Cosign, verdict(none, Ground{Signers: ids(keyA)}), Untrusted, NoPolicy},
		{"policy invalid", func() Terms { x := any; x.PolicyProblem = PolicyInvalid; return x }(), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, PolicyInvalid},
		{"level audit", func() Terms { st := strict("any", all, "*"); st.Verifies = false; return terms(st) }(), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, PolicyDoesNotVerify},
		{"host not ours", func() Terms { x := terms(strict("a", all, "h/a")); x.RegistryNames = []string{"i"}; return x }(), Notation, verdict(policy, Ground{Signers: ids(certA)}), Untrusted, NoPolicy},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewInForce(c.terms).Decide("a", c.tool, c.verdict, now)
			if d.Status != c.want || d.Reason != c.reason {
				t.Errorf("%s/%s, want %s/%s", d.Status, d.Reason, c.want, c.reason)
			}
			if shown := d.Author != ""; shown != (d.Status == Trusted || d.Reason.Status() == Expired || d.Reason == RevocationUnknown) {
				t.Errorf("author %q at %s", d.Author, d.Reason)
			}
		})
	}
	var zero *InForce
	for _, f := range []*InForce{zero, {}, NewInForce(Terms{})} {
		if d := f.Decide("a", Cosign, verdict(none, Ground{Signers: ids(keyA)}), now); d.Status == Trusted {
			t.Error("a zero InForce trusts")
		}
	}
}

func TestTheGroundThatOutlivesIsShown(t *testing.T) {
	short := Ground{Signers: ids(keyA), Until: now.Unix() + 10}
	long := Ground{Signers: ids(keyA), Until: now.Unix() + 20}
	for _, gs := range [][]Ground{{short, long}, {long, short}} {
		d := NewInForce(terms()).Decide("a", Cosign, verdict(PolicyID{}, gs...), now)
		if d.Status != Trusted || d.Until.Unix() != long.Until {
			t.Errorf("%v", d)
		}
	}
}

func TestTheFirstGroundToComeIsShown(t *testing.T) {
	first := Ground{Signers: ids(keyA), From: now.Unix() + 10, Until: now.Unix() + 20}
	second := Ground{Signers: ids(keyA), From: now.Unix() + 20}
	for _, gs := range [][]Ground{{first, second}, {second, first}} {
		d := NewInForce(terms()).Decide("a", Cosign, verdict(PolicyID{}, gs...), now)
		if d.Reason != NotYetValid || d.From.Unix() != first.From {
			t.Errorf("%+v", d)
		}
	}
}

func TestMeaningIsTheSameWhateverTheOrderOfIdentities(t *testing.T) {
	a := Meaning{Identities: []string{"x", "y"}, Enforcement: map[string]string{"expiry": "log", "revocation": "skip"}}
	b := Meaning{Identities: []string{"y", "x"}, Enforcement: map[string]string{"revocation": "skip", "expiry": "log"}}
	if a.ID() != b.ID() {
		t.Error("order matters")
	}
	for _, c := range []Meaning{{}, {TSA: true}, {VerifyTimestamp: "always"}, {Revocation: "offline"}} {
		if c.ID() == a.ID() || c.ID() == (PolicyID{}) {
			t.Errorf("%+v has the id of another", c)
		}
	}
}

func TestReasons(t *testing.T) {
	for _, r := range Reasons() {
		if r.Status() == Trusted {
			t.Errorf("%s reads trusted", r)
		}
	}
	for _, r := range []Reason{"", "of a later version"} {
		if r.Status() != Unknown {
			t.Errorf("%q reads %s", r, r.Status())
		}
	}
}

// The table of statuses and reasons stands in the documentation once.
func TestStatusesInTheDocumentation(t *testing.T) {
	b, err := os.ReadFile("../docs/statuses.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile("`([a-z-]+)`")
	documented := map[Reason]Status{}
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !word.MatchString(cells[1]) {
			continue
		}
		status := Status(word.FindStringSubmatch(cells[1])[1])
		for _, m := range word.FindAllStringSubmatch(cells[3], -1) {
			documented[Reason(m[1])] = status
		}
	}
	for _, r := range Reasons() {
		if documented[r] != r.Status() {
			t.Errorf("%s is %s, documented as %q", r, r.Status(), documented[r])
		}
		delete(documented, r)
	}
	for r, s := range documented {
		if s != Trusted {
			t.Errorf("documented reason %s does not exist", r)
		}
	}
}

func TestFoldAndWorst(t *testing.T) {
	for _, c := range []struct {
		in   []Status
		want int
	}{
		{nil, ExitUnsigned}, {[]Status{Trusted}, ExitTrusted}, {[]Status{Untrusted, Unknown, Trusted}, ExitTrusted},
		{[]Status{Untrusted, Unknown}, ExitUndecided}, {[]Status{Pending, Expired}, ExitUndecided},
		{[]Status{Expired, Untrusted}, ExitNotTrusted}, {[]Status{""}, ExitUndecided},
	} {
		if got := Fold(c.in); got != c.want {
			t.Errorf("%v folds to %d, want %d", c.in, got, c.want)
		}
	}
	codes := []int{ExitTrusted, ExitUnsigned, ExitNotTrusted, ExitNotFound, ExitUndecided}
	for i, a := range codes {
		for j, b := range codes {
			if got := Worst(a, b); got != codes[max(i, j)] {
				t.Errorf("worst of %d and %d is %d", a, b, got)
			}
		}
	}
}

func TestParseDigestIsStrict(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	if d, err := ParseDigest("sha256:" + hex); err != nil || d.String() != "sha256:"+hex {
		t.Errorf("%v %v", d, err)
	}
	for _, s := range []string{"", "sha256:", hex, "sha256:" + hex[1:], "sha256:" + hex + "a", "sha256:" + strings.ToUpper(hex),
		"sha512:" + hex, "sha256:../../" + hex[6:], "sha256:" + hex[:63] + "\x00", "sha256:" + hex[:63] + "g"} {
		if d, err := ParseDigest(s); err == nil || d != (Digest{}) {
			t.Errorf("%q gives %v", s, d)
		}
	}
}

// T1: one statement in the program can yield Trusted.
func TestOneStatementSaysTrusted(t *testing.T) {
	says := regexp.MustCompile(`Status\s*:?=\s*(trust\.)?Trusted\b|Status:\s*(trust\.)?Trusted\b|return\s+(trust\.)?Trusted\b`)
	var found []string
	looked := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") && e.Name() != ".." || e.Name() == "testdata"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		looked++
		for range says.FindAll(b, -1) {
			found = append(found, path)
		}
		return err
	})
	if err != nil || looked < 200 {
		t.Fatalf("looked at %d files of the program: %v", looked, err)
	}
	if !slices.Equal(found, []string{filepath.Join("..", "trust", "inforce.go")}) {
		t.Errorf("statements that say trusted: %v", found)
	}
}
