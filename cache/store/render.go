package store

import (
	"bytes"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/bbolt"

	"trust-worker/cache/internal/cachepb"
	"trust-worker/cache/internal/format"
	"trust-worker/trust"
)

// Rendering turns private rows and facts into published values: one record
// per image and repository that holds its signatures with their verdicts. The
// join with what is in force is left to the reader.

var tombstone = []byte{format.KindTombstone}

// writeAll renders everything for a base.
func writeAll(tx *bbolt.Tx, policies func(string) policyChoice, put format.PutFunc) error {
	type placed struct {
		id   uint64
		name string
	}
	var places []placed
	err := tx.Bucket(privPlaces).ForEach(func(k, v []byte) error {
		var p cachepb.Place
		if _, err := format.UnsealMessage(k, v, &p); err != nil {
			return err
		}
		places = append(places, placed{p.Id, string(k)})
		if p.Unlisted {
			if err := put(format.BucketUnlisted, k, format.Seal(k, textOr1(p.Why))); err != nil {
				return err
			}
		}
		return put(format.BucketRepositories, k, format.Seal(k, textOr1(p.Newest)))
	})
	if err != nil {
		return err
	}
	for _, p := range places {
		var listed [][]byte
		prefix := format.Number(p.id)
		cur := tx.Bucket(privRows).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			var row cachepb.Row
			if _, err := format.UnsealMessage(k, v, &row); err != nil {
				return err
			}
			if !row.Present {
				continue
			}
			d := trust.Digest(k[8:])
			key := format.ImageKey(p.name, d)
			img, err := renderImage(tx, d, &row, policies(p.name))
			if err != nil {
				return err
			}
			value, err := format.SealMessage(key, img)
			if err != nil {
				return err
			}
			if err := put(format.BucketImages, key, value); err != nil {
				return err
			}
			if err := put(format.BucketDigests, format.DigestKey(d, p.name), format.Seal(format.DigestKey(d, p.name), []byte{1})); err != nil {
				return err
			}
			more, err := listings(tx, p.name, k, &row, img)
			if err != nil {
				return err
			}
			listed = append(listed, more...)
		}
		if err := writeListings(listed, put); err != nil {
			return err
		}
		cur = tx.Bucket(privTags).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			body, ok, err := format.Unseal(k, v)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			key := format.TagKey(p.name, string(k[8:]))
			if err := put(format.BucketTags, key, format.Seal(key, body)); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(privAuthors).ForEach(func(k, v []byte) error { return put(format.BucketAuthors, k, bytes.Clone(v)) })
}

// listings are the keys that say of each manifest that an index lists, attestations included,
// that it does: of an index that some signer has signed, since no other can be trusted. They
// need not be taken back: an index that is gone from storage, or not trusted, is so by its
// own record.
func listings(tx *bbolt.Tx, repository string, private []byte, row *cachepb.Row, img *cachepb.Image) (keys [][]byte, err error) {
	if len(row.Children) == 0 || !slices.ContainsFunc(img.Signatures, hasGround) {
		return nil, nil
	}
	var kind cachepb.Kind
	if _, err := format.UnsealMessage(private, tx.Bucket(privKinds).Get(private), &kind); err != nil {
		return nil, err
	}
	for _, c := range slices.Concat(row.Children, kind.Children) {
		if len(c.Digest) == len(trust.Digest{}) && c.Foreign == "" {
			keys = append(keys, format.ListingKey(repository, trust.Digest(c.Digest), private[8:]))
		}
	}
	return keys, nil
}

func hasGround(s *cachepb.Signature) bool {
	return slices.ContainsFunc(s.Verdicts, func(v *cachepb.Verdict) bool { return len(v.Grounds) > 0 })
}

// writeListings writes them, in order and each once.
func writeListings(keys [][]byte, put format.PutFunc) error {
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range slices.CompactFunc(keys, bytes.Equal) {
		if err := put(format.BucketListings, key, format.Seal(key, []byte{1})); err != nil {
			return err
		}
	}
	return nil
}

// textOr1 is a value that is there, with or without a text.
func textOr1(text string) []byte {
	if text == "" {
		return []byte{1}
	}
	return []byte(text)
}

