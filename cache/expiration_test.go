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

// layers is a fact of one layer for each ground.
func layers(grounds ...trust.Ground) store.Fact {
	f := signedBy(keyA)
	one := f.Verdicts[0]
	f.Verdicts = nil
	for _, g := range grounds {
		v := one
		v.Grounds = []trust.Ground{g}
		f.Verdicts = append(f.Verdicts, v)
	}
	return f
}

// Whoever repeats a signer's signature, with dates of their own, adds no lines and
// hides none: for each signer the one that lasts counts.
func TestExpirationsAreOfSigners(t *testing.T) {
	now := time.Now()
	in := func(signer trust.Signer, d time.Duration) trust.Ground {
		g := trust.Ground{Signers: []trust.SignerID{signer.ID()}}
		if d != 0 {
			g.Until, g.Limit = now.Add(d).Unix(), trust.CertificateExpired
		}
		return g
	}
	for _, c := range []struct {
		fact  store.Fact
		want  string // signer and hours, in order
		until int    // of the image
	}{
		{layers(in(keyA, time.Hour), in(keyA, 3*time.Hour), in(keyA, 2*time.Hour), in(keyB, time.Hour)), "B1 A3", 3},
		{layers(in(keyA, time.Hour), in(keyA, 0), in(keyA, 2*time.Hour), in(keyB, time.Hour)), "B1", 0},
		{layers(in(keyA, 0)), "", 0},
	} {
		s := openStore(t, t.TempDir(), store.Options{})
		if _, err := s.SetTrust(inForce(keyA, keyB)); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, world(c.fact))
		publish(t, s)
		snap := snapshot(t, openReader(t, s.dir))
		e, err := snap.Expirations("team/app", image)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range e.First {
			name := map[trust.Digest]string{keyA.Fingerprint: "A", keyB.Fingerprint: "B"}[one.SignerFingerprint]
			got = append(got, fmt.Sprint(name, one.Until.Sub(now.Truncate(time.Second)).Round(time.Hour).Hours()))
		}
		until := 0
		if !e.Until.IsZero() {
			until = int(e.Until.Sub(now).Round(time.Hour).Hours())
		}
		if strings.Join(got, " ") != c.want || !e.Trusted || e.Omitted != 0 || until != c.until {
			t.Errorf("%q until %d h, %+v; want %q until %d h", got, until, e, c.want, c.until)
		}
		closeChecked(t, s)
	}
}

// Dates that JSON cannot write are none that an answer has.
func TestAnswersWithStrangeDates(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		t.Fatal(err)
	}
	by := []trust.SignerID{keyA.ID()}
	mustCommit(t, s, world(layers(
		trust.Ground{Signers: by, From: -1 << 60, Until: 1 << 60, Limit: trust.CertificateExpired},
		trust.Ground{Signers: by, From: -62167222800, Until: 253402304399, Limit: trust.SignatureExpired}, // the years -1 and 10000
	)))
	publish(t, s)
	snap := snapshot(t, openReader(t, s.dir))
	img, err := snap.Tag("team/app", "1.0")
	if err != nil || img.State() != "trusted" || len(img.SignatureInfo) != 2 {
		t.Fatalf("%+v, %v", img, err)
	}
	if _, err := json.Marshal(&img); err != nil {
		t.Error(err)
	}
	e, err := snap.Expirations("team/app", image)
	if err != nil || len(e.First) != 1 || e.First[0].Until.Year() != 9999 {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
}

// A repository that could not be read may have signatures of an image of which none
// is known; so may one whose own manifest could not be.
func TestNoSignatureIsKnown(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		publish(t, s)
		snap := snapshot(t, openReader(t, s.dir))
		img, err := snap.Tag("team/app", "1.0")
		if err != nil {
			t.Fatal(err)
		}
		if counts, err := snap.Count(); err != nil || counts.Images[img.State()] != 1 {
			t.Errorf("the image is %s, counted are %v (%v)", img.State(), counts, err)
		}
		b, err := json.Marshal(&img)
		if err != nil {
			t.Fatal(err)
		}
		var again cache.Image
		if err := json.Unmarshal(b, &again); err != nil || again.State() != img.State() || again.Reason() != img.Reason() || again.Digest != img.Digest ||
			len(again.Manifests) != 1 || again.Manifests[0].State() != img.State() || again.RepoName != img.RepoName {
			t.Errorf("%s is read as %+v (%v)", b, again, err)
		}
		return img.State() + " " + string(img.Reason())
	}
	plain := world()
	plain.Rows[0].References = nil
	mustCommit(t, s, plain)
	if got := state(); got != "unsigned " {
		t.Errorf("without a signature: %s", got)
	}
	plain.Rows[0].Unreadable = trust.BlobMissing
	mustCommit(t, s, plain)
	if got := state(); got != "unknown blob-missing" {
		t.Errorf("without its manifest: %s", got)
	}
	plain.Rows[0].Unreadable = ""
	yes, no := true, false
	mustCommit(t, s, plain, store.Batch{Place: "team/app", Update: &store.PlaceUpdate{Unlisted: &yes}})
	if got := state(); got != "unknown io-error" {
		t.Errorf("in a repository that cannot be read: %s", got)
	}
	mustCommit(t, s, store.Batch{Place: "team/app", Update: &store.PlaceUpdate{Unlisted: &no}})
	if got := state(); got != "unsigned " {
		t.Errorf("in a repository that can be read again: %s", got)
	}
}

// A fact's details are bounded; its reasons are not.
func TestDetailsOfAFactAreBounded(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Options{})
	defer closeChecked(t, s)
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		t.Fatal(err)
	}
	f := layers(make([]trust.Ground, 200)...)
	for i := range f.Verdicts {
		f.Verdicts[i].Grounds, f.Verdicts[i].Reason, f.Verdicts[i].Detail = nil, trust.SubjectMismatch, strings.Repeat("x", 300)
	}
	f.Trust = s.TrustGeneration()
	mustCommit(t, s, world(f))
	publish(t, s)
	img, err := snapshot(t, openReader(t, s.dir)).Tag("team/app", "1.0")
	if err != nil {
		t.Fatal(err)
	}
	details := 0
	for i := range img.SignatureInfo {
		details += len(img.SignatureInfo[i].Detail)
		if img.SignatureInfo[i].Reason != trust.SubjectMismatch {
			t.Errorf("layer %d reads %q", i, img.SignatureInfo[i].Reason)
		}
	}
	if len(img.SignatureInfo) != 200 || img.SignatureInfo[0].Detail == "" || details > 1024 {
		t.Errorf("%d signatures with %d bytes of details, the first %q", len(img.SignatureInfo), details, img.SignatureInfo[0].Detail)
	}
}
