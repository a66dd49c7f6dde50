package store

import (
	"bytes"
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// What the scheduler reads back from the private store. Each method is one
// short read transaction and returns decoded values.

func placeName(tx *bbolt.Tx, id uint64) ([]byte, error) {
	key := format.Number(id)
	body, ok, err := format.Unseal(key, tx.Bucket(privPlaceIDs).Get(key))
	if !ok || err != nil {
		return nil, err
	}
	return bytes.Clone(body), nil
}

func decodePlace(name []byte, p *cachepb.Place) Place {
	return Place{Name: string(name), Stamp: string(p.Stamp), Unlisted: p.Unlisted, Why: p.Why, Unsettled: p.Unsettled,
		Overflow: p.Unfiled > 0, HasNotation: p.HasNotation}
}

// Places returns every repository that is remembered, in name order.
func (s *Store) Places() ([]Place, error) {
	var places []Place
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(privPlaces).ForEach(func(k, v []byte) error {
			var p cachepb.Place
			if _, err := format.UnsealMessage(k, v, &p); err != nil {
				return err
			}
			places = append(places, decodePlace(k, &p))
			return nil
		})
	})
	return places, err
}

// Place returns one repository, ok false when it is not remembered.
func (s *Store) Place(name string) (place Place, ok bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		var p cachepb.Place
		ok, err = format.UnsealMessage([]byte(name), tx.Bucket(privPlaces).Get([]byte(name)), &p)
		place = decodePlace([]byte(name), &p)
		return err
	})
	return place, ok, err
}

// Kind returns what is remembered of a digest in a repository: its bytes have been read
// there.
func (s *Store) Kind(repository string, d trust.Digest) (kind Kind, ok bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		var place cachepb.Place
		if ok, err = format.UnsealMessage([]byte(repository), tx.Bucket(privPlaces).Get([]byte(repository)), &place); !ok || err != nil {
			return err
		}
		var p cachepb.Kind
		key := append(format.Number(place.Id), d[:]...)
		if ok, err = format.UnsealMessage(key, tx.Bucket(privKinds).Get(key), &p); !ok || err != nil {
			return err
		}
		kind = Kind{Class: uint8(p.Class), MediaType: p.MediaType, Size: p.Size, Ambiguous: p.Ambiguous,
			Skipped: int(p.Skipped), Children: decodeChildren(p.Children)}
		copy(kind.Subject[:], p.Subject)
		return nil
	})
	return kind, ok, err
}

// Row returns one row.
func (s *Store) Row(repository string, d trust.Digest) (row Row, ok bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		var place cachepb.Place
		if ok, err = format.UnsealMessage([]byte(repository), tx.Bucket(privPlaces).Get([]byte(repository)), &place); !ok || err != nil {
			return err
		}
		key := append(format.Number(place.Id), d[:]...)
		var p cachepb.Row
		ok, err = format.UnsealMessage(key, tx.Bucket(privRows).Get(key), &p)
		row = decodeRow(d, &p)
		return err
	})
	return row, ok, err
}

// Rows returns up to limit rows of a repository after the given digest (the
// zero digest begins), in digest order. Fewer than limit means that there are
// no more.
func (s *Store) Rows(repository string, after trust.Digest, limit int) ([]Row, error) {
	var rows []Row
	err := s.view(func(tx *bbolt.Tx) error {
		var place cachepb.Place
		if ok, err := format.UnsealMessage([]byte(repository), tx.Bucket(privPlaces).Get([]byte(repository)), &place); !ok || err != nil {
			return err
		}
		prefix := format.Number(place.Id)
		start := append(bytes.Clone(prefix), after[:]...)
		cur := tx.Bucket(privRows).Cursor()
		for k, v := cur.Seek(start); bytes.HasPrefix(k, prefix) && len(rows) < limit; k, v = cur.Next() {
			if bytes.Equal(k, start) && after != (trust.Digest{}) {
				continue
			}
			var p cachepb.Row
			if _, err := format.UnsealMessage(k, v, &p); err != nil {
				return err
			}
			rows = append(rows, decodeRow(trust.Digest(k[8:]), &p))
		}
		return nil
	})
	return rows, err
}

// Repositories returns the names of the repositories that have a row for d.
func (s *Store) Repositories(d trust.Digest) ([]string, error) {
	var names []string
	err := s.view(func(tx *bbolt.Tx) error {
		cur := tx.Bucket(privDigests).Cursor()
		for k, v := cur.Seek(d[:]); bytes.HasPrefix(k, d[:]); k, v = cur.Next() {
			name, ok, err := format.Unseal(k, v)
			if err != nil {
				return err
			}
			if ok {
				names = append(names, string(name))
			}
		}
		return nil
	})
	return names, err
}

