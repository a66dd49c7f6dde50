package store

import (
	"encoding/binary"
	"os"
	"testing"

	"trust-worker/cache"
	"trust-worker/trust"
)

// What somebody stores of one image costs nobody else an answer, however much it
// is: it damages neither the private store nor what is published, and what is
// beyond the bounds says so.
func TestEndlessSignaturesOfOneImage(t *testing.T) {
	reference := func(i int) Reference {
		var d trust.Digest
		binary.BigEndian.PutUint32(d[:], uint32(i))
		return Reference{Digest: d, Carrier: 1, Attempts: 1, NextTry: 1 << 40}
	}
	subject := trust.SumOf([]byte("flooded"))
	for name, c := range map[string]struct {
		references, layers int
		problem            bool // each layer has one
	}{
		"signatures": {200_000, 0, false},
		"problems":   {1300, 1000, true},
		"verdicts":   {600, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.layers > 0 && os.Getenv("TRUST_WORKER_TORTURE") == "" {
				t.Skip("takes half a minute: set TRUST_WORKER_TORTURE=1")
			}
			dir := t.TempDir()
			s := openStore(t, dir, Options{})
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			b := Batch{Place: "other", Rows: []Row{{Digest: subject, Present: true}}}
			row := &b.Rows[0]
			for i := range c.references {
				ref := reference(i)
				f := Fact{Subject: subject, Signature: ref.Digest, Context: Context{Tool: trust.Cosign}, Trust: 99}
				for layer := range c.layers {
					if c.problem {
						ref.Problems = append(ref.Problems, Problem{Layer: layer, Reason: trust.BlobMissing})
					} else {
						f.Verdicts = append(f.Verdicts, trust.Verdict{Reason: trust.Malformed, VerifiedAt: 1 << 30, Epoch: trust.MinEpoch})
					}
				}
				if f.Verdicts != nil {
					b.Facts = append(b.Facts, f)
				}
				row.References = append(row.References, ref)
			}
			mustCommit(t, s, b)
			stored, ok, err := s.Row("other", subject)
			if err != nil || !ok {
				t.Fatalf("row: %v %v", ok, err)
			}
			mustCommit(t, s, Batch{Place: "other", Rows: []Row{stored}}) // the scheduler writes what it has read
			publish(t, s)
			s.RenderAnew()
			if err := s.Fold(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := openReader(t, dir)
			want(t, r, trust.Trusted, "")
			snap := snapshot(t, r)
			img, err := snap.Image("other", subject)
			if err != nil {
				t.Fatal(err)
			}
			if !img.Has(trust.LimitExceeded) {
				t.Error("nothing is beyond the limit")
			}
			beyond := img.Statuses()[trust.Unknown]
			answered := len(img.SignatureInfo) + img.SignaturesOmitted
			if img.Size() > 2*cache.MaxAnswer+cache.MaxAnswer/2 {
				t.Errorf("an answer of %d bytes", img.Size())
			}
			all := min(c.references, MaxReferences+1)
			shown := (all-beyond)*max(c.layers, 1) + beyond
			if beyond == 0 || beyond == all || answered != shown {
				t.Errorf("%d answers, %d of them beyond the limit, of %d signatures", answered, beyond, all)
			}
			counts, err := snap.Count()
			if err != nil || counts.Signatures[trust.Unknown]+counts.Signatures[trust.Untrusted]+counts.Signatures[trust.Pending] != int64(shown) {
				t.Errorf("%+v %v", counts, err)
			}
			mustCommit(t, s, Batch{Place: "other", Remove: true})
			if next, _, err := s.DueNow(s.opts.Now(), 0, 1); err != nil || len(next) != 0 {
				t.Errorf("left to be tried: %v %v", next, err)
			}
		})
	}
}
