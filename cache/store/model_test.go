package store

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"trust-worker/cache"
	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// recountAll counts what readers see at a time, which is the snapshot's, image by image.
// published are the records.
func recountAll(snap *cache.Snapshot, published map[string]string) (*cache.Counts, error) {
	at := snap.Now()
	c := cache.NewCounts()
	return c, snap.Compare(nil, at, at, true, func(d *cache.Difference) error {
		for _, sig := range d.After {
			c.Signatures[sig.Status]++
			if sig.Reason != "" {
				c.Reasons[sig.Reason]++
			}
		}
		key := format.ImageKey(d.Repository, d.Digest)
		var p cachepb.Image
		if ok, err := format.UnsealMessage(key, []byte(published["images "+string(key)]), &p); !ok || err != nil {
			return fmt.Errorf("record %x: %v", key, err)
		}
		if p.Tagged || !p.Child { // what Images lists
			c.Images[d.Is]++
		}
		img, err := snap.Image(d.Repository, d.Digest)
		for _, a := range img.Attestations {
			c.Attestations[a.Status]++
		}
		if err != nil || img.AttestationsOmitted > 0 {
			return fmt.Errorf("%d are left out: %v", img.AttestationsOmitted, err)
		}
		for _, sig := range p.Signatures {
			if !snap.InForce().Enabled(format.DecodeCode(format.ToolCodes, sig.Tool)) {
				continue
			}
			for layer, v := range sig.Verdicts {
				if slices.ContainsFunc(d.After, func(s cache.Signature) bool {
					return s.IsTrusted && s.Layer == layer && string(s.Digest[:]) == string(sig.Digest)
				}) {
					if end := endOf(snap.InForce(), d.Repository, format.DecodeCode(format.ToolCodes, sig.Tool), v, at); end != 0 {
						c.Ends[end/86_400]++
					}
				}
				rests := map[trust.SignerID]bool{}
				for _, g := range v.Grounds {
					for _, id := range format.DecodeSigners(nil, g.Signers) {
						rests[id] = true
					}
				}
				for id := range rests {
					c.Signers[id]++
				}
			}
		}
		return nil
	})
}

// endOf is the first date at which a verdict that is trusted at a time is so no more, 0 if
// there is none: by asking at each of its dates.
func endOf(f *trust.InForce, repository string, tool trust.Tool, p *cachepb.Verdict, at time.Time) int64 {
	v := format.DecodeVerdict(p, func([]byte) string { return "" })
	var dates []int64
	for _, g := range v.Grounds {
		dates = append(dates, g.From, g.Until)
	}
	slices.Sort(dates)
	for _, date := range dates {
		if date > at.Unix() && f.Decide(repository, tool, &v, time.Unix(date, 0)).Status != trust.Trusted {
			return date
		}
	}
	return 0
}

// What is published is what rendering all of the private store gives, and whoever adds
// up the differences between publications, and at the dates that they name, has counted
// what a recount of all answers finds, whatever happens: rows and facts that come,
// change and go, signers, stores, statements and tools, repositories that cannot be
// listed, a clock that goes either way, and folds.
func TestPublishedIsWhatIsStoredAndDifferencesAddUp(t *testing.T) {
	above := t.TempDir()
	rapid.Check(t, func(t *rapid.T) { newPublishedWorld(t).play(above) })
}

type publishedWorld struct {
	*rapid.T
	now     time.Time
	s       *Store
	r       *cache.Reader
	atRead  *cache.Reader // its clock is at
	signers []trust.Signer
	terms   trust.Terms
	held    map[trust.Signer]bool

	// What follows the publications has seen and counted, as of a time, and the next
	// date of each image.
	seen    *cache.Snapshot
	at      time.Time
	counts  *cache.Counts
	next    map[string]*cache.Difference
	hints   map[trust.Signer]Hint
	digests []trust.Digest
}

