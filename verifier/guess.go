package verifier

import (
	"trust-worker/trust"
	"trust-worker/verifier/recovery"
	"trust-worker/verifier/truststore"
)

// Guesses remembers which cosign keys signed in a repository, so that its next signature
// is tried with the likeliest key before its signer is recovered, which costs as much as a
// verification. The zero value knows nothing. It is not safe for concurrent use.
//
// A guess only proposes, like every hint: cosign decides, and a wrong one costs one
// verification. After a wrong guess there are no more for that layer until two signature
// manifests in a row agree.
type Guesses struct {
	layer  int                 // which is being verified
	last   [maxGuesses]guessed // by layer: tools append signatures in one order
	missed bool
}

type guessed struct {
	key    trust.Digest
	repeat bool // it is that of the manifest before, too
}

const maxGuesses = 16

// at says which layer is verified next.
func (g *Guesses) at(layer int) {
	if g != nil {
		g.layer = layer
	}
}

// next returns the fingerprint of the key to try, zero if there is none.
func (g *Guesses) next() (key trust.Digest) {
	if g != nil && g.layer < maxGuesses && (g.last[g.layer].repeat || !g.missed) {
		key = g.last[g.layer].key
	}
	return key
}

// wrong notes that the last guess was.
func (g *Guesses) wrong() {
	if g != nil {
		g.missed = true
		g.last[g.layer].repeat = false
	}
}

// signed notes which key signed the layer that is being verified.
func (g *Guesses) signed(key trust.Digest) {
	if g == nil || g.layer >= maxGuesses {
		return
	}
	l := &g.last[g.layer]
	*l = guessed{key, l.key == key}
}

// likeliest returns the trusted key to try before any other is looked for: the one that
// the bundle names, else the guess. It is nil if there is none that could have made a
// signature of the class.
func (v *Verifier) likeliest(r *Request, hinted trust.Digest, class recovery.Class) (k *truststore.Key, guessed bool) {
	if k = v.store.Key(hinted); k == nil {
		k, guessed = v.store.Key(r.Guesses.next()), true
	}
	if k == nil || k.Class != class {
		return nil, false
	}
	return k, guessed
}
