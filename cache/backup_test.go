package cache

import (
	"path/filepath"
	"testing"

	"trust-worker/trust"
)

// restore puts a copy of a directory in its place.
func restore(t *testing.T, from, to string) {
	t.Helper()
	remove(t, to)
	copyState(t, from, to)
}

// refuted is what becomes of a fact that is looked at again, and found wrong.
func refuted() Fact {
	f := signedBy(keyA)
	f.Verdicts[0].Grounds, f.Verdicts[0].Reason, f.Trust = nil, trust.Malformed, 99
	return f
}

// A base holds what is then no longer tracked. What was published before it, put
// back from a backup, lacks that: it is not what the private store goes on from,
// though nothing has been committed since.
func TestPublishedBackupFromBeforeABase(t *testing.T) {
	for name, makeBase := range map[string]func(*Store) error{
		"folded": func(s *Store) error { return s.Fold(t.Context()) },
		"anew": func(s *Store) error {
			s.RenderAnew()
			return s.Fold(t.Context())
		},
		"whole": (*Store).publishAll,
	} {
		t.Run(name, func(t *testing.T) {
			dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "published")
			opts := Options{foldAt: 1}
			s := openStore(t, dir, opts)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world())
			publish(t, s)
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			want(t, openReader(t, dir), trust.Trusted, "")
			copyState(t, filepath.Join(dir, publishedDir), backup)
			mustCommit(t, s, world(refuted()))
			if err := makeBase(s); err != nil {
				t.Fatal(err)
			}
			want(t, openReader(t, dir), trust.Untrusted, trust.Malformed)
			closeChecked(t, s)

			restore(t, backup, filepath.Join(dir, publishedDir))
			s = openStore(t, dir, opts)
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			publish(t, s)
			want(t, openReader(t, dir), trust.Untrusted, trust.Malformed)
		})
	}
}
