package store

import (
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What is put into a published file is written after the private store's
// transaction has ended, when its memory may be mapped elsewhere: a value that
// aliases it ends the process.
func TestPublishedValuesAreCopies(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	defer func() { publish(t, s); closeChecked(t, s) }()
	setTrust(t, s, inForce(keyA))
	f := signedBy(keyA)
	f.Verdicts[0].Author = "CN=Somebody"
	yes := true
	batch, index := world(f), trust.SumOf([]byte("index"))
	batch.Rows = append(batch.Rows, Row{Digest: index, MediaType: "m", Present: true, Children: []Child{{Digest: image}}, References: batch.Rows[0].References})
	ofIndex := f
	ofIndex.Subject = index
	batch.Facts = append(batch.Facts, ofIndex)
	mustCommit(t, s, batch, Batch{Place: "lost", Update: &PlaceUpdate{Unlisted: &yes}})
	begin := s.db.Info().Data
	buckets := map[string]bool{}
	put := func(bucket, _, value []byte) error {
		buckets[string(bucket)] = true
		at := uintptr(unsafe.Pointer(unsafe.SliceData(value)))
		if at >= begin && at < begin+256<<20 { // InitialMmapSize
			t.Errorf("a value of %s aliases the private store", bucket)
		}
		return nil
	}
	err := s.view(func(tx *bbolt.Tx) error {
		if err := writeAll(tx, policyChooser(s.pub.inForce.Load()), put); err != nil {
			return err
		}
		policies := policyChooser(s.pub.inForce.Load())
		author := format.AuthorKeyOf("CN=Somebody")
		for _, k := range []struct{ bucket, key []byte }{
			{format.BucketAuthors, author[:]}, {format.BucketRepositories, []byte("lost")},
			{format.BucketTags, format.TagKey("team/app", "1.0")}, {format.BucketImages, format.ImageKey("team/app", image)}, {format.BucketImages, format.ImageKey("team/app", index)},
		} {
			if err := writeOne(tx, k.bucket[0], k.key, policies, put); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(buckets) != len(format.PublishedBuckets) {
		t.Errorf("only %v were written", buckets)
	}
}
