package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"trust-worker/cache/internal/format"
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

// What is published is forgotten. What was published before it, put
// back from a backup, lacks that: it is not what the private store goes on from,
// though nothing has been committed since.
func TestPublishedBackupFromBeforeABase(t *testing.T) {
	for name, makeBase := range map[string]func(*Store) error{
		"folded": func(s *Store) error { return errors.Join(s.Publish(t.Context()), s.Fold(t.Context())) },
		"anew": func(s *Store) error {
			s.RenderAnew()
			return s.Fold(t.Context())
		},
		"whole": (*Store).publishBase,
	} {
		t.Run(name, func(t *testing.T) {
			dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "published")
			opts := Options{fewBytes: 1}
			s := openStore(t, dir, opts)
			setTrust(t, s, inForce(keyA))
			mustCommit(t, s, world())
			publish(t, s)
			mustCommit(t, s, world(signedBy(keyA)))
			publish(t, s)
			want(t, openReader(t, dir), trust.Trusted, "")
			copyState(t, filepath.Join(dir, format.PublishedDir), backup)
			mustCommit(t, s, world(refuted()))
			if err := makeBase(s); err != nil {
				t.Fatal(err)
			}
			want(t, openReader(t, dir), trust.Untrusted, trust.Malformed)
			closeChecked(t, s)

			restore(t, backup, filepath.Join(dir, format.PublishedDir))
			s = openStore(t, dir, opts)
			defer closeChecked(t, s)
			setTrust(t, s, inForce(keyA))
			publish(t, s)
			want(t, openReader(t, dir), trust.Untrusted, trust.Malformed)
		})
	}
}

// A state directory that is put back as a whole from a backup, while nobody
// publishes, goes on under its id. A reader that stays open meanwhile has files of
// generations that come again with other content, and must not take one for the
// other: neither for a name of a base, whose records name signers by numbers that
// are given again, nor for a trust file that is renewed.
func TestWholeBackupUnderALongLivedReader(t *testing.T) {
	for name, reads := range map[string]bool{"that reads meanwhile": true, "that is idle meanwhile": false} {
		for more := range 4 { // publications after the restored one; before it there were 2
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "state")
				opts := Options{fewBytes: 1}
				s := openStore(t, dir, opts)
				setTrust(t, s, inForce())
				mustCommit(t, s, world())
				publish(t, s)
				closeChecked(t, s)
				copyState(t, dir, backup)
				// The first signer that comes makes the image trusted, or not.
				life := func(signer trust.Signer, f Fact, more int) *Store {
					s := openStore(t, dir, opts)
					setTrust(t, s, inForce(signer))
					mustCommit(t, s, world(f))
					if err := s.Fold(t.Context()); err != nil {
						t.Fatal(err)
					}
					publish(t, s)
					for i := range more {
						mustCommit(t, s, Batch{Place: "more", Rows: []Row{{Digest: trust.SumOf([]byte{byte(i)}), Present: true}}})
						publish(t, s)
					}
					return s
				}
				s = life(keyA, signedBy(keyA), 2)
				if more == 1 { // its trust file's name does not come again so soon
					setTrust(t, s, inForce(keyA, stormSigner(1)))
				}
				r := openReader(t, dir)
				want(t, r, trust.Trusted, "")
				closeChecked(t, s)

				restore(t, backup, dir)
				if reads {
					status(t, r)
				}
				s = life(keyB, refuted(), more)
				defer closeChecked(t, s)
				time.Sleep(1100 * time.Millisecond) // a reader believes the confirmation for a second
				for range 2 {                       // it may find out at the first
					if st, reason := status(t, r); st == trust.Trusted {
						t.Errorf("%s/%s at generation %d", st, reason, s.Generation())
					}
				}
				want(t, r, trust.Untrusted, trust.Malformed)
			})
		}
	}
}