func writeOne(tx *bbolt.Tx, kind byte, key []byte, policies func(string) policyChoice, put format.PutFunc) error {
	switch kind {
	case format.BucketAuthors[0]:
		if v := tx.Bucket(privAuthors).Get(key); v != nil {
			return put(format.BucketAuthors, key, bytes.Clone(v))
		}
		return nil
	case format.BucketRepositories[0]:
		var p cachepb.Place
		ok, err := format.UnsealMessage(key, tx.Bucket(privPlaces).Get(key), &p)
		if err != nil {
			return err
		}
		listed, unlisted := tombstone, tombstone
		if ok {
			listed = format.Seal(key, textOr1(p.Newest))
		}
		if ok && p.Unlisted {
			unlisted = format.Seal(key, textOr1(p.Why))
		}
		if err := put(format.BucketUnlisted, key, unlisted); err != nil {
			return err
		}
		return put(format.BucketRepositories, key, listed)
	}
	name, rest, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return fmt.Errorf("%w: changed key %.40x", format.ErrDamaged, key)
	}
	var place cachepb.Place
	known, err := format.UnsealMessage(name, tx.Bucket(privPlaces).Get(name), &place)
	if err != nil {
		return err
	}
	private := append(format.Number(place.Id), rest...)
	switch {
	case kind == format.BucketTags[0]:
		body, ok, err := format.Unseal(private, tx.Bucket(privTags).Get(private))
		if err != nil {
			return err
		}
		if !known || !ok {
			return put(format.BucketTags, key, tombstone)
		}
		return put(format.BucketTags, key, format.Seal(key, body))
	case kind == format.BucketImages[0] && len(rest) == 32:
		d := trust.Digest(rest)
		var row cachepb.Row
		ok, err := format.UnsealMessage(private, tx.Bucket(privRows).Get(private), &row)
		if err != nil {
			return err
		}
		dk := format.DigestKey(d, string(name))
		if !known || !ok || !row.Present {
			if err := put(format.BucketDigests, dk, tombstone); err != nil {
				return err
			}
			return put(format.BucketImages, key, tombstone)
		}
		img, err := renderImage(tx, d, &row, policies(string(name)))
		if err != nil {
			return err
		}
		v, err := format.SealMessage(key, img)
		if err != nil {
			return err
		}
		if err := put(format.BucketDigests, dk, format.Seal(dk, []byte{1})); err != nil {
			return err
		}
		listed, err := listings(tx, string(name), private, &row, img)
		if err != nil {
			return err
		}
		if err := writeListings(listed, put); err != nil {
			return err
		}
		return put(format.BucketImages, key, v)
	}
	return fmt.Errorf("%w: changed key %.40x", format.ErrDamaged, key)
}

// policyChoice is the statement under which a repository's notation
// signatures are verified; refused when none verifies.
type policyChoice struct {
	policy  trust.PolicyID
	refused bool
}

// policyChooser remembers the choice for the repository it was last asked of.
func policyChooser(f *trust.InForce) func(string) policyChoice {
	var last string
	var choice policyChoice
	return func(repository string) policyChoice {
		if last != repository || last == "" {
			policy, reason := f.Policy(repository, trust.Notation)
			last, choice = repository, policyChoice{policy, reason != ""}
		}
		return choice
	}
}

// renderImage joins a row with its facts.
func renderImage(tx *bbolt.Tx, d trust.Digest, row *cachepb.Row, choice policyChoice) (*cachepb.Image, error) {
	img := &cachepb.Image{MediaType: row.MediaType, Size: row.Size, Tagged: row.Tagged, Child: row.Child, Other: row.Other, Foreign: row.Foreign, Unreadable: row.Unreadable,
		Children: row.Children}
	for _, ref := range row.References {
		sig, attestation, err := renderSignature(tx, d, row, ref, choice)
		switch {
		case err != nil:
			return nil, err
		case attestation:
			img.Attestations = append(img.Attestations, sig)
		default:
			img.Signatures = append(img.Signatures, sig)
		}
	}
	limitImage(img)
	return img, nil
}

// renderSignature renders a signature, or what is an attestation: by its tag or, once it
// has been read, by its own bytes.
func renderSignature(tx *bbolt.Tx, d trust.Digest, row *cachepb.Row, ref *cachepb.Reference, choice policyChoice) (_ *cachepb.Signature, attestation bool, err error) {
	attestation = trust.Carrier(ref.Carrier) == trust.Attestations
	tool := trust.Carrier(ref.Carrier).Tool()
	sig := &cachepb.Signature{Digest: ref.Digest, Tool: format.EncodeCode(format.ToolCodes, tool)}
	var sd trust.Digest
	copy(sd[:], ref.Digest)
	ctx := Context{Tool: tool, Policy: choice.policy, MediaType: row.MediaType}
	key := factKey(d, sd, ctx)
	facts := tx.Bucket(privFacts)
	var fact cachepb.Fact
	ok, err := format.UnsealMessage(key, facts.Get(key), &fact)
	if err != nil {
		return nil, false, err
	}
	attestation = attestation || ok && (fact.Attachment || attests(fact.Verdicts))
	if ok {
		sig.Verdicts = fact.Verdicts
		for _, v := range sig.Verdicts {
			v.Layer = nil
		}
	} else if tool == trust.Notation && !choice.refused {
		k, _ := facts.Cursor().Seek(key[:64])
		sig.PolicyChanged = bytes.HasPrefix(k, key[:64])
	}
	addProblems(sig, ref.Problems)
	if len(sig.Verdicts) == 0 {
		sig.Verdicts = []*cachepb.Verdict{{}}
	}
	return sig, attestation, nil
}

// addProblems lays what belongs to the place over the facts.
func addProblems(sig *cachepb.Signature, problems []*cachepb.Problem) {
	sort.Slice(problems, func(i, j int) bool { return problems[i].Layer < problems[j].Layer })
	for _, p := range problems {
		if p.Layer == 0 { // all of it
			if len(sig.Verdicts) == 0 {
				sig.Verdicts = []*cachepb.Verdict{{}}
			}
			for _, v := range sig.Verdicts {
				v.Problem = p.Reason
			}
			continue
		}
		// One more entry says that there were more.
		for int(p.Layer) > len(sig.Verdicts) && len(sig.Verdicts) <= trust.MaxLayers {
			sig.Verdicts = append(sig.Verdicts, &cachepb.Verdict{})
		}
		if i := int(p.Layer) - 1; i < len(sig.Verdicts) {
			sig.Verdicts[i].Problem = p.Reason
		}
	}
}
