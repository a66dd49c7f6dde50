package cache_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache"
	"trust-worker/cache/internal/format"
	"trust-worker/cache/store"
	"trust-worker/trust"
)

// many commits n images with five trusted signatures each.
func many(b *testing.B, n int) (dir string, images []trust.Digest) {
	b.Helper()
	dir = b.TempDir()
	s, err := store.Open(dir, store.Options{Lease: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		b.Fatal(err)
	}
	for r := 0; r < n; r += 1000 {
		batch := store.Batch{Place: fmt.Sprintf("team/app-%05d", r/1000)}
		for i := r; i < min(r+1000, n); i++ {
			d := trust.SumOf(binary.BigEndian.AppendUint64(nil, uint64(i)))
			images = append(images, d)
			row := store.Row{Digest: d, MediaType: "application/vnd.oci.image.manifest.v1+json", Present: true}
			sig := trust.SumOf(d[:])
			row.References = []store.Reference{{Digest: sig, Carrier: 1}}
			f := signedBy(keyA)
			f.Subject, f.Signature = d, sig
			for range 4 {
				f.Verdicts = append(f.Verdicts, f.Verdicts[0])
			}
			batch.Rows, batch.Facts = append(batch.Rows, row), append(batch.Facts, f)
		}
		if _, err := s.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Publish(context.Background()); err != nil {
		b.Fatal(err)
	}
	return dir, images
}

// One look-up as a search does it: a snapshot, an image with five signatures,
// the join. The floor is a bare bbolt Get of the same keys in an open
// transaction.
func BenchmarkLookup(b *testing.B) {
	const n = 100_000
	dir, images := many(b, n)
	r, err := cache.OpenReader(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	_, base := snap.Base()
	repo := func(i int) string { return fmt.Sprintf("team/app-%05d", i/1000) }
	repos := make([]string, n/1000)
	for i := range repos {
		repos[i] = repo(i * 1000)
	}
	snap.Close()

	var floor time.Duration
	turns := 0
	err = base.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(format.BucketImages)
		start := time.Now()
		for ; turns < 200_000; turns++ {
			i := (turns * 7919) % n
			bucket.Get(format.ImageKey(repos[i/1000], images[i]))
		}
		floor = time.Since(start)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	bare := float64(floor.Nanoseconds()) / float64(turns)
	lookUp := func(name string, trusted func(snap *cache.Snapshot, repository string, d trust.Digest) (bool, error)) {
		b.Run(name, func(b *testing.B) {
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i = (i + 7919) % n
				snap, err := r.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				if is, err := trusted(snap, repos[i/1000], images[i]); err != nil || !is {
					b.Fatal(err, is)
				}
				snap.Close()
			}
			b.ReportMetric(bare, "floor-ns/op")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/bare, "×floor")
		})
	}
	lookUp("image", func(snap *cache.Snapshot, repository string, d trust.Digest) (bool, error) {
		img, err := snap.Image(repository, d)
		return err == nil && img.SignatureInfo[0].IsTrusted, err
	})
	lookUp("trusted", (*cache.Snapshot).IsTrusted)
}

// What it would cost to publish rows and facts apart and have the reader join them
// (ADR 9): a look-up as it is, with one look-up more in each layer, and with a walk
// over a prefix, since the facts about one image may lie in several layers.
func BenchmarkJoinOnRead(b *testing.B) {
	const n = 100_000
	dir, images := many(b, n)
	s, err := store.Open(dir, store.Options{Lease: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.SetTrust(inForce(keyA)); err != nil {
		b.Fatal(err)
	}
	r, err := cache.OpenReader(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for _, deltas := range []int{0, 4, 10} {
		for i := range deltas {
			batch := store.Batch{Place: fmt.Sprintf("team/app-%05d", i)}
			for _, d := range images[i*1000 : i*1000+200] {
				f := signedBy(keyA)
				f.Subject, f.Signature, f.Verdicts[0].VerifiedAt = d, trust.SumOf(d[:]), int64(i+deltas)
				batch.Facts = append(batch.Facts, f)
			}
			if _, err := s.Commit(batch); err != nil {
				b.Fatal(err)
			}
			if err := s.Publish(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		look := map[string]func(snap *cache.Snapshot, key []byte) error{
			"now": func(*cache.Snapshot, []byte) error { return nil },
			"one more": func(snap *cache.Snapshot, key []byte) error {
				for _, v := range snap.Layers() {
					v.Buckets[format.InDigests].Get(key)
				}
				return nil
			},
			"prefix": func(snap *cache.Snapshot, key []byte) error {
				return snap.From(format.InDigests, key, key, func(_, _ []byte) error { return nil })
			},
		}
		for _, name := range []string{"now", "one more", "prefix"} {
			b.Run(fmt.Sprintf("deltas=%d/%s", deltas, name), func(b *testing.B) {
				i := 0
				for b.Loop() {
					i = (i + 7919) % n
					repo := fmt.Sprintf("team/app-%05d", i/1000)
					snap, err := r.Snapshot()
					if err != nil {
						b.Fatal(err)
					}
					img, err := snap.Image(repo, images[i])
					if err != nil || !img.SignatureInfo[0].IsTrusted {
						b.Fatal(err, img)
					}
					if err := look[name](snap, format.DigestKey(images[i], repo)); err != nil {
						b.Fatal(err)
					}
					snap.Close()
				}
			})
		}
	}
}

// What the removal of a key would cost on a million signatures, on 200,000 images, each of
// them by that key: everything differs. The floor reads and counts every image once.
func BenchmarkPreview(b *testing.B) {
	dir, images := many(b, 200_000)
	r, err := cache.OpenReader(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Close()
	var floor, took, asked time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := snap.Count(); err != nil {
			b.Fatal(err)
		}
		floor += time.Since(begin)
		begin = time.Now()
		n := 0
		err := snap.Preview(inForce(keyA), inForce(keyB), nil, func(*cache.Previewed) error { n++; return nil })
		if err != nil || n != len(images) {
			b.Fatal(n, err)
		}
		took += time.Since(begin)
		begin = time.Now() // what a key that comes may have made: nothing, of so many
		err = snap.Candidates(inForce(keyA, keyB), map[trust.Reason]bool{trust.NoTrustedKey: true}, func(*cache.Candidate) error { n++; return nil })
		if err != nil || n != len(images) {
			b.Fatal(n, err)
		}
		asked += time.Since(begin)
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s/preview")
	b.ReportMetric(asked.Seconds()/float64(b.N), "s/candidates")
	b.ReportMetric(floor.Seconds()/float64(b.N), "s/count")
	b.ReportMetric(float64(took)/float64(floor), "×count")
}