// HasFacts reports whether anything is known of any signature.
func (s *Store) HasFacts() (has bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(privFacts).Cursor().First()
		has = k != nil
		return nil
	})
	return has, err
}

// Fact returns what is known of a signature over a subject in a context.
func (s *Store) Fact(subject, signature trust.Digest, ctx Context) (fact Fact, ok bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		key := factKey(subject, signature, ctx)
		var p cachepb.Fact
		if ok, err = format.UnsealMessage(key, tx.Bucket(privFacts).Get(key), &p); !ok || err != nil {
			return err
		}
		fact = decodeFact(key, &p, authors(tx))
		fact.Context = ctx
		return nil
	})
	return fact, ok, err
}

// authors reads texts of authors.
func authors(tx *bbolt.Tx) func(key []byte) string {
	return func(key []byte) string {
		body, ok, err := format.Unseal(key, tx.Bucket(privAuthors).Get(key))
		if !ok || err != nil {
			return ""
		}
		return string(body)
	}
}

// decodeFact decodes a fact; its context's policy and media type are not in
// the key and stay empty.
func decodeFact(key []byte, p *cachepb.Fact, author func(key []byte) string) Fact {
	f := Fact{key: bytes.Clone(key), Subject: trust.Digest(key[:32]), Signature: trust.Digest(key[32:64]),
		Attachment: p.Attachment, Trust: p.Trust, Epoch: p.Epoch, Filed: p.FiledBy != 0, Context: Context{Tool: trust.Cosign}}
	if len(key) > 64 {
		f.Context.Tool = trust.Notation
	}
	for _, v := range p.Verdicts {
		f.Verdicts = append(f.Verdicts, format.DecodeVerdict(v, author))
	}
	for _, h := range p.Hints {
		var hint Hint
		copy(hint[:], h)
		f.Hints = append(f.Hints, hint)
	}
	return f
}

// Candidates returns the facts filed under a hint, up to limit, after the
// given fact number (0 begins), and the number to go on from (0: no more).
func (s *Store) Candidates(h Hint, after uint64, limit int) (facts []Fact, next uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		cur := tx.Bucket(privIndex).Cursor()
		for k, _ := cur.Seek(append(h[:], format.Number(after+1)...)); bytes.HasPrefix(k, h[:]) && len(k) == len(h)+8; k, _ = cur.Next() {
			if len(facts) == limit {
				next = after
				return nil
			}
			after = format.NumberOf(k[len(h):])
			key, ok, err := format.Unseal(k[len(h):], tx.Bucket(privFactIDs).Get(k[len(h):]))
			if err != nil {
				return err
			}
			if !ok || len(key) < 64 {
				continue
			}
			var p cachepb.Fact
			if ok, err := format.UnsealMessage(key, tx.Bucket(privFacts).Get(key), &p); err != nil {
				return err
			} else if ok {
				facts = append(facts, decodeFact(key, &p, authors(tx)))
			}
		}
		return nil
	})
	return facts, next, err
}

// DueNow returns up to limit entries whose time has come, oldest first, and
// when the next one after them is due (zero: none). With
// longest, what waits for longer than that is due as well: it was entered by a
// clock that was ahead. That looks at every date beyond.
func (s *Store) DueNow(now time.Time, longest time.Duration, limit int) (due []Due, next time.Time, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		cur := tx.Bucket(privDue).Cursor()
		for k, _ := cur.First(); k != nil; k, _ = cur.Next() {
			at := time.Unix(int64(binary.BigEndian.Uint64(k)), 0)
			if len(due) == limit {
				if next.IsZero() {
					next = at
				}
				return nil
			}
			if next.IsZero() && at.After(now) {
				next = at
				if longest == 0 {
					return nil
				}
				if k, _ = cur.Seek(format.Number(uint64(now.Add(longest).Unix() + 1))); k == nil {
					return nil
				}
				at = time.Unix(int64(binary.BigEndian.Uint64(k)), 0)
			}
			name, err := placeName(tx, format.NumberOf(k[8:16]))
			if err != nil {
				return err
			}
			due = append(due, Due{At: at, Repository: string(name), Subject: trust.Digest(k[16:])})
		}
		return nil
	})
	return due, next, err
}

// Marks returns the scheduler's marks.
func (s *Store) Marks() (map[string]bool, error) {
	marks := map[string]bool{}
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(privMarks).ForEach(func(k, v []byte) error {
			if _, _, err := format.Unseal(k, v); err != nil {
				return err
			}
			marks[string(k)] = true
			return nil
		})
	})
	return marks, err
}
