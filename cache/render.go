package cache

import (
	"bytes"
	"fmt"
	"sort"

	"go.etcd.io/bbolt"

	"trust-worker/cache/cachepb"
	"trust-worker/trust"
)

// Rendering turns private rows and facts into published values: one record
// per image and repository that holds its signatures with their verdicts. The
// join with what is in force is left to the reader.

// Layout's carrier number of notation; the others are cosign's.
const carrierNotation = 4

func carrierTool(carrier uint32) trust.Tool {
	if carrier == carrierNotation {
		return trust.Notation
	}
	return trust.Cosign
}

var tombstone = []byte{kindTombstone}

// writeAll renders everything for a base.
func writeAll(tx *bbolt.Tx, policies func(string) policyChoice, put putFunc) error {
	type placed struct {
		id   uint64
		name string
	}
	var places []placed
	err := tx.Bucket(privPlaces).ForEach(func(k, v []byte) error {
		var p cachepb.Place
		if _, err := unsealMessage(k, v, &p); err != nil {
			return err
		}
		places = append(places, placed{p.Id, string(k)})
		if p.Unlisted {
			if err := put(bucketUnlisted, k, seal(k, []byte{1})); err != nil {
				return err
			}
		}
		return put(bucketRepositories, k, seal(k, []byte{1}))
	})
	if err != nil {
		return err
	}
	for _, p := range places {
		prefix := number(p.id)
		cur := tx.Bucket(privRows).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			var row cachepb.Row
			if _, err := unsealMessage(k, v, &row); err != nil {
				return err
			}
			if !row.Present {
				continue
			}
			d := trust.Digest(k[8:])
			key := imageKey(p.name, d)
			img, err := renderImage(tx, d, &row, policies(p.name))
			if err != nil {
				return err
			}
			value, err := sealMessage(key, img)
			if err != nil {
				return err
			}
			if err := put(bucketImages, key, value); err != nil {
				return err
			}
			if err := put(bucketDigests, digestKey(d, p.name), seal(digestKey(d, p.name), []byte{1})); err != nil {
				return err
			}
		}
		cur = tx.Bucket(privTags).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			body, ok, err := unseal(k, v)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			key := tagKey(p.name, string(k[8:]))
			if err := put(bucketTags, key, seal(key, body)); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(privAuthors).ForEach(func(k, v []byte) error { return put(bucketAuthors, k, bytes.Clone(v)) })
}

func writeOne(tx *bbolt.Tx, kind byte, key []byte, policies func(string) policyChoice, put putFunc) error {
	switch kind {
	case bucketAuthors[0]:
		if v := tx.Bucket(privAuthors).Get(key); v != nil {
			return put(bucketAuthors, key, bytes.Clone(v))
		}
		return nil
	case bucketRepositories[0]:
		var p cachepb.Place
		ok, err := unsealMessage(key, tx.Bucket(privPlaces).Get(key), &p)
		if err != nil {
			return err
		}
		listed, unlisted := tombstone, tombstone
		if ok {
			listed = seal(key, []byte{1})
		}
		if ok && p.Unlisted {
			unlisted = seal(key, []byte{1})
		}
		if err := put(bucketUnlisted, key, unlisted); err != nil {
			return err
		}
		return put(bucketRepositories, key, listed)
	}
	name, rest, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return fmt.Errorf("%w: changed key %.40x", ErrDamaged, key)
	}
	var place cachepb.Place
	known, err := unsealMessage(name, tx.Bucket(privPlaces).Get(name), &place)
	if err != nil {
		return err
	}
	private := append(number(place.Id), rest...)
	switch {
	case kind == bucketTags[0]:
		body, ok, err := unseal(private, tx.Bucket(privTags).Get(private))
		if err != nil {
			return err
		}
		if !known || !ok {
			return put(bucketTags, key, tombstone)
		}
		return put(bucketTags, key, seal(key, body))
	case kind == bucketImages[0] && len(rest) == 32:
		d := trust.Digest(rest)
		var row cachepb.Row
		ok, err := unsealMessage(private, tx.Bucket(privRows).Get(private), &row)
		if err != nil {
			return err
		}
		dk := digestKey(d, string(name))
		if !known || !ok || !row.Present {
			if err := put(bucketDigests, dk, tombstone); err != nil {
				return err
			}
			return put(bucketImages, key, tombstone)
		}
		img, err := renderImage(tx, d, &row, policies(string(name)))
		if err != nil {
			return err
		}
		v, err := sealMessage(key, img)
		if err != nil {
			return err
		}
		if err := put(bucketDigests, dk, seal(dk, []byte{1})); err != nil {
			return err
		}
		return put(bucketImages, key, v)
	}
	return fmt.Errorf("%w: changed key %.40x", ErrDamaged, key)
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
	img := &cachepb.Image{MediaType: row.MediaType, Size: row.Size, Tagged: row.Tagged, Child: row.Child, Children: row.Children}
	for _, ref := range row.References {
		sig, err := renderSignature(tx, d, row, ref, choice)
		if err != nil {
			return nil, err
		}
		if sig != nil {
			img.Signatures = append(img.Signatures, sig)
		}
	}
	limitImage(img)
	return img, nil
}

// renderSignature returns nil for what turned out to be no signature.
func renderSignature(tx *bbolt.Tx, d trust.Digest, row *cachepb.Row, ref *cachepb.Reference, choice policyChoice) (*cachepb.Signature, error) {
	tool := carrierTool(ref.Carrier)
	sig := &cachepb.Signature{Digest: ref.Digest, Tool: encodeCode(toolCodes, tool)}
	var sd trust.Digest
	copy(sd[:], ref.Digest)
	ctx := Context{Tool: tool, Policy: choice.policy, MediaType: row.MediaType}
	key := factKey(d, sd, ctx)
	facts := tx.Bucket(privFacts)
	var fact cachepb.Fact
	ok, err := unsealMessage(key, facts.Get(key), &fact)
	if err != nil {
		return nil, err
	}
	if ok && fact.Attachment {
		return nil, nil
	}
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
	return sig, nil
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
		for int(p.Layer) > len(sig.Verdicts) && len(sig.Verdicts) <= maxLayers {
			sig.Verdicts = append(sig.Verdicts, &cachepb.Verdict{})
		}
		if i := int(p.Layer) - 1; i < len(sig.Verdicts) {
			sig.Verdicts[i].Problem = p.Reason
		}
	}
}

// maxLayers is the verifier's limit of signature layers a manifest; one more
// entry says that there were more.
const maxLayers = 1000
