package cache_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"trust-worker/cache"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// Attestations are listed beside signatures, with the status that a signature by the same
// signer would have, and make nothing trusted: not the image, not a count, not a signer's
// use, not a quorum.
func TestAttestationsAreListedAndCountForNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	now := time.Now().Unix()
	att := func(n int, f trust.Format, predicate string, reason trust.Reason, by ...trust.Signer) (store.Reference, store.Fact) {
		d := trust.SumOf(fmt.Append(nil, "attestation ", n))
		v := trust.Verdict{Format: f, VerifiedAt: now, Epoch: trust.MinEpoch, Predicate: predicate, Size: 1000, Reason: reason}
		for _, signer := range by {
			v.Grounds = append(v.Grounds, trust.Ground{Signers: []trust.SignerID{signer.ID()}})
		}
		return store.Reference{Digest: d, Carrier: trust.Attestations}, store.Fact{Subject: image, Signature: d, Attachment: true,
			Context: store.Context{Tool: trust.Cosign}, Trust: s.TrustGeneration(), Verdicts: []trust.Verdict{v}}
	}
	commit := func(list ...func() (store.Reference, store.Fact)) {
		b := store.Batch{Place: "team/app", SetTags: true, Complete: true, Tags: map[string]trust.Digest{"1.0": image},
			Rows: []store.Row{{Digest: image, MediaType: "m", Present: true, Tagged: true}}}
		for _, one := range list {
			ref, fact := one()
			b.Rows[0].References, b.Facts = append(b.Rows[0].References, ref), append(b.Facts, fact)
		}
		mustCommit(t, s, b)
		publish(t, s)
	}
	const slsa, spdx = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
	with := func(n int, f trust.Format, predicate string, reason trust.Reason, by ...trust.Signer) func() (store.Reference, store.Fact) {
		return func() (store.Reference, store.Fact) { return att(n, f, predicate, reason, by...) }
	}
	setTrust(t, s, inForce(keyA, keyB))
	commit(with(1, trust.DSSE, slsa, "", keyA), with(2, trust.Bundle, spdx, trust.NoTrustedKey), with(3, trust.InToto, slsa, trust.PayloadTypeUnknown))
	r := openReader(t, s.dir)
	read := func() (*cache.Snapshot, cache.Image) {
		t.Helper()
		snap := snapshot(t, r)
		img, err := snap.Image("team/app", image)
		if err != nil {
			t.Fatal(err)
		}
		return snap, img
	}
	says := func(img cache.Image) string {
		var all []string
		for _, a := range img.Attestations {
			all = append(all, fmt.Sprintf("%s %s %s", a.PredicateType[strings.LastIndexByte(a.PredicateType, '/')+1:], a.Status, a.Reason))
		}
		return strings.Join(all, ", ")
	}
	snap, img := read()
	if got := says(img); got != "v1 trusted , Document untrusted no-trusted-key, v1 unsigned " {
		t.Errorf("attestations: %q", got)
	}
	if a := img.Attestations[0]; a.SignerFingerprint != keyA.Fingerprint || a.Author == "" || a.Size != 1000 || a.Format != trust.DSSE {
		t.Errorf("%+v", a)
	}
	if img.IsSigned || img.State() != cache.Unsigned || len(img.SignatureInfo) != 0 {
		t.Errorf("the image is %s: %+v", img.State(), img.SignatureInfo)
	}
	if is, err := snap.IsTrusted("team/app", image); is || err != nil {
		t.Errorf("trusted: %t, %v", is, err)
	}
	counts, err := snap.Count()
	if err != nil || counts.Images[cache.Unsigned] != 1 || len(counts.Signatures) != 0 || len(counts.Signers) != 0 {
		t.Errorf("counts %+v, %v", counts, err)
	}
	if uses, err := snap.Uses(); err != nil || len(uses) != 1 || uses[keyA.ID()] != (cache.Use{Attestations: 1}) {
		t.Errorf("uses %v, %v", uses, err)
	}
	if made, err := snap.MadeBy("team/app", image); err != nil || len(made) != 0 {
		t.Errorf("made by %v, %v", made, err)
	}
	var back cache.Image
	b, err := json.Marshal(img)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || says(back) != says(img) {
		t.Errorf("%s gives %q, %v", b, says(back), err)
	}
	attested := func(want string, predicates ...string) {
		t.Helper()
		if lacking, _, err := snapshot(t, r).Attested("team/app", image, predicates); lacking != want || err != nil {
			t.Errorf("%v: lacking %q, want %q, %v", predicates, lacking, want, err)
		}
	}
	attested("", slsa)
	attested(spdx, slsa, spdx)
	attested("https://x", "https://x")
	if lacking, _, err := snap.Attested("team/other", image, []string{slsa}); lacking != slsa || err != nil {
		t.Errorf("elsewhere: %q, %v", lacking, err)
	}

	// The key leaves, and its attestations with it.
	setTrust(t, s, inForce(keyB))
	if _, img := read(); !strings.HasPrefix(says(img), "v1 untrusted signer-removed") || img.Attestations[0].Author != "" {
		t.Errorf("key removed: %q", says(img))
	}
	attested(slsa, slsa)

	// Where two signers are required, two have to attest the same.
	two := inForce(keyA, keyB).Terms()
	two.Scopes = []trust.Narrowing{{Prefix: "team", Require: 2}}
	setTrust(t, s, trust.NewInForce(two))
	attested(slsa, slsa)
	commit(with(1, trust.DSSE, slsa, "", keyA), with(4, trust.Bundle, spdx, "", keyB))
	attested(slsa, slsa)
	commit(with(1, trust.DSSE, slsa, "", keyA), with(5, trust.Bundle, slsa, "", keyB))
	attested("", slsa)

	// Of very many those are listed that are trusted.
	var many []func() (store.Reference, store.Fact)
	for n := range 500 {
		many = append(many, with(100+n, trust.DSSE, spdx, trust.NoTrustedKey))
	}
	setTrust(t, s, inForce(keyA))
	commit(append(many, with(1, trust.DSSE, slsa, "", keyA))...)
	if _, img := read(); len(img.Attestations) != 200 || img.AttestationsOmitted != 301 || !strings.Contains(says(img), "v1 trusted") {
		t.Errorf("%d listed, %d omitted", len(img.Attestations), img.AttestationsOmitted)
	}
	attested("", slsa)
}
