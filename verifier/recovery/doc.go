// Package recovery proposes which public keys could have made a signature, from the signature's bytes and the message
// alone. With a thousand trusted keys, trying each costs a thousand verifications; recovering the signer of an ECDSA
// signature costs one, and the answer can be filed in an index before the key it names is ever trusted.
//
// It only proposes. Whoever gets a proposal hands the very same bytes to sigstore's verifier, which decides. So the one
// mistake that would matter here is to propose too little: a genuine signature would then read as untrusted, with no
// error anywhere. "Accepts", below, is what signature.LoadVerifier(pub, hash).VerifySignature of
// github.com/sigstore/sigstore v1.10.9 does, or its Ed25519ph counterpart.
//
// Invariants:
//
//   - R1: if sigstore accepts an ECDSA signature under a public key, that key's fingerprint is among the candidates for
//     the key's curve and the digest that the verifier used.
//   - R2: every candidate is a proper key (on the curve, not infinity), all differ, and (r, s) verifies under each; a
//     candidate that sigstore refuses is refused for the signature's encoding alone. There are at most four per digest.
//   - R3: if sigstore accepts a signature under a public key, of any algorithm, Classify of the signature and ClassesFor
//     of the key have a class in common.
//   - R4: no bytes make this package panic or return an error. What nobody could have signed has no candidates. The only
//     error is [ErrCurve], which is about the question and not the signature.
//   - R5: results depend on the arguments alone and come in a fixed order.
//   - R6: an RSA signature that sigstore accepts under a key fits that key ([RSAFits]).
//
// What it does not do: read messages, choose hashes (neither the hash nor the curve is in a signature: the caller runs
// those that trusted keys use), recover RSA or Ed25519 keys (which cannot be done: those are found by class and tried),
// or protect its inputs from timing, since all of them are public.
package recovery