func newPublishedWorld(t *rapid.T) *publishedWorld {
	w := &publishedWorld{T: t, now: time.Unix(1_700_000_000, 0), at: time.Unix(1_700_000_000, 0), hints: map[trust.Signer]Hint{}, held: map[trust.Signer]bool{}, counts: cache.NewCounts(), next: map[string]*cache.Difference{},
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

func (w *publishedWorld) play(above string) {
	dir, err := os.MkdirTemp(above, "state")
	if err != nil {
		w.Fatal(err)
	}
	if w.s, err = Open(dir, Options{Now: func() time.Time { return w.now }, Lease: -1, fewBytes: 1}); err != nil {
		w.Fatal(err)
	}
	if w.r, err = cache.OpenReader(dir, cache.WithClock(func() time.Time { return w.now })); err != nil {
		w.Fatal(err)
	}
	if w.atRead, err = cache.OpenReader(dir, cache.WithClock(func() time.Time { return w.at })); err != nil {
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
	w.seen.Close()
	w.s.Close()
	w.r.Close()
	w.atRead.Close()
}

func (w *publishedWorld) repository() string {
	return rapid.SampledFrom([]string{"a", "a/b"}).Draw(w.T, "repository")
}

func (w *publishedWorld) commit(b Batch) {
	if _, err := w.s.Commit(b); err != nil {
		w.Fatal(err)
	}
}

// policyID is one of two meanings, nearly always the same.
func (w *publishedWorld) policyID() trust.PolicyID {
	if w.seldom("policy") {
		return trust.PolicyID{2}
	}
	return trust.PolicyID{1}
}

func (w *publishedWorld) seldom(label string) bool {
	return rapid.IntRange(0, 11).Draw(w.T, label) == 11
}

// trust makes one change of the trust in force, seldom more, and does what the
// scheduler owes for it.
func (w *publishedWorld) trust() {
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
	if _, err := w.s.SetTrust(trust.NewInForce(terms)); err != nil {
		w.Fatal(err)
	}
}

func (w *publishedWorld) batch() Batch {
	b := Batch{Place: w.repository(), Complete: rapid.Bool().Draw(w.T, "complete")}
	for _, d := range rapid.SliceOfNDistinct(rapid.SampledFrom(w.digests), 0, 3, rapid.ID).Draw(w.T, "rows") {
		row := Row{Digest: d, MediaType: "m", Present: rapid.IntRange(0, 4).Draw(w.T, "present") > 0,
			Tagged: rapid.Bool().Draw(w.T, "tagged"), Child: rapid.Bool().Draw(w.T, "child")}
		for i, sd := range rapid.SliceOfNDistinct(rapid.SampledFrom(w.digests), 0, 2, rapid.ID).Draw(w.T, "references") {
			ref := Reference{Digest: sd, Carrier: rapid.SampledFrom([]trust.Carrier{trust.CosignTag, trust.NotationReferrer, trust.NotationReferrer}).Draw(w.T, "carrier")}
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

func (w *publishedWorld) fact() Fact {
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
			g := trust.Ground{Limit: trust.SignatureExpired}
			for _, s := range rapid.SliceOfNDistinct(rapid.SampledFrom(mine), 1, 2, rapid.ID).Draw(w.T, "signers") {
				g.Signers, hints[w.hints[s]] = append(g.Signers, s.ID()), true
			}
			if rapid.Bool().Draw(w.T, "dated") {
				g.From = w.now.Unix() + int64(rapid.IntRange(-30, 30).Draw(w.T, "from"))
				g.Until = g.From + int64(rapid.IntRange(1, 60).Draw(w.T, "until"))
			}
			v.Grounds = append(v.Grounds, g)
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
func contents(fill func(format.PutFunc) error) map[string]string {
	all := map[string]string{}
	if err := fill(func(bucket, key, value []byte) error { all[string(bucket)+" "+string(key)] = string(value); return nil }); err != nil {
		all["error"] = err.Error()
	}
	return all
}

// publishedContents is what the layers that are published hold together.
func publishedContents(s *Store) map[string]string {
	return contents(func(put format.PutFunc) error {
		var all format.Layers
		for _, name := range s.layers().Names() {
			f, err := format.OpenFile(filepath.Join(s.publishedPath(), name))
			if err != nil {
				return err
			}
			defer f.Close()
			v, err := f.Take()
			if err != nil {
				return err
			}
			defer f.Give(v)
			all = slices.Insert(all, 0, v)
		}
		return writeMerged(context.Background(), all, true, put)
	})
}

func (w *publishedWorld) check() {
	ctx := context.Background()
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
	published, rendered := publishedContents(w.s), contents(func(put format.PutFunc) error {
		return w.s.view(func(tx *bbolt.Tx) error { return writeAll(tx, policyChooser(w.s.pub.inForce.Load()), put) })
	})
	if !maps.Equal(published, rendered) {
		w.Fatalf("published %q, stored %q", published, rendered)
	}
	w.follow(snap)
	all, err := w.atRead.Snapshot()
	if err != nil {
		w.Fatal(err)
	}
	defer all.Close()
	if want, err := recountAll(all, published); err != nil || !reflect.DeepEqual(w.counts, want) {
		w.Fatalf("counted %v, a recount finds %v: %v", w.counts, want, err)
	}
}

// follow counts as package changes does: what is different in the snapshot, then what
// dates have done since the last time.
func (w *publishedWorld) follow(snap *cache.Snapshot) {
	was, is := cache.NewCounts(), cache.NewCounts()
	count := func(d *cache.Difference) error {
		d.Count(was, is)
		w.next[d.Repository+"@"+d.Digest.String()] = d
		return nil
	}
	if err := snap.Compare(w.seen, w.at, w.at, false, count); err != nil {
		w.Fatal(err)
	}
	if w.seen != nil {
		w.seen.Close()
	}
	w.seen = snap
	if w.now.After(w.at) {
		for _, due := range w.next {
			if due.Next == 0 || due.Next > w.now.Unix() {
				continue
			}
			d, err := snap.CompareImage(snap, w.at, w.now, due.Repository, due.Digest)
			if err != nil {
				w.Fatal(err)
			}
			_ = count(d)
		}
		w.at = w.now
	}
	w.counts = w.counts.Plus(1, is).Plus(-1, was)
}
