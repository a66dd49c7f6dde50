package verifier

import (
	"slices"
	"testing"

	"trust-worker/internal/signtest"
	"trust-worker/trust"
)

// A guess costs a verification and saves looking for the signer; a wrong one changes
// nothing but that, and ends guessing until signers repeat. Of a signature by nobody known,
// the verifications that were tried say whether there was a guess.
func TestGuesses(t *testing.T) {
	a, b, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("a", a).key("b", b).load()
	only := newDirs(t).key("b", b).key("c", signtest.NewKey(signtest.P256)).load()
	var g Guesses
	n := 0
	look := func(k *signtest.Key) LayerOutcome {
		t.Helper()
		n++
		r := simple(image(string(rune('A'+n))), k, signtest.CosignOptions{})
		r.Guesses = &g
		return one(t, ts, r)
	}
	for i, step := range []struct {
		by    *signtest.Key
		calls int
		reads string
	}{
		{stranger, 0, "no-trusted-key"}, // nothing to guess
		{a, 1, "trusted"},
		{a, 1, "trusted"},
		{stranger, 1, "no-trusted-key"}, // a, wrongly
		{stranger, 0, "no-trusted-key"},
		{b, 1, "trusted"},
		{stranger, 0, "no-trusted-key"}, // b has signed once
		{b, 1, "trusted"},
		{a, 2, "trusted"}, // b has signed twice in a row
		{a, 1, "trusted"},
		{stranger, 1, "no-trusted-key"},
	} {
		lo := look(step.by)
		want(t, lo, step.reads)
		if lo.Calls != step.calls {
			t.Errorf("step %d: %d verifications", i, lo.Calls)
		}
		if step.by == stranger && !slices.ContainsFunc(lo.Hints, func(h Hint) bool { return h.Kind == HintCandidate && h.Fingerprint == stranger.Signer().Fingerprint }) {
			t.Errorf("step %d: not filed by its signer: %v", i, lo.Hints)
		}
	}
	// A key that is not trusted any more is no guess.
	g = Guesses{}
	look(a)
	r := simple(image("x"), a, signtest.CosignOptions{})
	r.Guesses = &g
	lo := one(t, only, r)
	if want(t, lo, "no-trusted-key"); lo.Calls != 0 {
		t.Errorf("%d verifications", lo.Calls)
	}
}

// Tools append signatures: each layer of a manifest is guessed from that layer of the one
// before.
func TestGuessesByLayer(t *testing.T) {
	a, b, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("a", a).key("b", b).load()
	var g Guesses
	look := func(content string, keys ...*signtest.Key) (calls []int) {
		t.Helper()
		s := image(content)
		r := newRequest(s, trust.CosignTag)
		for _, k := range keys {
			d, payload := signtest.SimpleLayer(s.Digest, k, signtest.CosignOptions{})
			r.layer(d, payload)
		}
		r.Guesses = &g
		for _, lo := range verify1(t, ts, r).Layers {
			calls = append(calls, lo.Calls)
		}
		return calls
	}
	look("A", a, b)
	if calls := look("B", stranger, stranger, stranger); !slices.Equal(calls, []int{1, 0, 0}) { // wrong, and no more of them
		t.Errorf("%v verifications", calls)
	}
	look("C", a, b)
	if calls := look("D", a, b); !slices.Equal(calls, []int{1, 1}) {
		t.Errorf("%v verifications", calls)
	}
	if calls := look("E", stranger, stranger, stranger); !slices.Equal(calls, []int{1, 1, 0}) {
		t.Errorf("%v verifications", calls)
	}
}

// A bundle names its key. Whoever wrote the name, it only proposes.
func TestBundleNamesItsKey(t *testing.T) {
	a, stranger := signtest.NewKey(signtest.P256), signtest.NewKey(signtest.P256)
	ts := newDirs(t).key("a", a).key("b", signtest.NewKey(signtest.P256)).load()
	lo := one(t, ts, bundled(image("A"), a, signtest.CosignOptions{}))
	if want(t, lo, "trusted"); lo.Calls != 1 {
		t.Errorf("%d verifications", lo.Calls)
	}
	lo = one(t, ts, bundled(image("A"), stranger, signtest.CosignOptions{HintOf: a}))
	if want(t, lo, "no-trusted-key"); lo.Calls != 1 {
		t.Errorf("%d verifications", lo.Calls)
	}
	if !slices.ContainsFunc(lo.Hints, func(h Hint) bool { return h.Fingerprint == stranger.Signer().Fingerprint }) {
		t.Errorf("not filed by its signer: %v", lo.Hints)
	}
	// A key of another curve cannot have made it, and is not tried.
	other := signtest.NewKey(signtest.P384)
	lo = one(t, newDirs(t).key("a", a).key("b", signtest.NewKey(signtest.P256)).key("other", other).load(), bundled(image("A"), stranger, signtest.CosignOptions{HintOf: other}))
	if want(t, lo, "no-trusted-key"); lo.Calls != 0 {
		t.Errorf("%d verifications", lo.Calls)
	}
}
