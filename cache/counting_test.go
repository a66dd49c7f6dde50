package cache

import (
	"context"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// recountAll counts what a snapshot answers, image by image.
func recountAll(t interface{ Fatal(...any) }, s *Snapshot) (Counts, map[trust.Signer]int64) {
	c := Counts{Images: map[string]int64{}, Signatures: map[trust.Status]int64{}}
	signers := map[trust.Signer]int64{}
	for _, signer := range s.g.trust.signers {
		signers[signer] = 0
	}
	err := s.Repositories(func(repo string) error {
		err := s.Each(repo, func(img Image) error {
			if s.record.tagged || !s.record.child { // what Images lists
				c.Images[img.State()]++
			}
			for _, sig := range img.SignatureInfo {
				c.Signatures[sig.Status]++
			}
			return nil
		})
		if err != nil {
			return err
		}
		return s.each(inImages, tagKey(repo, ""), func(_, body []byte) error {
			var p cachepb.Image
			if err := proto.Unmarshal(body, &p); err != nil {
				return err
			}
			for _, sig := range p.Signatures {
				if !s.g.trust.inForce.Enabled(decodeCode(toolCodes, sig.Tool)) {
					continue
				}
				for _, v := range sig.Verdicts {
					for _, id := range signersOf(v) {
						if signer := s.signer(id); signer != (trust.Signer{}) {
							signers[signer]++
						}
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, signers
}

// The counters are what a recount of all answers finds, and what is published is
// what rendering all of the private store gives, whatever happens: rows and facts
// that come, change and go, signers, stores, statements and tools, repositories
// that cannot be listed, a clock that goes either way, and folds.
func TestPublishedIsWhatIsStoredAndCountersWhatARecountFinds(t *testing.T) {
	above := t.TempDir()
	rapid.Check(t, func(t *rapid.T) { newCountingWorld(t).play(above) })
}

type countingWorld struct {
	*rapid.T
	now     time.Time
	s       *Store
	r       *Reader
	signers []trust.Signer
	terms   trust.Terms
	held    map[trust.Signer]bool
	hints   map[trust.Signer]Hint
	digests []trust.Digest
}

func newCountingWorld(t *rapid.T) *countingWorld {
	w := &countingWorld{T: t, now: time.Unix(1_700_000_000, 0), hints: map[trust.Signer]Hint{}, held: map[trust.Signer]bool{},
		terms: trust.Terms{Cosign: true, Notation: true}}
	for i := range 5 {
		signer := trust.Signer{Tool: trust.Cosign, Fingerprint: trust.SumOf([]byte{byte(i)})}
		if i >= 2 {
			signer = trust.Signer{Tool: trust.Notation, StoreType: "ca", StoreName: fmt.Sprint("s", i%2), Fingerprint: signer.Fingerprint}
		}
		w.signers = append(w.signers, signer)
		w.hints[signer] = Hint{HintSigner, byte(i)}
		w.held[signer] = true
		w.digests = append(w.digests, trust.SumOf([]byte{byte(i % 3), 1}))
	}
	w.digests = w.digests[:3]
	return w
}

func (w *countingWorld) play(above string) {
	dir, err := os.MkdirTemp(above, "state")
	if err != nil {
		w.Fatal(err)
	}
	if w.s, err = Open(dir, Options{Now: func() time.Time { return w.now }, fewBytes: 1}); err != nil {
		w.Fatal(err)
	}
	if w.r, err = OpenReader(dir, WithClock(func() time.Time { return w.now })); err != nil {
		w.Fatal(err)
	}
	w.trust()
	for range rapid.IntRange(1, 15).Draw(w.T, "steps") {
		switch rapid.IntRange(0, 11).Draw(w.T, "what") {
		case 0, 1, 2:
			w.trust()
		case 3, 4:
			w.now = w.now.Add(time.Duration(rapid.IntRange(-40, 60).Draw(w.T, "seconds")) * time.Second)
		case 5:
			w.commit(Batch{Place: w.repository(), Remove: true})
		case 6:
			yes := rapid.Bool().Draw(w.T, "unlisted")
			w.commit(Batch{Place: w.repository(), Update: &PlaceUpdate{Unlisted: &yes}})
		default:
			w.commit(w.batch())
		}
		w.check()
	}
	w.s.Close()
	w.r.Close()
}

func (w *countingWorld) repository() string {
	return rapid.SampledFrom([]string{"a", "a/b"}).Draw(w.T, "repository")
}

func (w *countingWorld) commit(b Batch) {
	if _, err := w.s.Commit(b); err != nil {
		w.Fatal(err)
	}
}

// policyID is one of two meanings, nearly always the same.
func (w *countingWorld) policyID() trust.PolicyID {
	if w.seldom("policy") {
		return trust.PolicyID{2}
	}
	return trust.PolicyID{1}
}

func (w *countingWorld) seldom(label string) bool {
	return rapid.IntRange(0, 11).Draw(w.T, label) == 11
}

// trust makes one change of the trust in force, seldom more, and does what the
// scheduler owes for it.
func (w *countingWorld) trust() {
	signer := rapid.SampledFrom(w.signers).Draw(w.T, "signer")
	w.held[signer] = !w.held[signer]
	w.terms.Cosign = w.terms.Cosign != w.seldom("cosign")
	w.terms.Notation = w.terms.Notation != w.seldom("notation")
	w.terms.Statements = []trust.Statement{{Name: "s", Scopes: []string{"*"}, Stores: []string{"ca:s0", "ca:s1"}, Policy: w.policyID(), Verifies: true}}
	w.terms.Materials = nil
	for _, signer := range w.signers {
		if w.held[signer] {
			w.terms.Materials = append(w.terms.Materials, trust.Material{Signer: signer})
		}
	}
	terms := w.terms
	change, err := w.s.SetTrust(trust.NewInForce(terms))
	if err != nil {
		w.Fatal(err)
	}
	for _, signer := range append(change.Added, change.Removed...) {
		facts, _, err := w.s.Candidates(w.hints[signer], 0, 1000)
		if err != nil {
			w.Fatal(err)
		}
		var b Batch
		for _, f := range facts {
			b.Recount = append(b.Recount, f.Subject)
		}
		w.commit(b)
	}
}

func (w *countingWorld) batch() Batch {
	b := Batch{Place: w.repository(), Complete: rapid.Bool().Draw(w.T, "complete")}
	for _, d := range rapid.SliceOfNDistinct(rapid.SampledFrom(w.digests), 0, 3, rapid.ID).Draw(w.T, "rows") {
		row := Row{Digest: d, MediaType: "m", Present: rapid.IntRange(0, 4).Draw(w.T, "present") > 0,
			Tagged: rapid.Bool().Draw(w.T, "tagged"), Child: rapid.Bool().Draw(w.T, "child")}
		for i, sd := range rapid.SliceOfNDistinct(rapid.SampledFrom(w.digests), 0, 2, rapid.ID).Draw(w.T, "references") {
			ref := Reference{Digest: sd, Carrier: uint8(rapid.SampledFrom([]int{1, 4, 4}).Draw(w.T, "carrier"))}
			if rapid.IntRange(0, 3).Draw(w.T, "problem") == 0 {
				ref.Problems = []Problem{{Layer: i - 1, Reason: trust.BlobMissing}}
				ref.NextTry = w.now.Unix() + 1
			}
			row.References = append(row.References, ref)
		}
		b.Rows = append(b.Rows, row)
	}
	for range rapid.IntRange(0, 4).Draw(w.T, "facts") {
		b.Facts = append(b.Facts, w.fact())
	}
	return b
}

func (w *countingWorld) fact() Fact {
	f := Fact{Subject: rapid.SampledFrom(w.digests).Draw(w.T, "subject"), Signature: rapid.SampledFrom(w.digests).Draw(w.T, "signature"),
		Context: Context{Tool: trust.Cosign}, Trust: w.s.TrustGeneration(), Attachment: rapid.IntRange(0, 9).Draw(w.T, "attachment") == 0}
	mine := w.signers[:2]
	if rapid.Bool().Draw(w.T, "notation") {
		f.Context = Context{Tool: trust.Notation, Policy: w.policyID(), MediaType: "m"}
		mine = w.signers[2:]
	}
	hints := map[Hint]bool{}
	for range rapid.IntRange(1, 3).Draw(w.T, "layers") {
		v := trust.Verdict{Format: trust.JWS, VerifiedAt: 1, Epoch: trust.MinEpoch, Policy: f.Context.Policy, Reason: trust.NoTrustedKey}
		for range rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(w.T, "grounds") {
			v.Reason = ""
			g := trust.Ground{Signers: rapid.SliceOfNDistinct(rapid.SampledFrom(mine), 1, 2, rapid.ID).Draw(w.T, "signers"),
				Limit: trust.SignatureExpired}
			if rapid.Bool().Draw(w.T, "dated") {
				g.From = w.now.Unix() + int64(rapid.IntRange(-30, 30).Draw(w.T, "from"))
				g.Until = g.From + int64(rapid.IntRange(1, 60).Draw(w.T, "until"))
			}
			v.Grounds = append(v.Grounds, g)
			for _, s := range g.Signers {
				hints[w.hints[s]] = true
			}
		}
		f.Verdicts = append(f.Verdicts, v)
	}
	for _, signer := range w.signers {
		if hints[w.hints[signer]] {
			f.Hints = append(f.Hints, w.hints[signer])
		}
	}
	return f
}

// contents is what a base would hold.
func contents(fill func(putFunc) error) map[string]string {
	all := map[string]string{}
	if err := fill(func(bucket, key, value []byte) error { all[string(bucket)+" "+string(key)] = string(value); return nil }); err != nil {
		all["error"] = err.Error()
	}
	return all
}

func (w *countingWorld) check() {
	ctx := context.Background()
	if err := w.s.Recount(ctx); err != nil {
		w.Fatal(err)
	}
	if err := w.s.Confirm(w.s.opts.Now()); err != nil {
		w.Fatal(err)
	}
	if err := w.s.Publish(ctx); err != nil {
		w.Fatal(err)
	}
	switch rapid.IntRange(0, 5).Draw(w.T, "fold") {
	case 0:
		w.s.RenderAnew()
		fallthrough
	case 1, 2:
		if err := w.s.Fold(ctx); err != nil {
			w.Fatal(err)
		}
	}
	snap, err := w.r.Snapshot()
	if err != nil {
		w.Fatal(err)
	}
	defer snap.Close()
	published, rendered := contents(func(put putFunc) error { return snap.writeMerged(ctx, put) }), contents(func(put putFunc) error {
		return w.s.view(func(tx *bbolt.Tx) error { return writeAll(tx, policyChooser(w.s.pub.inForce.Load()), put) })
	})
	if !maps.Equal(published, rendered) {
		w.Fatalf("published %q, stored %q", published, rendered)
	}
	snap.now = w.now // a reader's clock does not go back behind the publication; the writer's did
	counts, err := snap.Counts("")
	if err != nil {
		w.Fatal(err)
	}
	signers, err := snap.SignerCounts()
	if err != nil {
		w.Fatal(err)
	}
	want, wantSigners := recountAll(w.T, snap)
	if !maps.Equal(counts.Images, want.Images) || !maps.Equal(counts.Signatures, want.Signatures) {
		w.Fatalf("kept %v %v, a recount finds %v %v", counts.Images, counts.Signatures, want.Images, want.Signatures)
	}
	if !maps.Equal(signers, wantSigners) {
		w.Fatalf("kept %v, a recount finds %v", signers, wantSigners)
	}
}

// A ground that begins now has not begun a second ago, to which a clock may be
// set back.
func TestCountsFollowAClockThatGoesBackASecond(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := openStore(t, t.TempDir(), Options{Lease: -1, Now: func() time.Time { return now }})
	defer closeChecked(t, s)
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Verdicts[0].Grounds[0].From, f.Verdicts[0].Grounds[0].Limit = now.Unix(), trust.SignatureExpired
	mustCommit(t, s, world(f))
	for _, step := range []struct {
		seconds int
		state   string
	}{{0, "trusted"}, {-1, "expired"}, {1, "trusted"}, {-2, "expired"}} {
		now = now.Add(time.Duration(step.seconds) * time.Second)
		if err := s.Recount(t.Context()); err != nil {
			t.Fatal(err)
		}
		publish(t, s)
		snap, err := openReader(t, s.dir).Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		counts, err := snap.Counts("")
		snap.Close()
		if err != nil || counts.Images[step.state] != 1 {
			t.Errorf("after %d seconds: %v, want one %s: %v", step.seconds, counts.Images, step.state, err)
		}
	}
}
