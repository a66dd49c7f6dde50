package cache

import (
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What tests outside of the package look at inside of it.

// Layers are the files of the snapshot, the newest first.
func (s *Snapshot) Layers() format.Layers { return s.layers }

// Base is the number of the snapshot's oldest file, and the database in it.
func (s *Snapshot) Base() (uint64, *bbolt.DB) {
	return s.g.Base, s.g.files[len(s.g.files)-1].DB
}

// From walks as look-ups in several layers do.
func (s *Snapshot) From(bucket int, key, prefix []byte, f func(k, v []byte) error) error {
	return s.from(bucket, key, prefix, f)
}

// Visited is how many records a comparison of two snapshots looks at.
func Visited(old, now *Snapshot) (n int) {
	for it := now.without(newComparison(old, now, time.Now(), time.Now()).common()).Merged(format.InImages, nil, nil); it.K != nil; it.Next() {
		n++
	}
	return n
}

// Renew has the next snapshot open its own files.
func (r *Reader) Renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.cur
	r.cur = nil
	r.releaseLocked(g)
}

// CheckReleased reports what is held although no snapshot is open; false if no file is.
func (r *Reader) CheckReleased(t *testing.T) bool {
	t.Helper()
	if r.cur == nil {
		return false
	}
	if r.cur.refs != 1 {
		t.Errorf("%d references are left", r.cur.refs)
	}
	for _, f := range r.cur.files {
		if f.DB.Stats().OpenTxN != len(f.Idle) {
			t.Errorf("%s: %d transactions are open, %d are idle", filepath.Base(f.Name), f.DB.Stats().OpenTxN, len(f.Idle))
		}
	}
	return true
}

// SetListingTime sets for how long indexes are asked, until the returned function is called.
func SetListingTime(d time.Duration) (reset func()) {
	was := listingTime
	listingTime = d
	return func() { listingTime = was }
}

// Under is the snapshot with another trust in force, for what is read from it as usual.
func (s *Snapshot) Under(f *trust.InForce) *Snapshot {
	g, t := *s.g, *s.g.trust
	t.InForce, g.trust = f, &t
	return &Snapshot{r: s.r, g: &g, layers: s.layers, now: s.now, asOf: s.asOf, scratch: new(scratch)}
}
